"""The outbox: intents claimed, sent, doubted and settled, under the tenant's lock.

Nothing here calls a gateway: a claim is one transaction, the call is outside of it, the settlement is
another one. What a customer reads is rendered in the claim, from the line as it is in that moment.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from wsm.core.content import Target
from wsm.core.engines import MEDIA, OwnId, takes_id
from wsm.core.errors import NoRoom, Refused, SourceUnavailable, WsmError
from wsm.core.exits import Way
from wsm.core.ids import BareId, ChatId, ServerName, SessionAddress, SessionName, TenantId
from wsm.core.outbox import (
    AGAIN,
    Claimed,
    Composing,
    Doubtful,
    IntentState,
    Loading,
    Lock,
    Outcome,
    delay_of_a_file,
)
from wsm.store import history, paces
from wsm.store.database import Database, Transaction
from wsm.store.lane import locked
from wsm.store.paces import Next, Nothing, Pacing, next_of
from wsm.telemetry import SENDS
from wsm.wire.waha import message_key

_LOOK_AFTER_A_CLAIM = timedelta(seconds=30)
"""When the clock rings again for an intent whose bell was never finished, should everything else fail."""
_HELD = timedelta(seconds=10)
"""How long a session that may not act is left alone: its way out is not confirmed, or its number."""

_FILE_OF_OTHERS = timedelta(seconds=20)
"""How long an intent waits for its file where it is not the file's host that is away."""

_REFUSED_AT_ONCE = 50
_EXPIRED_AT_ONCE = 1_000
"""More of them end in the next transaction: in one, which has its time-outs, they might never end at all, and
the tenant's turns would wait for it."""

Session = tuple[int, SessionAddress, ServerName, Way | None]
"""A session with something to do: its row, its address, its server, and its exit, None if that is direct."""


Found = Claimed | Composing | Loading
"""What is next of a session: a claim, or what has to be done before one is made."""


class Due(msgspec.Struct, frozen=True):
    """A session with work due.

    doubts   some of it is to be looked up
    next     its next intent, or what is to be done for it first, where an id was at hand
    """

    session: Session
    doubts: bool
    next: Found | None


async def survey(
    database: Database,
    tenant: TenantId,
    bell: str,
    reserved: Mapping[int, BareId | None],
    now: datetime,
    pacing: Pacing,
) -> list[Due]:
    """Doubt what another bell left in mid-call, end what expired, and list the sessions with work due.

    reserved  ids at hand, by session (None: its engine has none); where nothing is in doubt the next intent
              of such a session is claimed on the way, as `claim` does

    Who has nothing to do before its time rests until then, and who may not act now is looked at again.
    """
    while True:
        found = await _surveyed(database, tenant, bell, reserved, now, pacing)
        if found is not None:
            return found


async def _surveyed(
    database: Database,
    tenant: TenantId,
    bell: str,
    reserved: Mapping[int, BareId | None],
    now: datetime,
    pacing: Pacing,
) -> list[Due] | None:
    """Do it once. Returns None when more has expired than ends at once."""
    async with locked(database, tenant, now) as transaction:
        transaction.later("abandon", bell=bell, again=sorted(AGAIN))
        over, rows, *nexts = await transaction.each(
            ("expire", {"limit": _EXPIRED_AT_ONCE}),
            ("due_sessions", {}),
            *(pacing.asked(session) for session in reserved),
        )
        for each in over:
            SENDS.labels(each.intent, each.kind, "expired").inc(each.ended)
        if sum(each.ended for each in over) == _EXPIRED_AT_ONCE:
            return None
        asked = dict(zip(reserved, nexts, strict=True))
        found = []
        for row in rows:
            way = Way(row.pool, row.identity) if row.pool is not None else None
            session = (row.id, SessionAddress(tenant, SessionName(row.name)), ServerName(row.server), way)
            if row.held is not None:
                transaction.later("hold", session=row.id, until=now + _HELD, waits=row.held)
            elif row.doubts or (row.pending and row.id not in asked):
                found.append(Due(session, row.doubts, None))
            elif not row.pending:
                transaction.later("rest", session=row.id, until=None, waits=None)
            else:
                step = _step(transaction, session, bell, reserved[row.id], asked[row.id], pacing)
                if step is not Nothing.DONE:
                    found.append(Due(session, False, None if step is Nothing.AGAIN else step))
        return found


