"""What timers come to: decided from how things are when they fire, however late that is."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsm.core.bot import RULES, Bot, Rule, complete_at, rule
from wsm.core.conversation import State
from wsm.core.notices import Manners, Told
from wsm.core.timers import NOTHING, Case, Do, Then, TimerKind, decide

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOON - timedelta(seconds=seconds)


def ahead(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


CALLED = Case(
    state=State.SERVED,
    told=Told(place=1, at=ago(900)),
    served_at=ago(301),
    turn_told_at=ago(300),
    heard_at=ago(900),
)
NUDGED = msgspec.structs.replace(CALLED, turn_told_at=ago(600), served_at=ago(601))


def test_who_was_called_and_says_nothing_is_asked_once_and_then_put_aside() -> None:
    asked = decide(TimerKind.NUDGE, CALLED, NOON)
    assert asked == Then(again=(TimerKind.RELEASE, ahead(300)), say="nudge", minutes=5)
    assert decide(TimerKind.RELEASE, NUDGED, NOON) == Then(do=Do.PARK, say="released", minutes=30)


@pytest.mark.parametrize("kind", [TimerKind.NUDGE, TimerKind.RELEASE])
@pytest.mark.parametrize("state", [State.WAITING, State.CLOSED])
def test_who_is_not_served_any_more_is_not_asked(kind: TimerKind, state: State) -> None:
    assert decide(kind, msgspec.structs.replace(CALLED, state=state), NOON) == NOTHING


@pytest.mark.parametrize("kind", [TimerKind.NUDGE, TimerKind.RELEASE])
@pytest.mark.parametrize("heard_at", [ago(299), NOON, ago(300).replace(microsecond=0)])
def test_who_answers_is_left_in_peace(kind: TimerKind, heard_at: datetime) -> None:
    case = msgspec.structs.replace(CALLED, heard_at=heard_at, turn_told_at=ago(299.5))
    assert decide(kind, case, NOON) == NOTHING


def test_who_has_not_heard_of_his_turn_is_waited_for() -> None:
    unheard = msgspec.structs.replace(CALLED, turn_told_at=None)
    assert decide(TimerKind.NUDGE, unheard, NOON) == Then(again=(TimerKind.NUDGE, ahead(300)))
    lately = msgspec.structs.replace(CALLED, turn_told_at=ago(100))
    assert decide(TimerKind.NUDGE, lately, NOON) == Then(again=(TimerKind.NUDGE, ahead(200)))


def test_after_an_outage_of_hours_he_is_still_asked_before_he_is_put_aside() -> None:
    long_ago = msgspec.structs.replace(CALLED, turn_told_at=ago(4 * 3600), heard_at=ago(5 * 3600))
    asked = decide(TimerKind.NUDGE, long_ago, NOON)
    assert (asked.say, asked.again) == ("nudge", (TimerKind.RELEASE, ahead(300)))


WAITING = Case(state=State.WAITING, place=5, told=Told(place=5, at=ago(600)), args={"place": 5})


def test_silence_is_broken_once_and_looked_at_again_later() -> None:
    assert decide(TimerKind.SILENCE, WAITING, NOON) == Then(
        again=(TimerKind.SILENCE, ahead(1200)), args={"place": 5}, apologize=True
    )


@pytest.mark.parametrize(
    "case",
    [
        msgspec.structs.replace(WAITING, state=State.SERVED, place=None),
        msgspec.structs.replace(WAITING, state=State.CLOSED, place=None),
    ],
)
def test_nobody_apologizes_to_who_does_not_wait(case: Case) -> None:
    assert decide(TimerKind.SILENCE, case, NOON) == NOTHING


def test_while_the_queue_is_closed_nobody_apologizes() -> None:
    closed = msgspec.structs.replace(WAITING, shut=True)
    found = decide(TimerKind.SILENCE, closed, NOON)
    assert (found.apologize, found.again) == (False, (TimerKind.SILENCE, ahead(600)))


STRICT = Manners(remind=1800, end=600)
TALK = Case(state=State.SERVED, served_at=ago(9000), heard_at=ago(5000), said_at=ago(1800), manners=STRICT)


def test_who_owes_an_answer_is_reminded_and_then_ended() -> None:
    reminded = decide(TimerKind.REMIND, TALK, NOON)
    assert (reminded.say, reminded.minutes, reminded.again) == ("reminder", 10, (TimerKind.END, ahead(600)))
    later = msgspec.structs.replace(TALK, args=reminded.args)
    assert decide(TimerKind.END, later, ahead(600)) == Then(do=Do.END, say="ended")
    answered = msgspec.structs.replace(later, heard_at=ahead(300))
    assert decide(TimerKind.END, answered, ahead(600)) == Then(again=(TimerKind.REMIND, ahead(2400)))


@pytest.mark.parametrize(
    "case",
    [
        msgspec.structs.replace(TALK, heard_at=ago(100)),
        msgspec.structs.replace(TALK, said_at=None),
        msgspec.structs.replace(TALK, shut=True),
    ],
)
def test_nobody_is_ended_to_whom_an_agent_owes_the_answer_or_out_of_hours(case: Case) -> None:
    assert decide(TimerKind.REMIND, case, NOON) == Then(again=(TimerKind.REMIND, ahead(1800)))


def test_without_such_manners_nobody_is_reminded() -> None:
    assert decide(TimerKind.REMIND, msgspec.structs.replace(TALK, manners=Manners()), NOON) == NOTHING


def test_manners_that_make_no_sense_are_refused() -> None:
    for wrong in ({"nudge": -1}, {"nudge": 600, "release": 600}, {"remind": 10**9}, {"survey": 1}, {"x": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, Manners)
    assert msgspec.convert({"nudge": 0, "release": 0}, Manners).nudge == 0


@given(
    kind=st.sampled_from([TimerKind.SILENCE, TimerKind.NUDGE, TimerKind.RELEASE, TimerKind.REMIND]),
    state=st.sampled_from([State.WAITING, State.SERVED, State.CLOSED]),
    times=st.lists(st.none() | st.integers(0, 10**6), min_size=5, max_size=5),
    late=st.integers(0, 10**6),
    shut=st.booleans(),
)
def test_every_timer_comes_to_an_end_or_is_due_later(
    kind: TimerKind, state: State, times: list[int | None], late: int, shut: bool
) -> None:
    at = [None if each is None else ago(each) for each in times]
    case = Case(
        state=state,
        place=3 if state is State.WAITING else None,
        told=Told(place=4 if at[0] else None, at=at[0]),
        turn_told_at=at[1],
        heard_at=at[2],
        said_at=at[3],
        served_at=at[4],
        shut=shut,
        manners=STRICT,
    )
    now = ahead(late)
    found = decide(kind, case, now)
    assert found.again is None or found.again[1] > now
    assert state is not State.CLOSED or found == NOTHING


def test_a_burst_is_complete_when_he_pauses_and_at_the_latest_after_a_while() -> None:
    bot = Bot(debounce=6, longest=45)
    assert complete_at(NOON, NOON, bot) == ahead(6)
    assert complete_at(ahead(20), NOON, bot) == ahead(26)
    assert complete_at(ahead(44), NOON, bot) == ahead(45)
    for wrong in ({"debounce": 50}, {"longest": 10**6}, {"pause_hours": 0}, {"debounce": -1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, Bot)


def test_every_kind_has_a_rule_the_unknown_ones_too() -> None:
    assert rule("text") is rule("something from the future") is Rule.OPENS
    assert {kind for kind, its in RULES.items() if its is Rule.NOTED} == {"album", "system"}
