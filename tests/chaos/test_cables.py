"""A cable keeps the order of bytes, and what it swallowed never comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from chaos.cables import Cable, Mode


class Line(msgspec.Struct, frozen=True):
    """A cable to an echo, and a connection through it."""

    cable: Cable
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def says(self, words: bytes) -> bytes:
        """Say a line, and return what comes back; empty when the connection broke."""
        self.writer.write(words + b"\n")
        try:
            return (await self.reader.readline()).strip()
        except ConnectionError:
            return b""


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1000):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    """Open an echo, a cable and a connection."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    cable = Cable(("127.0.0.1", 0), server.sockets[0].getsockname())
    await cable.open()
    reader, writer = await asyncio.open_connection(*cable.address)
    try:
        yield Line(cable, reader, writer)
    finally:
        writer.close()
        await cable.aclose()
        server.close()


async def test_an_open_cable_is_none() -> None:
    async with line() as at:
        assert await at.says(b"one") == b"one"


async def test_a_slow_one_keeps_the_order_also_when_it_becomes_quick() -> None:
    async with line() as at:
        at.cable.delay_seconds = 0.05
        at.writer.write(b"one\n")
        await asyncio.sleep(0.01)
        at.cable.mend()
        assert await at.says(b"two") == b"one"
        assert (await at.reader.readline()).strip() == b"two"


@pytest.mark.parametrize("mode", [Mode.DEAF, Mode.MUTE])
async def test_what_was_swallowed_never_comes(mode: Mode) -> None:
    async with line() as at:
        at.cable.mode = mode
        said = asyncio.create_task(at.says(b"one"))
        await asyncio.sleep(0.05)
        assert not said.done()
        at.cable.mend()
        assert await said == b""


@pytest.mark.parametrize("reset", [True, False])
async def test_a_cut_one_breaks(reset: bool) -> None:
    async with line() as at:
        assert await at.says(b"one") == b"one"
        at.cable.cut(reset=reset)
        assert await at.says(b"two") == b""


async def test_a_shut_one_lets_nobody_in() -> None:
    async with line() as at:
        at.cable.mode = Mode.SHUT
        at.cable.cut()
        again = Line(at.cable, *await asyncio.open_connection(*at.cable.address))
        assert await again.says(b"one") == b""
        again.writer.close()
