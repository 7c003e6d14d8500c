"""What a waiting customer is told: case by case, and over simulated days."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsm.core.notices import (
    ASKING,
    LEAVING,
    Notice,
    Pace,
    Policy,
    Told,
    estimate,
    is_answered,
    is_worth,
    look,
    not_before,
    to_tell,
    word,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
USUAL = Policy()


def ago(seconds: float) -> datetime:
    return NOON - timedelta(seconds=seconds)


def told(place: int, seconds: float = 300, **more: object) -> Told:
    return msgspec.structs.replace(Told(place=place, at=ago(seconds)), **more)


@pytest.mark.parametrize(
    ("place", "before", "says"),
    [
        (4, Told(), Notice("entry", 4)),
        (1, Told(), Notice("entry_next", 1)),
        (3, Told(entered_again=True), Notice("back", 3)),
        (None, Told(), None),
        (4, told(5), Notice("update", 4)),
        (1, told(2), Notice("next", 1)),
        (5, told(5), None),
        (6, told(5), None),
        (8, told(9), None),
        (8, told(11), Notice("update", 8)),
        (5, told(6), Notice("update", 5)),
        (4, told(5, updates=5), None),
        (4, told(5, updates=4), Notice("update", 4)),
        (4, told(5, seconds=119), ago(-1)),
        (None, told(5), None),
    ],
)
def test_what_is_told_of_a_place(place: int | None, before: Told, says: object) -> None:
    assert to_tell(place, before, USUAL, NOON) == says


@pytest.mark.parametrize(
    ("place", "before", "says"),
    [
        (7, told(5, seconds=2, asked_at=ago(1)), Notice("position", 7)),
        (5, told(5, updates=5, asked_at=ago(0)), Notice("position", 5)),
        (5, told(5, seconds=1, asked_at=ago(2)), None),
        (5, told(5, seconds=700, silence_at=NOON), Notice("silence", 5)),
        (4, told(5, seconds=700, silence_at=NOON), Notice("silence", 4)),
        (7, told(5, seconds=700, silence_at=NOON), Notice("silence_moved", 5)),
        (None, told(5, asked_at=NOON, silence_at=NOON), None),
    ],
)
def test_who_asks_hears_the_truth_and_who_does_not_hears_nothing_worse(
    place: int | None, before: Told, says: object
) -> None:
    assert to_tell(place, before, USUAL, NOON) == says


def test_while_nobody_serves_he_hears_that_once_and_his_place_when_he_asks() -> None:
    assert to_tell(2, Told(), USUAL, NOON, shut=True) == Notice("closed", 2)
    assert to_tell(1, told(2), USUAL, NOON, shut=True) is None
    assert to_tell(1, told(2, silence_at=NOON), USUAL, NOON, shut=True) is None
    assert to_tell(2, told(2, asked_at=NOON), USUAL, NOON, shut=True) == Notice("position", 2)


def test_a_question_is_answered_again_after_half_a_minute() -> None:
    assert is_answered(Told(), USUAL, NOON)
    assert not is_answered(told(5, asked_at=ago(29)), USUAL, NOON)
    assert is_answered(told(5, asked_at=ago(30)), USUAL, NOON)


@pytest.mark.parametrize("body", ["posição", "Posicao", " POSIÇÃO?! ", "position", "Position."])
def test_the_question_is_understood_however_it_is_written(body: str) -> None:
    assert word(body) in ASKING


def test_other_words_are_no_questions() -> None:
    assert word("SAIR!") in LEAVING
    assert word("qual a minha posição") == ""
    assert word("") == word("???") == ""
    assert word("posição" * 10_000) not in ASKING


def test_an_apology_comes_after_ten_minutes_without_movement_and_not_again_before_twenty() -> None:
    entered = told(5, seconds=600)
    found = look(5, 5, entered, USUAL, NOON)
    assert found.apologize
    assert found.again_at == NOON + timedelta(minutes=20)
    again = look(5, 5, told(5, seconds=599, silence_at=ago(600)), USUAL, NOON)
    assert (again.apologize, again.again_at) == (False, NOON + timedelta(seconds=1))
    resting = look(5, 5, told(5, seconds=700, silence_at=ago(700)), USUAL, NOON)
    assert (resting.apologize, resting.again_at) == (False, NOON + timedelta(seconds=500))


def test_who_moved_or_asked_meanwhile_needs_no_apology() -> None:
    moved = look(40, 41, told(43, seconds=900), USUAL, NOON)
    assert (moved.apologize, moved.place, moved.again_at) == (False, 40, NOON + timedelta(minutes=10))
    asked = look(5, 5, told(5, seconds=60, asked_at=ago(61)), USUAL, NOON)
    assert (asked.apologize, asked.again_at) == (False, NOON + timedelta(minutes=9))
    assert not look(5, 5, Told(), USUAL, NOON).apologize, "who has not been welcomed yet hears that first"


@pytest.mark.parametrize(
    ("place", "pace", "minutes"),
    [
        (1, Pace(slots=1, slots_lately=1, seconds=480, sample=10), (10, 15)),
        (4, Pace(slots=2, slots_lately=2, seconds=480, sample=50), (20, 30)),
        (5, Pace(slots=2, slots_lately=2, seconds=480, sample=50), (30, 45)),
        (1, Pace(slots=3, slots_lately=3, seconds=30, sample=50), (5, 10)),
        (1, Pace(slots=1, slots_lately=1, seconds=480, sample=9), None),
        (1, Pace(slots=0, slots_lately=0, seconds=480, sample=50), None),
        (1, Pace(slots=1, slots_lately=2, seconds=480, sample=50), None),
        (1, Pace(slots=1, slots_lately=1, seconds=None, sample=50), None),
        (500, Pace(slots=1, slots_lately=1, seconds=480, sample=50), None),
    ],
)
def test_a_wait_is_estimated_as_a_range_and_only_when_that_is_honest(
    place: int, pace: Pace, minutes: tuple[int, int] | None
) -> None:
    assert estimate(place, pace, USUAL) == minutes


def test_a_policy_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"every": -1}, {"step": 0}, {"sample": 0}, {"silence": 10**9}, {"every": "2"}, {"evry": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, Policy)
    assert msgspec.convert({"every": 0}, Policy).every == 0


class Wait:
    """One customer's wait, as the store keeps it: an intent that is pending, and what was told."""

    def __init__(self, place: int, now: datetime) -> None:
        self.place = place
        self.told = Told()
        self.due: datetime | None = now
        self.looked = (now + timedelta(seconds=USUAL.silence), place)
        self.heard: list[tuple[datetime, Notice, bool]] = []

    def moved(self, place: int, now: datetime) -> None:
        """The line has moved; a better place is worth an intent, unless there is one."""
        self.place = place
        if self.due is None and is_worth(place, self.told, USUAL):
            self.due = not_before(self.told, USUAL, now)

    def asks(self, now: datetime) -> None:
        """He asks for his place."""
        if is_answered(self.told, USUAL, now):
            self.told = msgspec.structs.replace(self.told, asked_at=now)
            self.due = now

    def tick(self, now: datetime, *, sends: bool) -> None:
        """The clock looks, and what is due is claimed."""
        if now >= self.looked[0]:
            found = look(self.place, self.looked[1], self.told, USUAL, now)
            assert found.again_at > now
            self.looked = (found.again_at, found.place)
            if found.apologize:
                self.told = msgspec.structs.replace(self.told, silence_at=now)
                self.due = now
        if not sends or self.due is None or self.due > now:
            return
        notice = to_tell(self.place, self.told, USUAL, now)
        if isinstance(notice, datetime):
            self.due = notice
            return
        self.due = None
        if notice is not None:
            asked = self.told.owes(self.told.asked_at)
            self.heard.append((now, notice, asked))
            updates = self.told.updates + notice.is_update
            self.told = msgspec.structs.replace(self.told, place=notice.place, at=now, updates=updates)


