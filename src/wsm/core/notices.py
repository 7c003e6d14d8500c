"""What a waiting customer is told, when, and how often.

Each notice rings a phone. A customer is told his place when he enters; after that only when it improved, and
the step is worth a ring; at most every two minutes and five times; when nothing moved for long; and whenever
he asks. The text is decided when its sending is claimed (`to_tell`), from the line as it is then: several
moves are told once, and what is no longer true is not told at all.
"""

import math
import unicodedata
from datetime import datetime, timedelta

import msgspec

ASKING = frozenset({"posicao", "position"})
"""Words that ask for the place: alone in a message, with or without accents and marks."""

LEAVING = frozenset({"sair"})
"""Words that leave the line; said while waiting."""

STAYING, LEAVING_A_MESSAGE = "1", "2"
"""What answers the offer of the silence breaker."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a queue's customers are told their places. Seconds, unless the name says otherwise.

    every     between a notice and the next unasked one
    at_most   unasked updates in one wait
    near      up to this place each step is worth telling
    step      behind it a place is told when it improved by so many
    silence   without movement, until an apology with an offer
    silence_again  until the next one
    ask_again      until a question is answered again
    sample    tickets closed in `sample_days` that an estimated wait needs
    """

    every: int = 120
    at_most: int = 5
    near: int = 5
    step: int = 3
    silence: int = 600
    silence_again: int = 1200
    ask_again: int = 30
    sample: int = 10
    sample_days: int = 7

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            if not 0 <= getattr(self, field) <= _LARGEST:
                raise ValueError(f"{field} must be from 0 to {_LARGEST}")
        if self.step < 1 or self.sample < 1:
            raise ValueError("step and sample must be at least 1")


_LARGEST = 86_400


