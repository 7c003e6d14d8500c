"""The five scripts, the lane and the dedupe as one model: any interleaving, and everything counts once."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from databases import Database
from handover_machine import HandoverMachine
from handover_world import LEASE_MS, TENANTS, Lane, World
from wsm.streams.keys import Kind
from wsm.streams.scripts import Script, load

ONE = TENANTS[0]


@pytest.fixture
def world(redis_url: str, database: Database) -> Iterator[World]:
    found = World(redis_url, database)
    HandoverMachine.world = found
    yield found
    found.close()


def test_any_history_counts_everything_once_and_leaves_nothing(world: World) -> None:
    run_state_machine_as_test(
        HandoverMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def stall(machine: HandoverMachine, *, before: str) -> None:
    """Ana stalls past her lease with two entries; Bia is given the first of them."""
    machine.accept(items=[(ONE, "a", "flaky", False), (ONE, "b", "good", False)])
    machine.ring(kind=Kind.TURN, limit=1)
    machine.claim(worker="ana", turns=1, deliveries=0)
    machine.time_passes(milliseconds=LEASE_MS + 1)
    machine.check()
    machine.sweep()
    machine.ring(kind=Kind.TURN, limit=1)
    machine.claim(worker=before, turns=1, deliveries=0)
    machine.check()


def a_stale_worker_finishes(machine: HandoverMachine) -> None:
    stall(machine, before="bia")
    machine.finish(worker="ana", pick=0)


def two_workers_commit_the_same(machine: HandoverMachine) -> None:
    stall(machine, before="bia")
    machine.begin(worker="ana", pick=0)
    machine.commit(worker="ana", pick=0)
    machine.begin(worker="bia", pick=0)
    machine.commit(worker="bia", pick=0)


def two_turns_are_open_at_once(machine: HandoverMachine) -> None:
    """Bia puts chat a aside and goes on with what came since; Ana, back again, has both old entries."""
    stall(machine, before="bia")
    machine.begin(worker="bia", pick=0)
    machine.finish(worker="bia", pick=0)
    machine.check()
    machine.accept(items=[(ONE, "b", "good", False)])
    machine.claim(worker="bia", turns=1, deliveries=0)
    machine.begin(worker="ana", pick=0)
    machine.begin(worker="bia", pick=0)
    machine.commit(worker="ana", pick=0)
    machine.commit(worker="bia", pick=0)


def a_sweep_meets_a_worker(machine: HandoverMachine) -> None:
    machine.accept(items=[(ONE, "a", "good", False)])
    machine.ring(kind=Kind.TURN, limit=1)
    machine.claim(worker="ana", turns=1, deliveries=0)
    machine.check()
    machine.sweep()


def deliveries_are_due_again(machine: HandoverMachine) -> None:
    for _ in range(2):
        machine.mail(tenant=ONE)
        machine.ring(kind=Kind.DELIVER, limit=1)


def a_killer_shares_its_worker(machine: HandoverMachine) -> None:
    """What kills them both five times is one tenant's entry; the other's lives."""
    machine.accept(items=[(ONE, "a", "lethal", False), (TENANTS[1], "a", "good", False)])
    machine.check()
    machine.drain()
    assert not machine.held[TENANTS[1]].dead


HISTORIES = (
    a_stale_worker_finishes,
    two_workers_commit_the_same,
    two_turns_are_open_at_once,
    a_sweep_meets_a_worker,
    deliveries_are_due_again,
    a_killer_shares_its_worker,
)


def live(history: Callable[[HandoverMachine], None]) -> None:
    """Let one history happen, and drain it."""
    machine = HandoverMachine()
    try:
        history(machine)
        machine.check()
    finally:
        machine.teardown()


@pytest.mark.parametrize("history", HISTORIES)
def test_a_history_that_once_went_wrong_or_could(
    world: World, history: Callable[[HandoverMachine], None]
) -> None:
    live(history)


class NoLock(Lane):
    locks = False


class NoDedupe(Lane):
    dedupes = False


@pytest.mark.parametrize(
    ("lane", "history"), [(NoLock, two_turns_are_open_at_once), (NoDedupe, two_workers_commit_the_same)]
)
def test_the_model_sees_a_missing_lane(
    world: World, lane: type[Lane], history: Callable[[HandoverMachine], None]
) -> None:
    world.lane = lane()
    with pytest.raises(AssertionError):
        live(history)


@pytest.mark.parametrize(
    ("name", "right", "wrong", "history"),
    [
        ("finish", "if its[1] ~= bell or its[2] ~= 'claimed' then", "if false then", a_stale_worker_finishes),
        ("sweep", "if tonumber(its[3]) >= now then", "if false then", a_sweep_meets_a_worker),
        ("ring", "if not state then", "if true then", deliveries_are_due_again),
        ("claim", "if few == 1 and lone == 0 then", "if false then", a_killer_shares_its_worker),
        ("accept", "count(t, its.new, its.size)", "count(t, its.new, 0)", a_sweep_meets_a_worker),
    ],
)
def test_the_model_sees_a_broken_script(
    world: World, name: str, right: str, wrong: str, history: Callable[[HandoverMachine], None]
) -> None:
    text = load(name).text
    assert text.count(right) == 1
    world.handover._scripts[name] = Script(text.replace(right, wrong))
    with pytest.raises(AssertionError):
        live(history)