async def claim(
    database: Database,
    session: Session,
    bell: str,
    fresh_id: BareId | None,
    now: datetime,
    pacing: Pacing,
    loaded: int | None = None,
) -> Found | None:
    """Claim the next intent of a session, or say where somebody is to type first.

    fresh_id  an id reserved at the gateway, None where the engine has none; an intent that is sent again
              keeps the id it had
    loaded    the intent whose file is at hand

    Returns None when nothing may leave before its time. In order per chat and class, one in flight per
    session, as `core.pacing.choose` says. Intents that are no longer true are dropped on the way.
    """
    while True:
        async with locked(database, session[1].tenant, now) as transaction:
            for _ in range(_REFUSED_AT_ONCE):
                [rows] = await transaction.each(pacing.asked(session[0]))
                step = _step(transaction, session, bell, fresh_id, rows, pacing, loaded)
                if step is not Nothing.AGAIN:
                    return None if step is Nothing.DONE else step


async def sent_and_claim(
    database: Database,
    session: Session,
    bell: str,
    sent: Claimed,
    bare_id: BareId,
    reserved: dict[int, BareId | None],
    now: datetime,
    pacing: Pacing,
) -> tuple[Found | None, bool]:
    """Write that an intent was sent, and claim the next one in the same transaction, as `claim` does.

    reserved  ids at hand, by session; the one that is used is taken out, before it is known to be

    Returns what was claimed, and whether there is something to do: without an id it is left to `claim`.
    """
    async with locked(database, session[1].tenant, now) as transaction:
        history.record_sent(transaction, sent.id, bare_id)
        [rows] = await transaction.each(pacing.asked(session[0]))
        if session[0] not in reserved and any(row.id is not None for row in rows):
            return None, True
        fresh_id = reserved.pop(session[0], None)
        step = _step(transaction, session, bell, fresh_id, rows, pacing)
        if not isinstance(step, Claimed) or step.reserved_id != fresh_id:
            reserved[session[0]] = fresh_id
        return (None, step is Nothing.AGAIN) if isinstance(step, Nothing) else (step, True)


def _step(
    transaction: Transaction,
    session: Session,
    bell: str,
    fresh_id: BareId | None,
    rows: Sequence[Any],
    pacing: Pacing,
    loaded: int | None = None,
) -> Found | Nothing:
    """Claim what is next, if anything is."""
    found = next_of(transaction, pacing, session[1], rows, loaded)
    if not isinstance(found, Next):
        return found
    row = found.row
    has_id = takes_id(row.engine, row.kind) is not OwnId.NONE or row.engine is None
    reserved = row.reserved_id or (fresh_id if has_id and row.kind not in AGAIN else None)
    transaction.later(
        "claim_intent",
        id=row.id,
        session=session[0],
        bell=bell,
        look_again=transaction.now + _LOOK_AFTER_A_CLAIM,
        reserved_id=reserved,
        chat=row.chat_id,
        body=found.saying.text,
        place=found.saying.place,
        word=found.saying.word,
        **found.counted,
    )
    return Claimed(
        id=row.id,
        address=session[1],
        session_id=session[0],
        chat=ChatId(row.chat_id),
        intent=row.intent,
        text=found.saying.text,
        reserved_id=reserved,
        attempt=row.attempts + 1,
        kind=row.kind,
        content=found.content,
        target=msgspec.convert(row.target, Target) if row.target else None,
        cold=row.cold,
        typed=found.typed,
    )


