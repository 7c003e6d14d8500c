"""The history of a chat: rows that a turn records, and own messages as they become known to have left."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import msgspec

from wsm.core.content import OTHER_WORDS, SendClass
from wsm.core.engines import heard_as
from wsm.core.events import (
    Event,
    HistoryEvent,
    MessageAcked,
    MessageEdited,
    MessageReacted,
    MessageReceived,
    MessageRevoked,
    PollVoted,
    Source,
)
from wsm.core.ids import BareId, SessionName
from wsm.core.moments import milliseconds, moment
from wsm.core.outbox import IntentState
from wsm.core.turn import Conversation, Record
from wsm.store.database import Transaction, clean, listed
from wsm.wire.waha import message_key

_DOUBTFUL = frozenset({IntentState.SENDING, IntentState.INDETERMINATE})


def write(
    transaction: Transaction,
    sessions: Mapping[SessionName, int],
    numbers: Mapping[tuple[int, str], int],
    records: Sequence[tuple[Record, int | None]],
) -> None:
    """Put rows of history into the transaction, each with the ticket that was open when it was handled.

    numbers  the rows' ids by session and key, as `first_seen` gave them out
    """
    rows = []
    for record, ticket in records:
        event = record.event
        session = sessions[event.session]
        rows.append(
            {
                "id": numbers[session, event.key],
                "sent_at": moment(event.order.sent_at_ms),
                "session": session,
                "conversation": record.conversation,
                "ticket": ticket,
                "author": record.author,
                "from_me": event.from_me,
                "bare_id": event.id,
                "late": record.late,
                "stamped_ms": event.order.stamped_at_ms,
                "entry_ms": event.order.entry[0],
                "entry_n": event.order.entry[1],
                "raw": event.raw,
                **_content(record),
            }
        )
    if rows:
        transaction.later("add_messages", messages=listed(rows))


def _content(record: Record) -> dict[str, Any]:
    """The columns that depend on what kind of fact it is."""
    event = record.event
    match event:
        case MessageReceived():
            media = msgspec.to_builtins(event.media) if event.media else None
            return {"kind": event.kind, "body": clean(event.body), "media": media,
                    "participant": event.participant, "target": event.reply_to}  # fmt: skip
        case MessageEdited():
            return {"kind": "edit", "body": clean(event.body), "target": event.target}
        case MessageRevoked():
            return {"kind": "revoke", "body": "", "target": event.target}
        case MessageReacted():
            return {"kind": "reaction", "body": clean(event.text), "target": event.target}
        case PollVoted():
            return {"kind": "vote", "body": clean("; ".join(event.options)), "target": event.target}


class Evidence:
    """The intents that a turn's own messages and acks may show to have left. Rows of the query `evidence`."""

    def __init__(self, transaction: Transaction, rows: Sequence[Any]) -> None:
        self._transaction = transaction
        self._open = [row for row in rows if row.state != IntentState.SENT]
        self._authors = {BareId(row.reserved_id): _author(row) for row in rows if row.reserved_id is not None}

    def authors(
        self, said: Iterable[tuple[int, Conversation | None, MessageReceived]]
    ) -> Mapping[BareId, str]:
        """Tell who speaks in which of the messages that wsm itself has sent, or is sending: agent or bot.

        By their ids; and own messages (`said`, by session and conversation) by their words, where the engine
        takes no ids and the echo came before the answer.
        """
        heard = {
            event.id: next((_author(row) for row in self._saying(session, chat.id, event)), None)
            for session, chat, event in said
            if chat is not None
        }
        return {id_: who for id_, who in heard.items() if who is not None} | self._authors

    def by_id(self, session: int, bare_id: BareId) -> bool:
        """Settle the intent that reserved `bare_id`, if one did: it has left, whatever was believed."""
        return self._settle(
            [row for row in self._open if row.session_id == session and row.reserved_id == bare_id], bare_id
        )

    def by_echo(self, session: int, conversation: int, event: MessageReceived) -> bool:
        """Settle the intent in doubt that an own message is the echo of: by its id, else by what it says."""
        return self.by_id(session, event.id) or self._settle(
            list(self._saying(session, conversation, event)), event.id
        )

    def _saying(self, session: int, conversation: int, event: MessageReceived) -> Iterator[Any]:
        """The intents in doubt that say what an own message says, in the same chat.

        By kind and words, and only where no id is sure to show it: an engine without own ids, a file whose id
        nobody has seen yet. Of a place, a card or a poll the words are another's in each engine: there what
        the API sent is the one of its kind that is in doubt, for one is in flight in a chat.
        """
        by_api, said = event.source is Source.API, (event.kind, clean(event.body))
        for row in self._open:
            there = (row.session_id, row.conversation_id) == (session, conversation)
            kind = heard_as(row.kind)
            same = (kind, row.body) == said or (by_api and kind == event.kind in OTHER_WORDS)
            if there and same and row.reserved_id is None and row.state in _DOUBTFUL:
                yield row

    def _settle(self, found: Sequence[Any], bare_id: BareId) -> bool:
        if not found:
            return False
        self._open = [row for row in self._open if row.id != found[0].id]
        record_sent(self._transaction, found[0].id, bare_id)
        return True


def _author(row: Any) -> str:
    return "agent" if row.intent == SendClass.AGENT else "bot"


def record_sent(transaction: Transaction, intent: int, bare_id: BareId) -> None:
    """Mark an intent as sent under `bare_id` and put it into the history, unless its echo did that already.

    The caller holds the tenant's lock. Repeating it changes nothing.
    """
    transaction.later(
        "record_sent",
        id=intent,
        bare_id=bare_id,
        key=message_key(bare_id, from_me=True),
        sent_at=transaction.now.replace(microsecond=0),  # whole seconds, as the gateways' own
        stamped_ms=milliseconds(transaction.now),
    )


def month_of(event: Event) -> date | None:
    """The month of history that an event becomes a row of, None for one that does not."""
    if not isinstance(event, HistoryEvent):
        return None
    return moment(event.order.sent_at_ms).date().replace(day=1)


def evidence_in(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What may be evidence: the own messages among events, and their acks."""
    return [
        {"session": event.session, "id": event.id}
        for event in events
        if isinstance(event, MessageReceived | MessageAcked) and event.from_me
    ]
