"""The outbox: intents claimed, sent, doubted and settled, under the tenant's lock.

Nothing here calls a gateway: a claim is one transaction, the call is outside of it, the settlement is
another one. What a customer reads is rendered in the claim, from the line as it is in that moment.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from wsm.core.attendance import place_to_tell
from wsm.core.conversation import State
from wsm.core.exits import Way
from wsm.core.ids import BareId, ChatId, ServerName, SessionAddress, SessionName, TenantId
from wsm.core.outbox import Claimed, Doubtful, IntentState, Outcome
from wsm.core.templates import render
from wsm.store import history
from wsm.store.database import Database, Transaction
from wsm.store.lane import locked
from wsm.wire.waha import message_key

_LOOK_AFTER_A_CLAIM = timedelta(seconds=30)
"""When the clock rings again for an intent whose bell was never finished, should everything else fail."""

Session = tuple[int, SessionAddress, ServerName, Way | None]
"""A session with something to do: its row, its address, its server, and its exit, None if that is direct."""


class Due(msgspec.Struct, frozen=True):
    """A session with work due.

    doubts   some of it is to be looked up
    claimed  its next intent, where an id was at hand
    """

    session: Session
    doubts: bool
    claimed: Claimed | None


async def survey(
    database: Database, tenant: TenantId, bell: str, reserved: Mapping[int, BareId | None], now: datetime
) -> list[Due]:
    """Doubt what another bell left in mid-call, end what expired, and list the sessions with work due.

    reserved  ids at hand, by session (None: its engine has none); where nothing is in doubt the next intent
              of such a session is claimed on the way, as `claim` does
    """
    async with locked(database, tenant, now) as transaction:
        transaction.later("abandon", bell=bell)
        transaction.later("expire")
        asked = [("next_pending", {"session": session}) for session in reserved]
        rows, *pending = await transaction.each(("due_sessions", {}), *asked)
        heads = {session: head for session, [*found] in zip(reserved, pending, strict=True) for head in found}
        found = []
        for row in rows:
            way = Way(row.pool, row.identity) if row.pool is not None else None
            session = (row.id, SessionAddress(tenant, SessionName(row.name)), ServerName(row.server), way)
            head, claimed = heads.get(row.id), None
            if head is not None and not row.doubts:
                claimed = _claimed(transaction, session, bell, reserved[row.id], head)
            if row.doubts or row.pending:
                found.append(Due(session, row.doubts, claimed))
        return found


async def claim(
    database: Database, session: Session, bell: str, fresh_id: BareId | None, now: datetime
) -> Claimed | None:
    """Claim the next intent of a session, or None when nothing is due.

    fresh_id  an id reserved at the gateway, None where the engine has none; an intent that is sent again
              keeps the id it had

    In order per chat, one in flight per session. Intents that are no longer true are dropped on the way.
    """
    async with locked(database, session[1].tenant, now) as transaction:
        return await _claim(transaction, session, bell, fresh_id)


async def sent_and_claim(
    database: Database,
    session: Session,
    bell: str,
    sent: Claimed,
    bare_id: BareId,
    reserved: dict[int, BareId | None],
    now: datetime,
) -> tuple[Claimed | None, bool]:
    """Write that an intent was sent, and claim the next one in the same transaction, as `claim` does.

    reserved  ids at hand, by session; the one that is used is taken out, before it is known to be

    Returns what was claimed, and whether there is something to do: without an id it is left to `claim`.
    """
    async with locked(database, session[1].tenant, now) as transaction:
        history.record_sent(transaction, sent.id, bare_id)
        row = await transaction.row("next_pending", session=session[0])
        if row is None or session[0] not in reserved:
            return None, row is not None
        fresh_id = reserved.pop(session[0])
        claimed = _claimed(transaction, session, bell, fresh_id, row)
        if claimed is None or claimed.reserved_id != fresh_id:
            reserved[session[0]] = fresh_id
        return claimed, True


async def _claim(
    transaction: Transaction, session: Session, bell: str, fresh_id: BareId | None
) -> Claimed | None:
    while (row := await transaction.row("next_pending", session=session[0])) is not None:
        if claimed := _claimed(transaction, session, bell, fresh_id, row):
            return claimed
        transaction.later("drop_intent", id=row.id, reason="no longer true")
    return None


def _claimed(
    transaction: Transaction, session: Session, bell: str, fresh_id: BareId | None, row: Any
) -> Claimed | None:
    """Claim an intent, unless there is nothing true to say any more."""
    text, place = _rendered(row)
    if text is None:
        return None
    reserved = row.reserved_id or fresh_id
    transaction.later(
        "claim_intent",
        id=row.id,
        bell=bell,
        look_again=transaction.now + _LOOK_AFTER_A_CLAIM,
        reserved_id=reserved,
        chat=row.chat_id,
        body=text,
        place=place,
    )
    return Claimed(
        id=row.id,
        address=session[1],
        session_id=session[0],
        chat=ChatId(row.chat_id),
        intent=row.intent,
        text=text,
        reserved_id=reserved,
        attempt=row.attempts + 1,
    )


def _rendered(row: Any) -> tuple[str | None, int | None]:
    """Return the text that is true now and the place it tells, or None when there is nothing true to say."""
    if row.intent == "turn":
        true = row.ticket_state == State.SERVED
        return (render("turn", row.locale, row.templates) if true else None), None
    place = place_to_tell(row.place, row.told_place)
    if place is None:
        return None, None
    name = "entry" if row.told_place is None else "next" if place == 1 else "update"
    return render(name, row.locale, row.templates, place=place), place


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
        transaction.later(
            "settle_intent",
            id=intent,
            state=outcome.state,
            reason=outcome.reason,
            not_before=outcome.not_before,
        )


async def postpone(database: Database, session: Session, reason: str, until: datetime, now: datetime) -> None:
    """Put off what a session has to say, because its gateway is away."""
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
