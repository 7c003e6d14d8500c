"""Who is who in one turn: ids become contacts, and contacts that turn out to be one person are merged.

A turn knows the ids that its events name, in every form; whoever they belong to is read with the rest of the
turn. Only where something is learned (an id nobody had, two contacts that are one person) is more asked, and
only where two are merged is the turn read once more. Everything happens in the turn's transaction, under its
tenant's lock: another one sees two people, or one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from wsm.core.conversation import State, Trigger, step
from wsm.core.events import ChatKind, Event, HiddenIdsTold, HistoryEvent, MessageReceived, Order
from wsm.core.ids import ChatId, SessionName
from wsm.core.people import Circle, Standing, Tie, best, circles, forms
from wsm.core.tickets import ConversationId, Did, QueueId, Rank
from wsm.core.timers import OF_TICKETS
from wsm.store.database import Transaction, clean, listed
from wsm.wire.waha_ids import chat_kind

BY = "merge"
"""Who closed a ticket that became another one."""

Pair = tuple[int, int]
"""A session and a contact."""

_LONG = 2_000
"""So many messages take a tenth of a second to move, in which nothing else of the tenant does."""
_COUNTED = 50_000


class Merged(msgspec.Struct):
    """What contacts that became one brought about.

    talks  conversations that went, with those that they became
    gone   tickets that went
    left   queues that somebody left, and from which rank on everyone stands in a new place
    """

    talks: dict[ConversationId, ConversationId] = {}
    gone: set[int] = set()
    left: dict[QueueId, Rank] = {}


class Talks(msgspec.Struct):
    """The conversations of a turn.

    of        the session and contact of each chat that has one
    rows      their rows
    answered  the chat that each is answered under from now on
    made      which were made just now
    """

    of: dict[tuple[SessionName, ChatId], Pair]
    rows: dict[Pair, Any]
    answered: dict[Pair, ChatId]
    made: set[ConversationId]


class People:
    """The contacts of one turn. Its query travels with the lane's own: `asks`, then `took`."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._rows: list[Any] = []
        self._contacts: dict[ChatId, int] = {}
        self._together: dict[ChatId, frozenset[ChatId]] = {}
        self.merged = 0  # contacts that went
        self.conflicts = 0  # ties that would have given somebody another phone, or another hidden id

    def asks(self, names: Sequence[str], aliases: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """Return the query for everybody who is named by one of these ids, in these sessions."""
        return "known_chats", {"names": names, "aliases": aliases}

    def took(self, rows: list[Any]) -> None:
        """Take its answer."""
        self._rows = rows
        self._contacts = {ChatId(row.alias): row.contact_id for row in rows}

    @property
    def opted_out(self) -> set[int]:
        """The contacts who want no automatic messages."""
        return {row.contact_id for row in self._rows if row.opted_out}

    async def learn(self, events: Sequence[Event]) -> Merged | None:
        """Put together who is one person by these events. Returns what was merged, None if nobody was.

        Where somebody was, everything that was read of people and tickets is to be read again.
        """
        ties = [*self._ties(events)]
        if not ties:
            return None
        touched = {self._contacts[alias] for tie in ties for alias in tie if alias in self._contacts}
        rows = await self._transaction.rows("aliases_of", contacts=sorted(touched)) if touched else []
        known = {ChatId(row.alias): row.contact_id for row in rows}
        found, self.conflicts = circles(known, ties)
        self._name(found, known)
        if joined := [circle for circle in found if len(circle.contacts) > 1]:
            return await self._merge(joined)
        return None

    def _name(self, found: Iterable[Circle], known: Mapping[ChatId, int]) -> None:
        """Remember which ids belong to whom from now on; those of people who are new, until they are made."""
        added: dict[ChatId, int] = {}
        for circle in found:
            if circle.contacts:
                added |= dict.fromkeys(sorted(circle.ids - known.keys()), min(circle.contacts))
            else:
                self._together |= dict.fromkeys(circle.ids, frozenset(circle.ids))
        if added:
            self._transaction.later("add_aliases", aliases=list(added), contacts=list(added.values()))
            self._contacts |= added

    def _ties(self, events: Sequence[Event]) -> Iterator[Tie]:
        """Yield what these events tie together and is not known to be one yet, by rule first."""
        contacts, said = self._contacts, [*self._said(events)]
        named = {event.chat for event in events if event.chat and chat_kind(event.chat) is ChatKind.DIRECT}
        named |= {alias for tie in said for alias in tie}
        for alias in sorted(named):
            for other in forms(alias)[1:]:
                mine, its = contacts.get(alias), contacts.get(other)
                if (mine is None and other in named) or (its is not None and mine != its):
                    yield alias, other
        for one, other in said:
            if one not in contacts or contacts[one] != contacts.get(other):
                yield one, other

    def _said(self, events: Sequence[Event]) -> Iterator[Tie]:
        """Yield what events say, the oldest first. Of a gateway's answers those that concern anybody."""
        for event in sorted(events, key=lambda event: event.order):
            if isinstance(event, MessageReceived) and (twin := twin_of(event)):
                yield event.chat, twin
            elif isinstance(event, HiddenIdsTold):
                for lid, phone in event.pairs:
                    if phone and not self._contacts.keys().isdisjoint((lid, *forms(phone))):
                        yield lid, phone

    async def _merge(self, joined: Sequence[Circle]) -> Merged:
        """Make contacts one: the oldest stays, and of a session's conversations the one whose ticket does.

        Where another one's history is long, that one stays: a ticket is moved more quickly.
        """
        into = {gone: min(circle.contacts) for circle in joined for gone in circle.contacts}
        rows = await self._transaction.rows("talks_of", contacts=list(into), counted=_COUNTED)
        groups: dict[Pair, list[Any]] = defaultdict(list)
        for row in rows:
            groups[row.session_id, into[row.contact_id]].append(row)
        merged, tickets, lines = Merged(), {}, []
        for group in groups.values():
            standing = [_standing(row) for row in group if row.ticket is not None]
            stays = best(standing) if standing else None
            kept = _kept(group, stays)
            merged.talks |= {row.id: kept for row in group if row.id != kept}
            for row in group:
                if stays is not None and row.ticket not in (None, stays.ticket):
                    tickets[row.ticket] = stays.ticket
                    lines.append(_ended(row))
                    _leave(row, merged)
        contacts = {gone: kept for gone, kept in into.items() if gone != kept}
        lines += [_became("conversation.merged", gone, kept, gone) for gone, kept in merged.talks.items()]
        lines += [_became("contact.merged", gone, kept) for gone, kept in contacts.items()]
        merged.gone = {*tickets}
        self._write(tickets, merged.talks, contacts, {row.id: into[row.contact_id] for row in rows})
        audit = [{"place": place, **line} for place, line in enumerate(lines)]
        self._transaction.later("write_audit", lines=listed(audit))
        self.merged = len(contacts)
        return merged

    def _write(
        self, tickets: Mapping[int, int], talks: Mapping[int, int], contacts: Mapping[int, int],
        owners: Mapping[int, int],
    ) -> None:  # fmt: skip
        """Write it: what goes by number, with what it becomes."""
        later = self._transaction.later
        if tickets:
            later("end_merged", tickets=_pairs(tickets), kinds=sorted(OF_TICKETS), by=BY)
        if talks:
            its = _pairs(talks)
            for query in ("move_tickets", "move_history", "move_intents", "move_timers", "leave_talks"):
                later(query, talks=its)
            later("keep_talks", talks=its)
        whose = listed([{"talk": talk, "contact": contact} for talk, contact in owners.items()])
        later("merge_contacts", contacts=_pairs(contacts), owners=whose)
        if talks:
            later("warm_merged", talks=its)

    async def talks(
        self,
        events: Sequence[Event],
        kinds: Mapping[ChatId, ChatKind],
        sessions: Mapping[SessionName, int],
    ) -> Talks:
        """Find or make the conversation of every chat among `events`.

        The id heard last is the one that is answered. kinds: of the chats that are made if they are new.
        """
        chats: dict[tuple[SessionName, ChatId], Order | None] = {}
        names: dict[ChatId, str] = {}
        for event in events:
            if event.chat is not None:
                heard = chats.setdefault((event.session, event.chat), None)
                if isinstance(event, HistoryEvent):
                    chats[event.session, event.chat] = max(heard or event.order, event.order)
            if isinstance(event, MessageReceived) and event.push_name and not event.from_me:
                names[event.chat] = event.push_name
        people = self._newcomers(sorted({chat for _, chat in chats}), kinds, names)
        of = {
            (name, chat): (sessions[name], self._contacts[chat])
            for name, chat in sorted(chats)
            if chat in self._contacts
        }
        talks = Talks(of, {(row.session_id, row.contact_id): row for row in self._rows if row.id}, {}, set())
        last: dict[Pair, tuple[Order | None, ChatId]] = {}
        for at, pair in of.items():
            order, (before, _) = chats[at], last.get(pair, (None, at[1]))
            if pair not in last or (order is not None and (before is None or before <= order)):
                last[pair] = (order, at[1])
        await self._make(talks, people, {pair: chat for pair, (_, chat) in last.items()}, kinds)
        for pair, (heard, chat) in last.items():
            row = talks.rows[pair]
            is_newest = heard is not None and heard >= handled(row)
            talks.answered[pair] = chat if is_newest else row.chat_id
        return talks

    def _newcomers(
        self, chats: Iterable[ChatId], kinds: Mapping[ChatId, ChatKind], names: Mapping[ChatId, str]
    ) -> dict[int, tuple[str | None, list[ChatId]]]:
        """Name who is new, by a number below 0 until he has one: his name and his ids."""
        people: dict[int, tuple[str | None, list[ChatId]]] = {}
        for chat in chats:
            if chat in kinds and chat not in self._contacts:
                ids = sorted(self._together.get(chat, {chat}))
                name = next((names[alias] for alias in ids if alias in names), None)
                number = -1 - len(people)
                people[number] = (name and clean(name), ids)
                self._contacts |= dict.fromkeys(ids, number)
        return people

    async def _make(
        self,
        talks: Talks,
        people: Mapping[int, tuple[str | None, list[ChatId]]],
        wanted: Mapping[Pair, ChatId],
        kinds: Mapping[ChatId, ChatKind],
    ) -> None:
        """Make who is new, and the conversations that are missing, in one round trip."""
        asked: list[tuple[str, dict[str, Any]]] = []
        made: list[list[Pair]] = []
        for number, (name, ids) in people.items():
            pairs = [pair for pair in wanted if pair[1] == number]
            chats = [
                {"session": pair[0], "chat": wanted[pair], "kind": kinds.get(wanted[pair], ChatKind.DIRECT)}
                for pair in pairs
            ]
            asked.append(("add_contact", {"name": name, "aliases": ids, "chats": listed(chats)}))
            made.append(pairs)
        for pair, chat in wanted.items():
            if pair[1] >= 0 and pair not in talks.rows:
                kind = kinds.get(chat, ChatKind.DIRECT)
                values = {"session": pair[0], "contact": pair[1], "chat": chat, "kind": kind}
                asked.append(("add_conversation", values))
                made.append([pair])
        rows = await self._transaction.each(*asked) if asked else []
        for pairs, new in zip(made, rows, strict=True):
            by_session = {row.session_id: row for row in new}
            talks.made |= {row.id for row in new}
            talks.rows |= {pair: by_session[pair[0]] for pair in pairs}


def aliases(events: Iterable[Event]) -> list[str]:
    """Name every id, in every form, by which these events may be about somebody."""
    named: set[ChatId] = set()
    for event in events:
        named |= {alias for alias in (event.chat, twin_of(event)) if alias}
        if isinstance(event, HiddenIdsTold):
            named |= {alias for pair in event.pairs for alias in pair if alias}
    return sorted({str(form) for alias in named for form in forms(alias)})


def twin_of(event: Event) -> ChatId | None:
    """Return the other id of a direct chat's correspondent; elsewhere it is a member's."""
    if isinstance(event, MessageReceived) and chat_kind(event.chat) is ChatKind.DIRECT:
        return event.twin
    return None


def handled(row: Any) -> Order:
    """Return the order of the newest message that moved a conversation, by its row."""
    return Order(row.handled_sent_ms, row.handled_stamped_ms, (row.handled_entry_ms, row.handled_entry_n))


def _kept(group: Sequence[Any], stays: Standing | None) -> ConversationId:
    """Choose the conversation that stays: that of the ticket that does, else the oldest; but a long one."""
    first = stays.conversation if stays else group[0].id
    longest = max(group, key=lambda row: (row.messages, row.id == first))
    return int(longest.id if longest.messages > _LONG else first)


def _standing(row: Any) -> Standing:
    return Standing(row.id, row.ticket, State(row.state), (row.rank_at, row.seq), row.served_at)


def _leave(row: Any, merged: Merged) -> None:
    """Let a ticket go: who waits behind it stands in a new place."""
    if row.state == State.WAITING:
        rank = (row.rank_at, row.seq)
        merged.left[row.queue_id] = min(rank, merged.left.get(row.queue_id, rank))


def _ended(row: Any) -> dict[str, Any]:
    """The audit's line of a ticket that became another one."""
    assert step(State(row.state), Trigger.MERGED).next is State.CLOSED
    return {"what": Did.CLOSED, "conversation": row.id, "ticket": row.ticket, "detail": {"by": BY}}


def _became(what: str, gone: int, kept: int, conversation: int | None = None) -> dict[str, Any]:
    """The audit's line of what became another one."""
    return {
        "what": what,
        "conversation": conversation,
        "ticket": None,
        "detail": {"from": gone, "into": kept},
    }


def _pairs(become: Mapping[int, int]) -> str:
    return listed([{"gone": gone, "kept": kept} for gone, kept in become.items()])
