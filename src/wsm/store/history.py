"""The history of a chat: rows that a turn records, and own messages as they become known to have left."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from psycopg.types.json import Json

from wsm.core.events import MessageEdited, MessageReacted, MessageReceived, MessageRevoked, PollVoted
from wsm.core.ids import BareId, SessionName
from wsm.core.outbox import IntentState
from wsm.core.turn import Record
from wsm.store.database import Transaction, clean
from wsm.wire.waha import message_key


def moment(milliseconds: int) -> datetime:
    """Milliseconds since 1970 as PostgreSQL takes them."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


async def write(
    transaction: Transaction,
    sessions: Mapping[SessionName, int],
    records: Sequence[tuple[Record, int | None]],
) -> None:
    """Insert rows of history, each with the ticket that was open when it was handled."""
    rows = []
    for record, ticket in records:
        event = record.event
        rows.append(
            {
                "sent_at": moment(event.order.sent_at_ms),
                "session": sessions[event.session],
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
                "key": event.key,
                **_content(record),
            }
        )
    await transaction.many("add_message", rows)


def _content(record: Record) -> dict[str, Any]:
    """The columns that depend on what kind of fact it is."""
    event = record.event
    content: dict[str, Any] = {"target": None, "participant": None, "media": None, "body": ""}
    match event:
        case MessageReceived():
            media = Json(msgspec.to_builtins(event.media)) if event.media else None
            content |= {"kind": event.kind, "body": clean(event.body), "media": media}
            content |= {"participant": event.participant, "target": event.reply_to}
        case MessageEdited():
            content |= {"kind": "edit", "body": clean(event.body), "target": event.target}
        case MessageRevoked():
            content |= {"kind": "revoke", "target": event.target}
        case MessageReacted():
            content |= {"kind": "reaction", "body": clean(event.text), "target": event.target}
        case PollVoted():
            content |= {"kind": "vote", "body": clean("; ".join(event.options)), "target": event.target}
    return content


async def settle_by_id(transaction: Transaction, session: int, bare_id: BareId) -> bool:
    """Settle the intent that reserved `bare_id`, if one did: it has left, whatever was believed."""
    row = await transaction.row("unsent_by_id", session=session, bare_id=bare_id)
    if row is None:
        return False
    await record_sent(transaction, row.id, bare_id)
    return True


async def settle_by_echo(
    transaction: Transaction, session: int, conversation: int, bare_id: BareId, text: str
) -> bool:
    """Settle the intent in doubt that an own message is the echo of: by its id, else by its text.

    By text only where no id was reserved: an engine without own ids, and the same chat.
    """
    if await settle_by_id(transaction, session, bare_id):
        return True
    row = await transaction.row("doubtful_by_text", session=session, conversation=conversation, text=text)
    if row is None:
        return False
    await record_sent(transaction, row.id, bare_id)
    return True


async def record_sent(transaction: Transaction, intent: int, bare_id: BareId) -> None:
    """Mark an intent as sent under `bare_id` and put it into the history, unless its echo did that already.

    The caller holds the tenant's lock. Repeating it changes nothing.
    """
    row = await transaction.row("intent_for_settling", id=intent)
    if row is None or row.state == IntentState.SENT:
        return
    await transaction.run(
        "settle_intent", id=intent, state=IntentState.SENT, reason=None, bare_id=bare_id, not_before=None
    )
    if row.place is not None:
        await transaction.run("told_place", ticket=row.ticket_id, place=row.place)
    key = message_key(bare_id, from_me=True)
    if await transaction.row("first_seen", sessions=[row.session_id], keys=[key]) is None:
        return
    milliseconds = int(transaction.now.timestamp() * 1000)
    await transaction.run(
        "add_message",
        sent_at=transaction.now.replace(microsecond=0),  # whole seconds, as the gateways' own
        session=row.session_id,
        conversation=row.conversation_id,
        ticket=row.ticket_id,
        author="bot",
        kind="text",
        from_me=True,
        bare_id=bare_id,
        target=None,
        participant=None,
        body=row.body,
        media=None,
        late=False,
        stamped_ms=milliseconds,
        entry_ms=milliseconds,
        entry_n=0,
        raw=None,
        key=key,
    )