class Manners(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What follows in a queue when a customer is silent. Seconds; 0: nothing.

    nudge    after who was called heard of his turn, until he is asked whether he is there
    release  … until he is put aside
    remind   after an agent's word that he did not answer, until he is reminded
    end      after that reminder, until his ticket ends
    survey   whether he is asked how it was, once a person has served him
    survey_open  how long a digit is read as the answer
    """

    nudge: int = 300
    release: int = 600
    remind: int = 0
    end: int = 600
    survey: bool = False
    survey_open: int = 600

    def __post_init__(self) -> None:
        for name in ("nudge", "release", "remind", "end", "survey_open"):
            if not 0 <= getattr(self, name) <= _LONGEST:
                raise ValueError(f"{name} must be from 0 to {_LONGEST}")
        if self.nudge and self.release <= self.nudge:
            raise ValueError("release must be later than nudge")


_LONGEST = 7 * 86_400


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a ticket knows of its notices.

    place    told last, None: none yet; a place that is told on asking counts, too
    at       when that was
    updates  unasked updates so far
    asked_at      the question that is, or was, answered
    silence_at    when an apology was last due
    entered_again  he was in line before: he is not welcomed as new
    """

    place: int | None = None
    at: datetime | None = None
    updates: int = 0
    asked_at: datetime | None = None
    silence_at: datetime | None = None
    entered_again: bool = False

    @property
    def offered(self) -> bool:
        """Whether the last thing that he heard was an apology with an offer."""
        return self.silence_at is not None and self.at is not None and self.at >= self.silence_at

    def owes(self, since: datetime | None) -> bool:
        """Whether something that came up at `since` has not been told yet."""
        return since is not None and (self.at is None or self.at < since)


class Notice(msgspec.Struct, frozen=True):
    """What is to be said: the template's name, and the place that counts as told."""

    name: str
    place: int

    @property
    def is_update(self) -> bool:
        """Whether it counts among the unasked updates."""
        return self.name in {"update", "next"}


def to_tell(
    place: int | None, told: Told, policy: Policy, now: datetime, *, shut: bool = False
) -> Notice | datetime | None:
    """Decide, at the moment of sending, what a waiting customer is told of his place.

    place  his place now, None when he does not wait any more
    shut   nobody serves him before the next opening: he is told that instead

    A time instead of a notice: not before then. None: there is nothing true and new to say.
    """
    if place is None:
        return None
    if told.place is None:
        entry = "back" if told.entered_again else "entry_next" if place == 1 else "entry"
        return Notice("closed" if shut else entry, place)
    if told.owes(told.asked_at):
        return Notice("position", place)
    return None if shut else _unasked(place, told.place, told, policy, now)


def _unasked(place: int, before: int, told: Told, policy: Policy, now: datetime) -> Notice | datetime | None:
    if told.owes(told.silence_at):
        worse = place > before
        return Notice("silence_moved" if worse else "silence", min(place, before))
    if not is_worth(place, told, policy):
        return None
    if (earliest := not_before(told, policy, now)) > now:
        return earliest
    return Notice("next" if place == 1 else "update", place)


def is_worth(place: int, told: Told, policy: Policy) -> bool:
    """Whether an unasked update to `place` is worth a ring: never a worse or equal one, nor a sixth."""
    if told.place is None or place >= told.place or told.updates >= policy.at_most:
        return False
    return place <= policy.near or told.place - place >= policy.step


def not_before(told: Told, policy: Policy, now: datetime) -> datetime:
    """Return when the next unasked update may be sent at the earliest: now, or later."""
    return now if told.at is None else max(now, told.at + timedelta(seconds=policy.every))


def is_answered(told: Told, policy: Policy, now: datetime) -> bool:
    """Whether somebody who asks for his place now is answered: at once, but not again and again."""
    return told.asked_at is None or now >= told.asked_at + timedelta(seconds=policy.ask_again)


class Look(msgspec.Struct, frozen=True):
    """What a look at a silent customer's wait has come to.

    again_at   when to look again
    place      his place at this look
    apologize  an apology is due now
    """

    again_at: datetime
    place: int
    apologize: bool


def look(place: int, before: int, told: Told, policy: Policy, now: datetime) -> Look:
    """Decide whether a waiting customer is told that nothing moves.

    before  his place at the last look, or at his entry

    Whoever moved since the last look, or heard of his place since, is looked at again when that time is over.
    """
    quiet, rest = timedelta(seconds=policy.silence), timedelta(seconds=policy.silence_again)
    if told.at is not None and told.at + quiet > now:
        return Look(told.at + quiet, min(before, place), apologize=False)
    apologized_at = told.at if told.offered else told.silence_at
    if apologized_at is not None and apologized_at + rest > now:
        return Look(apologized_at + rest, min(before, place), apologize=False)
    if place < before or told.place is None:
        return Look(now + quiet, place, apologize=False)
    return Look(now + rest, place, apologize=True)


class Pace(msgspec.Struct, frozen=True):
    """How quickly a queue serves, for an estimated wait.

    slots      how many can be served at once, now
    slots_lately  how many could be at the last measurement
    seconds    the median time that a ticket was served
    sample     how many closed tickets that is from
    """

    slots: int
    slots_lately: int
    seconds: float | None
    sample: int


_MARGIN = 1.2
_LONGEST_MINUTES = 180
_ROUND_MINUTES = 5


def expected(place: int, pace: Pace, policy: Policy) -> timedelta | None:
    """Estimate a wait; None where it would be a guess.

    Comm100's formula with the median: (⌊(place − 1) / slots⌋ + 1) × handling time; a fifth more, for an
    estimate that is too low hurts more than none. None when nobody serves, when slots just dropped, and when
    the sample is small.
    """
    if pace.slots < max(1, pace.slots_lately) or not pace.seconds or pace.sample < policy.sample:
        return None
    return timedelta(seconds=((place - 1) // pace.slots + 1) * pace.seconds * _MARGIN)


def estimate(place: int, pace: Pace, policy: Policy) -> tuple[int, int] | None:
    """Give an expected wait as a range of minutes; None where there is none, or more than three hours."""
    if (wait := expected(place, pace, policy)) is None:
        return None
    minutes = wait.total_seconds() / 60
    low = max(_ROUND_MINUTES, _ROUND_MINUTES * math.ceil(minutes / _ROUND_MINUTES))
    high = _ROUND_MINUTES * math.ceil(low * 1.5 / _ROUND_MINUTES)
    return (low, high) if high <= _LONGEST_MINUTES else None


def word(body: str) -> str:
    """Reduce a message to the one word that it is: no accents, marks or capitals; empty if it is several."""
    plain = unicodedata.normalize("NFKD", body[:64].casefold())
    letters = "".join(each for each in plain if each.isalnum() or each.isspace()).split()
    return letters[0] if len(letters) == 1 else ""
