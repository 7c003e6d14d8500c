"""The lane: one tenant's transaction under his advisory lock, as a turn uses it.

Turns, claims and settlements of one tenant are one after the other, whatever leases say: two may be alive,
the second waits for the lock and finds only duplicates. Everything that decides is handed its time.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from psycopg.types.json import Json

from wsm.core.attendance import Did, Effect, Line, Spot
from wsm.core.conversation import State
from wsm.core.errors import NotFound
from wsm.core.events import ChatKind, Event, MessageAcked, MessageReceived, Order, SessionStatusReported
from wsm.core.ids import BareId, ChatId, SessionName, TenantId
from wsm.core.outbox import NOTICE_LIFETIME
from wsm.core.turn import Chats, Conversation, Record, Step
from wsm.store import history
from wsm.store.database import Database, Transaction, clean

_INTENT_OF = {Did.TELL_TURN: "turn", Did.TELL_PLACE: "place"}
_STATE_AFTER = {
    Did.OPENED_SERVED: State.SERVED,
    Did.OPENED_WAITING: State.WAITING,
    Did.SERVED: State.SERVED,
    Did.CLOSED: State.CLOSED,
}


@asynccontextmanager
async def locked(database: Database, tenant: TenantId, now: datetime) -> AsyncIterator[Transaction]:
    """Open a tenant's transaction that holds his lock until it ends.

    The lock is a statement of its own: what is read after it is what the last holder committed. Waits up to
    5 s for another turn, claim or settlement of the same tenant; raises LaneBusy then, StoreUnavailable when
    the database is away.
    """
    async with database.transaction(tenant, now) as transaction:
        await transaction.run("lock_lane")
        yield transaction


@asynccontextmanager
async def open_lane(database: Database, tenant: TenantId, now: datetime) -> AsyncIterator["Lane"]:
    """Open the locked transaction of one turn. Raises what `locked` raises."""
    async with locked(database, tenant, now) as transaction:
        rows = await transaction.rows("sessions_of_tenant")
        yield Lane(transaction, {row.name: row.id for row in rows})


async def contacts_of(database: Database, tenant: TenantId, aliases: Iterable[str]) -> Mapping[str, int]:
    """Return the contacts of those aliases that have one. Raises StoreUnavailable."""
    async with database.transaction(tenant) as transaction:
        rows = await transaction.rows("contacts_by_alias", aliases=list(aliases))
        return {row.alias: row.contact_id for row in rows}


class Lane:
    """What a turn reads and writes. Every method may raise StoreUnavailable; nothing is kept then."""

    def __init__(self, transaction: Transaction, sessions: Mapping[SessionName, int]) -> None:
        self._transaction = transaction
        self._sessions = sessions
        self._queue = 0
        self._tickets: dict[int, int] = {}
        self._handled: dict[int, Order] = {}

    async def first_seen(self, events: Sequence[Event]) -> list[Event]:
        """Return the events that count for the first time, and mark them as seen."""
        distinct = {(self._session(event.session), event.key): event for event in reversed(events)}
        fresh = await self._transaction.rows(
            "first_seen",
            sessions=[session for session, _ in distinct],
            keys=[key for _, key in distinct],
        )
        return [distinct[row.session_id, row.key] for row in fresh]

    async def chats(self, events: Sequence[Event], kinds: Mapping[ChatId, ChatKind]) -> Chats:
        """Find or make the conversation of every chat among `events`.

        A twin id in a direct chat's message makes both ids aliases of one contact from then on; elsewhere it
        is a member's. An ask to close a chat that nobody ever wrote in makes nothing.
        """
        messages = [
            event
            for event in events
            if isinstance(event, MessageReceived) and kinds[event.chat] is ChatKind.DIRECT
        ]
        twins = {event.chat: event.twin for event in messages if event.twin}
        names = {event.chat: event.push_name for event in messages if event.push_name and not event.from_me}
        chats = sorted({(event.session, event.chat) for event in events if event.chat is not None})
        written = {event.chat for event in events if event.chat in kinds}
        aliases = [*{chat for _, chat in chats}, *twins.values()]
        rows = await self._transaction.rows("contacts_by_alias", aliases=aliases)
        contacts = {row.alias: row.contact_id for row in rows}
        added: dict[str, int] = {}
        for chat in sorted({chat for _, chat in chats}):
            both = [alias for alias in (chat, twins.get(chat)) if alias]
            contact = next((contacts[alias] for alias in both if alias in contacts), None)
            if contact is None and chat in written:
                name = clean(names[chat]) if chat in names else None
                contact = (await self._transaction.row("add_contact", name=name)).id
            if contact is not None:
                added |= {alias: contact for alias in both if alias not in contacts}
                contacts |= added
        if added:
            await self._transaction.run("add_aliases", aliases=list(added), contacts=list(added.values()))
        return await self._conversations([pair for pair in chats if pair[1] in contacts], contacts, kinds)

    async def _conversations(
        self,
        chats: Sequence[tuple[SessionName, ChatId]],
        contacts: Mapping[str, int],
        kinds: Mapping[ChatId, ChatKind],
    ) -> Chats:
        """Two ids of one contact are one conversation; the id seen last is the one that is answered."""
        one_each = {(self._session(session), contacts[chat]): chat for session, chat in chats}
        rows = await self._transaction.rows(
            "conversations_of_contacts",
            sessions=[session for session, _ in one_each],
            contacts=[contact for _, contact in one_each],
            chats=list(one_each.values()),
            kinds=[kinds.get(chat, ChatKind.DIRECT) for chat in one_each.values()],
        )
        found = {}
        for row in rows:
            handled = Order(
                row.handled_sent_ms, row.handled_stamped_ms, (row.handled_entry_ms, row.handled_entry_n)
            )
            self._handled[row.id] = handled
            conversation = Conversation(row.id, ChatKind(row.kind), State(row.state), handled)
            found[row.session_id, row.contact_id] = conversation
        return {(name, chat): found[self._session(name), contacts[chat]] for name, chat in chats}

    async def line(self) -> Line:
        """Read the tenant's line: the open tickets of his queue, in order of entry."""
        queue = await self._transaction.row("queue_of_tenant")
        self._queue = queue.id
        rows = await self._transaction.rows("open_line", queue=queue.id)
        self._tickets = {row.conversation_id: row.id for row in rows}
        return Line(queue.capacity, [Spot(row.conversation_id, State(row.state)) for row in rows])

    async def own_ids(self, events: Iterable[Event]) -> frozenset[BareId]:
        """Return which of the own messages among `events` wsm itself has reserved or sent."""
        ids = [event.id for event in events if isinstance(event, MessageReceived) and event.from_me]
        rows = await self._transaction.rows("reserved_of", ids=ids) if ids else []
        return frozenset(row.reserved_id for row in rows)

    async def perform(self, steps: Sequence[Step], chats: Chats) -> None:
        """Write what was decided, in its order."""
        records: list[tuple[Record, int | None]] = []
        states: dict[int, State] = {}
        for step in steps:
            if isinstance(step, Record):
                records.append((step, self._tickets.get(step.conversation)))
            else:
                await self._effect(step)
                if step.did in _STATE_AFTER:
                    states[step.conversation] = _STATE_AFTER[step.did]
        await history.write(self._transaction, self._sessions, records)
        moved = {chat.id: chat.handled for chat in chats.values() if chat.handled != self._handled[chat.id]}
        await self._transaction.many("move_conversation", [_handled(*item) for item in moved.items()])
        changed = [{"id": conversation, "state": state} for conversation, state in states.items()]
        await self._transaction.many("set_state", changed)

    async def _effect(self, effect: Effect) -> None:
        ticket = self._tickets.get(effect.conversation)
        if effect.did in _INTENT_OF:
            await self._intend(effect, ticket)
            return
        if effect.did in {Did.OPENED_SERVED, Did.OPENED_WAITING}:
            row = await self._transaction.row(
                "open_ticket",
                queue=self._queue,
                conversation=effect.conversation,
                state=_STATE_AFTER[effect.did],
            )
            ticket = self._tickets[effect.conversation] = row.id
        elif effect.did is Did.SERVED:
            await self._transaction.run("serve_ticket", ticket=ticket)
        else:
            await self._transaction.run("close_ticket", ticket=ticket, by=effect.by)
            del self._tickets[effect.conversation]
        await self._transaction.run(
            "write_audit",
            what=effect.did,
            conversation=effect.conversation,
            ticket=ticket,
            detail=Json({"by": effect.by} if effect.by else {}),
        )

    async def _intend(self, effect: Effect, ticket: int | None) -> None:
        """Write an intent. A place that is still to be told is told once, with the number it then has."""
        intent = _INTENT_OF[effect.did]
        mark = f":{self._transaction.now.timestamp():.6f}" if intent == "place" else ""
        await self._transaction.run(
            "add_intent",
            conversation=effect.conversation,
            ticket=ticket,
            intent=intent,
            key=f"{intent}:{ticket}{mark}",
            expires_at=self._transaction.now + NOTICE_LIFETIME,
        )

    async def keep(self, events: Iterable[Event], *, stale: bool = False) -> None:
        """Keep events of the session, or stale ones of any kind, as they came. Repeats are one row."""
        rows = [
            {
                "session": self._session(event.session),
                "name": clean(event.name),
                "chat": clean(event.chat) if event.chat else None,
                "key": event.key,
                "at": history.moment(event.order.stamped_at_ms),
                "stale": stale,
                "raw": event.raw,
            }
            for event in events
        ]
        await self._transaction.many("keep_event", rows)

    async def note_acks(self, acks: Sequence[MessageAcked]) -> None:
        """Keep acks, also of messages not known yet; one of an own message is evidence that it has left."""
        rows = [
            {
                "session": self._session(ack.session),
                "from_me": ack.from_me,
                "bare_id": ack.id,
                "participant": ack.participant or "",
                "level": ack.level,
                "at": history.moment(ack.order.stamped_at_ms),
            }
            for ack in acks
        ]
        await self._transaction.many("add_ack", rows)
        for ack in acks:
            if ack.from_me and ack.level >= 0:
                await history.settle_by_id(self._transaction, self._session(ack.session), ack.id)

    async def note_own(self, steps: Iterable[Step]) -> None:
        """Take own messages among `steps` as evidence for intents in doubt."""
        for step in steps:
            if isinstance(step, Record) and isinstance(step.event, MessageReceived) and step.event.from_me:
                event, session = step.event, self._session(step.event.session)
                text = clean(event.body)
                await history.settle_by_echo(self._transaction, session, step.conversation, event.id, text)

    async def observe(self, events: Iterable[SessionStatusReported]) -> None:
        """Remember the newest status of each session."""
        rows = [
            {
                "session": self._session(event.session),
                "status": clean(event.status),
                "at_ms": event.at_ms,
                "engine": event.engine,
            }
            for event in events
        ]
        await self._transaction.many("observe_session", rows)

    def _session(self, name: SessionName) -> int:
        try:
            return self._sessions[name]
        except KeyError:
            raise NotFound(f"tenant {self._transaction.tenant} has no session {name}") from None


def _handled(conversation: int, handled: Order) -> dict[str, int]:
    return {
        "id": conversation,
        "sent_ms": handled.sent_at_ms,
        "stamped_ms": handled.stamped_at_ms,
        "entry_ms": handled.entry[0],
        "entry_n": handled.entry[1],
    }
