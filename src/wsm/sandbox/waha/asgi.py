"""Requests, answers and a table of routes: the little of HTTP that a fake server needs.

Answers are what `JSON.stringify` makes: compact, non-ASCII unescaped.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import msgspec

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Client = tuple[str, int]

_encode = msgspec.json.Encoder().encode


class Request(msgspec.Struct, frozen=True):
    """One request. Header names are lower case; of a name given twice the last one counts."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    client: Client

    def json(self) -> Any:
        """Decode the body; an empty one is an empty object. Raises msgspec.DecodeError."""
        return msgspec.json.decode(self.body) if self.body else {}


class Answer(msgspec.Struct, frozen=True):
    """One answer. `cut` breaks the connection instead; `headers` stand beside the usual ones."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    cut: bool = False
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """Stop here and give this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


Handler = Callable[..., Awaitable[Answer]]


class Route(NamedTuple):
    """`GET /api/{session}/auth/qr` and who answers; the names in braces become arguments."""

    rule: str
    handler: Handler


class Routes:
    """Finds the handler of a request; the first rule that fits wins."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(_pattern(route.rule), route.handler) for route in routes]

    def find(self, request: Request) -> tuple[Handler, Mapping[str, str]] | None:
        """Return the handler and its arguments from the path, or None."""
        line = f"{request.method} {request.path}"
        for pattern, handler in self._routes:
            if found := pattern.fullmatch(line):
                return handler, {name: unquote(value) for name, value in found.groupdict().items()}
        return None


def json(value: Any, status: int = 200) -> Answer:
    """Answer with a JSON value."""
    return Answer(status, encode(value))


def encode(value: Any) -> bytes:
    """Encode as `JSON.stringify` does."""
    return _encode(value)


async def read(scope: dict[str, Any], receive: Receive) -> Request:
    """Read a whole request."""
    body = b""
    more = True
    while more:
        part = await receive()
        body += part.get("body", b"")
        more = part.get("more_body", False)
    host, port = scope["client"]
    return Request(
        method=scope["method"],
        path=scope["raw_path"].split(b"?", 1)[0].decode(),
        query=dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True)),
        headers={name.decode(): value.decode("latin-1") for name, value in scope["headers"]},
        body=body,
        client=(host, port),
    )


async def write(send: Send, answer: Answer) -> None:
    """Write a whole answer."""
    headers = [(b"content-length", str(len(answer.body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in answer.headers]
    if answer.body:
        headers.append((b"content-type", answer.content_type.encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _pattern(rule: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(rule)))
