"""Intents to say something: what becomes of one, decided from values.

An intent is pending, then sending (claimed by one bell), then sent, failed or dropped: `TRANSITIONS` has each
move, and the diagram in ARCHITECTURE.md is printed from it. Whatever is not known to have left or not to have
left is *indeterminate*: evidence settles it, never a blind repeat.

What shows that a message left is its id where it leaves under the one that was reserved, else its words in
the chat. Where neither would show it, as with a file without an id, absence is no evidence: it is never
repeated. What may be done twice (a reaction, an edit, a deletion, a sign of reading) is simply done again.
"""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from wsm.core.content import Content, Target
from wsm.core.errors import GatewayRefused, OutcomeUnknown, Refused, WsmError
from wsm.core.ids import BareId, ChatId, ServerName, SessionAddress

LOOK_UP_AGAIN = timedelta(seconds=2)
_AFTER_A_LOCK, _LONGEST_AFTER_A_LOCK = timedelta(minutes=1), timedelta(hours=1)
_FILE_DELAY, _LONGEST_DELAY = timedelta(seconds=20), timedelta(minutes=10)
_DELAYS_SECONDS = (1, 2, 5, 10, 20, 30)
_MENDING = 5
_CANNOT_LOOK = frozenset({"no_such_call", "store_disabled"})
_MENDABLE_STATUSES = frozenset({401, 403, 404, 408, 422, 425, 429})
_WRONG_KEY = 401
_FOR_EVER = frozenset({"message_not_found", "no_such_call", "store_disabled", "already_exists"})
"""What a gateway says of the message or of itself that no time changes, under whatever status."""


class IntentState(StrEnum):
    """Where an intent stands; the words of the column."""

    PENDING = "pending"
    SENDING = "sending"
    INDETERMINATE = "indeterminate"
    SENT = "sent"
    DROPPED = "dropped"
    FAILED = "failed"


class Trigger(StrEnum):
    """What moves an intent."""

    CLAIMED = "claimed"
    ANSWERED = "answered"
    NOT_SENT = "certainly not sent"
    REFUSED = "refused"
    UNKNOWN = "crash, time-out, 5xx"
    EVIDENCE = "echo, ack, look-up"
    NOTHING_FOUND = "nothing found in time"
    GIVEN_UP = "nothing can show it"
    UNTRUE = "no longer true or wanted"
    EXPIRED = "expired"


class Transition(msgspec.Struct, frozen=True):
    """One row of the table."""

    state: IntentState
    trigger: Trigger
    next: IntentState


TRANSITIONS = (
    Transition(IntentState.PENDING, Trigger.CLAIMED, IntentState.SENDING),
    Transition(IntentState.PENDING, Trigger.UNTRUE, IntentState.DROPPED),
    Transition(IntentState.PENDING, Trigger.REFUSED, IntentState.FAILED),
    Transition(IntentState.PENDING, Trigger.EXPIRED, IntentState.FAILED),
    Transition(IntentState.PENDING, Trigger.EVIDENCE, IntentState.SENT),
    Transition(IntentState.SENDING, Trigger.ANSWERED, IntentState.SENT),
    Transition(IntentState.SENDING, Trigger.EVIDENCE, IntentState.SENT),
    Transition(IntentState.SENDING, Trigger.NOT_SENT, IntentState.PENDING),
    Transition(IntentState.SENDING, Trigger.REFUSED, IntentState.FAILED),
    Transition(IntentState.SENDING, Trigger.UNKNOWN, IntentState.INDETERMINATE),
    Transition(IntentState.INDETERMINATE, Trigger.EVIDENCE, IntentState.SENT),
    Transition(IntentState.INDETERMINATE, Trigger.NOTHING_FOUND, IntentState.PENDING),
    Transition(IntentState.INDETERMINATE, Trigger.GIVEN_UP, IntentState.FAILED),
    Transition(IntentState.INDETERMINATE, Trigger.EXPIRED, IntentState.FAILED),
    Transition(IntentState.FAILED, Trigger.EVIDENCE, IntentState.SENT),
    Transition(IntentState.DROPPED, Trigger.EVIDENCE, IntentState.SENT),
)
"""Every move that an intent can make. Evidence is believed in whatever state the intent is."""


def diagram() -> str:
    """Print the table as a Mermaid state diagram for ARCHITECTURE.md."""
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    lines += [f"    {row.state} --> {row.next}: {row.trigger}" for row in TRANSITIONS]
    return "\n".join(lines)


AGAIN = frozenset({"reaction", "edit", "revoke", "seen", "typing"})
"""Kinds that may be done twice: the second changes nothing."""


class Lock(msgspec.Struct, frozen=True):
    """WhatsApp holds a number back. why: one of `LOCKS`; until: as far as it said."""

    why: str
    until: datetime | None = None


REACHOUT_TIMELOCK, RATE_LIMITED = "reachout_timelock", "rate_limited"
LOCKS = (REACHOUT_TIMELOCK, RATE_LIMITED)
"""It may write to nobody new (463); it was too fast (429)."""


