"""uvicorn's HTTP protocol with what it lacks: deadlines, and bounds on what a client can make it hold.

uvicorn waits for ever for a client that never ends its headers or its body, keeps any number of header
bytes and pipelined requests, and forgets a client that has closed its sending side before the answer. Here:

- the headers, and after them the body, have a deadline each; so has a client that does not read;
- header bytes, raw bytes of a request, pipelined requests and connections have a bound each;
- while as many webhooks as may be are being answered, another one is told to come again, before anything but
  its headers was looked at: that costs a fraction of an answer of the app;
- what comes after the body (trailers) is not a header;
- a client that half-closes after its request gets its answer.

Who goes over is cut off; `wsm_ingest_connections_cut` counts it by reason. Nothing here reads a body.
"""

import asyncio
import math
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wsm import telemetry
from wsm.core.errors import Unavailable

_NEVER = math.inf
_TOO_MANY = b'{"error":"unavailable","reason":"requests_in_flight"}'
_UNAVAILABLE = telemetry.INGEST_REQUESTS.labels("unavailable")
_IN_FLIGHT = telemetry.INGEST_REFUSED.labels("requests_in_flight")


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may take.

    header_seconds  from the connection, or the first byte of a request, to the end of its headers
    body_seconds    from there to the end of the body; also for a client that does not read its answer
    header_bytes    of one request, give or take one read of the socket
    request_bytes   of one request as it comes over the wire, with the framing of its chunks and trailers
    pipelined       requests that wait behind the one being answered
    connections     open at the same time, over all clients
    requests        webhooks that are being answered at the same time, over all clients
    retry_after_seconds  what a 503 asks for
    """

    header_seconds: float = 10.0
    body_seconds: float = 10.0
    header_bytes: int = 64 * 1024
    request_bytes: int = 8 * 1024 * 1024
    pipelined: int = 32
    connections: int = 4_000
    requests: int = 1_000
    retry_after_seconds: int = 20


class BodyBudget:
    """Counts the bytes of bodies in memory, over all connections. `take` is paid back by `give_back`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0
        telemetry.INGEST_BODIES.set_function(lambda: self.held_bytes)

    def take(self, size_bytes: int) -> None:
        """Count bytes that arrived. Raises Unavailable, and counts nothing, when they do not fit."""
        if self.held_bytes + size_bytes > self._limit_bytes:
            raise Unavailable("bodies_in_flight")
        self.held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Uncount bytes that are no longer held."""
        self.held_bytes -= size_bytes


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Made by uvicorn; `guarded` gives it its bounds and `watch` looks at its deadlines."""

    bounds: ClassVar[Bounds]

    _due: float = _NEVER
    _write_due: float = _NEVER
    _due_for = "silent"
    _in_headers = False
    _taken_bytes = 0
    _closing = False
    _turned_away = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._due = self.loop.time() + self.bounds.header_seconds
        if len(self.connections) > self.bounds.connections:
            self.connections.discard(self)  # or those who are turned away would keep the next one out
            transport.write(self._come_again(b"connection: close"))
            self._cut("crowded")

    def data_received(self, data: bytes) -> None:
        if self._due is _NEVER and not self._is_answering():
            # uvicorn has just dropped its idle timer for these bytes, which may be no request at all.
            self._due = self.loop.time() + self.bounds.header_seconds
        self._taken_bytes += len(data)
        super().data_received(data)
        limit = self.bounds.header_bytes if self._in_headers else self.bounds.request_bytes
        if self._taken_bytes > limit:
            self._cut("header_bytes" if self._in_headers else "request_bytes")

    def eof_received(self) -> bool:  # type: ignore[override]
        """Say whether to keep the other direction open: while a complete request waits for its answer."""
        if not self._is_answering():
            return False
        self.cycle.keep_alive = False
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_due = self.loop.time() + self.bounds.body_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_due = _NEVER

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP; behind a request that is being answered, end after its answer."""
        telemetry.INGEST_CUT.labels("malformed").inc()
        if self._is_answering():
            self.cycle.keep_alive = False
            return
        super().send_400_response(msg)

    # The parser's callbacks, in the order in which they come.

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._taken_bytes = 0
        self._due, self._due_for = self.loop.time() + self.bounds.header_seconds, "header"
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._due, self._due_for = self.loop.time() + self.bounds.body_seconds, "body"
        if len(self.pipeline) >= self.bounds.pipelined:
            self._cut("pipelined")
        self._turned_away = self._is_one_too_many()
        if not self._turned_away:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._turned_away:
            self._turn_away()
            return
        super().on_message_complete()
        answered = self.cycle.response_complete
        self._due = self.loop.time() + self.bounds.header_seconds if answered else _NEVER

    def check(self, now: float) -> None:
        """Cut the connection off if it is overdue at `now`, the loop's time."""
        if self.transport.is_closing():
            if self._closing:
                self.transport.abort()  # it had since the last look to read its last answer
            self._closing = True
        elif now > self._due:
            self._cut(self._due_for)
        elif now > self._write_due:
            self._cut("unread")

    def _is_answering(self) -> bool:
        """A complete request waits for its answer."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def _is_one_too_many(self) -> bool:
        """Whether a webhook must come again; not so one that waits for a 100 before it sends its body."""
        return (
            len(self.tasks) >= self.bounds.requests
            and self.url.startswith(b"/webhooks/")
            and not self.expect_100_continue
            and not self._is_answering()
        )

    def _turn_away(self) -> None:
        """Answer at the end of a body that nobody kept; the connection stays."""
        self._turned_away = False
        self._due, self._due_for = self.loop.time() + self.bounds.header_seconds, "silent"
        _UNAVAILABLE.inc()
        _IN_FLIGHT.inc()
        if self.transport.is_closing():
            return
        stays = self.parser.should_keep_alive()
        self.transport.write(self._come_again(b"connection: %s" % (b"keep-alive" if stays else b"close")))
        if not stays:
            self.transport.close()

    def _come_again(self, connection: bytes) -> bytes:
        head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n%s\r\n" % connection
        length = b"content-length: %d\r\n" % len(_TOO_MANY)
        return head + length + b"retry-after: %d\r\n\r\n" % self.bounds.retry_after_seconds + _TOO_MANY

    def _cut(self, reason: str) -> None:
        if not self.transport.is_closing():
            telemetry.INGEST_CUT.labels(reason).inc()
            self.transport.close()


def guarded(bounds: Bounds) -> type[GuardedProtocol]:
    """Return the protocol class for uvicorn, with its bounds."""
    return type("BoundedProtocol", (GuardedProtocol,), {"bounds": bounds})


async def watch(connections: Iterable[Any], bounds: Bounds) -> None:
    """Look at every connection's deadlines, again and again, until cancelled.

    One timer for all instead of two per request; a deadline is kept to within a tenth of itself.
    """
    pause = min(max(min(bounds.header_seconds, bounds.body_seconds) / 10, 0.01), 1.0)
    while True:
        await asyncio.sleep(pause)
        now = asyncio.get_running_loop().time()
        for connection in tuple(connections):
            connection.check(now)
