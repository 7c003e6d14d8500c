"""A listener on loopback: so many connections, each in a task, all gone when it is stopped."""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections import deque
from types import TracebackType
from typing import Self

from wsm.sandbox.exits.ends import End
from wsm.sandbox.exits.passages import Ending, Over, Peer
from wsm.sandbox.waha.chores import Chores

REMEMBERED = 100_000


class Listener(ABC):
    """Serves on 127.0.0.1, as an async context, always on the same port.

    port         0 takes a free one
    connections  how many at a time; one more is reset
    tls          its certificate, for https

    peers        who connected, in their order, whether they asked anything or not: the last 100,000
    turned_away  how many of them were reset
    """

    def __init__(self, *, port: int = 0, connections: int = 256, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._most = connections
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._chores = Chores()
        self._clients: set[End] = set()
        self.turned_away = 0
        self.peers: deque[Peer] = deque(maxlen=REMEMBERED)

    @property
    def port(self) -> int:
        """Where it listens, once it has."""
        return self._port

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    @property
    def connected(self) -> int:
        """How many connections are open."""
        return len(self._clients)

    async def up(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, ssl=self._tls)
            self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections, and break those that are open. Raises what failed there: a bug here."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._chores.cancel()
        for client in self._clients.copy():
            client.reset()
        self._clients.clear()
        await asyncio.sleep(0)  # a transport lets go of its socket in the next turn of the loop
        failures, self._chores.failures = self._chores.failures, []
        if failures:
            raise BaseExceptionGroup("serving a connection failed", failures)

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    @abstractmethod
    async def _serve(self, client: End) -> None:
        """Serve one connection to its end. May raise Over."""

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = End(reader, writer, Ending.CLIENT)
        self.peers.append(client.peer)
        if self._server is None or len(self._clients) >= self._most:
            self.turned_away += 1
            client.reset()
            return
        self._clients.add(client)
        self._chores.spawn(self._serve_and_close(client), counts=False)

    async def _serve_and_close(self, client: End) -> None:
        try:
            await self._serve(client)
        except Over:
            client.reset()
        finally:
            try:
                await client.aclose()
            finally:
                self._clients.discard(client)
