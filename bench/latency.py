"""Latency: from the posting of a customer's webhook to the gateway's `sendText`, at 50 messages a second.

    turns.latency.p50, turns.latency.p99  wsm with one worker process, against four stock `rq worker`s: one,
                                          forking per job, cannot do 50 a second, and a queue that grows has
                                          no latency

Every message is a new customer's first one. The gateway tells of nothing that it sent, so a message is one
webhook and one job; wsm has reserved the id of the send before, where it could.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import count

import msgspec
import uvloop

from bench import webhooks
from bench.harness import (
    Contender,
    Measure,
    Meter,
    Row,
    by_cost,
    interleaved,
    percentile,
    require,
    say,
    servers,
    table,
)
from bench.phones import Town
from bench.turns import drained
from bench.whole import Fleet, found, rq_fleet, wsm_fleet
from wsm.store.migrate import migrate

WSM, FORKING = "wsm", "4 × rq worker (forks)"
TENANTS = 100
RATE = 50.0
SECONDS = 20
_WARM = 250


def run(rounds: int) -> Sequence[Row]:
    """Measure the family."""
    require("rq")
    with servers() as embedded:
        asyncio.run(migrate(embedded.database_url()))
        found(embedded, TENANTS)
        fleets: dict[str, Callable[[], AbstractContextManager[Fleet]]] = {
            WSM: partial(wsm_fleet, embedded),
            FORKING: partial(rq_fleet, embedded, simple=False, workers=4),
        }
        first = count()
        medians = interleaved(
            [Contender(name, partial(_measure, fleet, first.__next__)) for name, fleet in fleets.items()],
            rounds,
        )
    table(f"From webhook to gateway at {RATE:.0f}/s", medians)
    wsm, peer = medians[WSM], medians[FORKING]
    return [
        by_cost(
            f"turns.latency.{name}", getattr(wsm, f"{name}_ms"), getattr(peer, f"{name}_ms"), FORKING, "ms"
        )
        for name in ("p50", "p99")
    ]


def _measure(start: Callable[[], AbstractContextManager[Fleet]], number: Callable[[], int]) -> Measure:
    with start() as fleet:
        return uvloop.run(_driven(fleet, number()))


async def _driven(fleet: Fleet, number: int) -> Measure:
    town = Town(
        fleet.port, [webhooks.address(its) for its in range(TENANTS)], talks=False, first=number * 1_000_000
    )
    await town.open(fleet.gateway_port)
    messages = int(RATE * SECONDS)
    try:
        await town.at_rate(_WARM, RATE)
        town.latencies.clear()
        meter = Meter(*fleet.pids)
        late = await town.at_rate(messages, RATE)
        measure = meter.measure(messages - late)
        if late:
            say(f"    {late} of {messages} messages were not answered within a minute")
        else:
            await drained(fleet)
    finally:
        town.close()
    p50, p99 = (1000 * percentile(town.latencies, share) for share in (0.5, 0.99))
    return msgspec.structs.replace(measure, p50_ms=p50, p99_ms=p99)
