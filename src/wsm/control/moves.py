"""How a session is moved at its gateway: brought up, restarted, halted, by a request or by the reconciler.

Bringing one up takes an exit first, if the session's way out is one, looks where it comes out, and asserts
the whole configuration at the gateway, read back and compared, before anything reaches WhatsApp. What does
not hold ends it with GatewayUnavailable, and the session stays as it was. One process moves a session at a
time: everything here that moves one is handed its leave, an `Owned`.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from wsm.control.ownership import Owned, owned
from wsm.core.errors import BadInput, ExitFailed, GatewayRefused, GatewayUnavailable
from wsm.core.exits import Pool, Way, identity, new_identifier
from wsm.core.ids import ServerName, SessionAddress, SessionName, TenantId
from wsm.gateway.waha import Gateways, SessionConfig, WahaSession
from wsm.store import exits
from wsm.store.database import Database
from wsm.store.exits import Lease
from wsm.wire.signature import session_secret


class Keys(msgspec.Struct, frozen=True):
    """The master keys by id, and which of them new sessions are made with."""

    by_id: Mapping[str, bytes]
    newest: str

    def __repr__(self) -> str:
        return "Keys(…)"


class Place(msgspec.Struct, frozen=True):
    """A session as its moves know it: the row's number, where it runs, and what its secret is made of."""

    address: SessionAddress
    id: int
    server: ServerName
    exit_pool: str | None
    kid: str
    generation: int


def place_of(tenant: TenantId, row: Any) -> Place:
    """Read a row of `store.reads.sessions` or `store.watch.every`."""
    return Place(
        SessionAddress(tenant, SessionName(row.name)),
        row.id,
        ServerName(row.server),
        row.exit_pool,
        row.kid,
        max(row.generations),
    )


