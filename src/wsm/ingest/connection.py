"""HTTP/1.1 for small requests: one client's connection, and the bounds of what a client can make it hold.

httptools parses. A request is handed on whole: a `Service` looks at its head first, and answers it once its
body is there, at once or later. There is no task and no coroutine for it. Requests that a client sends ahead
are worked on beside each other and answered in their order. Nobody can make it wait or hold without end:

- the headers, and after them the body, have a deadline each; so has a client that does not read;
- header bytes, raw bytes of a request, bodies, pipelined requests and connections have a bound each;
- while as many webhooks as may be are being answered, another one is told to come again, and its body is
  dropped as it comes: that costs a fraction of a real answer;
- what comes after the body (trailers) is not a header;
- an offer of another protocol (`Upgrade: h2c`) is left alone: the request is answered as any other;
- a client that half-closes after its request gets its answer.

An answer before the end of the body closes the connection, after a moment in which the rest is read and
dropped, for many clients read no answer while they write. Who goes over a bound is cut off;
`wsm_ingest_connections_cut` counts it by reason.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from wsm import telemetry
from wsm.core.errors import TooLarge, Unavailable, WsmError
from wsm.ingest.exchange import INTERNAL_ERROR, READ, Answer, Crowd, Request

log = telemetry.logger("ingest")

_NEVER = math.inf
_MOST_DIGITS = 18  # Python makes no number of more than 4300
_QUIETLY = frozenset({"idle", "lingering"})
"""Why a connection ends that did nothing wrong."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MALFORMED = Answer(400, b'{"error":"bad_input","field":"request","reason":"it is not HTTP/1.1"}')


