"""One seed: load and faults together, then rest, then the verdict."""

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from chaos import records
from chaos.checker import Report, check
from chaos.faults import Faults
from chaos.load import Load
from chaos.records import Line, Records, Told
from chaos.stand import Dress, Stand, stand
from e2e.town import Ground, Town, customers
from wsm.core.ids import TenantId
from wsm.sandbox.supervisor import Child
from wsm.sandbox.waha.webhooks import Attempt

TENANTS = 8
CUSTOMERS = 8
CAPACITY = 3
REST_SECONDS = 150.0
_TESTS = str(Path(__file__).parents[1])


class Ran(msgspec.Struct, frozen=True):
    """A seed that ran: the verdict, what it was judged by, and the faults that were caused."""

    seed: int
    report: Report
    records: Records
    diary: Sequence[str]


async def run_seed(
    seed: int,
    ground: Ground,
    *,
    messages: int,
    tenants: int = TENANTS,
    only: Sequence[str] | None = None,
    changed: Mapping[str, str] | None = None,
    dressed: Dress | None = None,
) -> Ran:
    """Run one seed on an emptied Redis and a database of its own.

    The load lasts until `messages` deliveries were accepted, and a fault was seen through if any is to come.

    only     the faults to cause, by name, one after another and over again; empty for none, None for all
    changed  settings that differ, as `WSM_…` variables
    dressed  makes of each of wsm's processes what is run in its place
    """
    chance = random.Random(seed)
    shops = {TenantId(700 + n): customers(CUSTOMERS, shop=n) for n in range(1, tenants + 1)}
    told: list[Told] = []
    accepted = 0

    def watch(attempt: Attempt) -> None:
        nonlocal accepted
        told.append(records.told(attempt))
        accepted += told[-1].accepted_at is not None

    clocks = ground.home / "clocks"
    clocks.mkdir()

    def with_clock(child: Child) -> Child:
        return stepping(dressed(child) if dressed else child, clocks / child.name)

    async with stand(
        ground, shops, capacity=CAPACITY, changed=changed, dressed=with_clock, watch=watch
    ) as at:
        at.town.waha.world.media_ids = True
        load = Load(at.town, shops, random.Random(chance.getrandbits(64)))
        faults = Faults(at, random.Random(chance.getrandbits(64)), clocks)
        causing = asyncio.create_task(faults.run(only))
        try:
            await load.run(lambda: accepted >= messages and bool(faults.ended or causing.done()))
        finally:
            while not causing.done():  # stock redis-py on Python 3.11 may swallow a cancellation
                causing.cancel()
                await asyncio.wait([causing], timeout=1)
        await faults.mend()
        late = await _rest(at)
        run = await _collect(at.town, [*told, *load.told], load, faults)
    if not causing.cancelled() and (fault := causing.exception()):
        raise fault
    report = check(run)
    if late:
        report = msgspec.structs.replace(report, indeterminate=[*report.indeterminate, late])
    return Ran(seed, report, run, faults.diary)


def stepping(child: Child, clock: Path) -> Child:
    """Run a process of wsm with a clock that a file steps."""
    command = tuple("chaos.stepped" if part == "wsm" else part for part in child.command)
    paths = os.pathsep.join([_TESTS, child.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environ = {**child.environ, "PYTHONPATH": paths, "CHAOS_CLOCK": str(clock)}
    return msgspec.structs.replace(child, command=command, environ=environ)


async def _rest(at: Stand) -> str:
    """Wait until nothing is under way; say what still is when that takes too long."""
    try:
        await at.town.quiet(REST_SECONDS)
    except AssertionError as exc:
        return str(exc)
    return ""


async def _collect(town: Town, told: Sequence[Told], load: Load, faults: Faults) -> Records:
    tenants = await town.rows("select tenant_id, capacity from queues order by tenant_id")
    lines = []
    for row in tenants:
        audit = await town.rows(
            "select what, conversation_id, ticket_id, detail from audit where tenant_id = %s order by id",
            row.tenant_id,
        )
        lines.append(Line(row.tenant_id, row.capacity, audit))
    async with Redis.from_url(town.ground.servers.redis_url) as redis:
        dead = [f"dead letters in {key.decode()}" async for key in redis.scan_iter("wsm:*:dead")]
    return Records(
        told=told,
        kept=await records.kept(town),
        intents=await records.intents(town),
        arrivals=records.arrivals(town),
        pauses=faults.pauses,
        lines=lines,
        dead=dead,
        asked=load.asked,
    )
