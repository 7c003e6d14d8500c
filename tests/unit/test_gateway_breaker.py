"""The breaker, on a clock that moves when told."""

from itertools import product

import pytest

from wsm.gateway.breaker import TRANSITIONS, Breaker, Circuit, Signal


class Clock:
    """Seconds, by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock=clock, failures=3, rest_seconds=1.0, longest_rest_seconds=4.0)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.admits()
        breaker.tell(Signal.FAILED)


def test_enough_failures_in_a_row_open_it(breaker: Breaker) -> None:
    fail(breaker, 3)
    assert breaker.circuit is Circuit.OPEN
    assert not breaker.admits()


def test_too_few_do_not(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.circuit is Circuit.CLOSED


def test_an_answer_between_failures_keeps_it_closed(breaker: Breaker) -> None:
    for _ in range(5):
        fail(breaker, 2)
        breaker.tell(Signal.ANSWERED)
    assert breaker.circuit is Circuit.CLOSED


def test_after_the_rest_one_call_asks_and_its_answer_closes(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.admits()
    assert not breaker.admits(), "one asks, not two"
    breaker.tell(Signal.ANSWERED)
    assert breaker.circuit is Circuit.CLOSED
    fail(breaker, 2)
    assert breaker.circuit is Circuit.CLOSED, "the count began anew"


def test_every_rest_is_longer_up_to_the_bound(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    for rest in (1.0, 2.0, 4.0, 4.0):
        clock.now += rest - 0.01
        assert not breaker.admits()
        clock.now += 0.01
        assert breaker.admits()
        breaker.tell(Signal.FAILED)
    clock.now += 4.0
    assert breaker.admits()
    breaker.tell(Signal.ANSWERED)
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.admits(), "an answer makes the rests short again"


def test_a_probe_that_was_given_up_makes_room_for_the_next(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.admits()
    breaker.tell(Signal.ABANDONED)
    assert breaker.admits()
    breaker.tell(Signal.FAILED)
    clock.now += 1.99
    assert not breaker.admits(), "giving up did not change the rests"
    clock.now += 0.01
    assert breaker.admits()


def test_a_late_answer_closes_it(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.tell(Signal.ANSWERED)
    assert breaker.circuit is Circuit.CLOSED
    assert breaker.admits()


def test_late_failures_make_no_rest_longer(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    for _ in range(10):
        breaker.tell(Signal.FAILED)
    clock.now += 1.0
    assert breaker.admits()


def test_giving_up_a_call_says_nothing_about_the_server(breaker: Breaker) -> None:
    for _ in range(10):
        assert breaker.admits()
        breaker.tell(Signal.ABANDONED)
    assert breaker.circuit is Circuit.CLOSED


def test_no_state_is_a_trap() -> None:
    left = {state for (state, _), after in TRANSITIONS.items() if after is not state}
    assert left == set(Circuit)
    assert set(TRANSITIONS) <= set(product(Circuit, Signal))
