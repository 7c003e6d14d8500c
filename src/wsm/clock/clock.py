"""The clock: one leader by a lock in the database, others stand by.

Each second the leader sweeps the mailboxes, puts due timers into them, rings for deliveries whose time has
come, publishes the directory of sessions when it changed, and measures the backlog; each hour it makes the
coming month and forgets dedupe rows that nothing can repeat any more, and files that nobody sent for long.
Every step may be repeated and may be missed for a while: the next tick does it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from wsm.core.errors import Unavailable
from wsm.core.events import Origin
from wsm.core.ids import ServerName, SessionName, TenantId
from wsm.core.moments import milliseconds
from wsm.core.outbox import LOCKS
from wsm.core.reasons import Why
from wsm.store import fleet, media
from wsm.store.database import Database
from wsm.store.leadership import Leadership
from wsm.streams.directory import PublishedDirectory
from wsm.streams.handover import Handover, Offer
from wsm.streams.keys import Kind
from wsm.streams.pauses import CLI, DEAD_LETTERS_LIMIT, Paused
from wsm.telemetry import (
    BACKLOG_BYTES,
    BACKLOG_ENTRIES,
    BACKLOG_TENANTS,
    CLOCK_LEADER,
    DEAD_BYTES,
    DEAD_LETTERS,
    DIRECTORY_SESSIONS,
    FROZEN,
    OUTBOX_AGE,
    OUTBOX_DUE,
    OUTBOX_WAITING,
    PAUSED,
    QUARANTINED,
    SWEEPS,
    TIMERS_AGE,
    TIMERS_DUE,
    logger,
)
from wsm.wire import directory as wire
from wsm.wire.waha import timer_command

log = logger("clock")

TICK_SECONDS = 1.0
HOUSEKEEPING = timedelta(hours=1)
TIMERS_AT_ONCE = 500
TIMERS_PER_TICK = 2_000
"""After an outage the pile is worked off in order, so many in a second: the sweep must not wait."""
LOOK_FOR_FORGOTTEN = timedelta(minutes=1)


class Clock:
    """The leader's duties.

    keep_dedupe  how long a repeat may still come (60 days)
    keep_media   how long a file is kept that nobody sends
    """

    def __init__(
        self,
        database: Database,
        leadership: Leadership,
        handover: Handover,
        directory: PublishedDirectory,
        *,
        now: Callable[[], datetime],
        keep_dedupe: timedelta,
        keep_media: timedelta,
    ) -> None:
        self._database = database
        self._leadership = leadership
        self._handover = handover
        self._directory = directory
        self._now = now
        self._keep_dedupe = keep_dedupe
        self._keep_media = keep_media
        self._kept_house_at: datetime | None = None
        self._looked_at: datetime | None = None
        self._led = False
        self._stopped: frozenset[TenantId] = frozenset()

    @property
    def leads(self) -> bool:
        """Whether this clock led at its last tick."""
        return self._led

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until `stop` is set, then let go of the lead."""
        try:
            while not stop.is_set():
                await self.tick()
                waiting = asyncio.create_task(stop.wait())
                await asyncio.wait([waiting], timeout=TICK_SECONDS)
                waiting.cancel()
        finally:
            CLOCK_LEADER.set(0)
            await self._leadership.resign()

    async def tick(self) -> None:
        """Do every duty once, if this clock leads. What is away is logged and left to the next tick."""
        leads = False
        try:
            leads = await self._leadership.leads()
        except Unavailable as exc:
            log.warning("clock_waits", duty="lead", reason=str(exc))
        CLOCK_LEADER.set(leads)
        if leads != self._led:
            log.info("clock_leads" if leads else "clock_stands_by")
            self._led = leads
            self._stopped = frozenset()  # a new leader says it again
            self._looked_at = None
            _forget_figures()
        if leads:
            duties = (
                self._publish,
                self._sweep,
                self._ring_timers,
                self._ring_deliveries,
                self._look_for_forgotten,
                self._measure,
                self._keep_house,
            )
            for duty in duties:
                await self._attempt(duty)

    async def _attempt(self, duty: Callable[[], Awaitable[None]]) -> None:
        name = duty.__name__.lstrip("_")
        try:
            await duty()
        except Unavailable as exc:
            log.warning("clock_waits", duty=name, reason=str(exc))
        except Exception:
            log.exception("duty_failed", duty=name)  # a bug in one duty must not end the others

    async def _publish(self) -> None:
        """Publish the directory when it is not the one that is there."""
        rows = await fleet.directory(self._database)
        listed = [
            wire.Listed(
                tenant=TenantId(row.tenant_id),
                session=SessionName(row.name),
                server=ServerName(row.server),
                kid=row.kid,
                generations=tuple(row.generations),
                me=row.phone,
            )
            for row in rows
        ]
        directory = wire.directory(listed)
        DIRECTORY_SESSIONS.set(len(rows))
        if await self._directory.version() != directory.version:
            await self._directory.publish(directory.version, wire.write(directory))
            log.info("directory_published", sessions=len(rows), version=directory.version)

    async def _sweep(self) -> None:
        """Walk over every tenant that has anything, in slices."""
        cursor = 0
        while True:
            sweep = await self._handover.sweep(cursor)
            for finding in ("rung", "expired", "returned", "repaired", "foreign"):
                count = getattr(sweep, finding)
                SWEEPS.labels(finding).inc(count)
                if count and finding != "rung":
                    log.info("swept", finding=finding, count=count)
            cursor = sweep.cursor
            if cursor == 0:
                return

    async def _ring_timers(self) -> None:
        """Put the timers whose time has come into their tenants' mailboxes, the oldest first.

        They are marked once they lie there: a crash in between puts one there twice, and it counts once.
        """
        now = self._now()
        for _ in range(TIMERS_PER_TICK // TIMERS_AT_ONCE):
            due = await fleet.due_timers(self._database, now, limit=TIMERS_AT_ONCE)
            offers = [
                Offer(
                    TenantId(row.tenant_id),
                    SessionName(row.session),
                    Origin.CLOCK,
                    milliseconds(now),
                    timer_command(SessionName(row.session), row.id, row.kind, milliseconds(row.due_at)),
                )
                for row in due
            ]
            if offers:
                await self._handover.accept(offers)
                await fleet.mark_rung(self._database, [(row.tenant_id, row.id) for row in due], now)
            if len(due) < TIMERS_AT_ONCE:
                break
        waiting = await fleet.timers_waiting(self._database, now)
        TIMERS_DUE.set(waiting.timers)
        TIMERS_AGE.set((now - waiting.oldest).total_seconds() if waiting.oldest else 0)

    async def _ring_deliveries(self) -> None:
        """Ring for tenants whose intents are due; PostgreSQL knows them, a lost bell does not matter."""
        now = self._now()
        due = await fleet.due_tenants(self._database, now)
        OUTBOX_DUE.set(sum(row.sessions for row in due))
        OUTBOX_AGE.set(max(((now - row.oldest).total_seconds() for row in due), default=0))
        await self._handover.mail(Kind.DELIVER, [TenantId(row.tenant_id) for row in due])

    async def _look_for_forgotten(self) -> None:
        """Once a minute, ring for who has something to say and no time, and count who waits."""
        now = self._now()
        if self._looked_at is not None and now - self._looked_at < LOOK_FOR_FORGOTTEN:
            return
        if forgotten := await fleet.forgotten_tenants(self._database):
            log.warning("deliveries_forgotten", count=len(forgotten))
            await self._handover.mail(Kind.DELIVER, forgotten)
        waiting, frozen = await fleet.waiting(self._database, now)
        by_why = {row.waits: row.sessions for row in waiting}
        for why in Why:
            OUTBOX_WAITING.labels(why).set(by_why.get(why, 0))
        by_lock = {row.why: row.sessions for row in frozen}
        for lock in LOCKS:
            FROZEN.labels(lock).set(by_lock.get(lock, 0))
        self._looked_at = now

    async def _measure(self) -> None:
        depth = await self._handover.depth()
        BACKLOG_ENTRIES.set(depth.entries)
        BACKLOG_BYTES.set(depth.bytes)
        DEAD_LETTERS.set(depth.dead)
        DEAD_BYTES.set(depth.dead_bytes)
        QUARANTINED.set(depth.quarantined)
        for kind in Kind:
            BACKLOG_TENANTS.labels(f"mail_{kind}").set(depth.mail[kind])
            BACKLOG_TENANTS.labels(f"ready_{kind}").set(depth.ready[kind])
        self._tell_of(depth.paused)

    def _tell_of(self, paused: Sequence[Paused]) -> None:
        """Show who rests, and say once of each tenant whom his dead letters have stopped."""
        counts = Counter(each.by for each in paused)
        for by in (CLI, DEAD_LETTERS_LIMIT):
            PAUSED.labels(by).set(counts[by])
        stopped = {each.tenant: each for each in paused if each.by == DEAD_LETTERS_LIMIT}
        for tenant in stopped.keys() - self._stopped:
            log.error("tenant_stopped", tenant=tenant, reason=stopped[tenant].reason)
        self._stopped = frozenset(stopped)

    async def _keep_house(self) -> None:
        """Make this month and the next, and forget what no repeat can reach and nobody sends any more."""
        now = self._now()
        if self._kept_house_at is not None and now - self._kept_house_at < HOUSEKEEPING:
            return
        for month in (now, now + timedelta(days=28)):
            await fleet.ensure_month(self._database, month.date())
        purged = await fleet.purge_dedupe(self._database, now - self._keep_dedupe)
        purged += await media.purge(self._database, now - self._keep_media)
        if purged == 0:
            self._kept_house_at = now  # until then a part with each tick: the sweep must not wait


def _forget_figures() -> None:
    """Show nothing of an earlier lead: these figures are the leader's alone."""
    for gauge in (
        *(BACKLOG_ENTRIES, BACKLOG_BYTES, DEAD_LETTERS, DEAD_BYTES, QUARANTINED),
        *(OUTBOX_DUE, OUTBOX_AGE, TIMERS_DUE, TIMERS_AGE, DIRECTORY_SESSIONS),
    ):
        gauge.set(0)
    for labelled in (BACKLOG_TENANTS, PAUSED, OUTBOX_WAITING, FROZEN):
        labelled.clear()
