"""A turn: the entries of one tenant's mailbox become history, state, line and intents, in one transaction.

A turn that raises is tried again entry by entry, in the order in which it was decided, so that one odd
message stops its own chat and nobody else. Such a chat is parked; its entries keep their order.
*Unavailable* is never held against an entry: it is raised to the worker, which hands the bell back.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from wsm.core.asks import Ask, Asked
from wsm.core.content import is_message
from wsm.core.errors import BadInput, Unavailable
from wsm.core.events import (
    CloseAsked,
    Event,
    HiddenIdsTold,
    HistoryEvent,
    Kept,
    MessageAcked,
    MessageReceived,
    Origin,
    SendAsked,
    SessionStatusReported,
    TimerDue,
)
from wsm.core.ids import ChatId, EntryId, TenantId
from wsm.core.moments import milliseconds, moment
from wsm.core.pacing import Pace
from wsm.core.tickets import Effect
from wsm.core.timers import SWEEPING, TimerKind
from wsm.core.turn import ANSWER_BACKFILLED_WITHIN, Record, Step, decide
from wsm.store.database import Database
from wsm.store.lane import Lane, contacts_of, open_lane
from wsm.store.months import Months
from wsm.streams.handover import Bell, Entry, Parking
from wsm.telemetry import ENTRIES, EVENT_AGE, PEOPLE, TIMERS, logger
from wsm.wire import waha
from wsm.wire.waha_ids import chat_kind
from wsm.worker import locks
from wsm.worker.parking import SESSION_LEVEL, Item, Places, chats_of

log = logger("worker")

Clock = Callable[[], datetime]

_LOOKS = 5
"""How often a turn looks at the line again, at a hundred people each: twenty took 3 s, and it may take 5.
What is left is done by a turn that a timer asks for."""

_ASKED = CloseAsked | Asked | TimerDue | HiddenIdsTold
_KINDS = frozenset(TimerKind)
_OF_WAHA = frozenset({Origin.WAHA, Origin.CATCH_UP})


class Settled(msgspec.Struct):
    """What a turn hands to FINISH. deliver: somebody may have to be told something."""

    handled: list[Entry] = []
    parked: list[Parking] = []
    deliver: bool = False


class _Tally(msgspec.Struct):
    """The figures of a turn's log line."""

    recorded: int = 0
    duplicates: int = 0
    stale: int = 0
    effects: int = 0
    sends: int = 0


