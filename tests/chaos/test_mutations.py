"""The books find every fault that is planted in wsm, and nothing where none is."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from chaos.deaths import Deaths, check_books, deadly_town
from chaos.killpoints import source
from chaos.mutations import MUTATIONS, POINTER_CHECK
from e2e.town import YOUR_TURN, Ground, Town, customers, entered
from waiting import wait_for
from wsm.bootstrap import front_door
from wsm.core.errors import Unavailable
from wsm.core.ids import TenantId
from wsm.sandbox.site import WORKERS
from wsm.sandbox.waha.faults import Wrong
from wsm.streams.keys import Kind

SHOP = TenantId(1460561546)
A, B, C = customers(3)
BEFORE_FINISH, AFTER_FINISH, IN_TURN, RENDERED = (
    "worker.worker:Worker._run#2.before",
    "worker.worker:Worker._run#2.after",
    "worker.turn:Turns._commit#1.before",
    "store.outbox:claim#2.after",
)
"""A turn is committed and not finished; it is finished; it has its entries; a notice is to be rendered."""

Scenario = Callable[[Town, Deaths], Awaitable[None]]


async def everything_comes_twice(at: Town, _: Deaths) -> None:
    for who in (A, B, C):
        await at.says(SHOP, who, "oi", duplicates=3)
    await at.quiet()


async def redis_dies_before_a_message_comes(at: Town, _: Deaths) -> None:
    await asyncio.to_thread(at.ground.servers.valkey.kill)
    await at.says(SHOP, A, "oi")
    await wait_for(lambda: at.waha.courier.log[-1].answers)
    await asyncio.to_thread(at.ground.servers.valkey.start)
    await at.quiet()


async def a_worker_dies_while_the_gateway_is_slow(at: Town, _: Deaths) -> None:
    await at.quiet()
    await at.phone.fault(Wrong.HANG, seconds=6)
    await at.says(SHOP, A, "oi")
    await at.until("select count(*) from outbox where state = 'sending'")
    async with front_door(at.site.settings) as handover:
        holder = await handover.holder(Kind.DELIVER, SHOP)
    assert holder is not None
    at.site.supervisor.send(
        next(name for name in WORKERS if f"-{at.site.supervisor.pid(name)}-" in holder), signal.SIGKILL
    )
    await wait_for(lambda: at.inbox(A), 20)
    await at.quiet()


async def a_place_is_rendered_and_then_the_line_moves(at: Town, deaths: Deaths) -> None:
    await at.says(SHOP, A, "oi")
    await at.hears(A, YOUR_TURN)
    await at.says(SHOP, B, "oi")
    await at.hears(B, entered(1))
    await at.quiet()
    for name in WORKERS:  # so that none has an id at hand, and claims where it surveys
        await at.site.supervisor.kill(name)
    await at.site.supervisor.ready(*WORKERS)
    deaths.arm("worker", [RENDERED])
    await at.says(SHOP, C, "oi")
    stopped = await halted(at)
    await at.closes(SHOP, A)
    with suppress(AssertionError):  # under the lock it has to wait
        await at.until("select count(*) from tickets where closed_at is not null", timeout=2)
    at.site.supervisor.send(stopped, signal.SIGCONT)
    await at.quiet()


async def a_worker_sleeps_past_its_lease_before_it_finishes(at: Town, deaths: Deaths) -> None:
    await at.quiet()
    deaths.arm("worker", [BEFORE_FINISH])
    await at.says(SHOP, A, "oi")
    late = await halted(at)
    [other] = set(WORKERS) - {late}
    deaths.arm("worker", [IN_TURN, AFTER_FINISH])
    assert await halted(at, other) == other
    at.site.supervisor.send(late, signal.SIGCONT)
    await wait_for(lambda: not deaths.left("worker"))
    await at.site.supervisor.kill(other)
    at.site.supervisor.send(late, signal.SIGCONT)
    await at.quiet()


async def halted(at: Town, *names: str) -> str:
    """Wait until one of some workers, or of all, has stopped, and return its name."""

    def found() -> str | None:
        for name in names or WORKERS:
            with suppress(OSError, Unavailable):
                stat = Path(f"/proc/{at.site.supervisor.pid(name)}/stat").read_text()
                if stat.rpartition(")")[2].split()[0] == "T":
                    return name
        return None

    name = await wait_for(found, 15)
    assert name is not None
    return name


SCENARIOS: dict[str, Scenario] = {
    "no_dedupe": everything_comes_twice,
    "early_ack": redis_dies_before_a_message_comes,
    "blind_repeat": a_worker_dies_while_the_gateway_is_slow,
    "no_lock": a_place_is_rendered_and_then_the_line_moves,
    "finish_without_pointer": a_worker_sleeps_past_its_lease_before_it_finishes,
}


STEPPED = ("no_lock", "finish_without_pointer")
"""Those in which processes are stopped: what the others do, other tests do without a fault in it."""

FINDINGS = {
    "no_dedupe": "doubled",
    "early_ack": "accepted and lost",
    "blind_repeat": "sent twice",
    "no_lock": "told a place that is not his",
    "finish_without_pointer": "left over:.*rq:job:turn-",
}
"""What the books say of each."""


with_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="whether a process is stopped stands in /proc"
)


@asynccontextmanager
async def stage(ground: Ground, **planted: str) -> AsyncIterator[tuple[Town, Deaths]]:
    deaths = Deaths(ground.home / "points")
    changed = {"CHAOS_SIGNAL": "SIGSTOP", "WSM_EVIDENCE_SECONDS": "10"}
    async with deadly_town(ground, [SHOP], deaths, {**changed, **planted}) as at:
        yield at, deaths


def test_every_mutation_has_its_scenario() -> None:
    assert SCENARIOS.keys() == MUTATIONS.keys()


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_fits_the_code(name: str) -> None:
    mutation = MUTATIONS[name]
    text = source(mutation.module).read_text()
    compile(mutation.planted(text), name, "exec", flags=0x2000)  # await may stand outside of a function
    assert POINTER_CHECK in source("wsm.streams.scripts").with_name("finish.lua").read_text()


@with_proc
@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_books_find_it(ground: Ground, name: str) -> None:
    async with stage(ground, CHAOS_MUTATION=name) as (at, deaths):
        await SCENARIOS[name](at, deaths)
        with pytest.raises(AssertionError, match=FINDINGS[name]):
            await check_books(at, [SHOP], deaths.told)


@with_proc
@pytest.mark.parametrize("name", STEPPED)
async def test_without_it_the_books_are_right(ground: Ground, name: str) -> None:
    async with stage(ground) as (at, deaths):
        await SCENARIOS[name](at, deaths)
        await check_books(at, [SHOP], deaths.told)
