"""Intents to say something: what becomes of one, decided from values.

An intent is pending, then sending (claimed by one bell), then sent, failed or dropped. Whatever is not known
to have left or not to have left is *indeterminate*: evidence settles it, never a blind repeat.

    pending ──claim──► sending ──answer──► sent
       ▲  │               │  └──refused──► failed
       │  └─untrue──► dropped
       │                  └─crash, time-out, 5xx──► indeterminate ──echo, ack, look-up──► sent
       └────────nothing found, long after the claim, session WORKING────────┘
"""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from wsm.core.errors import GatewayRefused, OutcomeUnknown, WsmError
from wsm.core.ids import BareId, ChatId, ServerName, SessionAddress

NOTICE_LIFETIME = timedelta(hours=24)
"""A notice that could not be sent for a day is not sent at all."""

LOOK_UP_AGAIN = timedelta(seconds=2)
_DELAYS_SECONDS = (1, 2, 5, 10, 20, 30)
_MENDING = 5
_CANNOT_LOOK = frozenset({"no_such_call", "store_disabled"})
_MENDABLE_STATUSES = frozenset({401, 403, 404, 408, 422, 425, 429})


class IntentState(StrEnum):
    """Where an intent stands; the words of the column."""

    PENDING = "pending"
    SENDING = "sending"
    INDETERMINATE = "indeterminate"
    SENT = "sent"
    DROPPED = "dropped"
    FAILED = "failed"


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An intent claimed for the `attempt`-th time (1 …): `text` was true in the moment of the claim."""

    id: int
    address: SessionAddress
    session_id: int
    chat: ChatId
    intent: str
    text: str
    reserved_id: BareId | None
    attempt: int


class Doubtful(msgspec.Struct, frozen=True, kw_only=True):
    """An indeterminate intent that waits for evidence of its last attempt."""

    id: int
    address: SessionAddress
    session_id: int
    server: ServerName
    chat: ChatId
    intent: str
    text: str
    reserved_id: BareId | None
    claimed_at: datetime
    attempt: int


class Outcome(msgspec.Struct, frozen=True):
    """What became of an attempt. not_before: when the intent may be looked at again."""

    state: IntentState
    reason: str = ""
    bare_id: BareId | None = None
    not_before: datetime | None = None


def after_error(error: WsmError, *, attempt: int, now: datetime) -> Outcome:
    """Decide what an attempt that raised has come to.

    A gateway that is away, or refuses for a reason that somebody can mend (a wrong key, a missing session),
    delays the intent; any other refusal ends it; an unknown outcome waits for evidence.
    """
    if isinstance(error, OutcomeUnknown):
        return Outcome(IntentState.INDETERMINATE, str(error), not_before=now + LOOK_UP_AGAIN)
    if isinstance(error, GatewayRefused) and error.status not in _MENDABLE_STATUSES:
        return Outcome(IntentState.FAILED, str(error))
    return Outcome(IntentState.PENDING, str(error), not_before=now + delay(attempt))


def delay(attempt: int) -> timedelta:
    """How long an intent waits after its n-th attempt (1 …) that certainly sent nothing."""
    return timedelta(seconds=_DELAYS_SECONDS[min(attempt, len(_DELAYS_SECONDS)) - 1])


def after_look_up(
    found: BareId | None, doubt: Doubtful, *, working: bool, evidence: timedelta, now: datetime
) -> Outcome:
    """Decide what a look-up has shown.

    Nothing found is evidence only `evidence` (180 s) after the claim and with the session WORKING: WAHA goes
    on working after it answered 500. Then the intent is sent again, with the same id where there is one.
    """
    if found is not None:
        return Outcome(IntentState.SENT, bare_id=found)
    if working and now >= doubt.claimed_at + evidence:
        return Outcome(IntentState.PENDING, "nothing was sent", not_before=now)
    return Outcome(IntentState.INDETERMINATE, "no evidence yet", not_before=now + LOOK_UP_AGAIN)


def after_refused_look_up(
    error: GatewayRefused, doubt: Doubtful, *, evidence: timedelta, now: datetime
) -> Outcome:
    """Decide when the gateway does not let itself be asked.

    A refusal that somebody can mend (a wrong key, a missing session) is waited out. Where it cannot be asked
    at all (a store that is switched off, a call that it does not have), echo and acks had the same time to
    show it; after that the intent is given up, never sent again blindly.
    """
    if error.status in _MENDABLE_STATUSES and error.reason not in _CANNOT_LOOK:
        return Outcome(IntentState.INDETERMINATE, str(error), not_before=now + delay(_MENDING))
    if now >= doubt.claimed_at + evidence:
        return Outcome(IntentState.FAILED, "outcome unknown, and the gateway cannot look it up")
    return Outcome(IntentState.INDETERMINATE, "the gateway cannot look it up", not_before=now + LOOK_UP_AGAIN)