class Turns:
    """Runs turns.

    stale_after   what is older by its signed time is kept and changes nothing
    answer_backfilled_within  what was fetched and is older is history, and starts nothing
    pace  how long WhatsApp's limits are believed to last where it does not say
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        stale_after: timedelta,
        answer_backfilled_within: timedelta = ANSWER_BACKFILLED_WITHIN,
        pace: Pace = Pace(),  # noqa: B008 (a value)
    ) -> None:
        self._database = database
        self._clock = clock
        self._stale_after = stale_after
        self._answer_within = answer_backfilled_within
        self._pace = pace
        self._months = Months(database)

    async def run(self, bell: Bell) -> Settled:
        """Handle a bell's entries. Raises Unavailable, and then nothing is to be finished."""
        settled, tally, items = Settled(), _Tally(), []
        for entry in bell.entries:
            try:
                items.append((entry, _read(bell.tenant, entry)))
            except BadInput as exc:
                settled.parked.append(Parking(SESSION_LEVEL, entry.id, _reason(exc), (entry,)))
        runnable = await self._join_parked(bell, items, settled) if bell.parked else items
        if runnable:
            await self._all_or_each(bell, runnable, settled, tally)
        settled.deliver |= tally.duplicates > 0
        log.info(
            "turn",
            tenant=bell.tenant,
            bell=bell.id,
            entries=len(bell.entries),
            handled=len(settled.handled),
            parked=sum(len(parking.entries) for parking in settled.parked),
            **msgspec.to_builtins(tally),
        )
        return settled

    async def _join_parked(self, bell: Bell, items: Sequence[Item], settled: Settled) -> list[Item]:
        """Put aside what belongs to chats that are, and return the rest."""
        places = await self._places(bell, items)
        joining: dict[ChatId, list[Entry]] = {}
        runnable = []
        for item in items:
            place = places.of(item[1])
            if place in bell.parked:
                joining.setdefault(place, []).append(item[0])
            else:
                runnable.append(item)
        settled.parked += [Parking(place, None, "", tuple(entries)) for place, entries in joining.items()]
        return runnable

    async def _places(self, bell: Bell, items: Sequence[Item]) -> Places:
        contacts = await contacts_of(self._database, bell.tenant, chats_of(items, bell.parked))
        return Places(items, bell.parked, contacts)

    async def _all_or_each(self, bell: Bell, items: Sequence[Item], settled: Settled, tally: _Tally) -> None:
        try:
            settled.deliver |= await self._commit(bell.tenant, items, tally)
            settled.handled += [entry for entry, _ in items]
        except Unavailable:
            raise
        except Exception as exc:  # noqa: BLE001 (whatever an entry does, its neighbours go on)
            places = await self._places(bell, items)
            if len(items) == 1:
                self._park(places.of(items[0][1]), items, exc, settled)
            else:
                log.warning("turn_taken_apart", tenant=bell.tenant, entries=len(items), reason=_reason(exc))
                await self._each(bell.tenant, items, places, settled, tally)

    async def _each(
        self, tenant: TenantId, items: Sequence[Item], places: Places, settled: Settled, tally: _Tally
    ) -> None:
        """Handle entries one by one; from the first that fails on, its chat waits.

        Not chat by chat: two ids of one person are two chats here, and one conversation in the store.
        """
        waiting: dict[ChatId, tuple[Exception, list[Item]]] = {}
        for item in sorted(items, key=lambda item: item[1].order):
            place = places.of(item[1])
            if place in waiting:
                waiting[place][1].append(item)
                continue
            try:
                settled.deliver |= await self._commit(tenant, [item], tally)
                settled.handled.append(item[0])
            except Unavailable:
                raise
            except Exception as exc:  # noqa: BLE001 (see above)
                waiting[place] = (exc, [item])
        for place, (fault, group) in waiting.items():
            self._park(place, group, fault, settled)

    def _park(self, place: ChatId, items: Sequence[Item], exc: Exception, settled: Settled) -> None:
        culprit = items[0]
        ENTRIES.labels("parked").inc(len(items))
        log.error(
            "entry_failed", tenant=culprit[1].tenant, entry=culprit[0].id, reason=_reason(exc), exc_info=exc
        )
        settled.parked.append(Parking(place, culprit[0].id, _reason(exc), tuple(entry for entry, _ in items)))

    async def _commit(self, tenant: TenantId, items: Sequence[Item], tally: _Tally) -> bool:
        """Handle events in one transaction. Returns whether somebody is to be told something."""
        now = self._clock()
        oldest = milliseconds(now - self._stale_after)
        stale: list[Event] = []
        current: list[Event] = []
        for entry, event in items:
            (stale if _stale(entry, event, oldest) else current).append(event)
        written_at = (moment(event.order.sent_at_ms) for event in current if isinstance(event, HistoryEvent))
        await self._months.cover(now, *written_at)
        async with open_lane(self._database, tenant, now, self._pace) as lane:
            fresh = await lane.first_seen(current, stale)
            statuses = [event for event in fresh if isinstance(event, SessionStatusReported)]
            lane.keep(stale, stale=True)
            lane.keep([*statuses, *(event for event in fresh if isinstance(event, Kept))])
            lane.observe(statuses)
            lane.hear(fresh)
            written = [event for event in fresh if isinstance(event, HistoryEvent)]
            asked = [event for event in fresh if isinstance(event, _ASKED)]
            sends = [event for event in fresh if isinstance(event, SendAsked)]
            steps = await self._decided(lane, written, asked, sends, now) if written or asked or sends else []
            lane.note_acks([event for event in fresh if isinstance(event, MessageAcked)])
        for lock in lane.locks:
            locks.tell(*lock)
        PEOPLE.labels("merged").inc(lane.merged)
        PEOPLE.labels("conflict").inc(lane.conflicts)
        if lane.conflicts:
            log.warning("ids_in_conflict", tenant=tenant, count=lane.conflicts)
        effects = sum(isinstance(step, Effect) for step in steps)
        for event in fresh:
            if not (isinstance(event, MessageReceived) and event.backfilled):
                EVENT_AGE.observe(max(0.0, now.timestamp() - event.order.stamped_at_ms / 1000))
        for event in fresh:
            if isinstance(event, TimerDue):
                kind = event.kind if event.kind in _KINDS else "other"
                TIMERS.labels(kind, "fired" if event.timer in lane.fired else "gone").inc()
        _count(tally, _Tally(len(fresh), len(current) - len(fresh), len(stale), effects, len(sends)))
        return effects > 0 or any(not isinstance(step, Record) for step in steps)

    async def _decided(
        self,
        lane: Lane,
        written: Sequence[HistoryEvent],
        asked: Sequence[Event],
        sends: Sequence[SendAsked],
        now: datetime,
    ) -> list[Step]:
        """Decide on fresh events, and write what follows."""
        events = [*written, *asked, *sends]
        said = [event for event in sends if is_message(event.content)]
        chats = await lane.chats(events, {event.chat: chat_kind(event.chat) for event in (*written, *said)})
        await lane.set(asked)
        authors = lane.authors(written, chats)
        line, known = lane.line(), await lane.known(sends, chats, authors)
        answer_since_ms = milliseconds(now - self._answer_within)
        steps = decide(
            events,
            chats,
            line,
            frozenset(authors),
            answer_since_ms=answer_since_ms,
            known=known,
            bot=lane.bot,
            fired=lane.fired,
        )
        await lane.perform(steps, chats, line)
        lane.note_own(steps)
        lasting = [
            event
            for event in asked
            if (isinstance(event, Asked) and isinstance(event.what, Ask) and event.what.is_lasting)
            or (isinstance(event, TimerDue) and event.kind in SWEEPING)
        ]
        fired = lane.fired
        for _ in range(_LOOKS):
            if not line.short:
                break
            line = await lane.line_again()
            more = decide(lasting, {}, line, frozenset(), fired=fired)
            await lane.perform(more, {}, line)
            steps += more
        return steps


def _count(tally: _Tally, more: _Tally) -> None:
    """Add one commit's figures to the turn's and to the metrics."""
    for name, number in msgspec.to_builtins(more).items():
        setattr(tally, name, getattr(tally, name) + number)
    ENTRIES.labels("recorded").inc(more.recorded)
    ENTRIES.labels("stale").inc(more.stale)
    ENTRIES.labels("duplicate").inc(more.duplicates)


def _read(tenant: TenantId, entry: Entry) -> Event:
    return waha.read(
        entry.body,
        tenant=tenant,
        session=entry.session,
        origin=entry.origin,
        entry=EntryId(entry.id),
        received_at_ms=entry.received_at_ms,
    )


def _stale(entry: Entry, event: Event, oldest_ms: int) -> bool:
    return entry.origin in _OF_WAHA and event.order.stamped_at_ms < oldest_ms


def _reason(exc: Exception) -> str:
    """Name a fault without its text, which may quote what a customer wrote."""
    return type(exc).__name__
