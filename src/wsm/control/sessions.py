"""Sessions by request: made, started, stopped and looked at, each through its tenant's own object.

`moves` says how. A stop, a logout and a delete release the exit; the next start takes another one. What is
moved by somebody else just now is refused with SessionBusy; to ask again is safe.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from wsm.control.moves import Moves, Place, place_of
from wsm.core.errors import BadInput, NotFound
from wsm.core.ids import DEFAULT_SERVER, ServerName, SessionAddress, SessionName, TenantId
from wsm.gateway.waha import SessionInfo, WahaSession
from wsm.store import exits, fleet, reads
from wsm.store.database import Database
from wsm.telemetry import logger

log = logger("control")


class Sessions:
    """The functions. app, system: the database as the application's role and as the system's."""

    def __init__(self, app: Database, system: Database, moves: Moves) -> None:
        self._app = app
        self._system = system
        self._moves = moves

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
        if exit_pool is not None and exit_pool not in self._moves.pools:
            raise BadInput("exit", f"no pool named {exit_pool!r}")
        address = SessionAddress(tenant, SessionName(f"user_{tenant}{'_' if alias else ''}{alias}"))
        await fleet.add_session(
            self._system,
            address,
            server=server,
            alias=alias,
            kid=self._moves.keys.newest,
            exit_pool=exit_pool,
            desired="stopped",
        )
        return address

    async def start(self, address: SessionAddress) -> None:
        """Start a session. Safe to repeat: one that runs as it should is left alone.

        Raises NotFound; GatewayUnavailable when its exit or its gateway is not as it should be. It should run
        from then on all the same, and whoever looks after sessions tries again.
        """
        place = await self._desired(address, "running")
        async with self._moves.owned(place) as mine:
            await self._moves.bring_up(place, mine)
        log.info("session_started", tenant=address.tenant, session=address.session)

    async def stop(self, address: SessionAddress) -> None:
        """Stop a session; its login stays, its exit is released."""
        await self._end(address, WahaSession.stop)
        log.info("session_stopped", tenant=address.tenant, session=address.session)

    async def restart(self, address: SessionAddress) -> None:
        """Stop and start a session at its gateway, with the exit that it has."""
        place = await self._desired(address, "running")
        async with self._moves.owned(place) as mine:
            await self._moves.restart(place, mine)

    async def logout(self, address: SessionAddress) -> None:
        """Unlink the phone, and stop; the next start asks for a code."""
        await self._end(address, WahaSession.logout, WahaSession.stop)
        log.warning("session_logged_out", tenant=address.tenant, session=address.session)

    async def delete(self, address: SessionAddress) -> None:
        """Unlink the phone and let the gateway forget the session; wsm's history stays.

        What is signed with its secret is refused as soon as ingest knows, in two seconds at most.
        """
        await self._end(address, WahaSession.delete)
        await fleet.retire(self._system, address.tenant, (await self._place(address)).id)
        log.warning("session_deleted", tenant=address.tenant, session=address.session)

    async def banned(self, address: SessionAddress, until: datetime) -> str | None:
        """Stop a session that WhatsApp banned, and keep everybody from its address until then.

        Returns which address that is: the one that it has, or had last; None when it never had one. The next
        start takes another exit, and refuses as long as the provider answers with an address in quarantine.
        Safe to repeat; when the gateway cannot be reached the address is kept already.
        """
        kept = await self._moves.quarantine(await self._place(address), until)
        await self._end(address, WahaSession.stop)
        log.warning("session_banned", tenant=address.tenant, session=address.session)
        return kept

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
        return await exits.history(self._app, address.tenant, (await self._place(address)).id)

    async def _place(self, address: SessionAddress) -> Place:
        for row in await self.of(address.tenant):
            if row.name == address.session:
                return place_of(address.tenant, row)
        raise NotFound(f"tenant {address.tenant} has no session {address.session}")

    async def _gateway(self, address: SessionAddress) -> WahaSession:
        place = await self._place(address)
        return self._moves.bound(place, await self._moves.lease(place))

    async def _desired(self, address: SessionAddress, desired: str) -> Place:
        """Write what a session should be, and find it as it is then: what was deleted has a new secret."""
        place = await self._place(address)
        await fleet.desire(self._system, address.tenant, place.id, desired)
        return await self._place(address)

    async def _end(self, address: SessionAddress, *steps: Callable[[WahaSession], Awaitable[None]]) -> None:
        """Take a session out of service."""
        place = await self._desired(address, "stopped")
        async with self._moves.owned(place) as mine:
            await self._moves.halt(place, mine, *steps)