class Composing(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody is to be shown to type in a chat. seen: what he wrote was handled, and is marked as read."""

    address: SessionAddress
    chat: ChatId
    seen: bool


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An intent claimed for the `attempt`-th time (1 …): `text` was true in the moment of the claim.

    text     what the history shows of it
    content  what to send; None: the text
    target   the message that it answers or acts on
    cold     its correspondent never wrote
    typed    somebody was shown to type it
    """

    id: int
    address: SessionAddress
    session_id: int
    chat: ChatId
    intent: str
    text: str
    reserved_id: BareId | None
    attempt: int
    kind: str = "text"
    content: Content | None = None
    target: Target | None = None
    cold: bool = False
    typed: bool = False


class Loading(msgspec.Struct, frozen=True, kw_only=True):
    """An intent that would be next, and needs a file at hand before it is claimed.

    attempt  how often it was to be sent or its file to be fetched, with this time (1 …)
    """

    id: int
    content: Content
    attempt: int = 1


class Doubtful(msgspec.Struct, frozen=True, kw_only=True):
    """An indeterminate intent that waits for evidence of its last attempt.

    by_id  it left under `reserved_id`, if it left; else only its words would show it
    """

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
    kind: str = "text"
    by_id: bool = True

    @property
    def may_be_repeated(self) -> bool:
        """Whether a look-up that finds nothing, long after the claim, proves that nothing left."""
        return self.by_id or self.kind == "text"


class Outcome(msgspec.Struct, frozen=True):
    """What became of an attempt.

    not_before  when the intent may be looked at again
    lock        what it showed
    away        nobody heard of it, for its session or gateway is away: it counts as no message, and what else
                the session has to say waits with it
    """

    state: IntentState
    reason: str = ""
    bare_id: BareId | None = None
    not_before: datetime | None = None
    lock: Lock | None = None
    away: bool = False


def after_error(
    error: WsmError, *, attempt: int, now: datetime, cold: bool = False, kind: str = "text"
) -> Outcome:
    """Decide what an attempt that raised has come to.

    A gateway that is away, or refuses for a reason that somebody can mend (a wrong key, a missing session),
    delays the intent, ever longer where it may be the message's own; any other refusal ends it; an unknown
    outcome waits for evidence. What WhatsApp holds back is not tried again where nobody ever wrote
    (`cold`), and ever more rarely where he did: to insist makes it worse.
    """
    asked = timedelta(seconds=_seconds_asked(error))
    until = (error.until if isinstance(error, GatewayRefused) else None) or (now + asked if asked else None)
    lock = next((Lock(why, until) for why in LOCKS if why in str(error)), None)
    if isinstance(error, OutcomeUnknown) and kind in AGAIN:
        return Outcome(IntentState.PENDING, str(error), not_before=now + delay(attempt), lock=lock)
    if isinstance(error, OutcomeUnknown):
        return Outcome(IntentState.INDETERMINATE, str(error), not_before=now + LOOK_UP_AGAIN, lock=lock)
    if isinstance(error, Refused) and not _mendable(error, lock, cold=cold):
        return Outcome(IntentState.FAILED, str(error), lock=lock)
    if lock is not None:
        later = min(max(_doubled(_AFTER_A_LOCK, attempt), asked), _LONGEST_AFTER_A_LOCK)
        return Outcome(IntentState.PENDING, str(error), not_before=now + later, lock=lock)
    if isinstance(error, GatewayRefused) and error.status != _WRONG_KEY:  # its own, as far as anybody knows
        later = max(delay(attempt), min(_doubled(timedelta(seconds=1), attempt), _LONGEST_DELAY))
        return Outcome(IntentState.PENDING, str(error), not_before=now + later)
    return Outcome(IntentState.PENDING, str(error), not_before=now + delay(attempt), away=True)


def _mendable(error: Refused, lock: Lock | None, *, cold: bool) -> bool:
    """Whether what was refused once may be taken later, without being changed."""
    if not isinstance(error, GatewayRefused) or error.reason in _FOR_EVER:
        return False
    if lock is not None:
        return not cold and (lock.why == RATE_LIMITED or error.status in _MENDABLE_STATUSES)
    return error.status in _MENDABLE_STATUSES


def _doubled(first: timedelta, attempt: int) -> timedelta:
    return first * (1 << min(attempt - 1, 16))


def _seconds_asked(error: WsmError) -> float:
    """How long the gateway asks one to wait."""
    return (error.retry_after_seconds or 0.0) if isinstance(error, GatewayRefused) else 0.0


def delay(attempt: int) -> timedelta:
    """How long an intent waits after its n-th attempt (1 …) that certainly sent nothing."""
    return timedelta(seconds=_DELAYS_SECONDS[min(attempt, len(_DELAYS_SECONDS)) - 1])


def delay_of_a_file(attempt: int) -> timedelta:
    """How long an intent waits whose file could not be fetched for the n-th time (1 …).

    Nothing else of its session leaves while somebody fetches, and a host that hangs takes half a minute: what
    is tried for days must not be tried all the time.
    """
    return min(_doubled(_FILE_DELAY, attempt), _LONGEST_DELAY)


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
        if not doubt.may_be_repeated:
            return Outcome(IntentState.FAILED, "outcome unknown: nothing would show that it left")
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
