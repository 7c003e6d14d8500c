"""All WAHA servers of a process, and the sessions on them, each through its own client and exit."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from types import MappingProxyType

import httpx

from wsm.config import WahaServer
from wsm.core.errors import BadInput, GatewayUnavailable
from wsm.core.exits import Exit, Pool, Seen, Way, exit_of
from wsm.core.ids import ServerName, SessionAddress
from wsm.gateway import client, exits
from wsm.gateway.answers import Found, SessionInfo
from wsm.gateway.clients import Clients
from wsm.gateway.config import EVENTS, SessionConfig, webhook_config
from wsm.gateway.fetch import Fetched, Fetching, Take
from wsm.gateway.server import Server
from wsm.gateway.session import WahaSession

__all__ = ["EVENTS", "Found", "Gateways", "SessionConfig", "SessionInfo", "WahaSession", "webhook_config"]


class Gateways:
    """All configured servers, and the sessions on them. Belongs to one event loop. Raises BadInput.

    servers               by name; a call to a server that is not among them is unavailable
    pools                 of exits, by name; a call of a session whose exit is of another one is unavailable
    send_timeout_seconds  how long a send may take: WAHA goes on working for long, so 150 at least
    look_timeout_seconds  how long any other call about a chat may take: WAHA itself waits up to 15 s for a
                          session before it answers 422
    concurrent_calls      per server
    clients               kept open at most, beside those in use: one for each session
    """

    def __init__(
        self,
        servers: Mapping[ServerName, WahaServer],
        pools: Mapping[str, Pool] = MappingProxyType({}),
        *,
        send_timeout_seconds: float,
        look_timeout_seconds: float = 20.0,
        concurrent_calls: int = 64,
        clients: int = 5_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = dict(pools)
        self._configured = dict(servers)
        self._send_timeout_seconds = send_timeout_seconds
        self._look_timeout_seconds = look_timeout_seconds
        self._concurrent_calls = concurrent_calls
        self._clock = clock
        self._tls = client.tls_context()
        self._servers: dict[ServerName, Server] = {}
        self._clients = Clients(clients)
        for name, server in servers.items():
            with _of(f"waha.{name}"):
                client.check(server.url, server.api_key)
        for named, pool in pools.items():
            with _of(f"exits.{named}"):
                client.check_url("check_url", pool.check_url)

    def session(
        self,
        server: ServerName,
        address: SessionAddress,
        way: Way | None,
        *,
        may_move: Callable[[], None] | None = None,
    ) -> WahaSession:
        """Bind the calls to a session.

        may_move  called before each call that changes the session itself; raises when it must not be made
        way  through what it acts; None when its policy is `direct`. A gateway whose route is private is
             reached without it: such a gateway uses it itself, towards WhatsApp.
        """
        if server not in self._servers:
            self._servers[server] = Server(server, concurrent_calls=self._concurrent_calls, clock=self._clock)
        return WahaSession(
            address,
            server=self._servers[server],
            lend=lambda: self._lend(server, address, way),
            has_exit=self._through(server, way) is not None,
            send_timeout_seconds=self._send_timeout_seconds,
            look_timeout_seconds=self._look_timeout_seconds,
            may_move=may_move,
        )

    async def aclose(self) -> None:
        """Close all connections. Calls in flight break."""
        await self._clients.aclose()

    def needs_exit(self, server: ServerName) -> bool:
        """Whether a server is reached through the exits of its sessions alone."""
        configured = self._configured.get(server)
        return configured is not None and configured.route == "public"

    async def look(self, way: Way) -> Seen:
        """Ask where an exit comes out; raises and blocks as `exits.look` does."""
        exit_ = self.exit_of(way)
        async with client.build_bare(exit_, tls=self._tls) as http:
            return await exits.look(http, self._pools[way.pool].check_url)

    async def fetch(self, way: Way | None, url: str, fetching: Fetching, take: Take) -> Fetched:
        """Fetch a file for a session, through its exit; directly only where its policy is `direct` (None).

        Raises and blocks as `fetch.Fetching.fetch` does; GatewayUnavailable where settings know no such pool.
        """
        exit_ = None if way is None else self.exit_of(way)
        return await fetching.fetch(url, way=exit_, tls=self._tls, take=take)

    def _lend(
        self, server: ServerName, address: SessionAddress, way: Way | None
    ) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """Lend the client of a session's exit. Raises GatewayUnavailable where settings know it not."""
        configured = self._configured.get(server)
        if configured is None:
            raise GatewayUnavailable("no such server is configured")
        through = self._through(server, way)
        exit_ = None if through is None else self.exit_of(through)
        return self._clients.use(
            (server, address, through),
            lambda: client.build(configured.url, api_key=configured.api_key, way=exit_, tls=self._tls),
        )

    def _through(self, server: ServerName, way: Way | None) -> Way | None:
        """Return the exit that lies between wsm and a server, if one does."""
        return way if self.needs_exit(server) else None

    def exit_of(self, way: Way) -> Exit:
        """Write an exit. Raises GatewayUnavailable where settings do not know its pool."""
        pool = self._pools.get(way.pool)
        if pool is None:
            raise GatewayUnavailable("no such pool of exits is configured")
        return exit_of(pool, way.identity)


@contextmanager
def _of(table: str) -> Iterator[None]:
    """Name the table of a field that does not fit."""
    try:
        yield
    except BadInput as exc:
        raise BadInput(f"{table}.{exc.field}", exc.reason) from None
