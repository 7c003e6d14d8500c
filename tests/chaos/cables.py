"""A network that fails on command: a relay between wsm and what it depends on, over TCP or unix sockets.

Bytes keep their order whatever the delay. What was swallowed is never delivered later: the connections that
lost something are cut when the cable is mended.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

_EPSILON = 1e-6
Address = Path | tuple[str, int]


class Mode(StrEnum):
    """What a cable does with bytes."""

    OPEN = "open"
    DEAF = "deaf"
    """Nothing comes through in either direction."""
    MUTE = "mute"
    """What is asked comes through; no answer does."""
    SHUT = "shut"
    """Whoever connects is cut off at once."""


class Cable:
    """Relays `listen` to `target`. delay_seconds: how long every byte takes."""

    def __init__(self, listen: Address, target: Address) -> None:
        self.mode = Mode.OPEN
        self.delay_seconds = 0.0
        self._listen = listen
        self._target = target
        self._ends: set[_End] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> Address:
        """Listen; return where, for a port may be 0."""
        loop = asyncio.get_running_loop()

        def answer() -> _End:
            return _End(self, self._ends)

        if isinstance(self._listen, Path):
            self._server = await loop.create_unix_server(answer, self._listen)
            return self._listen
        self._server = await loop.create_server(answer, *self._listen)
        return self.address

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, over TCP."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return host, port

    async def aclose(self) -> None:
        """Stop listening, and cut."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self, *, reset: bool = False) -> None:
        """Break every connection, politely or not."""
        for end in list(self._ends):
            end.cut(reset=reset)

    def mend(self) -> None:
        """Let everything through again."""
        broken = self.mode is not Mode.OPEN
        self.mode, self.delay_seconds = Mode.OPEN, 0.0
        if broken:
            self.cut()

    async def connect(self, near: "_End") -> "_End":
        """Make the far end of a connection."""
        loop = asyncio.get_running_loop()

        def answer() -> _End:
            return _End(self, self._ends, near)

        if isinstance(self._target, Path):
            _, far = await loop.create_unix_connection(answer, str(self._target))
        else:
            _, far = await loop.create_connection(answer, *self._target)
        return far


class _End(asyncio.Protocol):
    """One end of a relayed connection; the near one is the client's."""

    def __init__(self, cable: Cable, ends: "set[_End]", near: "_End | None" = None) -> None:
        self._cable = cable
        self._ends = ends
        self._near = near
        self._peer: _End | None = near
        self._early: list[bytes] = []
        self._transport: Any = None
        self._last = 0.0
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ends.add(self)
        if self._near is None:
            if self._cable.mode is Mode.SHUT:
                self.cut()
            else:
                self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        try:
            self._peer = await self._cable.connect(self)
        except OSError:
            self.cut()
            return
        if self._transport.is_closing():
            self._peer.cut()
        for data in self._early:
            self._pass(data)

    def data_received(self, data: bytes) -> None:
        if self._cable.mode is Mode.DEAF or (self._cable.mode is Mode.MUTE and self._near is not None):
            return
        if self._peer is None:
            self._early.append(data)
        else:
            self._pass(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._ends.discard(self)
        if self._peer is not None:
            peer = self._peer
            self._later(peer.close)

    def close(self) -> None:
        """Close when everything is written."""
        self._transport.close()

    def write(self, data: bytes) -> None:
        """Hand bytes to whoever is at this end."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def cut(self, *, reset: bool = False) -> None:
        """Break it here and now."""
        if reset and (sock := self._transport.get_extra_info("socket")) and sock.family == socket.AF_INET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _pass(self, data: bytes) -> None:
        peer = self._peer
        if peer is not None:
            self._later(lambda: peer.write(data))

    def _later(self, act: Callable[[], None]) -> None:
        """Act after the cable's delay, and never before what came before."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = max(now + self._cable.delay_seconds, self._last + _EPSILON)
        if due <= now + 2 * _EPSILON and self._last < now:
            act()
        else:
            self._last = due
            loop.call_at(due, act)
