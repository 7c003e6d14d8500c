"""The pace of sessions in the database: what is next of one, by the decisions of `core.pacing`.

Everything is asked in one statement, which is sent with what comes before it, and what is decided travels
with COMMIT: a paced claim takes the round trips of any claim.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from wsm.core.content import Content, SendClass, needs_media
from wsm.core.engines import check_way
from wsm.core.errors import BadInput
from wsm.core.events import ChatKind
from wsm.core.ids import ChatId, SessionAddress
from wsm.core.moments import moment
from wsm.core.outbox import Composing, IntentState, Loading, Lock
from wsm.core.pacing import (
    Correspondent,
    Head,
    Numbers,
    Pace,
    Wait,
    after_claim,
    choose,
    curve,
    frozen,
    loops,
    may_leave,
    put_off,
    refused,
    typing_time,
)
from wsm.core.wishes import confirms
from wsm.store.database import Transaction
from wsm.store.notices import TOO_SOON, Drop, Later, Saying, rendered
from wsm.telemetry import SENDS_REFUSED

_TYPED = frozenset(
    {"text", "image", "file", "voice", "video", "location", "contact", "poll"}
)  # messages of their own


class Pacing(msgspec.Struct, frozen=True):
    """What claims are paced by. chance: random numbers, at least 0 and less than 1."""

    pace: Pace
    chance: Callable[[], float]

    def asked(self, session: int) -> tuple[str, dict[str, Any]]:
        """The query for what is next of a session, with its limits."""
        pace = self.pace
        return "next_pending", {
            "session": session,
            "classes": [str(each) for each in SendClass],
            "curve": curve(pace),
            "reply_minute": pace.reply_per_minute,
            "reply_day": pace.reply_per_day,
            "all_minute": pace.per_minute,
            "all_hour": pace.per_hour,
            "all_day": pace.per_day,
            "contact_day": pace.contact_automated_per_day,
            "loop": timedelta(minutes=pace.loop_minutes),
        }


class Nothing(StrEnum):
    """What there is to do with a session where nothing was chosen."""

    AGAIN = "ask again: what stood first was put off or refused"
    DONE = "nothing before its time"


class Next(msgspec.Struct, frozen=True):
    """What may be claimed: its row, what is true to say, and how it is counted."""

    row: Any
    saying: Saying
    content: Content | None
    counted: dict[str, Any]
    typed: bool


def next_of(
    transaction: Transaction,
    pacing: Pacing,
    address: SessionAddress,
    rows: Sequence[Any],
    loaded: int | None = None,
) -> Next | Composing | Loading | Nothing:
    """Choose what is next of a session, and write what was found on the way.

    rows    what `Pacing.asked` asks for: one without an id where there is nothing
    loaded  the intent whose file is at hand

    What is no longer true is dropped, what must not leave is refused, what its correspondent must not get yet
    is put off. Where nothing may leave before a time, the session rests until then.
    """
    pace, now = pacing.pace, transaction.now
    numbers = _numbers(rows[0], now)
    heads = {row.id: (_head(row, pace), row) for row in rows if row.id is not None}
    chosen = choose(pace, numbers, [head for head, _ in heads.values()], now)
    if isinstance(chosen, Head):
        _, row = heads[chosen.id]
        said = rendered(row, now)
        content = msgspec.convert(row.args, Content) if row.kind != "text" or "text" in row.args else None
        if isinstance(said, Drop):
            transaction.later("drop_intent", id=row.id, reason=said.reason)
        elif isinstance(said, Later):
            transaction.later("put_off", id=row.id, until=said.until, reason=TOO_SOON)
        elif (reason := _impossible(row, content)) is not None:
            transaction.later(
                "refuse_intent", id=row.id, state=IntentState.FAILED, reason=reason, why="impossible"
            )
        elif _may_reach(transaction, pacing, chosen, row):
            next_ = Next(row, said, content, {}, chosen.typed)
            return _chosen(transaction, pacing, address, numbers, chosen, next_, loaded)
        return Nothing.AGAIN  # who stood behind it may be more urgent than the others
    until, why = (chosen.until, chosen.why) if isinstance(chosen, Wait) else (None, None)
    transaction.later("rest", session=rows[0].session, until=until, waits=why)
    return Nothing.DONE


def _chosen(
    transaction: Transaction,
    pacing: Pacing,
    address: SessionAddress,
    numbers: Numbers,
    head: Head,
    next_: Next,
    loaded: int | None,
) -> Next | Composing | Loading:
    """Claim a head, or let somebody type it first."""
    row, pace, now = next_.row, pacing.pace, transaction.now
    if head.types and not head.typed:
        until = now + typing_time(pace, row.kind, len(next_.saying.text), pacing.chance())
        transaction.later("type_intent", id=row.id, session=row.session, until=until)
        return Composing(address=address, chat=ChatId(row.chat_id), seen=row.heard_at is not None)
    if next_.content is not None and needs_media(next_.content) is not None and row.id != loaded:
        return Loading(id=row.id, content=next_.content, attempt=row.attempts + 1)
    after = after_claim(pace, numbers, head, now, pacing.chance())
    counted = {"budget": head.budget, "picked": int(not head.typed), **msgspec.structs.asdict(after)}
    return Next(row, next_.saying, next_.content, counted, head.typed)


def _impossible(row: Any, content: Content | None) -> str | None:
    """Say why something cannot be sent there: the engine may not have been known when it was asked for."""
    try:
        if content is not None:
            check_way(content, row.engine, ChatKind(row.chat_kind))
    except BadInput as exc:
        return str(exc)
    return None


def _may_reach(transaction: Transaction, pacing: Pacing, head: Head, row: Any) -> bool:
    """Whether a head may go to its correspondent now; if not, write what becomes of it."""
    pace, now = pacing.pace, transaction.now
    whom = Correspondent(
        told_at=row.told_at,
        automated_at=row.automated_at,
        opted_out=row.opted_out,
        bot_paused_until=row.bot_paused_until,
        said=row.said,
        repeated=row.repeated,
        same_text=row.same_text,
    )
    if refusal := refused(pace, head, whom, now):
        state = IntentState.DROPPED if refusal.dropped else IntentState.FAILED
        transaction.later("refuse_intent", id=row.id, state=state, reason=refusal.why, why=refusal.why)
        SENDS_REFUSED.labels(refusal.why).inc()
        if loops(pace, head, whom):
            until = now + timedelta(minutes=pace.bot_pause_minutes)
            transaction.later("pause_bot", conversation=row.conversation_id, until=until)
        return False
    if wait := put_off(pace, head, whom, now, pacing.chance()):
        transaction.later("put_off", id=row.id, until=wait.until, reason=wait.why)
        return False
    return True


def _numbers(row: Any, now: datetime) -> Numbers:
    return Numbers(
        local=row.local,
        since=moment(row.since_ms) if row.since_ms else None,
        picks=row.picks,
        next_at=row.next_at,
        next_first_at=row.next_first_at,
        warm_since=row.warm_since,
        first_at=row.first_at,
        frozen_until=row.frozen_until,
        slowed_until=row.slowed_until if row.slowed_until and row.slowed_until > now else None,
        reply_minute=row.reply_minute,
        reply_day=row.reply_day,
        first_day=row.first_day,
        all_minute=row.all_minute,
        all_hour=row.all_hour,
        all_day=row.all_day,
        typing=row.typing or 0,
        typing_until=row.typing_ends,
    )


def waits_for(pace: Pace, known: Any, intent: Any, now: datetime) -> Wait | None:
    """Say until when an intent waits for its session's pace, None when it may leave as far as that goes.

    known   a row of what `Pacing.asked` asks for
    intent  id, intent, kind, cold, created_at
    """
    urgency = SendClass(intent.intent)
    head = Head(id=intent.id, urgency=urgency, cold=intent.cold, since=intent.created_at, kind=intent.kind)
    return may_leave(pace, _numbers(known, now), head, now)


def _head(row: Any, pace: Pace) -> Head:
    return Head(
        id=row.id,
        urgency=SendClass(row.intent),
        cold=row.cold,
        since=row.created_at,
        kind=row.kind,
        typed=row.typing_until is not None,
        types=pace.typing and row.kind in _TYPED and row.chat_kind == "direct",
        confirms=confirms(row.intent_key),
    )


def freeze(transaction: Transaction, session: int, pace: Pace, lock: Lock) -> datetime:
    """Remember that WhatsApp holds a number back, and return until when nobody new is written to."""
    until, slowed_until = frozen(pace, lock, transaction.now)
    transaction.later("freeze", session=session, until=until, why=lock.why, slowed_until=slowed_until)
    return until
