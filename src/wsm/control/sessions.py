"""Sessions by request: made, started, stopped and looked at, each through its tenant's own object.

A start takes an exit first, if the session's way out is one, looks where it comes out, and asserts the whole
configuration at the gateway, read back and compared, before anything reaches WhatsApp. What does not hold
ends the start, and the session stays as it was. A stop, a logout and a delete release the exit; the next
start takes another one.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from wsm.core.errors import BadInput, GatewayRefused, GatewayUnavailable, NotFound
from wsm.core.exits import Pool, Way
from wsm.core.ids import DEFAULT_SERVER, ServerName, SessionAddress, SessionName, TenantId
from wsm.gateway.waha import Gateways, SessionConfig, SessionInfo, WahaSession
from wsm.store import exits, fleet, reads
from wsm.store.database import Database
from wsm.telemetry import logger
from wsm.wire.signature import session_secret

log = logger("control")


class Keys(msgspec.Struct, frozen=True):
    """The master keys by id, and which of them new sessions are made with."""

    by_id: Mapping[str, bytes]
    newest: str

    def __repr__(self) -> str:
        return "Keys(…)"


class Sessions:
    """The functions.

    app, system    the database as the application's role and as the system's
    pools          of exits, by name
    webhooks_url   where the gateways post to: `https://…/webhooks/waha`
    """

    def __init__(
        self,
        app: Database,
        system: Database,
        gateways: Gateways,
        *,
        pools: Mapping[str, Pool],
        keys: Keys,
        webhooks_url: str,
        now: Callable[[], datetime],
        new_uuid: Callable[[], UUID],
    ) -> None:
        self._app = app
        self._system = system
        self._gateways = gateways
        self._pools = pools
        self._keys = keys
        self._webhooks_url = webhooks_url.rstrip("/")
        self._now = now
        self._new_uuid = new_uuid

    async def create(
        self,
        tenant: TenantId,
        *,
        alias: str = "",
        server: ServerName = DEFAULT_SERVER,
        exit_pool: str | None = None,
    ) -> SessionAddress:
        """Make a session in wsm's books, stopped; its name is `user_{tenant}` or `user_{tenant}_{alias}`.

        exit_pool  where its exits come from; None: its way out is direct, for good

        Raises BadInput when the tenant or the pool is unknown or the name is taken.
        """
        if exit_pool is not None and exit_pool not in self._pools:
            raise BadInput("exit", f"no pool named {exit_pool!r}")
        address = SessionAddress(tenant, SessionName(f"user_{tenant}{'_' if alias else ''}{alias}"))
        await fleet.add_session(
            self._system,
            address,
            server=server,
            alias=alias,
            kid=self._keys.newest,
            exit_pool=exit_pool,
            desired="stopped",
        )
        return address

    async def start(self, address: SessionAddress) -> None:
        """Start a session, as the module says. Safe to repeat: one that runs as it should is left alone.

        Raises NotFound; GatewayUnavailable when its exit or its gateway is not as it should be.
        """
        row = await self._row(address)
        await fleet.desire(self._system, address.tenant, row.id, "running")
        way = await self._way(address, row)
        gateway = self._gateways.session(row.server, address, way)
        await self._assert(gateway, self._config(address, row, way))
        await gateway.start()
        log.info("session_started", tenant=address.tenant, session=address.session)

    async def stop(self, address: SessionAddress) -> None:
        """Stop a session; its login stays, its exit is released."""
        await self._end(address, WahaSession.stop)
        log.info("session_stopped", tenant=address.tenant, session=address.session)

    async def restart(self, address: SessionAddress) -> None:
        """Stop and start a session at its gateway, with the exit that it has."""
        row = await self._row(address)
        await fleet.desire(self._system, address.tenant, row.id, "running")
        await (await self._bound(address, row)).restart()

    async def logout(self, address: SessionAddress) -> None:
        """Unlink the phone, and stop; the next start asks for a code."""
        await self._end(address, WahaSession.logout, WahaSession.stop)
        log.warning("session_logged_out", tenant=address.tenant, session=address.session)

    async def delete(self, address: SessionAddress) -> None:
        """Unlink the phone and let the gateway forget the session; wsm's history stays."""
        await self._end(address, WahaSession.delete)
        log.warning("session_deleted", tenant=address.tenant, session=address.session)

    async def look(self, address: SessionAddress) -> SessionInfo:
        """Ask the gateway how the session is."""
        return await (await self._gateway(address)).get()

    async def qr(self, address: SessionAddress) -> bytes:
        """Return the code to scan as a PNG; WAHA has another one every 20 s or so."""
        return await (await self._gateway(address)).qr()

    async def qr_text(self, address: SessionAddress) -> str:
        """Return what the code says."""
        return await (await self._gateway(address)).qr_text()

    async def of(self, tenant: TenantId) -> list[Any]:
        """Every session of a tenant, as `store.reads.sessions` has them."""
        return await reads.sessions(self._app, tenant)

    async def leases(self, address: SessionAddress) -> list[Any]:
        """Every exit that a session ever had, as `store.exits.history` has them."""
        return await exits.history(self._app, address.tenant, (await self._row(address)).id)

    async def _row(self, address: SessionAddress) -> Any:
        for row in await self.of(address.tenant):
            if row.name == address.session:
                return row
        raise NotFound(f"tenant {address.tenant} has no session {address.session}")

    async def _gateway(self, address: SessionAddress) -> WahaSession:
        return await self._bound(address, await self._row(address))

    async def _bound(self, address: SessionAddress, row: Any) -> WahaSession:
        """Bind the calls of a session, through the exit that it has now where one must be used."""
        lease = None if row.exit_pool is None else await exits.current(self._app, address.tenant, row.id)
        if row.exit_pool is not None and lease is None and self._gateways.needs_exit(row.server):
            raise GatewayUnavailable("the session has no exit, and nothing else leads there: start it")
        way = None if lease is None else lease.way
        return self._gateways.session(row.server, address, way)

    async def _end(self, address: SessionAddress, *steps: Callable[[WahaSession], Awaitable[None]]) -> None:
        """Take a session out of service at its gateway, and then its exit from it."""
        row = await self._row(address)
        await fleet.desire(self._system, address.tenant, row.id, "stopped")
        gateway = await self._bound(address, row)
        for step in steps:
            await step(gateway)
        await exits.release(self._app, address.tenant, row.id, self._now())

    async def _way(self, address: SessionAddress, row: Any) -> Way | None:
        """Take the session's exit and look where it comes out. Raises GatewayUnavailable if that is wrong."""
        if row.exit_pool is None:
            return None
        lease = await exits.take(
            self._app, address.tenant, row.id, self._pools, self._new_uuid(), self._now()
        )
        judged = await exits.judge(
            self._app,
            self._system,
            address.tenant,
            lease,
            country=self._pools[lease.pool].country,
            seen=await self._gateways.look(lease.way),
            now=self._now(),
        )
        if judged.trouble is not None:
            raise GatewayUnavailable(f"exit: {judged.trouble}")
        return lease.way

    def _config(self, address: SessionAddress, row: Any, way: Way | None) -> SessionConfig:
        generation = max(row.generations)
        key = self._keys.by_id.get(row.kid)
        if key is None:
            raise BadInput("master_keys", f"no key named {row.kid!r}")
        return SessionConfig(
            url=f"{self._webhooks_url}/{address.tenant}/{address.session}",
            secret=session_secret(key, address, generation),
            metadata={"wsm.tenant": str(address.tenant)},
            way=None if way is None else self._gateways.exit_of(way),
        )

    async def _assert(self, gateway: WahaSession, config: SessionConfig) -> None:
        """Give the gateway the session and its configuration, and read it back.

        Raises GatewayUnavailable with the names of what it keeps otherwise.
        """
        try:
            await gateway.create(config, start=False)
        except GatewayRefused as exc:
            if exc.reason != "already_exists":
                raise
            if not await gateway.differs(config):
                return
            await gateway.update(config)
        if differing := await gateway.differs(config):
            raise GatewayUnavailable(f"the gateway keeps another configuration: {', '.join(differing)}")
