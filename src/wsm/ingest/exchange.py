"""A request and its answer, who answers it, and what all connections of a server share."""

import asyncio
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import httptools
import msgspec

from wsm.core.errors import TooLarge, Unavailable, WsmError

if TYPE_CHECKING:
    from wsm.core.ids import SessionAddress
    from wsm.ingest.connection import Connection

READ = frozenset(
    {
        b"content-length", b"transfer-encoding", b"expect",
        b"x-forwarded-for", b"x-webhook-hmac", b"x-webhook-hmac-algorithm",
    }
)  # fmt: skip
"""The headers that somebody reads; the others are not kept."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may take.

    header_seconds  from the connection, or the first byte of a request, to the end of its headers
    body_seconds    from there to the end of the body; also for a client that does not read its answer
    keep_alive_seconds  idle connections are kept; WAHA keeps its own for 4 s, so it must be well above
    linger_seconds  how long at most a client is listened to after an answer that came before its end
    header_bytes    of one request, give or take one read of the socket
    body_bytes      of one request
    request_bytes   of one request as it comes over the wire, with the framing of its chunks and trailers
    pipelined       requests that wait for their answer on one connection
    connections     open at the same time, over all clients
    requests        webhooks that are being answered at the same time, over all clients
    """

    header_seconds: float = 10.0
    body_seconds: float = 10.0
    keep_alive_seconds: float = 30.0
    linger_seconds: float = 2.0
    header_bytes: int = 64 * 1024
    body_bytes: int = 1024 * 1024
    request_bytes: int = 8 * 1024 * 1024
    pipelined: int = 32
    connections: int = 4_000
    requests: int = 1_000


class BodyBudget:
    """Counts the bytes of bodies in memory, over all connections. `take` is paid back by `give_back`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count bytes that arrived. Raises Unavailable, and counts nothing, when they do not fit."""
        if self.held_bytes + size_bytes > self._limit_bytes:
            raise Unavailable("bodies_in_flight")
        self.held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Uncount bytes that are no longer held."""
        self.held_bytes -= size_bytes


class Answer:
    """A status with a body, ready to be written. `headers`: whole lines."""

    __slots__ = ("_body", "_head", "status")

    def __init__(
        self, status: int, body: bytes, *headers: bytes, content_type: bytes = b"application/json"
    ) -> None:
        self.status = status
        phrase = HTTPStatus(status).phrase.encode()
        length = b"content-length: %d" % len(body)
        lines = [b"HTTP/1.1 %d %s" % (status, phrase), b"content-type: " + content_type, length, *headers]
        self._head = b"\r\n".join(lines)
        self._body = body

    def written(self, date: bytes, *, is_last: bool, is_asked_for_head: bool = False) -> bytes:
        """Write it. is_last: the connection ends with it."""
        close = b"\r\nconnection: close" if is_last else b""
        body = b"" if is_asked_for_head else self._body
        return b"%s\r\ndate: %s%s\r\n\r\n%s" % (self._head, date, close, body)


INTERNAL_ERROR = Answer(500, b'{"error":"internal"}')
"""Of a bug; the log has it."""


class Request:
    """A request, from the end of its headers to its answer.

    path      as it came: no escapes undone, no dots resolved
    peer      the address of who is at the other end of the connection
    body      the whole of it; None until it is there
    route     what the service keeps of its look at the head
    known     whose it is, as far as the service has found out
    is_last   the connection ends with its answer
    is_turned_away  nobody keeps its body
    waits_for_100   its body comes when it is asked for
    """

    __slots__ = (
        "_chunks", "_connection", "_headers", "_held_bytes", "_is_counted",
        "body", "found", "is_last", "is_turned_away", "known", "method", "path", "peer", "query", "route",
        "waits_for_100",
    )  # fmt: skip

    def __init__(
        self, connection: "Connection", method: bytes, target: bytes, headers: dict[bytes, list[bytes]]
    ) -> None:
        self.path, self.query = _split(target)
        self.method = method
        self.peer = connection.peer
        self._connection = connection
        self._headers = headers
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._is_counted = False
        self.body: bytes | None = None
        self.found: Answer | None = None
        self.route: Any = None
        self.known: SessionAddress | None = None
        self.is_last = self.is_turned_away = self.waits_for_100 = False

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header, in their order; `name` in lower case, one of `READ`."""
        return self._headers.get(name, [])

    @property
    def has_body(self) -> bool:
        """Whether one was declared."""
        return b"content-length" in self._headers or b"transfer-encoding" in self._headers

    def framing(self) -> bytes:
        """Write the lines that declare the body; the parser has let them pass."""
        names = (b"content-length", b"transfer-encoding")
        return b"\r\n".join(b"%s: %s" % (name, value) for name in names for value in self.values(name))

    def take(self, chunk: bytes) -> None:
        """Keep a part of the body. Raises TooLarge, or Unavailable without room for it."""
        crowd = self._connection.crowd
        if self._held_bytes + len(chunk) > crowd.bounds.body_bytes:
            raise TooLarge(crowd.bounds.body_bytes)
        crowd.bodies.take(len(chunk))
        self._held_bytes += len(chunk)
        self._chunks.append(chunk)

    def end(self) -> None:
        """Know the body, and count it among those that wait for an answer."""
        self._is_counted = True
        self._connection.crowd.in_flight += 1
        self.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def answer(self, answer: Answer) -> None:
        """Answer it, in its turn. Only the first answer counts: it may have been given up before."""
        if self.found is None:
            self.found = answer
            self._release()
            self._connection.answered(self)

    def refuse(self, exc: WsmError) -> None:
        """Answer it with what the service makes of a refusal."""
        self._connection.refuse(self, exc)

    def leave(self) -> None:
        """Nobody waits for the answer: let go of it, unless it was handed on."""
        if self.body is None:
            self._release()

    def _release(self) -> None:
        """Uncount it."""
        crowd = self._connection.crowd
        crowd.in_flight -= self._is_counted
        crowd.bodies.give_back(self._held_bytes)
        self._is_counted, self._held_bytes = False, 0
        self._chunks = []


class Service(Protocol):
    """What answers requests. Nothing here may wait."""

    def begins(self, request: Request) -> None:
        """Look at a head, before its body. Raises WsmError to refuse it at once."""

    def ends(self, request: Request) -> None:
        """See to it that a whole request gets its `Request.answer`, now or later. Raises WsmError instead."""

    def refuse(self, request: Request, exc: WsmError) -> Answer:
        """Turn a refusal into its answer."""


class Crowd:
    """All connections of a server, and what they share.

    in_flight  requests that are there as a whole and have no answer yet
    date       as in the header, renewed by the server every second
    """

    def __init__(self, service: Service, bounds: Bounds, bodies: BodyBudget) -> None:
        self.service = service
        self.bounds = bounds
        self.bodies = bodies
        self.connections: set[Connection] = set()
        self.in_flight = 0
        self.is_closing = False
        self.is_empty = asyncio.Event()
        self.tell_date()

    def tell_date(self) -> None:
        """Read the clock for the header."""
        self.date = formatdate(usegmt=True).encode()

    def leave(self, connection: "Connection") -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        if self.is_closing and not self.connections:
            self.is_empty.set()


def _split(target: bytes) -> tuple[bytes, bytes]:
    """Take a target apart: path and query. A whole URL, as proxies are asked, will do."""
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return path, query
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return target, b""
    return url.path or b"/", url.query or b""
