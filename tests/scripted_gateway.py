"""A gateway that does whatever a gateway may do: answer anything, half of it, something else, or nothing."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from wsm.config import WahaServer
from wsm.core.ids import ChatId, ServerName, SessionAddress, SessionName, TenantId
from wsm.gateway.waha import Gateways, WahaSession

SERVER = ServerName("default")
ADDRESS = SessionAddress(TenantId(1460561546), SessionName("user_1460561546"))
CHAT = ChatId("5511977776666@c.us")
KEY = "CANARY-api-key"
TEXT = "CANARY-text olá"
SENT = {"id": "true_5511977776666@c.us_3EB0", "_data": {}}


class Asked(msgspec.Struct):
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Reply = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class Gateway:
    """Speaks just enough HTTP/1.1 to say anything, or nothing, at any moment."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.reply: Reply = says(201, SENT)
        self.status = ""
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (asked := await _request(reader)) is not None:
                self.asked.append(asked)
                await self.reply(asked, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has gone, or `stop` was called
        finally:
            writer.close()
            self._tasks.discard(task)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> Asked | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode().strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body)


def says(status: int, content: object, *headers: str) -> Reply:
    """Answer, JSON or bytes."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()

    async def reply(_: Asked, writer: asyncio.StreamWriter) -> None:
        extra = "".join(f"{header}\r\n" for header in headers)
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\n{extra}\r\n".encode() + raw)

    return reply


async def cuts(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Break the connection after the request."""
    writer.transport.abort()


async def cuts_in_mid_answer(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 201 X\r\nContent-Length: 999\r\n\r\n{")
    await writer.drain()
    writer.transport.abort()


async def speaks_something_else(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def breaks_tls(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer past TLS, in its own connection: what comes is no record of it."""
    os.write(writer.get_extra_info("socket").fileno(), b"HTTP/1.1 200 OK\r\n\r\n")
    await asyncio.Event().wait()


async def hangs(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Hold the request for ever."""
    await asyncio.Event().wait()


async def trickles(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer a byte now and then: no read ever takes too long, and the answer never ends."""
    writer.write(b"HTTP/1.1 201 X\r\nContent-Length: 99999\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def gateway(**limits: Any) -> AsyncIterator[tuple[Gateway, WahaSession]]:
    """Run the server, and bind a session to it."""
    behind = Gateway()
    listener = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    behind.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    gateways = over(behind.url, **limits)
    try:
        yield behind, gateways.session(SERVER, ADDRESS, None)
    finally:
        await gateways.aclose()
        await behind.stop()
        listener.close()
        await listener.wait_closed()


def over(url: str, **limits: Any) -> Gateways:
    seconds = {"send_timeout_seconds": 5.0, "look_timeout_seconds": 5.0}
    return Gateways({SERVER: WahaServer(url=url, api_key=KEY)}, **(seconds | limits))


def failure(status: int, message: str) -> Reply:
    """Answer as WAHA does when its engine fails: with a stack and everything that was asked."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        echo = {
            "statusCode": status,
            "exception": {"message": message, "name": "Error", "stack": f"Error: {message} CANARY-stack"},
            "request": {"path": asked.path, "method": asked.method, "body": json.loads(asked.body or b"{}")},
            "secret": "CANARY-hmac",
        }
        await says(status, echo)(asked, writer)

    return reply


NOT_WORKING = {"error": "CANARY not as expected", "session": "s", "status": "FAILED", "expected": ["WORKING"]}
NOT_FOUND = {"error": "We didn't find a session with name 'CANARY'", "session": "CANARY"}