class Connection(asyncio.Protocol):
    """One client's; `check` looks at its deadlines.

    _open     requests without a written answer; the last may be the one that is being read
    _reading  the request whose body is not at its end, answered or not
    _is_over  no further request is read
    """

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.peer = "unknown"
        self._now = asyncio.get_running_loop().time
        self._parser = httptools.HttpRequestParser(self)
        self._open: deque[Request] = deque()
        self._reading: Request | None = None
        self._is_over = False
        self._target = b""
        self._headers: dict[bytes, list[bytes]] = {}
        self._in_headers = False
        self._taken_bytes = 0
        self._due = self._now() + crowd.bounds.header_seconds
        self._due_for = "silent"
        self._write_due = _NEVER

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if peer := transport.get_extra_info("peername"):
            self.peer = peer[0]
        if self.crowd.is_closing:
            self._transport.close()
        elif len(self.crowd.connections) >= self.crowd.bounds.connections:
            telemetry.INGEST_CUT.labels("crowded").inc()
            self._is_over = True
            self._open.append(Request(self, b"", b"/", {}))
            self.refuse(self._open[0], Unavailable("connections"))
        else:
            self.crowd.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._is_over and self._reading is None:
            return
        if self._due_for == "idle":  # these bytes may be no request at all
            self._due, self._due_for = self._now() + self.crowd.bounds.header_seconds, "silent"
        self._taken_bytes += len(data)
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                self._go_on(data[exc.args[0] :])
        except httptools.HttpParserError:
            self._end_malformed()
        bounds = self.crowd.bounds
        if self._in_headers:
            if self._taken_bytes > bounds.header_bytes:
                self._cut("header_bytes")
        elif self._taken_bytes > bounds.request_bytes:
            self._cut("request_bytes")
        elif self._due_for == "lingering" and self._taken_bytes > 2 * bounds.body_bytes:
            self._cut("lingering")

    def eof_received(self) -> bool:
        """Say whether to keep the other direction open: while a complete request waits for its answer."""
        self._forget_half()
        self._is_over = True
        return bool(self._open)

    def pause_writing(self) -> None:
        self._write_due = self._now() + self.crowd.bounds.body_seconds
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._write_due = _NEVER
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self._drop_open()
        self._reading = None
        del self._parser  # it knows us: with it, this would be in memory until the collector comes
        self.crowd.leave(self)

    # What the parser finds, in the order in which it comes.

    def on_message_begin(self) -> None:
        if self._is_over:
            raise _Enough
        self._in_headers = True
        self._taken_bytes = 0
        self._target, self._headers = b"", {}
        self._due, self._due_for = self._now() + self.crowd.bounds.header_seconds, "header"

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self._in_headers and name in READ:
            self._headers.setdefault(name, []).append(value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        bounds = self.crowd.bounds
        self._due, self._due_for = self._now() + bounds.body_seconds, "body"
        if len(self._open) >= bounds.pipelined:
            self._cut("pipelined")
            raise _Enough
        request = Request(self, self._parser.get_method(), self._target, self._headers)
        if request.values(b"expect"):  # nothing else may be expected (RFC 9110, 10.1.1)
            request.waits_for_100 = self._parser.get_http_version() == "1.1"
        self._open.append(request)
        self._reading = request
        request.is_turned_away = self._is_one_too_many(request)
        if not request.is_turned_away:
            self._ask(self._let_in, request)
        elif request.waits_for_100:
            self.refuse(request, Unavailable("requests_in_flight"))
        self._ask_for_body()

    def on_body(self, body: bytes) -> None:
        request = self._reading
        if request is not None and request.found is None and not request.is_turned_away:
            try:
                request.take(body)
            except WsmError as exc:
                self.refuse(request, exc)

    def on_message_complete(self) -> None:
        request, is_offer = self._reading, self._parser.should_upgrade()
        if request is None or (is_offer and request.has_body):
            return  # in the second case there is only the head yet; see _go_on
        self._reading = None
        has_answer = self._due_for == "lingering"
        self._due, self._due_for = _NEVER, ""
        if is_offer or self._parser.get_http_version() != "1.1" or not self._parser.should_keep_alive():
            request.is_last = self._is_over = True
        if has_answer:
            self._transport.close()
        elif request.is_turned_away or self._is_one_too_many(request):
            self.refuse(request, Unavailable("requests_in_flight"))
        elif request.found is None:
            request.end()
            self._ask(self.crowd.service.ends, request)

    # What the request and the server ask for.

    def answered(self, request: Request) -> None:
        """Write what is next to be written. Who has his answer before his end gets no other one."""
        if request is self._reading:
            request.is_last = self._is_over = True
        while self._open and (answer := self._open[0].found) is not None:
            request = self._open.popleft()
            is_last = request.is_last or (not self._open and (self._is_over or self.crowd.is_closing))
            is_asked_for_head = request.method == b"HEAD"
            self._write(answer.written(self.crowd.date, is_last=is_last, is_asked_for_head=is_asked_for_head))
            if is_last:
                self._close_after(request)
                return
        self._ask_for_body()
        if not self._open and self._due is _NEVER:
            self._due, self._due_for = self._now() + self.crowd.bounds.keep_alive_seconds, "idle"

    def check(self, now: float) -> None:
        """Cut the connection off if it is overdue at `now`, the loop's time."""
        if self._transport.is_closing():
            if self._write_due is _NEVER:
                self._write_due = now + self.crowd.bounds.body_seconds  # to read its last answer
            elif now > self._write_due:
                self._transport.abort()
        elif now > self._due:
            self._cut(self._due_for)
        elif now > self._write_due:
            self._cut("unread")

    def stop(self) -> None:
        """Read no further request; close when all have their answer."""
        self._is_over = True
        if not self._open and self._reading is None:
            self._transport.close()

    def give_up(self) -> None:
        """Tell who is still without an answer to come again."""
        for request in tuple(self._open):
            self.refuse(request, Unavailable("stopping"))

    def refuse(self, request: Request, exc: WsmError) -> None:
        """Answer with a refusal, unless there is an answer. Does not raise."""
        if request.found is not None:
            return
        try:
            answer = self.crowd.service.refuse(request, exc)
        except Exception:
            log.exception("request_failed")
            answer = INTERNAL_ERROR
        request.answer(answer)

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    # How it goes on.

    def _let_in(self, request: Request) -> None:
        """Raise WsmError to refuse a request by its head."""
        self.crowd.service.begins(request)
        limit = self.crowd.bounds.body_bytes
        for declared in request.values(b"content-length")[-1:]:  # the parser lets no second one pass
            if len(declared) > _MOST_DIGITS or not declared.isdigit() or int(declared) > limit:
                raise TooLarge(limit)

    def _is_one_too_many(self, request: Request) -> bool:
        """Whether as many webhooks as may be are being answered; what was sent ahead is not counted."""
        crowd = self.crowd
        if crowd.in_flight < crowd.bounds.requests or self._open[0] is not request:
            return False
        return request.path.startswith(b"/webhooks/")

    def _ask(self, step: Callable[[Request], None], request: Request) -> None:
        """Take a step; what it raises is the answer. An exception here would be taken for a parser's."""
        try:
            step(request)
        except WsmError as exc:
            self.refuse(request, exc)
        except Exception:
            log.exception("request_failed")
            request.answer(INTERNAL_ERROR)

    def _ask_for_body(self) -> None:
        """Say 100 to who waits for it with his body, once all before him have their answers."""
        request = self._reading
        if request is None or not request.waits_for_100 or request.found is not None:
            return
        if self._open[0] is request:
            request.waits_for_100 = False
            self._write(_CONTINUE)

    def _go_on(self, rest: bytes) -> None:
        """Read the body of who offers another protocol, too; the parser leaves it to that one."""
        if self._reading is None:
            self._end()
            return
        framing = self._reading.framing()
        self._parser = httptools.HttpRequestParser(_Rest(self))
        self._parser.feed_data(b"POST / HTTP/1.1\r\nconnection: close\r\n%s\r\n\r\n" % framing + rest)

    def _end(self) -> None:
        """Read no further request; close now if nobody waits for an answer."""
        self._is_over = True
        if not self._open and self._due_for != "lingering":
            self._transport.close()

    def _end_malformed(self) -> None:
        """Answer bytes that are not HTTP; behind a request that is being answered, end after its answer."""
        if self._is_over and self._reading is None:
            return
        telemetry.INGEST_CUT.labels("malformed").inc()
        has_answer = self._reading is not None and self._reading.found is not None
        self._forget_half()
        self._is_over = True
        if self._open:
            return
        if not has_answer:
            self._write(_MALFORMED.written(self.crowd.date, is_last=True))
        self._transport.close()

    def _close_after(self, request: Request) -> None:
        """Close behind the last answer; one that came before the end of its request is given time."""
        self._is_over = True
        self._drop_open()
        if request is self._reading:
            self._due, self._due_for = self._now() + self.crowd.bounds.linger_seconds, "lingering"
        else:
            self._reading = None
            self._transport.close()

    def _forget_half(self) -> None:
        """Let go of a request whose end will not come, unless its answer only waits for its turn."""
        request, self._reading = self._reading, None
        self._due, self._due_for = _NEVER, ""
        if request is not None and request.found is None:
            self._open.pop().leave()

    def _drop_open(self) -> None:
        while self._open:
            self._open.popleft().leave()

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _cut(self, reason: str) -> None:
        self._is_over = True
        if not self._transport.is_closing():
            if reason not in _QUIETLY:
                telemetry.INGEST_CUT.labels(reason).inc()
            self._transport.close()


class _Rest:
    """What a parser tells of a request whose head is known."""

    def __init__(self, connection: Connection) -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete


class _Enough(Exception):
    """Stops the parser: what follows is not read."""
