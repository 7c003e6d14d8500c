"""Sessions by request: made, started, stopped and looked at, each through its tenant's own object.

`moves` says how. A stop, a logout and a delete release the exit; the next start takes another one. What is
moved by somebody else is waited for, and refused with SessionBusy after a while; to ask again is safe.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from wsm.control.moves import Moves, Place, place_of
from wsm.control.ownership import LEASE_SECONDS, Owned
from wsm.control.trial import Trial, try_out
from wsm.core.errors import BadInput, GatewayUnavailable, NotFound
from wsm.core.ids import ChatId, ServerName, SessionAddress, SessionName, TenantId
from wsm.core.phones import phone_of
from wsm.gateway.waha import SessionInfo, WahaSession
from wsm.store import exits, fleet, reads, watch
from wsm.store.database import Database
from wsm.telemetry import logger

log = logger("control")


class Sessions:
    """The functions.

    app, system       the database as the application's role and as the system's
    patience_seconds  how long to wait for a session that somebody else moves: longer than a lease of who died
    """

    def __init__(
        self, app: Database, system: Database, moves: Moves, *, patience_seconds: float = LEASE_SECONDS + 5
    ) -> None:
        self._app = app
        self._system = system
        self._moves = moves
        self._patience_seconds = patience_seconds

    async def create(
        self,
        tenant: TenantId,
        *,
        alias: str = "",
        server: ServerName | None = None,
        exit_pool: str | None = None,
    ) -> SessionAddress:
        """Make a session in wsm's books, stopped; its name is `user_{tenant}` or `user_{tenant}_{alias}`.

        server     which one; None: the one with the most room. It stays there
        exit_pool  where its exits come from; None: its way out is direct, for good

        Raises BadInput when the tenant, the server or the pool is unknown, the name is taken, or there is no
        room.
        """
        if exit_pool is not None and exit_pool not in self._moves.pools:
            raise BadInput("exit", f"no pool named {exit_pool!r}")
        address = SessionAddress(tenant, SessionName(f"user_{tenant}{'_' if alias else ''}{alias}"))
        await fleet.place_session(
            self._system,
            address,
            server=server,
            capacities=self._moves.capacities,
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
        async with self._owned(place) as mine:
            await self._moves.bring_up(place, mine)
        log.info("session_started", tenant=address.tenant, session=address.session)

    async def stop(self, address: SessionAddress) -> None:
        """Stop a session; its login stays, its exit is released."""
        await self._end(address, WahaSession.stop)
        log.info("session_stopped", tenant=address.tenant, session=address.session)

    async def restart(self, address: SessionAddress) -> None:
        """Stop and start a session at its gateway, with the exit that it has."""
        place = await self._desired(address, "running")
        async with self._owned(place) as mine:
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
        return await (await self.bound(address)).get()

    async def bound(self, address: SessionAddress) -> WahaSession:
        """Bind the calls of a session, for who follows its login: it may be asked, and not moved."""
        place = await self._place(address)
        return self._moves.bound(place, await self._moves.lease(place))

    async def test_send(
        self, address: SessionAddress, phone: str, text: str, *, patience_seconds: float
    ) -> Trial:
        """Send one text to a number (digits alone) as a check, and say what became of it: see `trial`.

        Raises GatewayUnavailable with the reason when nothing may leave: it should be stopped, works with
        another number than its own, or has no exit or one that is not as it should be, which is looked at
        first; and what `trial.try_out` raises.
        """
        row = await self.session(address)
        place = place_of(address.tenant, row)
        if row.desired == "stopped":
            raise GatewayUnavailable("the session should be stopped: start it")
        if row.other_phone is not None:
            raise GatewayUnavailable("it works with another number than its own, which nobody confirmed")
        lease = await self._moves.lease(place)
        if lease is not None:
            trouble = (await self._moves.look_at_exit(place, lease)).trouble
            if trouble is not None:
                raise GatewayUnavailable(f"exit: {trouble}")
        elif place.exit_pool is not None:
            raise GatewayUnavailable("the session has no exit: start it")
        gateway = self._moves.bound(place, lease)
        return await try_out(self._app, gateway, place.id, phone, text, patience_seconds=patience_seconds)

    async def confirm(self, address: SessionAddress) -> str:
        """Let a session keep the number that it works with, and return that: what waited for this may leave.

        Raises BadInput when it works with its own.
        """
        row = await self.session(address)
        if row.other_phone is None:
            raise BadInput("session", "works with no other number than its own")
        await fleet.confirm_phone(self._system, address.tenant, row.id, row.other_phone)
        log.warning("session_phone_confirmed", tenant=address.tenant, session=address.session)
        return str(row.other_phone)

    async def paired(self, address: SessionAddress, me: ChatId | None) -> Any:
        """Keep the number that a login ended with, and return the session as it is then: see `session`.

        At once, for what is due would leave: whoever looks after sessions may look in a minute only, and what
        another number's webhooks say is kept apart.
        """
        row = await self.session(address)
        if (phone := phone_of(me)) is None:
            return row
        await watch.learn_phone(self._app, address, row.id, phone)
        return await self.session(address)

    async def session(self, address: SessionAddress) -> Any:
        """One session, as `store.reads.sessions` has them. Raises NotFound."""
        for row in await self.of(address.tenant):
            if row.name == address.session:
                return row
        raise NotFound(f"tenant {address.tenant} has no session {address.session}")

    async def of(self, tenant: TenantId) -> list[Any]:
        """Every session of a tenant, as `store.reads.sessions` has them."""
        return await reads.sessions(self._app, tenant)

    async def leases(self, address: SessionAddress) -> list[Any]:
        """Every exit that a session ever had, as `store.exits.history` has them."""
        return await exits.history(self._app, address.tenant, (await self._place(address)).id)

    async def _place(self, address: SessionAddress) -> Place:
        return place_of(address.tenant, await self.session(address))

    async def _desired(self, address: SessionAddress, desired: str) -> Place:
        """Write what a session should be, and find it as it is then: what was deleted has a new secret."""
        place = await self._place(address)
        await fleet.desire(self._system, address.tenant, place.id, desired)
        return await self._place(address)

    def _owned(self, place: Place) -> AbstractAsyncContextManager[Owned]:
        return self._moves.owned(place, patience_seconds=self._patience_seconds)

    async def _end(self, address: SessionAddress, *steps: Callable[[WahaSession], Awaitable[None]]) -> None:
        """Take a session out of service."""
        place = await self._desired(address, "stopped")
        async with self._owned(place) as mine:
            await self._moves.halt(place, mine, *steps)
