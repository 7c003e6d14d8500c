"""What a run has seen: what was sent and answered, what was kept, what was intended, what arrived.

Written down from the outside: webhooks as WAHA told them, inboxes as the customers have them, rows as the
database's owner reads them. What makes two deliveries one fact is decided here again, apart from `wire`.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from e2e.town import Town
from wsm.sandbox.waha.webhooks import Attempt

_ACTS = {"message.edited": "edit", "message.revoked": "revoke", "message.reaction": "reaction"}
_OK = range(200, 300)


class Fact(NamedTuple):
    """Something that happened once, however often it is told. kind: message, edit, ack, status, close …"""

    kind: str
    session: str
    id: str


class Told(msgspec.Struct, frozen=True):
    """One attempt to tell a fact.

    order        (payload's timestamp in seconds, envelope's in milliseconds)
    began        when the attempt was sent, in seconds of the monotonic clock
    accepted_at  when its 2xx was there; None when no 2xx came
    """

    fact: Fact
    order: tuple[int, int]
    began: float
    accepted_at: float | None


class Row(msgspec.Struct, frozen=True):
    """A fact as it was kept. place: its turn among what was handled; None where no order is kept.

    author  'bot' is wsm, whoever it spoke for
    """

    fact: Fact
    conversation: int | None = None
    author: str = ""
    place: int | None = None


class Asked(msgspec.Struct, frozen=True):
    """Something that somebody asked to send, and that was accepted. sha256: of its file."""

    key: str
    session: str
    who: str
    sha256: str | None = None


class Intent(msgspec.Struct, frozen=True):
    """Something to say. Times are in seconds since 1970.

    claimed_at    every claim of it
    key           under which it was asked for
    opted_out_at  since when its customer wants nothing automatic
    """

    id: int
    session: str
    what: str
    ticket: int | None
    state: str
    bare_id: str | None = None
    text: str = ""
    claimed_at: tuple[float, ...] = ()
    key: str = ""
    expires_at: float | None = None
    opted_out_at: float | None = None


class Arrival(msgspec.Struct, frozen=True):
    """A message of wsm's in a customer's inbox, in seconds since 1970."""

    session: str
    who: str
    id: str
    text: str
    at: float
    sha256: str | None = None


class Pause(msgspec.Struct, frozen=True):
    """A process that was stopped and went on, in seconds since 1970."""

    process: str
    stopped_at: float
    continued_at: float


class Line(msgspec.Struct, frozen=True):
    """The audit of one tenant's line, in the order of its commits."""

    tenant: int
    capacity: int
    audit: Sequence[Any]


class Records(msgspec.Struct, frozen=True):
    """All of a run. acked: answers 2xx, each counted; dead: mailboxes' dead letters."""

    told: Sequence[Told] = ()
    kept: Sequence[Row] = ()
    intents: Sequence[Intent] = ()
    arrivals: Sequence[Arrival] = ()
    pauses: Sequence[Pause] = ()
    lines: Sequence[Line] = ()
    dead: Sequence[str] = ()
    asked: Sequence[Asked] = ()

    @property
    def acked(self) -> int:
        """How many deliveries were answered 2xx."""
        return sum(each.accepted_at is not None for each in self.told)


def told(attempt: Attempt) -> Told:
    """Note an attempt of WAHA's."""
    body = json.loads(attempt.body)
    accepted = attempt.ended if attempt.answer in _OK else None
    sent = body["payload"].get("after") or body["payload"]
    order = (int(sent.get("timestamp") or 0), int(body["timestamp"]))
    return Told(fact_of(body), order, attempt.began, accepted)


