"""All that the judge reads: what people did, what the phones saw, and what PostgreSQL and Redis kept."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from day.city import Asked, City
from day.journal import Note, notes
from day.people import Wrote
from day.plan import Plan
from wsm.sandbox.waha.ids import owner
from wsm.sandbox.waha.phones import Received

_QUERIES = {
    "tickets": "select t.*, c.session_id, c.chat_id from wsm.tickets t"
    " join wsm.conversations c on c.tenant_id = t.tenant_id and c.id = t.conversation_id order by t.id",
    "intents": "select o.id, o.tenant_id, s.name as session, o.conversation_id, o.class as urgency, o.state,"
    " o.reason, o.reserved_id, o.intent_key, c.chat_id, o.body from wsm.outbox o"
    " join wsm.sessions s on s.tenant_id = o.tenant_id and s.id = o.session_id"
    " join wsm.conversations c on c.tenant_id = o.tenant_id and c.id = o.conversation_id order by o.id",
    "kept": "select m.tenant_id, s.name as session, c.chat_id, m.author, m.bare_id, m.body"
    " from wsm.messages m"
    " join wsm.sessions s on s.tenant_id = m.tenant_id and s.id = m.session_id"
    " join wsm.conversations c on c.tenant_id = m.tenant_id and c.id = m.conversation_id"
    " where m.kind <> 'system' order by m.sent_at, m.stamped_at_ms, m.entry_ms, m.entry_n, m.id",
    "taken": "select key from wsm.inbound_dedupe where key like 'c|%%'",
    "queues": "select * from wsm.queues",
    "sessions": "select tenant_id, id, name from wsm.sessions",
}


class Books(msgspec.Struct, kw_only=True):
    """The books of a day.

    inboxes   by phone number, in the order in which everything came
    tickets, intents, kept, taken, queues, sessions  rows as they are in the end: `kept` is the history in its
              order, `taken` the keys of commands that were
    happened  what became of webhooks on the way, and what went wrong at WAHA
    left      how many entries and dead letters are left in Redis
    errors    what wsm logged as an error
    """

    plan: Plan
    ended_at: datetime
    wrote: Sequence[Wrote]
    asked: Sequence[Asked]
    inboxes: Mapping[str, Sequence[Received]]
    notes: Sequence[Note]
    tickets: Sequence[Any]
    intents: Sequence[Any]
    kept: Sequence[Any]
    taken: Sequence[Any]
    queues: Sequence[Any]
    sessions: Sequence[Any]
    happened: Mapping[str, int]
    left: int
    errors: Sequence[str]


async def books(at: City, wrote: Sequence[Wrote], errors: Sequence[str]) -> Books:
    """Read everything, once all has come to rest."""
    depth = await at.handover.depth()
    return Books(
        plan=at.plan,
        ended_at=at.clock(),
        wrote=wrote,
        asked=at.asked,
        inboxes={who: phone.inbox for who, phone in at.waha.world.phones.items()},
        notes=await notes(at.urls.owner_url),
        happened=at.wire.seen,
        left=depth.entries + depth.dead,
        errors=errors,
        **{name: await at.rows(query) for name, query in _QUERIES.items()},
    )


def whose(chat: str) -> str:
    """The phone number that a chat belongs to, under whatever id it is known."""
    return owner(chat)
