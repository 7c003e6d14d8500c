"""A little receiver of webhooks over real HTTP, which answers as it is told."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from waiting import wait_for
from wsm.sandbox.waha.asgi import Receive, Send
from wsm.sandbox.waha.server import Listener


class Got(NamedTuple):
    """One request, with its header names in lower case; `raw` has every value of each."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    raw: tuple[tuple[bytes, bytes], ...] = ()

    def values(self, name: str) -> list[bytes]:
        return [value for key, value in self.raw if key == name.encode()]

    @property
    def json(self) -> dict[str, Any]:
        decoded: dict[str, Any] = msgspec.json.decode(self.body)
        return decoded


class Reply(NamedTuple):
    """One answer; `cut` breaks the connection instead."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False


class Receiver:
    """Keeps every request. `replies` are used up one by one, then `usual` answers; `gate` holds them all."""

    def __init__(self, usual: Reply | None = None) -> None:
        self.got: list[Got] = []
        self.replies: deque[Reply] = deque()
        self.usual = usual or Reply()
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""
        self._listener = Listener(self._answer, "127.0.0.1", 0)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the bodies so far, of one event or all."""
        bodies = [got.json for got in self.got if got.body]
        return [body for body in bodies if name in {None, body["event"]}]

    def statuses(self) -> list[str]:
        """Return the session statuses that were told, in the order in which WAHA says that they were."""
        payloads = [body["payload"] for body in self.events("session.status")]
        payloads.sort(key=lambda payload: payload["statuses"][-1]["timestamp"])
        return [payload["status"] for payload in payloads]

    async def wait(self, count: int, only: Callable[[Got], bool] = lambda _got: True) -> list[Got]:
        """Wait for so many requests, and return all of them."""
        await wait_for(lambda: sum(map(only, self.got)) >= count)
        return [got for got in self.got if only(got)]

    async def close(self) -> None:
        """Refuse connections from now on."""
        await self._listener.close()

    async def open(self) -> None:
        """Listen, always on the same port."""
        self.url = f"{await self._listener.open()}/hook"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = b""
        while (part := await receive()).get("more_body"):
            body += part["body"]
        body += part.get("body", b"")
        raw = tuple(scope["headers"])
        received = {name.decode(): value.decode("latin-1") for name, value in raw}
        self.got.append(Got(scope["method"], scope["path"], received, body, time.monotonic(), raw))
        reply = self.replies.popleft() if self.replies else self.usual
        await self.gate.wait()
        if reply.cut:
            self._listener.cut(scope["client"])
            return
        headers = [(b"content-length", b"0")]
        headers += [(name.encode(), value.encode()) for name, value in reply.headers]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
