"""The line, on its own: no server, no clock."""

import pytest

from wsm.core.attendance import Did, Effect, Line, Spot, place_to_tell
from wsm.core.conversation import TRANSITIONS, State, Trigger, diagram, step


def line_of(*served_then_waiting: tuple[int, State], capacity: int = 1) -> Line:
    return Line(capacity, [Spot(who, state) for who, state in served_then_waiting])


def test_the_first_customer_is_served_at_once() -> None:
    line = Line(1, [])
    assert line.wrote(1, State.START) == [Effect(Did.OPENED_SERVED, 1), Effect(Did.TELL_TURN, 1)]


def test_the_others_are_told_their_place_at_entry() -> None:
    line = Line(1, [])
    line.wrote(1, State.START)
    assert line.wrote(2, State.START) == [Effect(Did.OPENED_WAITING, 2), Effect(Did.TELL_PLACE, 2)]
    assert line.wrote(3, State.CLOSED) == [Effect(Did.OPENED_WAITING, 3), Effect(Did.TELL_PLACE, 3)]
    assert line.waiting() == [2, 3]


def test_writing_again_keeps_the_place_and_says_nothing() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING))
    assert line.wrote(2, State.WAITING) == []
    assert line.wrote(1, State.SERVED) == []


def test_closing_calls_the_next_and_tells_everyone_behind() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING), (3, State.WAITING), (4, State.WAITING))
    assert line.closed(1, State.SERVED, "cli") == [
        Effect(Did.CLOSED, 1, "cli"),
        Effect(Did.SERVED, 2),
        Effect(Did.TELL_TURN, 2),
        Effect(Did.TELL_PLACE, 3),
        Effect(Did.TELL_PLACE, 4),
    ]


def test_who_leaves_the_line_moves_only_those_behind() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING), (3, State.WAITING), (4, State.WAITING))
    assert line.closed(3, State.WAITING, "cli") == [
        Effect(Did.CLOSED, 3, "cli"),
        Effect(Did.TELL_PLACE, 4),
    ]


def test_closing_twice_does_nothing_the_second_time() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING))
    line.closed(1, State.SERVED, "cli")
    assert line.closed(1, State.CLOSED, "cli") == []
    assert line.closed(9, State.START, "cli") == []


def test_more_capacity_serves_more() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING), (3, State.WAITING), capacity=2)
    assert line.refilled()[:2] == [Effect(Did.SERVED, 2), Effect(Did.TELL_TURN, 2)]
    assert line.waiting() == [3]


def test_a_newcomer_does_not_overtake_who_waits_for_a_free_place() -> None:
    line = line_of((2, State.WAITING), capacity=1)
    assert line.wrote(5, State.START)[0] == Effect(Did.OPENED_WAITING, 5)


def test_nobody_is_served_in_a_queue_without_capacity() -> None:
    line = Line(0, [])
    assert line.wrote(1, State.START)[0].did is Did.OPENED_WAITING
    assert line.refilled() == []


@pytest.mark.parametrize(
    ("place", "told", "expected"),
    [(3, None, 3), (2, 3, 2), (3, 3, None), (4, 3, None), (None, 3, None), (None, None, None)],
)
def test_a_notice_never_repeats_and_never_tells_a_worse_place(
    place: int | None, told: int | None, expected: int | None
) -> None:
    assert place_to_tell(place, told) == expected


def test_the_table_has_one_row_per_state_and_trigger() -> None:
    pairs = [(row.state, row.trigger) for row in TRANSITIONS]
    assert len(set(pairs)) == len(pairs)
    missing = {(state, trigger) for state in State for trigger in Trigger} - set(pairs)
    assert missing == {(state, Trigger.CALLED) for state in State if state is not State.WAITING}
    with pytest.raises(KeyError):
        step(State.CLOSED, Trigger.CALLED)


def test_the_diagram_names_every_state() -> None:
    assert all(state in diagram() for state in State)