@settings(max_examples=60, deadline=None)
@given(
    place=st.integers(1, 60),
    happens=st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from(["up", "up", "leap", "down", "asks", "none", "away"])),
        max_size=60,
    ),
)
def test_over_any_day_notices_keep_within_their_limits_and_are_true(
    place: int, happens: list[tuple[int, str]]
) -> None:
    now = NOON
    wait = Wait(place, now)
    wait.tick(now, sends=True)
    truths = [place]
    for seconds, what in happens:
        for _ in range(seconds // 20 + 1):
            now += timedelta(seconds=20)
            before = len(wait.heard)
            wait.tick(now, sends=what != "away")
            truths += [wait.place] * (len(wait.heard) - before)
        if what in {"up", "leap"}:
            wait.moved(max(1, wait.place - (1 if what == "up" else 7)), now)
        elif what == "down":
            wait.place += 1
        elif what == "asks":
            wait.asks(now)
    at, first, _ = wait.heard[0]
    assert (at, first.name in {"entry", "entry_next"}) == (NOON, True)
    known, last = first.place, at
    updates = 0
    apology: datetime | None = None
    for (at, notice, asked), truth in zip(wait.heard[1:], truths[1:], strict=True):
        assert notice.place == truth or notice.name == "silence_moved", "true when it is claimed"
        if not asked:
            assert notice.place <= known, "an unasked notice never tells a worse place"
            assert at - last >= timedelta(seconds=USUAL.every)
        if notice.is_update:
            updates += 1
            step = known - notice.place
            assert step >= USUAL.step or (step >= 1 and notice.place <= USUAL.near)
        if notice.name.startswith("silence"):
            assert at - last >= timedelta(seconds=USUAL.silence)
            assert apology is None or at - apology >= timedelta(seconds=USUAL.silence_again)
            apology = at
        known, last = notice.place, at
    assert updates <= USUAL.at_most
    questions = [at for at, notice, asked in wait.heard if asked]
    gaps = [later - earlier for earlier, later in pairwise(questions)]
    assert all(gap >= timedelta(seconds=USUAL.ask_again) for gap in gaps)
