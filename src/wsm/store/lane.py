"""The lane: one tenant's transaction under his advisory lock, as a turn uses it.

Turns, claims and settlements of one tenant are one after the other, whatever leases say: two may be alive,
the second waits for the lock and finds only duplicates. Everything that decides is handed its time.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from wsm.core.asks import Asked, SetAgent
from wsm.core.attendance import Line
from wsm.core.bot import Bot
from wsm.core.conversation import State
from wsm.core.errors import NotFound
from wsm.core.events import (
    ChatKind,
    CloseAsked,
    Event,
    HiddenIdsTold,
    HistoryEvent,
    MessageAcked,
    MessageReceived,
    Order,
    SendAsked,
    SessionStatusReported,
    TimerDue,
)
from wsm.core.ids import BareId, ChatId, SessionAddress, SessionName, TenantId
from wsm.core.moments import milliseconds, moment
from wsm.core.outbox import RATE_LIMITED, REACHOUT_TIMELOCK, Lock
from wsm.core.pacing import Pace
from wsm.core.tickets import Effect
from wsm.core.timers import Fired
from wsm.core.turn import Chats, Conversation, Known, Record, Send, Step, Wished
from wsm.store import history, intents, paces, people
from wsm.store.aftermath import AftermathWriter
from wsm.store.database import Database, Transaction, clean, listed
from wsm.store.history import Evidence
from wsm.store.people import People
from wsm.store.tickets import Tickets

_MOVING = HistoryEvent | CloseAsked | SendAsked | Asked | TimerDue | HiddenIdsTold
_LOCKING = {"463": REACHOUT_TIMELOCK, "429": RATE_LIMITED}
"""The codes of error acks by which WhatsApp holds a number back."""
_HEARD_STEP_MS = 10_000
"""By how much the mark of what was heard moves at least: a catch-up begins well before it anyway."""


@asynccontextmanager
async def locked(database: Database, tenant: TenantId, now: datetime) -> AsyncIterator[Transaction]:
    """Open a tenant's transaction that holds his lock until it ends.

    The lock is a statement of its own, sent ahead of the first query: what is read after it is what the last
    holder committed. That query waits up to 5 s for another turn, claim or settlement of the same tenant; it
    raises LaneBusy then, StoreUnavailable when the database is away.
    """
    async with database.transaction(tenant, now, at_once=False) as transaction:
        transaction.later("lock_lane")
        yield transaction


@asynccontextmanager
async def open_lane(database: Database, tenant: TenantId, now: datetime, pace: Pace) -> AsyncIterator["Lane"]:
    """Open the locked transaction of one turn. Raises what `locked` raises."""
    async with locked(database, tenant, now) as transaction:
        yield Lane(transaction, pace)


async def contacts_of(database: Database, tenant: TenantId, aliases: Iterable[str]) -> Mapping[str, int]:
    """Return the contacts of those aliases that have one. Raises StoreUnavailable."""
    async with database.transaction(tenant) as transaction:
        rows = await transaction.rows("contacts_by_alias", aliases=list(aliases))
        return {row.alias: row.contact_id for row in rows}


class Lane:
    """What a turn reads and writes. locks: what it has learned of WhatsApp's.

    It is read in one round trip (`first_seen`), one more when somebody is new or enters the line, and again
    when two contacts have become one; what is written travels with COMMIT. So everything here may raise
    StoreUnavailable, the end of the lane too; nothing is kept then.
    """

    def __init__(self, transaction: Transaction, pace: Pace) -> None:
        self._transaction = transaction
        self._pace = pace
        self.locks: list[tuple[SessionAddress, Lock, datetime]] = []
        self._sessions: dict[SessionName, int] = {}
        self._engines: dict[SessionName, str | None] = {}
        self._heard_ms: dict[SessionName, int] = {}
        self._numbers: dict[tuple[int, str], int] = {}
        self._people = People(transaction)
        self._reads: list[tuple[str, dict[str, Any]]] = []
        self._evidence = Evidence(transaction, ())
        self._tickets = Tickets(transaction)
        self._aftermath = AftermathWriter(transaction, self._tickets)
        self._entrances: dict[SessionName, int] = {}
        self._found: dict[int, tuple[State, ChatId, Order, bool, ChatId]] = {}
        self._made: set[int] = set()

    async def first_seen(self, events: Sequence[Event], stale: Sequence[Event] = ()) -> list[Event]:
        """Return the events that count for the first time, and mark them as seen.

        Reads everything that a turn of these events needs on the way. stale: what is only kept.
        """
        distinct = {(event.session, event.key): event for event in reversed(events)}
        ordered = sorted(distinct.values(), key=lambda event: event.order)
        seen = [
            {"place": place, "session": event.session, "key": event.key, "month": history.month_of(event)}
            for place, event in enumerate(ordered)
        ]
        names = list({event.session for event in (*events, *stale)})
        moving = [event for event in events if isinstance(event, _MOVING)]
        if moving:
            aliases = people.aliases(moving)
            self._reads = [self._people.asks(names, aliases), *self._tickets.asks(moving, names, aliases)]
        if own := history.evidence_in(events):
            self._reads.append(("evidence", {"seen": listed(own)}))
        answers = await self._read(
            ("sessions_of_tenant", {"names": names}), ("first_seen", {"events": listed(seen)}), *self._reads
        )
        self._sessions = {row.name: row.id for row in answers["sessions_of_tenant"]}
        self._engines = {row.name: row.engine for row in answers["sessions_of_tenant"]}
        self._heard_ms = {row.name: row.heard_ms for row in answers["sessions_of_tenant"] if row.caught_up}
        for name in names:
            self._session(name)
        self._entrances = {row.name: row.queue_id for row in answers["sessions_of_tenant"] if row.queue_id}
        self._tickets.took(answers)
        self._numbers = {(row.session_id, row.key): row.message_id for row in answers["first_seen"]}
        return [event for event in ordered if (self._sessions[event.session], event.key) in self._numbers]

    async def _read(self, *asked: tuple[str, dict[str, Any]]) -> dict[str, list[Any]]:
        """Read what a turn needs, in one round trip."""
        rows = await self._transaction.each(*asked)
        answers = dict(zip((name for name, _ in asked), rows, strict=True))
        self._people.took(answers.get("known_chats", []))
        self._evidence = Evidence(self._transaction, answers.get("evidence", []))
        return answers

    async def chats(self, events: Sequence[Event], kinds: Mapping[ChatId, ChatKind]) -> Chats:
        """Find or make the conversation of every chat among `events`, which are among those first seen.

        Ids that turn out to be one person's are one contact's from then on: two contacts that were known by
        them, with all that hangs on them, become one. kinds: of the chats that are made if they are new.
        """
        if merged := await self._people.learn(events):
            again = [(name, values) for name, values in self._reads if name != "take_timers"]
            self._tickets.became(merged, await self._read(*again))
        talks = await self._people.talks(events, kinds, self._sessions)
        opted_out, self._made = self._people.opted_out, talks.made
        found: dict[tuple[int, int], Conversation] = {}
        for pair, answered in talks.answered.items():
            row = talks.rows[pair]
            handled, heard = people.handled(row), row.heard_at is not None
            self._found[row.id] = (State(row.state), row.chat_id, handled, heard, answered)
            found[pair] = Conversation(
                row.id,
                ChatKind(row.kind),
                State(row.state),
                handled,
                heard,
                pair[1] in opted_out,
                self._tickets.talk(row),
            )
        return {at: found[pair] for at, pair in talks.of.items()}

    def line(self) -> Line:
        """Return the tenant's line, as far as the events that were read may move it."""
        return self._tickets.line(self._entrances)

    async def set(self, events: Sequence[Event]) -> None:
        """Make or change the agents that these events ask for, before the line is looked at."""
        what = [event.what for event in events if isinstance(event, Asked)]
        if agents := [each for each in what if isinstance(each, SetAgent)]:
            await self._tickets.set(agents)

    @property
    def fired(self) -> Mapping[int, Fired]:
        """The timers whose time has come, by their numbers."""
        return self._tickets.fired

    @property
    def merged(self) -> int:
        """How many contacts became others."""
        return self._people.merged

    @property
    def conflicts(self) -> int:
        """How many ids could not be one person's, though something said so."""
        return self._people.conflicts

    @property
    def bot(self) -> Bot | None:
        """How the tenant's bot behaves, None if nobody answers by himself."""
        return self._tickets.bot

    async def line_again(self) -> Line:
        """Return the line as it is after what was performed."""
        return await self._tickets.again(self._entrances)

    async def known(self, sends: Sequence[SendAsked], chats: Chats, authors: Mapping[BareId, str]) -> Known:
        """Find what has to be known of what is sent, or asked to be sent; authors as below."""
        targets = await intents.targets(self._transaction, sends, chats)
        return Known(self._engines, targets, frozenset(id_ for id_ in authors if authors[id_] == "agent"))

    def authors(self, events: Iterable[Event], chats: Chats) -> Mapping[BareId, str]:
        """Tell who speaks in which own messages that wsm itself has reserved ids for, sent, or is sending."""
        own = (event for event in events if isinstance(event, MessageReceived) and event.from_me)
        said = ((self._session(each.session), chats.get((each.session, each.chat)), each) for each in own)
        return self._evidence.authors(said)

    async def perform(self, steps: Sequence[Step], chats: Chats, line: Line) -> None:
        """Write what was decided, in its order, and where the line is now."""
        states = dict(await self._tickets.keep(line))
        records: list[tuple[Record, int | None]] = []
        telling: list[dict[str, Any]] = []
        for step in steps:
            if isinstance(step, Record):
                records.append((step, self._tickets.ticket(step.conversation)))
            elif isinstance(step, Wished):
                telling += await intents.wished(self._transaction, step, len(telling))
            elif isinstance(step, Send) or (isinstance(step, Effect) and step.did in intents.NOTICES):
                row = intents.row(step, self._tickets.ticket(step.conversation), self._transaction.now)
                telling.append({"place": len(telling), **row})
            elif isinstance(step, Effect):
                self._tickets.follow(step)
            elif told := self._aftermath.take(step, line):
                self._tickets.note(told)
        history.write(self._transaction, self._sessions, self._numbers, records)
        self._tickets.write_audit()
        for conversation in {chat.id: chat for chat in chats.values()}.values():
            states.pop(conversation.id, None)
            self._keep_conversation(conversation)
        for number, state in states.items():
            self._transaction.later("set_state", id=number, state=state)
        if telling:  # whoever has written is known to have by now
            self._transaction.later("add_intents", intents=listed(telling))
        self._aftermath.follow([step for step in steps if isinstance(step, Effect)], line)

    def _keep_conversation(self, conversation: Conversation) -> None:
        """Write a conversation that has moved, or is now answered under another id."""
        state, answered, handled, heard, chat = self._found[conversation.id]
        if conversation.heard and not heard and conversation.id not in self._made:
            self._transaction.later("warm_up", conversation=conversation.id)
        now_is = (conversation.state, conversation.handled, conversation.heard, chat)
        if now_is != (state, handled, heard, answered):
            its = conversation.handled
            self._transaction.later(
                "move_conversation",
                id=conversation.id,
                state=conversation.state,
                chat=chat,
                sent_ms=its.sent_at_ms,
                stamped_ms=its.stamped_at_ms,
                entry_ms=its.entry[0],
                entry_n=its.entry[1],
                heard=conversation.heard,
            )

    def keep(self, events: Iterable[Event], *, stale: bool = False) -> None:
        """Keep events of the session, or stale ones of any kind, as they came. Repeats are one row."""
        for event in events:
            self._transaction.later(
                "keep_event",
                session=self._session(event.session),
                name=clean(event.name),
                chat=clean(event.chat) if event.chat else None,
                key=event.key,
                at=moment(event.order.stamped_at_ms),
                stale=stale,
                raw=event.raw,
            )

    def note_acks(self, acks: Iterable[MessageAcked]) -> None:
        """Keep acks, also of messages not known yet; one of an own message is evidence that it has left."""
        for ack in acks:
            session = self._session(ack.session)
            self._transaction.later(
                "add_ack",
                session=session,
                from_me=ack.from_me,
                bare_id=ack.id,
                participant=ack.participant or "",
                level=ack.level,
                at=moment(ack.order.stamped_at_ms),
                code=ack.code and clean(ack.code),
                reason=ack.reason and clean(ack.reason),
            )
            if ack.from_me and ack.code in _LOCKING and ack.level < 0:
                self._lock(ack.session, _LOCKING[ack.code], ack.until_ms)
            if ack.from_me and ack.level >= 0:
                self._evidence.by_id(session, ack.id)

    def note_own(self, steps: Iterable[Step]) -> None:
        """Take own messages among `steps` as evidence for intents in doubt."""
        for step in steps:
            if isinstance(step, Record) and isinstance(step.event, MessageReceived) and step.event.from_me:
                session = self._session(step.event.session)
                self._evidence.by_echo(session, step.conversation, step.event)

    def observe(self, events: Iterable[SessionStatusReported]) -> None:
        """Remember the newest status of each session."""
        for event in events:
            self._transaction.later(
                "observe_session",
                session=self._session(event.session),
                status=clean(event.status),
                at_ms=event.at_ms,
                engine=event.engine,
                returned=not event.locked,
            )
            if event.locked:
                self._lock(event.session, REACHOUT_TIMELOCK, event.locked_until_ms)

    def _lock(self, name: SessionName, why: str, until_ms: int | None) -> None:
        """Remember that WhatsApp holds a number back."""
        lock = Lock(why, None if until_ms is None else moment(until_ms))
        until = paces.freeze(self._transaction, self._session(name), self._pace, lock)
        self.locks.append((SessionAddress(self._transaction.tenant or TenantId(0), name), lock, until))

    def hear(self, events: Iterable[Event]) -> None:
        """Remember the newest message that came in through each session, own ones too, not fetched ones.

        While a session has something to catch up with its mark stays: from there on it is fetched.
        """
        newest: dict[SessionName, int] = {}
        for event in events:
            if isinstance(event, MessageReceived) and not event.backfilled:
                newest[event.session] = max(newest.get(event.session, 0), event.order.sent_at_ms)
        now_ms = milliseconds(self._transaction.now)
        for name, sent_at_ms in newest.items():
            at_ms = min(sent_at_ms, now_ms)
            if name in self._heard_ms and at_ms - self._heard_ms[name] >= _HEARD_STEP_MS:
                self._transaction.later("hear", id=self._session(name), at_ms=at_ms)

    def _session(self, name: SessionName) -> int:
        try:
            return self._sessions[name]
        except KeyError:
            raise NotFound(f"tenant {self._transaction.tenant} has no session {name}") from None
