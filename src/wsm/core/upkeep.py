"""Upkeep: what is done about a session whose state is not the one that it should have.

The table of patience is the whole of it: how long each status may last before it is a fault, for engines that
come back by themselves and for those that stay where they are (CONTRACT 3.3, 11; OBSERVED, session.status).
What is done is a start, a restart or a stop; nothing here ever logs a session out or deletes it. Repairs are
spaced, further and further, until a session has worked for a while. An alarm is for what only a person can
cure, or should know.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

import msgspec

from wsm.core.moments import milliseconds


class Step(StrEnum):
    """What to do now."""

    NOTHING = "nothing"
    CREATE = "create"
    CONFIGURE = "configure"
    START = "start"
    RESTART = "restart"
    STOP = "stop"


class Alarm(StrEnum):
    """What a person should know."""

    LOGIN_NEEDED = "login_needed"
    """It asks for a code or a passkey, though it was paired once."""
    PAIRING_EXPIRED = "pairing_expired"
    """It was never paired, and nobody scanned in time: whoever wants it starts it again."""
    KEEPS_FAILING = "keeps_failing"
    """Repairs did not help: logged out on the phone, banned, or its exit is dead."""
    FLAPPING = "flapping"
    """It works, but its connection drops again and again."""
    MUTE = "mute"
    """It said that it works, and nothing came through it any more."""
    OTHER_NUMBER = "other_number"
    """It works with another number than its own: nothing leaves until a person confirms that."""
    EXIT_IN_TROUBLE = "exit_in_trouble"
    """Its exit is dead, or not where it should be: nothing leaves through it."""


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is watched.

    desired   `running` or `stopped`
    status    the last one that its gateway told; None when the gateway does not know the session
    since     when it got that status
    engine    None while nobody has said
    paired    it has worked before
    repairs   how many steps were taken since it last worked for `STEADY`
    repaired_at  when the last one was taken
    drops     how often it left WORKING within the last hour
    differs   its gateway keeps another configuration than it should have, which may be no proxy at all
    mute      it says WORKING, and that is not true
    leased    it has an exit
    other_number, exit_in_trouble  as the alarms of these names
    """

    desired: str
    status: str | None
    since: datetime
    engine: str | None = None
    paired: bool = True
    repairs: int = 0
    repaired_at: datetime | None = None
    drops: int = 0
    differs: bool = False
    mute: bool = False
    leased: bool = False
    other_number: bool = False
    exit_in_trouble: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """What to do about a session, and what to tell."""

    step: Step = Step.NOTHING
    alarm: Alarm | None = None


STEADY = timedelta(minutes=10)
"""After working for so long a session's repairs are forgotten."""
_SPACING = tuple(timedelta(seconds=seconds) for seconds in (0, 60, 300, 900, 3600))
"""Between one repair and the next; the last one is repeated for ever."""
_HELPLESS = 3
"""After so many repairs in vain a person is told."""
_MANY_DROPS = 6
_AN_HOUR = timedelta(hours=1)
ASKS_A_PERSON = frozenset({"SCAN_QR_CODE", "PASSKEY_REQUIRED", "PASSKEY_CONFIRMATION_REQUIRED"})
COMES_BACK = frozenset({"WEBJS", "WPP"})
"""Engines that start again by themselves, 2 s after FAILED."""

_PATIENCE: Mapping[str, tuple[timedelta, timedelta, Step]] = MappingProxyType(
    {
        "STOPPED": (timedelta(seconds=20), timedelta(seconds=20), Step.START),
        "FAILED": (timedelta(seconds=10), timedelta(seconds=90), Step.RESTART),
        "STARTING": (timedelta(seconds=180), timedelta(seconds=180), Step.RESTART),
    }
)
"""Status: how long it may last, on engines that stay and on those that come back; what is done then.

STOPPED passes by in every restart, which takes up to 5 s. NOWEB tries for 120 s in STARTING and then says
FAILED; GOWS with a dead exit may say STARTING for ever.
"""
_UNKNOWN_PATIENCE = timedelta(minutes=10)


def judge(its: Watched, now: datetime) -> Verdict:
    """Say what to do about a session. What was done is counted by the caller: `repairs`, `repaired_at`."""
    if its.desired == "stopped":
        runs = its.status not in {None, "STOPPED"} or its.leased  # its exit is released with the last step
        return Verdict(Step.STOP if runs and _may_repair(its, now) else Step.NOTHING)
    verdict = _of_state(its, now)
    if its.exit_in_trouble:
        return Verdict(verdict.step, Alarm.EXIT_IN_TROUBLE)
    return Verdict(verdict.step, Alarm.OTHER_NUMBER) if its.other_number else verdict


def _of_state(its: Watched, now: datetime) -> Verdict:
    """The same, of one that should run, by what its gateway says of it."""
    if its.differs and its.status is not None and _may_repair(its, now):
        return Verdict(Step.CONFIGURE, _helpless(its))
    if its.status == "WORKING":
        if its.mute:
            return Verdict(Step.RESTART if _may_repair(its, now) else Step.NOTHING, Alarm.MUTE)
        return Verdict(alarm=Alarm.FLAPPING if its.drops >= _MANY_DROPS else None)
    if its.status in ASKS_A_PERSON:
        return Verdict(alarm=Alarm.LOGIN_NEEDED if its.paired else None)
    if its.status == "FAILED" and not its.paired:
        return Verdict(alarm=Alarm.PAIRING_EXPIRED)
    return Verdict(_cure(its, now) if _may_repair(its, now) else Step.NOTHING, _helpless(its))


def _helpless(its: Watched) -> Alarm | None:
    return Alarm.KEEPS_FAILING if its.repairs >= _HELPLESS else None


def drops(dropped_ms: Sequence[int], now: datetime) -> int:
    """Count how often a session left WORKING within the last hour, of the times when it did."""
    hour_ago_ms = milliseconds(now - _AN_HOUR)
    return sum(dropped > hour_ago_ms for dropped in dropped_ms)


def is_steady(its: Watched, now: datetime) -> bool:
    """Whether its repairs are to be forgotten: it has worked for a while, and since the last of them."""
    begun = its.since if its.repaired_at is None else max(its.since, its.repaired_at)
    return its.status == "WORKING" and now - begun >= STEADY


def _cure(its: Watched, now: datetime) -> Step:
    """The step against a status that has lasted for too long."""
    if its.status is None:
        return Step.CREATE
    stays, comes_back, step = _PATIENCE.get(its.status, (_UNKNOWN_PATIENCE, _UNKNOWN_PATIENCE, Step.RESTART))
    patience = comes_back if its.engine in COMES_BACK else stays
    return step if now - its.since >= patience else Step.NOTHING


def _may_repair(its: Watched, now: datetime) -> bool:
    """Whether the last repair is long enough ago."""
    if its.repaired_at is None:
        return True
    return now - its.repaired_at >= _SPACING[min(its.repairs, len(_SPACING) - 1)]