class Moves:
    """The moves.

    app, system    the database as the application's role and as the system's
    pools          of exits, by name
    capacities     how many sessions each server may have
    webhooks_url   where the gateways post to: `https://…/webhooks/waha`
    owner          this process, as others see it
    """

    def __init__(
        self,
        app: Database,
        system: Database,
        gateways: Gateways,
        *,
        pools: Mapping[str, Pool],
        capacities: Mapping[ServerName, int],
        keys: Keys,
        webhooks_url: str,
        owner: str,
        now: Callable[[], datetime],
        new_uuid: Callable[[], UUID],
    ) -> None:
        self._app = app
        self._system = system
        self._gateways = gateways
        self.pools = pools
        self.capacities = capacities
        self.keys = keys
        self._webhooks_url = webhooks_url.rstrip("/")
        self._owner = owner
        self._now = now
        self._new_uuid = new_uuid

    def owned(self, place: Place, *, patience_seconds: float = 0.0) -> AbstractAsyncContextManager[Owned]:
        """Take the leave to move a session, as `ownership.owned` does."""
        its = place.address.tenant, place.id
        return owned(self._app, *its, owner=self._owner, patience_seconds=patience_seconds)

    async def lease(self, place: Place) -> Lease | None:
        """Return the exit that a session has now; None when its way out is direct or it has none."""
        if place.exit_pool is None:
            return None
        return await exits.current(self._app, place.address.tenant, place.id)

    def bound(self, place: Place, lease: Lease | None, mine: Owned | None = None) -> WahaSession:
        """Bind the calls of a session, through the exit that it has where one must be used.

        mine  the leave to move it; without it, it may be asked and looked at only

        Raises GatewayUnavailable when nothing but an exit leads to its gateway, and it has none.
        """
        if lease is None and self.is_stranded(place):
            raise GatewayUnavailable("the session has no exit, and nothing else leads there: start it")
        way = None if lease is None else lease.way
        check = _may_not if mine is None else mine.check
        return self._gateways.session(place.server, place.address, way, may_move=check)

    def is_stranded(self, place: Place) -> bool:
        """Whether a session without an exit cannot even be asked how it is."""
        return place.exit_pool is not None and self._gateways.needs_exit(place.server)

    async def bring_up(self, place: Place, mine: Owned) -> None:
        """Start a session, as the module says. One that runs as it should is left alone."""
        gateway, is_new = await self._asserted(place, mine)
        if not is_new and (await gateway.get()).status == "FAILED":  # a start would find it running
            await gateway.restart()
        else:
            await gateway.start()

    async def restart(self, place: Place, mine: Owned) -> None:
        """Stop and start a session at its gateway, in order like `bring_up`."""
        gateway, is_new = await self._asserted(place, mine)
        await (gateway.start() if is_new else gateway.restart())

    async def halt(self, place: Place, mine: Owned, *steps: Callable[[WahaSession], Awaitable[None]]) -> None:
        """Take a session out of service at its gateway by these steps, and then its exit from it.

        Where only exits lead to the gateway, one without any takes one for this. Raises ExitFailed when
        nothing is reached through any exit of the pool: then all stays as it is.
        """
        lease = await (self._last_lease(place) if self.is_stranded(place) else self.lease(place))
        gateway = self.bound(place, lease, mine)
        for step in steps:
            await step(gateway)
        await exits.release(self._app, place.address.tenant, place.id, self._now())

    async def quarantine(self, place: Place, until: datetime) -> str | None:
        """Keep everybody from the address of a session's exit, as `exits.quarantine` does."""
        return await exits.quarantine(self._app, place.address.tenant, place.id, until, self._now())

    def config(self, place: Place, way: Way | None) -> SessionConfig:
        """Write the configuration that a session must have, with the exit `way`."""
        key = self.keys.by_id.get(place.kid)
        if key is None:
            raise BadInput("master_keys", f"no key named {place.kid!r}")
        address = place.address
        return SessionConfig(
            url=f"{self._webhooks_url}/{address.tenant}/{address.session}",
            secret=session_secret(key, address, place.generation),
            metadata={"wsm.tenant": str(address.tenant)},
            way=None if way is None else self._gateways.exit_of(way),
        )

    async def look_at_exit(self, place: Place, lease: Lease) -> Lease:
        """Look where an exit comes out and keep it; return the lease as it is then, its `trouble` too.

        What is wrong stands in the lease then: nothing is sent until a later look finds it in order. Raises
        ExitFailed when nothing is reached through it, and GatewayUnavailable when the service that tells does
        not; blocks as `Gateways.look` does.
        """
        try:
            seen = await self._gateways.look(lease.way)
        except ExitFailed:
            await exits.fail(self._app, place.address.tenant, lease, self._now())
            raise
        return await exits.judge(
            self._app,
            self._system,
            place.address.tenant,
            lease,
            country=self.pools[lease.pool].country,
            seen=seen,
            now=self._now(),
        )

    async def _asserted(self, place: Place, mine: Owned) -> tuple[WahaSession, bool]:
        """Bind a session whose exit and configuration are in order, and say whether the latter is new: WAHA
        has then started it anew, if it ran."""
        way = await self._way(place)
        gateway = self._gateways.session(place.server, place.address, way, may_move=mine.check)
        return gateway, await self._assert(gateway, self.config(place, way))

    async def _last_lease(self, place: Place) -> Lease:
        """Find the exit for the calls that end a session: its own, or another one if that is dead.

        Else a session whose exit died for good could never be stopped. The dead one's address is kept from
        everybody as long as the provider may keep it, for the session may still be out there.
        """
        tenant, now, uuid = place.address.tenant, self._now(), self._new_uuid()
        lease = await exits.take(self._app, tenant, place.id, self.pools, self._new_uuid(), now)
        try:
            await self._gateways.look(lease.way)
        except ExitFailed:
            pool = self.pools[lease.pool]
            try:
                await self._gateways.look(Way(lease.pool, identity(pool, new_identifier(uuid, now))))
            except ExitFailed:
                await exits.fail(self._app, tenant, lease, now)
                raise
            if lease.address is not None:
                until = now + timedelta(minutes=pool.sticky_minutes)
                await exits.quarantine(self._app, tenant, place.id, until, now)
            await exits.release(self._app, tenant, place.id, now)
            lease = await exits.take(self._app, tenant, place.id, self.pools, uuid, now)
        except GatewayUnavailable:
            pass  # the check does not answer as it should; the exit may well do
        return lease

    async def _way(self, place: Place) -> Way | None:
        """Take the session's exit and look where it comes out. Raises GatewayUnavailable if that is wrong."""
        if place.exit_pool is None:
            return None
        tenant = place.address.tenant
        lease = await exits.take(self._app, tenant, place.id, self.pools, self._new_uuid(), self._now())
        judged = await self.look_at_exit(place, lease)
        if judged.trouble is not None:
            raise GatewayUnavailable(f"exit: {judged.trouble}")
        return lease.way

    async def _assert(self, gateway: WahaSession, config: SessionConfig) -> bool:
        """Give the gateway the session and its configuration, and read it back; False if it had both.

        Raises GatewayUnavailable with the names of what it keeps otherwise.
        """
        try:
            await gateway.create(config, start=False)
        except GatewayRefused as exc:
            if exc.reason != "already_exists":
                raise
            _, differing = await gateway.inspect(config)
            if not differing:
                return False
            await gateway.update(config)
        _, differing = await gateway.inspect(config)
        if differing:
            raise GatewayUnavailable(f"the gateway keeps another configuration: {', '.join(differing)}")
        return True


def _may_not() -> None:
    raise TypeError("this object was bound without the leave to move its session")
