"""How a session is: asked of its gateway, through its exit, and heard.

The same answer says how it is, which number it works with and what configuration its gateway keeps. What is
new is kept at once: the status, unless a webhook has told a newer one; the number, learned at the first
WORKING; where its exit comes out, looked at before the provider would let it go.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from wsm.control.catchup import CatchUp
from wsm.control.hidden_ids import HiddenIds
from wsm.control.moves import Moves, Place
from wsm.control.watchdog import Watchdog
from wsm.core.errors import ExitFailed, GatewayRefused, GatewayUnavailable
from wsm.core.exits import look_every
from wsm.core.moments import moment
from wsm.core.phones import phone_of
from wsm.core.upkeep import Watched, drops
from wsm.gateway.waha import WahaSession
from wsm.store import watch
from wsm.store.database import Database
from wsm.store.exits import Lease
from wsm.telemetry import logger

log = logger("reconciler")

_LOOK_AGAIN = timedelta(seconds=30)
"""How soon an exit that was in trouble is looked at again."""
_EARLY = 0.75
"""After so much of the time between two looks one is due: who comes by just before may be late next time."""
_CATCH_UPS_AT_ONCE = 4


class Looks:
    """Looks at sessions, each a `Place` and its row of `store.watch.every`.

    settled_after  so long after a session has come back its own webhooks are waited for: WhatsApp gives it
                   what it held, with media, before what no webhook brings is fetched
    """

    def __init__(
        self,
        app: Database,
        moves: Moves,
        catch_up: CatchUp,
        watchdog: Watchdog,
        hidden_ids: HiddenIds,
        *,
        now: Callable[[], datetime],
        settled_after: timedelta,
    ) -> None:
        self._app = app
        self._moves = moves
        self._catch_up = catch_up
        self._watchdog = watchdog
        self._hidden_ids = hidden_ids
        self._now = now
        self._settled_after = settled_after
        self._catching_up = asyncio.Semaphore(_CATCH_UPS_AT_ONCE)

    async def forget(self) -> None:
        """Forget what was found out: another process looks from now on."""
        self._watchdog.forget()
        await self._hidden_ids.forget()

    async def look(self, place: Place, row: Any) -> tuple[Watched, WahaSession | None]:
        """Ask a session's gateway how it is, and keep what is new; return that, and with what was asked.

        One that cannot even be asked (then there is nothing to ask with), for only an exit leads there and it
        has none, counts as stopped. Raises Unavailable and Refused.
        """
        now = self._now()
        lease = await self._exit(place)
        if lease is None and self._moves.is_stranded(place):
            return _watched(row, row.observed if row.desired == "stopped" else "STOPPED", now), None
        way = None if lease is None else lease.way
        gateway = self._moves.bound(place, lease)
        try:
            info, differing = await gateway.inspect(self._moves.config(place, way))
        except GatewayRefused as exc:
            if exc.reason != "not_found":
                raise
            info, differing = None, []
        status = "UNKNOWN" if info is None else info.status
        engine = None if info is None else info.engine
        if (status, engine or row.engine) != (row.observed, row.engine):
            await watch.observe(self._app, place.address, row.id, status, engine, now)
        phone = None if info is None or status != "WORKING" else phone_of(info.me)
        if phone is not None and phone != (row.other_phone or row.phone):
            await watch.learn_phone(self._app, place.address, row.id, phone)
        its = _watched(
            row,
            None if info is None else status,
            now,
            leased=lease is not None,
            differs=bool(differing) or (lease is None and place.exit_pool is not None),
            other_number=(row.other_phone if phone is None else phone) not in {None, row.phone or phone},
            exit_in_trouble=lease is not None and lease.trouble is not None,
        )
        return its, gateway

    async def listen(self, place: Place, row: Any, its: Watched, gateway: WahaSession | None) -> Watched:
        """Fetch what a session that works has missed, once for each return, and find out if it is mute.

        Beside that one that is as it should be begins to be asked whom it knows (`HiddenIds`).

        its, gateway  what `look` has just returned; the former is returned with what is found out

        Blocks as `CatchUp.fetch` does.
        """
        works = its.status == row.observed == "WORKING"
        if gateway is None or not works or its.other_number or row.phone is None:
            return its
        if row.caught_up_ms < row.since_ms and self._now() - its.since >= self._settled_after:
            await self._caught_up(place, row, gateway)
        mute = await self._watchdog.check(
            gateway,
            server=place.server,
            session=row.id,
            phone=row.phone,
            heard_ms=row.heard_ms,
            since_ms=row.since_ms,
            now=self._now(),
        )
        if not (mute or its.differs or its.exit_in_trouble):
            self._hidden_ids.begin(gateway, server=place.server, session=row.id, heard_ms=row.heard_ms)
        return msgspec.structs.replace(its, mute=mute)

    async def _exit(self, place: Place) -> Lease | None:
        """Return a session's exit, looked at again when its time has come, which also keeps it alive."""
        lease = await self._moves.lease(place)
        if lease is None or lease.pool not in self._moves.pools:
            return lease
        every = look_every(self._moves.pools[lease.pool]) if lease.trouble is None else _LOOK_AGAIN
        if lease.verified_at is not None and self._now() - lease.verified_at < every * _EARLY:
            return lease
        try:
            return await self._moves.look_at_exit(place, lease)
        except ExitFailed:
            return msgspec.structs.replace(lease, trouble="dead")
        except GatewayUnavailable:
            return lease  # the check does not answer, which says nothing of the exit

    async def _caught_up(self, place: Place, row: Any, gateway: WahaSession) -> None:
        """Fetch what was missed; what is cut off goes on with the next look."""
        try:
            async with self._catching_up:
                caught = await self._catch_up.fetch(place.address, row.id, gateway)
        except GatewayRefused as exc:
            about = {"tenant": place.address.tenant, "session": place.address.session}
            log.warning("catch_up_refused", reason=str(exc), **about)
        else:
            if caught.cut_off:
                return
        await watch.caught_up(self._app, place.address, row.id, row.since_ms)


def _watched(row: Any, status: str | None, now: datetime, **more: bool) -> Watched:
    return Watched(
        desired=row.desired,
        status=status,
        since=moment(row.since_ms) if status == row.observed else now,
        engine=row.engine,
        paired=row.phone is not None,
        repairs=row.repairs,
        repaired_at=row.repaired_at,
        drops=drops(row.dropped_ms, now),
        **more,
    )
