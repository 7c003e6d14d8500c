"""The five scripts, the lane and the dedupe as one model: any interleaving, and everything counts once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from databases import Database
from handover_model import NATURES, WORKERS, HandoverModel, Job
from handover_world import LEASE_MS, TENANTS, Lane, World
from wsm.streams.keys import Kind
from wsm.streams.scripts import Script, load

ONE = TENANTS[0]
Draw = Callable[[Any, str], Any]
TENANT = st.sampled_from(TENANTS)
WORKER = st.sampled_from(WORKERS)
SELDOM = st.sampled_from((False, False, False, False, True))
OFFERS = st.lists(
    st.tuples(TENANT, st.sampled_from("ab"), st.sampled_from(NATURES), SELDOM), min_size=1, max_size=5
)


@pytest.fixture
def world(redis_url: str, database: Database) -> Iterator[World]:
    found = World(redis_url, database)
    yield found
    found.close()


def live(world: World, history: Callable[[HandoverModel], None]) -> None:
    """Let a history happen, and drain it."""
    model = HandoverModel(world)
    try:
        history(model)
        model.check()
        model.drain()
    finally:
        model.close()


def possible(model: HandoverModel) -> list[str]:
    """What may happen next; what moves things on is there more often."""
    waiting = any((*model.shared.mail.values(), *model.shared.ready.values()))
    chances = {
        "accept": 2,
        "accept again": 1 if any(model.accepted.values()) else 0,
        "claim": 5 if waiting else 1 if model.all_jobs() else 0,
        "work": 2 if model.may_begin() else 0,
        "begin": 3 if model.may_begin() else 0,
        "commit": 1 if model.may_commit() else 0,
        "finish": 2 if model.may_finish() else 0,
        "crash": 1 if model.all_jobs() else 0,
        "time": 1,
        "time, sweep": 3,
        "steal": 1 if any(held.queue for held in model.held.values()) else 0,
        "forget": 1,
        "mail": 1,
        "pause": 1,
        "resume": 2 if model.shared.paused else 0,
        "replay": 1 if any(held.dead for held in model.held.values()) else 0,
        "drop": 1 if any(held.dead for held in model.held.values()) else 0,
    }
    return [name for name, chance in chances.items() for _ in range(chance)]


def happen(model: HandoverModel, draw: Draw) -> None:
    """Let one thing happen."""
    match draw(st.sampled_from(possible(model)), "next"):
        case "accept":
            model.accept(draw(OFFERS, "offers"))
        case "accept again":
            known = [(tenant, each) for tenant, letters in model.accepted.items() for each in letters]
            model.accept_again(*draw(st.sampled_from(known[::-1]), "letter"))
        case "claim":
            turns, lost = draw(st.sampled_from((2, 2, 1, 0)), "turns"), draw(SELDOM, "reply lost")
            model.claim(draw(WORKER, "worker"), turns, lost=lost)
        case "work":
            model.work(draw(st.sampled_from(model.may_begin()), "job"))
        case "begin":
            model.begin(draw(st.sampled_from(model.may_begin()), "job"))
        case "commit":
            model.commit(draw(st.sampled_from(model.may_commit()), "job"))
        case "finish":
            job, deliver = draw(st.sampled_from(model.may_finish()), "job"), draw(SELDOM, "deliver")
            model.finish(job, deliver=deliver, again=draw(SELDOM, "again"))
        case "crash":
            model.crash(draw(WORKER, "worker"))
        case "time" | "time, sweep" as what:
            model.time_passes(draw(st.sampled_from((LEASE_MS + 1, 500, 6000, 40_000)), "ms"))
            if "sweep" in what:
                model.sweep()
        case "steal":
            model.steal(draw(TENANT, "tenant"))
        case "forget":
            model.forget_scripts()
        case "mail" | "pause" | "resume" | "replay" | "drop" as what:
            getattr(model, what)(draw(TENANT, "tenant"))


def test_any_history_counts_everything_once_and_leaves_nothing(world: World) -> None:
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def lives(data: st.DataObject) -> None:
        def history(model: HandoverModel) -> None:
            for _ in range(data.draw(st.integers(0, 80), "steps")):
                happen(model, data.draw)
                model.check()

        live(world, history)

    lives()


def stall(model: HandoverModel) -> tuple[Job, Job]:
    """Ana stalls past her lease with two entries; Bia is given the first of them."""
    model.accept(items=[(ONE, "a", "flaky", False), (ONE, "b", "good", False)])
    model.claim(worker="ana")
    model.time_passes(milliseconds=LEASE_MS + 1)
    model.check()
    model.sweep()
    model.claim(worker="bia")
    model.check()
    [stalled], [job] = model.jobs["ana"], model.jobs["bia"]
    return stalled, job


def a_stale_worker_finishes(model: HandoverModel) -> None:
    stalled, _ = stall(model)
    model.finish(stalled)


def two_workers_commit_the_same(model: HandoverModel) -> None:
    for job in stall(model):
        model.faults.clear()
        model.begin(job)
        model.commit(job)


def two_turns_are_open_at_once(model: HandoverModel) -> None:
    """Bia puts chat a aside and goes on with what came since; Ana, back again, has both old entries."""
    stalled, job = stall(model)
    model.begin(job)
    model.finish(job)
    model.check()
    model.accept(items=[(ONE, "b", "good", False)])
    model.claim(worker="bia")
    for turn in (stalled, *model.jobs["bia"]):
        model.begin(turn)
    for turn in (stalled, *model.jobs["bia"]):
        model.commit(turn)


def a_sweep_meets_a_worker(model: HandoverModel) -> None:
    model.accept(items=[(ONE, "a", "good", False)])
    model.claim(worker="ana")
    model.check()
    model.sweep()


def deliveries_are_due_again(model: HandoverModel) -> None:
    for _ in range(2):
        model.mail(tenant=ONE)
        model.ring()


def a_killer_shares_its_worker(model: HandoverModel) -> None:
    """What kills them both five times is one tenant's entry; the other's lives."""
    model.accept(items=[(ONE, "a", "lethal", False), (TENANTS[1], "a", "good", False)])
    model.check()
    model.drain()
    assert not model.held[TENANTS[1]].dead


def a_paused_tenant_has_entries(model: HandoverModel) -> None:
    model.pause(tenant=ONE)
    model.accept(items=[(ONE, "a", "good", False)])
    model.mail(tenant=ONE)
    model.sweep()
    model.claim(worker="ana")
    model.check()
    assert not model.all_jobs()
    model.resume(tenant=ONE)
    model.claim(worker="ana")
    assert {job.bell.kind for job in model.all_jobs()} == set(Kind)


def a_tenant_is_paused_while_his_bell_waits(model: HandoverModel) -> None:
    model.accept(items=[(ONE, "a", "good", False)])
    model.ring()
    model.pause(tenant=ONE)
    model.claim(worker="ana")
    model.check()


def a_tenant_is_paused_in_his_turn(model: HandoverModel) -> None:
    """The turn ends well; what came meanwhile waits."""
    model.accept(items=[(ONE, "a", "good", False)])
    model.mail(tenant=ONE)
    model.claim(worker="ana")
    model.accept(items=[(ONE, "a", "good", False)])
    model.pause(tenant=ONE)
    model.claim(worker="ana")
    for job in model.all_jobs():
        model.begin(job)
        model.commit(job)
        model.finish(job, deliver=True)
    model.check()
    assert model.held[ONE].load[0] == 1


def dead_letters_stop_their_tenant_and_return(model: HandoverModel) -> None:
    model.accept(items=[(ONE, chat, "poison", False) for chat in "ab"])
    for _ in range(40):
        model.time_passes(milliseconds=130_000, swept=True)
        model.claim(worker="ana")
        while jobs := model.jobs["ana"]:
            model.work(jobs[0])
        model.check()
    assert (len(model.held[ONE].dead), model.shared.paused) == (2, {ONE})
    model.replay(tenant=ONE)
    model.check()
    assert not model.held[ONE].dead
    model.drain()
    assert not model.held[ONE].dead


HISTORIES = (
    a_stale_worker_finishes,
    two_workers_commit_the_same,
    two_turns_are_open_at_once,
    a_sweep_meets_a_worker,
    deliveries_are_due_again,
    a_killer_shares_its_worker,
    a_paused_tenant_has_entries,
    a_tenant_is_paused_while_his_bell_waits,
    a_tenant_is_paused_in_his_turn,
    dead_letters_stop_their_tenant_and_return,
)


@pytest.mark.parametrize("history", HISTORIES)
def test_a_history_that_once_went_wrong_or_could(
    world: World, history: Callable[[HandoverModel], None]
) -> None:
    live(world, history)


class NoLock(Lane):
    locks = False


class NoDedupe(Lane):
    dedupes = False


@pytest.mark.parametrize(
    ("lane", "history"), [(NoLock, two_turns_are_open_at_once), (NoDedupe, two_workers_commit_the_same)]
)
def test_the_model_sees_a_missing_lane(
    world: World, lane: type[Lane], history: Callable[[HandoverModel], None]
) -> None:
    world.lane = lane()
    with pytest.raises(AssertionError):
        live(world, history)


@pytest.mark.parametrize(
    ("name", "right", "wrong", "history"),
    [
        ("finish", "if its[1] ~= bell or its[2] ~= 'claimed' then", "if false then", a_stale_worker_finishes),
        ("sweep", "if tonumber(its[3]) >= now then", "if false then", a_sweep_meets_a_worker),
        ("ring", "if not state then", "if true then", deliveries_are_due_again),
        ("claim", "if few == 1 and lone == 0 then", "if false then", a_killer_shares_its_worker),
        ("sweep", "return not paused(t) and enrol(", "return enrol(", a_paused_tenant_has_entries),
        ("pause", "if its[2] == 'queued' then", "if false then", a_tenant_is_paused_while_his_bell_waits),
        ("claim", "or kind == 'deliver' and paused(t)", "", a_tenant_is_paused_in_his_turn),
        ("finish", "more = more and not paused(t)", "", a_tenant_is_paused_in_his_turn),
        (
            "finish",
            "if call('XLEN', key(t, 'dead')) >= most",
            "if false",
            dead_letters_stop_their_tenant_and_return,
        ),
        (
            "dead",
            "count_dead(-done, -bytes)",
            "count_dead(-done, 0)",
            dead_letters_stop_their_tenant_and_return,
        ),
        (
            "accept",
            "add(key(t, 'load'), its.new, its.size)",
            "add(key(t, 'load'), its.new, 0)",
            a_sweep_meets_a_worker,
        ),
    ],
)
def test_the_model_sees_a_broken_script(
    world: World, name: str, right: str, wrong: str, history: Callable[[HandoverModel], None]
) -> None:
    text = load(name).text
    assert text.count(right) == 1
    broken = Script(text.replace(right, wrong))
    match name:
        case "pause":
            world.pauses._script = broken
        case "dead":
            world.letters._script = broken
        case _:
            world.handover._scripts[name] = broken
    with pytest.raises(AssertionError):
        live(world, history)