async def doubts(database: Database, session: Session, now: datetime) -> list[Doubtful]:
    """List the intents of a session that wait for evidence and may be looked up now."""
    session_id, address, server, _ = session
    async with database.transaction(address.tenant, now) as transaction:
        rows = await transaction.rows("doubtful_due", session=session_id)
    return [
        Doubtful(
            id=row.id,
            address=address,
            session_id=session_id,
            server=server,
            chat=ChatId(row.chat_id),
            intent=row.intent,
            text=row.body,
            reserved_id=row.reserved_id,
            claimed_at=row.claimed_at,
            attempt=row.attempts,
            kind=row.kind,
            by_id=row.reserved_id is not None
            and (row.kind not in MEDIA or row.media_ids)
            and takes_id(row.engine, row.kind) is not OwnId.NONE,
        )
        for row in rows
    ]


async def settle(
    database: Database, tenant: TenantId, intent: int, attempt: int, outcome: Outcome, now: datetime
) -> None:
    """Write what became of an attempt, or what a look-up has shown of it.

    What evidence has settled stays settled, and an intent that has been claimed again since is touched by
    nothing but the knowledge that it was sent. One place is to be told per ticket: a later intent that has
    been written meanwhile is dropped, as the earlier one will tell the place that is true then.
    """
    async with locked(database, tenant, now) as transaction:
        if outcome.state is IntentState.SENT and outcome.bare_id is not None:
            history.record_sent(transaction, intent, outcome.bare_id)
            return
        row = await transaction.row("intent_for_settling", id=intent)
        if row.attempts != attempt or row.state not in {IntentState.SENDING, IntentState.INDETERMINATE}:
            return
        if outcome.state is IntentState.PENDING:
            transaction.later("drop_merged", id=intent)
        if outcome.away:
            transaction.later("uncount", id=intent)
        transaction.later(
            "settle_intent",
            id=intent,
            state=outcome.state,
            reason=outcome.reason,
            not_before=outcome.not_before,
        )


async def set_aside(
    database: Database, session: Session, first: Loading, error: WsmError, now: datetime
) -> None:
    """Put an intent off whose file is not at hand, or end it where trying again would not help."""
    async with locked(database, session[1].tenant, now) as transaction:
        if isinstance(error, Refused):
            transaction.later(
                "refuse_intent", id=first.id, state=IntentState.FAILED, reason=str(error), why="not_ready"
            )
            return
        its_own = isinstance(error, SourceUnavailable) and not isinstance(error, NoRoom)
        until = now + (delay_of_a_file(first.attempt) if its_own else _FILE_OF_OTHERS)
        transaction.later("set_aside", id=first.id, until=until, reason=str(error), tried=int(its_own))


async def freeze(
    database: Database, address: SessionAddress, session: int, pacing: Pacing, lock: Lock, now: datetime
) -> datetime:
    """Remember that WhatsApp holds a number back, and return until when nobody new is written to."""
    async with locked(database, address.tenant, now) as transaction:
        return paces.freeze(transaction, session, pacing.pace, lock)


async def prove_media_ids(database: Database, session: Session) -> None:
    """Remember that a file left under the id that was reserved for it."""
    async with database.transaction(session[1].tenant) as transaction:
        transaction.later("prove_media_ids", session=session[0])


async def postpone(database: Database, session: Session, reason: str, until: datetime, now: datetime) -> None:
    """Leave a session alone that is away, or whose gateway is: one row, however much it has to say."""
    session_id, address, *_ = session
    async with locked(database, address.tenant, now) as transaction:
        transaction.later("postpone", session=session_id, reason=reason, until=until)


async def unknown_own(database: Database, doubt: Doubtful, ids: Sequence[BareId]) -> list[BareId]:
    """Return which of a session's own messages the history does not have yet, in their order."""
    keys = {message_key(id_, from_me=True): id_ for id_ in ids}
    async with database.transaction(doubt.address.tenant) as transaction:
        rows = await transaction.rows("known_keys", session=doubt.session_id, keys=list(keys))
    known = {row.key for row in rows}
    return [id_ for key, id_ in keys.items() if key not in known]
