"""One end of a passage, and as much of HTTP/1.1 as a proxy has to understand: heads, and where bodies end."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NamedTuple

from wsm.sandbox.exits.passages import Ending, Over, Peer

_PIECE_BYTES = 64 * 1024
_MOST_BUFFERED_BYTES = 1024 * 1024
"""More than a stream holds: it stops reading at twice its limit of 64 KiB."""
_LINGER_SECONDS = 1.0
_FIRST_WORDS = 3
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"upgrade"})
_BODILESS = frozenset({b"204", b"304"})


class Head(NamedTuple):
    """A request or an answer without its body. first: the words of its first line; names are lower case."""

    first: list[bytes]
    headers: list[tuple[bytes, bytes]]

    def get(self, name: bytes) -> bytes:
        """Return a header; empty without one, joined of several."""
        return b", ".join(value for key, value in self.headers if key == name)

    @property
    def is_last(self) -> bool:
        """Whether who sent this request wants no other one after it."""
        said = self.get(b"connection") + self.get(b"proxy-connection")
        return self.first[2] != b"HTTP/1.1" or b"close" in said.lower()

    @property
    def is_interim(self) -> bool:
        """Whether the answer proper is still to come."""
        return self.first[1].startswith(b"1")

    @property
    def is_framed(self) -> bool:
        """Whether the end of the body can be known before the end of the connection."""
        return bool(self.get(b"transfer-encoding") or self.get(b"content-length"))

    def is_bodiless(self, method: bytes) -> bool:
        """Whether this answer to a method has no body, whatever its headers say."""
        return method == b"HEAD" or self.is_interim or self.first[1] in _BODILESS

    def written(self, *first: bytes, closes: bool) -> bytes:
        """Write it under a first line, without what concerned one connection or the proxy."""
        lines = [
            name + b": " + value
            for name, value in self.headers
            if name not in _HOP_BY_HOP and not name.startswith(b"proxy-")
        ]
        closing = [b"connection: close"] if closes else []
        return b"\r\n".join([b" ".join(first), *lines, *closing, b"", b""])


class End:
    """One of the two connections of a passage. ending: what it means that this one goes away.

    Everything raises Over when the connection breaks or speaks something else than HTTP/1.1.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ending: Ending) -> None:
        self._reader = reader
        self._writer = writer
        self._ending = ending
        self._nonsense = Ending.MALFORMED if ending is Ending.CLIENT else ending
        self.peer = _address(writer, "peername")
        self.here = _address(writer, "sockname")

    async def read(self) -> bytes:
        """Return what comes; nothing at the end."""
        try:
            return await self._reader.read(_PIECE_BYTES)
        except OSError:
            raise Over(self._ending) from None

    async def write(self, data: bytes) -> None:
        """Write, and wait while too much is unread."""
        try:
            if not self._writer.is_closing():
                self._writer.write(data)
            await self._writer.drain()
        except OSError:
            raise Over(self._ending) from None

    async def head(self) -> Head | None:
        """Read a head; None when no other one comes."""
        try:
            return _parsed(await self._reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError as exc:
            if not exc.partial:
                return None
            raise Over(self._ending) from None
        except OSError:
            raise Over(self._ending) from None
        except (asyncio.LimitOverrunError, ValueError):
            raise Over(self._nonsense) from None

    async def body(self, head: Head, *, to_the_end: bool) -> AsyncIterator[bytes]:
        """Read a body as it comes over the wire. to_the_end: it ends with the connection if not before."""
        try:
            if b"chunked" in head.get(b"transfer-encoding").lower():
                async for data in self._chunks():
                    yield data
            elif head.is_framed:
                async for data in self._exactly(int(head.get(b"content-length"))):
                    yield data
            elif to_the_end:
                while data := await self.read():
                    yield data
        except (OSError, EOFError):
            raise Over(self._ending) from None
        except (asyncio.LimitOverrunError, ValueError):
            raise Over(self._nonsense) from None

    async def gone(self) -> None:
        """Return when the other side has left. Not noticed of one that has said more, which is kept."""
        try:
            ahead = await self._reader.read(_MOST_BUFFERED_BYTES)
        except OSError:
            return
        if not self._reader.at_eof():
            self._reader.feed_data(ahead)
            await asyncio.Event().wait()

    async def ignored(self) -> None:
        """Drop what comes, until the other side has left."""
        while await self.read():
            pass

    def finish(self) -> None:
        """Say that nothing more will be written."""
        if not self._writer.is_closing():
            with suppress(OSError):
                self._writer.write_eof()

    def reset(self) -> None:
        """Break it, so that the other side sees an error and not an end."""
        if not self._writer.is_closing():
            linger = struct.pack("ii", 1, 0)
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """Close it when all is written, or after a second."""
        self._writer.close()
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                await self._writer.wait_closed()
        except OSError:
            pass  # broken, or too slow
        finally:
            self._writer.transport.abort()

    async def answer(self, status: str, *headers: str) -> None:
        """Answer without a body, and `leave`."""
        lines = [f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "Connection: close", "", ""]
        await self.write("\r\n".join(lines).encode())
        await self.leave()

    async def leave(self) -> None:
        """Say that this is the end, and wait a second at most for the other side to have read it and left."""
        self.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self.ignored()

    async def _chunks(self) -> AsyncIterator[bytes]:
        size = -1
        while size:
            yield (line := await self._reader.readuntil(b"\r\n"))
            size = int(line.partition(b";")[0], 16)
            async for data in self._exactly(size + 2 if size else 0):
                yield data
        while line != b"\r\n":
            yield (line := await self._reader.readuntil(b"\r\n"))

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size > 0:
            data = await self._reader.read(min(size, _PIECE_BYTES))
            if not data:
                raise EOFError
            size -= len(data)
            yield data


def _parsed(raw: bytes) -> Head:
    first, *lines = raw[:-4].split(b"\r\n")
    pairs = [line.partition(b":") for line in lines]
    words = first.split(b" ", _FIRST_WORDS - 1)
    if len(words) == _FIRST_WORDS - 1 and words[0].startswith(b"HTTP/"):
        words.append(b"")  # an answer may leave its reason out
    if len(words) < _FIRST_WORDS or not all(colon for _, colon, _ in pairs):
        raise ValueError(words)
    return Head(words, [(name.lower(), value.strip()) for name, _, value in pairs])


def _address(writer: asyncio.StreamWriter, which: str) -> Peer:
    host, port = (writer.get_extra_info(which) or ("", 0))[:2]  # who left at once has no name any more
    return host, port