def fact_of(body: dict[str, Any]) -> Fact:
    """Say which fact a webhook's body tells."""
    event, session, payload = body["event"], body["session"], body["payload"]
    if event in {"message", "message.any"}:
        return Fact("message", session, _own(payload))
    if event in _ACTS:
        return Fact(_ACTS[event], session, _own(payload.get("after") or payload))
    if event in {"message.ack", "message.ack.group"}:
        reader = payload.get("participant")  # the browsers' acks have none, in direct chats
        return ack(session, payload["fromMe"], _bare(payload["id"]), payload["ack"], reader)
    if event == "session.status":
        return Fact("status", session, f"{payload['status']}/{payload['statuses'][-1]['timestamp']}")
    return Fact("event", session, body["id"])


def ack(session: str, from_me: bool, bare: str, level: int, participant: str | None) -> Fact:
    """Name an ack."""
    return Fact("ack", session, f"{from_me}/{bare}/{level}/{participant or ''}")


def close(session: str, id_: str) -> Fact:
    """Name a command to close a ticket."""
    return Fact("close", session, id_)


def _own(payload: dict[str, Any]) -> str:
    return f"{payload['fromMe']}/{_bare(payload['id'])}"


def _bare(full: str) -> str:
    return full.split("_")[2]


async def kept(at: Town) -> list[Row]:
    """Read what the database has kept."""
    messages = await at.rows(
        "select m.id, s.name as session, m.kind, m.from_me, m.bare_id, m.conversation_id,"
        " case when o.id is null then m.author else 'bot' end as author"
        " from messages m join sessions s on s.id = m.session_id"
        " left join outbox o on m.from_me and o.session_id = m.session_id and o.reserved_id = m.bare_id"
    )
    acks = await at.rows(
        "select s.name as session, a.from_me, a.bare_id, a.level, a.participant"
        " from message_acks a join sessions s on s.id = a.session_id"
    )
    events = await at.rows("select raw from session_events")
    closes = await at.rows(
        "select s.name as session, d.key from inbound_dedupe d join sessions s on s.id = d.session_id"
        " where d.key like 'c|close|%%'"
    )
    rows = []
    for row in messages:
        kind = row.kind if row.kind in _ACTS.values() else "message"
        fact = Fact(kind, row.session, f"{row.from_me}/{row.bare_id}")
        rows.append(Row(fact, row.conversation_id, row.author, row.id))
    rows += [Row(ack(row.session, row.from_me, row.bare_id, row.level, row.participant)) for row in acks]
    rows += [Row(fact_of(json.loads(row.raw))) for row in events]
    rows += [Row(close(row.session, row.key.split("|")[2])) for row in closes]
    return rows


async def intents(at: Town) -> list[Intent]:
    """Read every intent, with its claims."""
    rows = await at.rows(
        "select o.id, s.name as session, o.class as what, o.ticket_id, o.state, o.reserved_id, o.body,"
        " o.intent_key, extract(epoch from o.expires_at)::float8 as expires_at,"
        " extract(epoch from w.opted_out_at)::float8 as opted_out_at,"
        " array(select extract(epoch from a.at)::float8 from audit a where a.tenant_id = o.tenant_id"
        "   and a.what like 'claimed.%%' and (a.detail->>'intent')::bigint = o.id) as claims"
        " from outbox o join sessions s on s.id = o.session_id"
        " join conversations c on c.id = o.conversation_id join contacts w on w.id = c.contact_id"
    )
    return [
        Intent(
            row.id,
            row.session,
            row.what,
            row.ticket_id,
            row.state,
            row.reserved_id,
            row.body or "",
            tuple(row.claims),
            row.intent_key.rpartition("|")[2],
            row.expires_at,
            row.opted_out_at,
        )
        for row in rows
    ]


def arrivals(at: Town) -> list[Arrival]:
    """Read what customers have got from wsm."""
    return [
        Arrival(
            each.session,
            who,
            each.id,
            each.text,
            each.at_ms / 1000,
            each.media.sha256 if each.media else None,
        )
        for who, phone in at.waha.world.phones.items()
        for each in phone.inbox
        if each.source == "api"
    ]
