"""Timers: what is due by the clock, whether anybody writes or not.

A timer is a row that says when to look at something again; what follows is decided from how that thing is by
then, so one that comes hours late, or twice, does no harm. What a comparison of times settles by itself (a
survey that is open, a bot that is silent) has no timer.

    kind       about    looks at                                    and then
    silence    ticket   whether anything moved                      one apology, with an offer
    nudge      ticket   whether who was called has answered         asks whether he is there
    release    ticket   the same, later                             puts him aside; the next one is called
    remind     ticket   whether he owes an answer                   reminds him
    end        ticket   the same, later                             ends the ticket
    tend       ticket   waits, agents and parkings that took long   what the line says
    pulse      queue    how far everybody moved                     tells those who moved far
    hours      queue    whether it is open                          opens or closes it
    burst      talk     whether nobody else has it by now           an answer is wanted to all of it
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from wsm.core.attendance import RETURN_WITHIN
from wsm.core.conversation import State
from wsm.core.notices import Manners, Policy, Told, look
from wsm.core.tickets import ConversationId, QueueId


class TimerKind(StrEnum):
    """What a timer is for; the words of the column."""

    SILENCE = "silence"
    NUDGE = "nudge"
    RELEASE = "release"
    REMIND = "remind"
    END = "end"
    TEND = "tend"
    PULSE = "pulse"
    HOURS = "hours"
    BURST = "burst"


SWEEPING = frozenset({TimerKind.TEND, TimerKind.HOURS})
"""Those that may concern more tickets than one look shows."""


OF_TICKETS = frozenset(
    {TimerKind.SILENCE, TimerKind.NUDGE, TimerKind.RELEASE, TimerKind.REMIND, TimerKind.END}
)
"""Those that are about a ticket alone."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket as its timer finds it.

    ticket       its number
    place        among those who wait
    turn_told_at when he was told that it is his turn, None: he has not heard of it
    heard_at     his last word
    said_at      the last word that a person said to him
    args         the timer's own
    shut         its queue is closed
    """

    state: State
    ticket: int | None = None
    place: int | None = None
    told: Told = Told()
    served_at: datetime | None = None
    turn_told_at: datetime | None = None
    heard_at: datetime | None = None
    said_at: datetime | None = None
    args: Mapping[str, Any] = {}
    shut: bool = False
    notices: Policy = Policy()
    manners: Manners = Manners()


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """A timer whose time has come: what it is about, and its ticket as it was before this turn.

    human  a person has the talk
    """

    kind: TimerKind
    conversation: ConversationId | None = None
    queue: QueueId | None = None
    case: Case | None = None
    human: bool = False


class Do(StrEnum):
    """What a decision asks of the line."""

    PARK = "park"
    END = "end"


class Then(msgspec.Struct, frozen=True, kw_only=True):
    """What follows.

    again      the kind and time of the ticket's next timer, with its arguments
    say        a text for the customer, and its values
    apologize  he is told that nothing moves
    do         something of the line
    """

    again: tuple[TimerKind, datetime] | None = None
    args: Mapping[str, Any] = {}
    say: str = ""
    minutes: int | None = None
    apologize: bool = False
    do: Do | None = None


NOTHING = Then()


def decide(kind: TimerKind, case: Case, now: datetime) -> Then:
    """Decide what follows from a ticket's timer."""
    return _DECISIONS[kind](case, now)


def _silence(case: Case, now: datetime) -> Then:
    if case.state is not State.WAITING or case.place is None or not case.notices.silence:
        return NOTHING
    if case.shut:
        return Then(
            again=(TimerKind.SILENCE, now + _seconds(case.notices.silence)), args={"place": case.place}
        )
    before = int(case.args.get("place") or case.told.place or case.place)
    found = look(case.place, before, case.told, case.notices, now)
    return Then(
        again=(TimerKind.SILENCE, found.again_at), args={"place": found.place}, apologize=found.apologize
    )


def _nudge(case: Case, now: datetime) -> Then:
    """Who has not heard of his turn is not asked why he says nothing."""
    if case.state is not State.SERVED or _answered(case):
        return NOTHING
    heard_of_it = case.turn_told_at or now
    if heard_of_it + _seconds(case.manners.nudge) > now:
        return Then(again=(TimerKind.NUDGE, heard_of_it + _seconds(case.manners.nudge)))
    rest = case.manners.release - case.manners.nudge
    return Then(again=(TimerKind.RELEASE, now + _seconds(rest)), say="nudge", minutes=_minutes(rest))


def _release(case: Case, _: datetime) -> Then:
    if case.state is not State.SERVED or _answered(case):
        return NOTHING
    return Then(do=Do.PARK, say="released", minutes=_minutes(int(RETURN_WITHIN.total_seconds())))


def _answered(case: Case) -> bool:
    """Whether who was called has said something since he heard of it, or since he was called.

    WhatsApp tells whole seconds.
    """
    since = case.turn_told_at or case.served_at
    return case.heard_at is not None and since is not None and case.heard_at >= since.replace(microsecond=0)


def _remind(case: Case, now: datetime) -> Then:
    """The customer owes an answer only to a person who spoke last."""
    quiet = _seconds(case.manners.remind)
    if case.state is not State.SERVED or not case.manners.remind:
        return NOTHING
    if case.shut or case.said_at is None or (case.heard_at is not None and case.heard_at > case.said_at):
        return Then(again=(TimerKind.REMIND, now + quiet))
    if case.said_at + quiet > now:
        return Then(again=(TimerKind.REMIND, case.said_at + quiet))
    return Then(
        again=(TimerKind.END, now + _seconds(case.manners.end)),
        args={"since": case.said_at.isoformat()},
        say="reminder",
        minutes=_minutes(case.manners.end),
    )


def _end(case: Case, now: datetime) -> Then:
    if case.state is not State.SERVED:
        return NOTHING
    reminded_of = datetime.fromisoformat(str(case.args["since"]))
    newer = [at for at in (case.heard_at, case.said_at) if at is not None and at > reminded_of]
    if newer or case.shut:
        return Then(again=(TimerKind.REMIND, now + _seconds(case.manners.remind)))
    return Then(do=Do.END, say="ended")


_DECISIONS: Mapping[TimerKind, Callable[[Case, datetime], Then]] = {
    TimerKind.SILENCE: _silence,
    TimerKind.NUDGE: _nudge,
    TimerKind.RELEASE: _release,
    TimerKind.REMIND: _remind,
    TimerKind.END: _end,
}


def _seconds(number: int) -> timedelta:
    return timedelta(seconds=number)


def _minutes(seconds: int) -> int:
    return max(1, round(seconds / 60))
