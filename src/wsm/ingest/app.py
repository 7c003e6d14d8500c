"""The webhooks' ASGI app: routes, the order of the checks, and the one table of answers.

    POST /webhooks/waha/{tenant_id}/{session}    signed with that session's secret
    POST /webhooks/waha[?server={id}]            signed with the secret of that server's shared hook
    GET  /healthz, /readyz, /metrics             the ops app's

In this order: size (413), signature over the raw bytes (403), form (400), whose it is (403), append. A
request fails at the first that does not hold, and nothing after it was looked at. 200 is written after the
append is durable. Never a redirect: WAHA follows one without the body and takes its answer for the end.
An answer before the end of the body closes the connection, after a moment in which the rest is read and
dropped, for many clients read no answer while they write.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

import msgspec

from wsm import telemetry
from wsm.core.errors import (
    BadInput,
    Forbidden,
    MailboxFull,
    NotFound,
    Refused,
    StreamsUnavailable,
    TooLarge,
    Unavailable,
    WsmError,
)
from wsm.core.ids import ServerName, SessionAddress, SessionName, TenantId
from wsm.ingest.batch import Item
from wsm.ingest.doors import Door, Doors
from wsm.ingest.guard import BodyBudget
from wsm.ingest.security import RefusalLog
from wsm.streams.handover import Misfit
from wsm.telemetry import AsgiApp, Receive, Scope, Send
from wsm.wire import waha

Header = tuple[bytes, bytes]


class WrongMethod(Refused):
    """The path exists, the method does not."""


STATUS: dict[type[WsmError], int] = {
    BadInput: 400,
    Forbidden: 403,
    NotFound: 404,
    WrongMethod: 405,
    TooLarge: 413,
    Unavailable: 503,
}
"""What each class of error is answered with; a class that is not here has the answer of its base."""

_OPS = frozenset({"/healthz", "/readyz", "/metrics"})
_HOOK = b"/webhooks/waha"
_SESSION = re.compile(rb"/webhooks/waha/([1-9][0-9]{0,18})/([A-Za-z0-9_-]{1,54})\Z")
_MOST_FIELDS = 16
_MOST_DIGITS = 18  # Python makes no number of more than 4300
_UNSAID = {"session_unknown": "signature_mismatch", "server_unknown": "signature_mismatch"}
"""Reasons that are in the log and the counter, while the answer does not tell who exists."""
_WORDS: dict[type[WsmError], str] = {
    BadInput: "bad_input",
    NotFound: "not_found",
    WrongMethod: "wrong_method",
    TooLarge: "too_large",
    StreamsUnavailable: "streams_away",
}
"""The word of a class whose text is not a word already."""


class _Request:
    """A request while it is answered.

    body      the whole of it; None while it is not taken, and then the answer closes the connection
    is_ended  the client has sent all of it, taken or not
    """

    __slots__ = ("algorithms", "body", "declared", "held_bytes", "is_ended", "known", "receive", "signatures")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.receive = receive
        self.signatures: list[bytes] = []
        self.algorithms: list[bytes] = []
        self.declared = b"0"
        for name, value in scope["headers"]:
            if name == b"x-webhook-hmac":
                self.signatures.append(value)
            elif name == b"x-webhook-hmac-algorithm":
                self.algorithms.append(value)
            elif name == b"content-length":
                self.declared = value
        self.body: bytes | None = None
        self.is_ended = False
        self.held_bytes = 0
        self.known: SessionAddress | None = None


class _Answer:
    """A status with a small JSON body, ready to be sent."""

    __slots__ = ("_body", "_headers", "status")

    def __init__(self, status: int, fields: dict[str, str], *headers: Header) -> None:
        self.status = status
        self._body = msgspec.json.encode(fields)
        form = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self._body))]
        self._headers = [*form, *headers]

    async def send(self, send: Send) -> None:
        """Send it; the connection stays as it is."""
        await send({"type": "http.response.start", "status": self.status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body})

    async def send_last(self, send: Send, drain: Callable[[], Awaitable[None]]) -> None:
        """Send it complete, let `drain` read what still comes, and close."""
        headers = [*self._headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": True})
        await drain()
        await send({"type": "http.response.body", "body": b""})


_ACCEPTED = _Answer(200, {"status": "accepted"})
_QUARANTINED = _Answer(200, {"status": "quarantined"})


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Ingest:
    """The app.

    submit         appends one item and returns when it is durable (`Batcher.submit`)
    retry_after_seconds  what a 503 asks for; WAHA waits at least that long before each of its 15 repeats
    linger_seconds how long at most a client is listened to after an answer that came before its end
    clock          milliseconds since 1970: the arrival that an entry bears
    """

    def __init__(
        self,
        *,
        doors: Doors,
        submit: Callable[[Item], Awaitable[None]],
        bodies: BodyBudget,
        refusals: RefusalLog,
        ops: AsgiApp,
        body_limit_bytes: int = 1024 * 1024,
        retry_after_seconds: int = 20,
        linger_seconds: float = 2.0,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._doors = doors
        self._submit = submit
        self._bodies = bodies
        self._refusals = refusals
        self._ops = ops
        self._body_limit_bytes = body_limit_bytes
        self._retry_after = (b"retry-after", b"%d" % retry_after_seconds)
        self._linger_seconds = linger_seconds
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises nothing that a client could bring about."""
        if scope["type"] != "http":
            return
        if scope["path"] in _OPS:
            await self._ops(scope, receive, send)
            return
        request = _Request(scope, receive)
        try:
            answer = await self._accept(scope, request)
        except WsmError as exc:
            answer = self._refuse(scope, request, exc)
        except asyncio.CancelledError:  # the drain is over; the server would answer 500
            answer = self._refuse(scope, request, Unavailable("stopping"))
        finally:
            self._bodies.give_back(request.held_bytes)
        if answer is None:
            return
        if request.body is None:
            await answer.send_last(send, lambda: self._drain(request))
        else:
            await answer.send(send)

    async def _accept(self, scope: Scope, request: _Request) -> _Answer | None:
        """Take one webhook; None when the client left before its end. Raises what `STATUS` answers."""
        find_door = self._route(scope)
        body = request.body = await self._read(request)
        if body is None:
            return None
        door = find_door()
        request.known = door.known
        door.verify(request.signatures, request.algorithms, body)
        item = door.place(waha.head(body), body, self._clock())
        if isinstance(item, Misfit):
            await self._submit(item)
            return _QUARANTINED
        request.known = SessionAddress(item.tenant, item.session)
        await self._submit(item)
        return _ACCEPTED

    def _route(self, scope: Scope) -> Callable[[], Door]:
        """Find what the path names, before a byte of the body was read. The raw path: no escapes, no dots."""
        path: bytes = scope["raw_path"]
        named = _SESSION.match(path)
        if named is None and path != _HOOK:
            raise NotFound("path")
        if scope["method"] != "POST":
            raise WrongMethod("method")
        if named is not None:
            address = SessionAddress(TenantId(int(named[1])), SessionName(named[2].decode()))
            return lambda: self._doors.of_session(address)
        server = _server(scope["query_string"])
        return lambda: self._doors.of_hook(server)

    async def _read(self, request: _Request) -> bytes | None:
        """Read the body; None when the client left. Raises TooLarge, or Unavailable without room for it."""
        limit = self._body_limit_bytes
        declared = request.declared
        if len(declared) > _MOST_DIGITS or not declared.isdigit() or int(declared) > limit:
            raise TooLarge(limit)
        chunks: list[bytes] = []
        while not request.is_ended:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                return None
            chunk: bytes = message.get("body", b"")
            request.is_ended = not message.get("more_body", False)
            if request.held_bytes + len(chunk) > limit:
                raise TooLarge(limit)
            self._bodies.take(len(chunk))
            request.held_bytes += len(chunk)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _drain(self, request: _Request) -> None:
        """Read and drop what still comes, for a while and within bounds."""
        dropped = 0
        try:
            async with asyncio.timeout(self._linger_seconds):
                while not request.is_ended and dropped <= 2 * self._body_limit_bytes:
                    message = await request.receive()
                    dropped += len(message.get("body", b""))
                    request.is_ended = not message.get("more_body", False)
        except TimeoutError:
            return

    def _refuse(self, scope: Scope, request: _Request, exc: WsmError) -> _Answer:
        """Turn an error into its answer, its count and, within the limits of the log, its line."""
        status = next(STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS)
        reason = _reason(exc)
        result = "unavailable" if isinstance(exc, Unavailable) else "refused"
        telemetry.INGEST_REQUESTS.labels(result).inc()
        telemetry.INGEST_REFUSED.labels(reason).inc()
        client = scope.get("client")
        self._refusals.note(
            status=status,
            reason=reason,
            address=client[0] if client else "unknown",
            known=request.known,
            detail=str(exc) if isinstance(exc, StreamsUnavailable | BadInput) else None,
        )
        if isinstance(exc, BadInput):
            return _Answer(status, {"error": reason, "field": exc.field, "reason": exc.reason})
        fields = {"error": "unavailable" if result == "unavailable" else "refused"}
        fields["reason"] = _UNSAID.get(reason, reason)
        if isinstance(exc, WrongMethod):
            return _Answer(status, fields, (b"allow", b"POST"))
        if isinstance(exc, Unavailable):
            return _Answer(status, fields, self._retry_after)
        return _Answer(status, fields)


def _reason(exc: WsmError) -> str:
    """One word of a closed list, fit for a label."""
    match exc:
        case Forbidden():
            return exc.reason
        case MailboxFull():
            return f"mailbox_full_{exc.scope}"
    return next((_WORDS[kind] for kind in type(exc).__mro__ if kind in _WORDS), str(exc))


def _server(query: bytes) -> ServerName | None:
    """Read `server` off the query; None without one. Said twice, it names a server that cannot exist."""
    if not query:
        return None
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return ServerName("")
    named = [value for name, value in fields if name == "server"]
    if not named:
        return None
    return ServerName(named[0] if len(named) == 1 else "")
