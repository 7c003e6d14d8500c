"""Turns: a customer's message accepted, committed and answered, with echo, ack and the agent's closing.

    turns.rate  messages per second of the whole fleet on this machine: `wsm ingest`, `wsm clock` and one
                `wsm worker`, against a hook and one worker of stock RQ, where each webhook is a job and a
                commit

Per message there are four webhooks and one send (`bench.phones`), 400 messages in flight, 100 tenants. wsm
reserves the id of each send first, a second call. The time ends when everything accepted was handled. CPU is
that of the fleet's own processes; the servers', the phones' and the gateway's are told apart or not counted,
but they share the machine.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import msgspec
import uvloop

from bench import webhooks
from bench.harness import (
    Contender,
    Measure,
    Meter,
    Row,
    by_rate,
    interleaved,
    percentile,
    require,
    say,
    servers,
    table,
)
from bench.phones import Town
from bench.whole import Fleet, found, rq_fleet, server_pids, wsm_fleet
from wsm.sandbox.embedded import Embedded
from wsm.store.migrate import migrate

WSM, SIMPLE, FORKING = "wsm", "rq SimpleWorker", "rq worker (forks)"
TENANTS = 100
IN_FLIGHT = 400
MESSAGES = {WSM: 4000, SIMPLE: 800, FORKING: 200}


def run(rounds: int) -> Sequence[Row]:
    """Measure the family."""
    require("rq")
    with servers() as embedded:
        asyncio.run(migrate(embedded.database_url()))
        found(embedded, TENANTS)
        fleets: dict[str, Callable[[], AbstractContextManager[Fleet]]] = {
            WSM: partial(wsm_fleet, embedded),
            SIMPLE: partial(rq_fleet, embedded, simple=True),
            FORKING: partial(rq_fleet, embedded, simple=False),
        }
        medians = interleaved(
            [
                Contender(name, partial(_measure, embedded, fleet, MESSAGES[name]))
                for name, fleet in fleets.items()
            ],
            rounds,
        )
    table("Messages through the whole fleet, one worker process", medians)
    unit = "messages/s on this machine"
    return [
        by_rate("turns.rate", medians[WSM].rate, medians[name].rate, name, unit) for name in (SIMPLE, FORKING)
    ]


def _measure(
    embedded: Embedded, start: Callable[[], AbstractContextManager[Fleet]], messages: int
) -> Measure:
    with start() as fleet:
        return uvloop.run(_driven(embedded, fleet, messages))


async def _driven(embedded: Embedded, fleet: Fleet, messages: int) -> Measure:
    town = Town(fleet.port, [webhooks.address(number) for number in range(TENANTS)], talks=True)
    await town.open(fleet.gateway_port)
    try:
        await town.at_once(max(1, messages // 5), IN_FLIGHT)
        await drained(fleet)
        town.latencies.clear()
        meter, stores = Meter(*fleet.pids), Meter(*server_pids(embedded))
        began = time.monotonic()
        await town.at_once(messages, IN_FLIGHT)
        await drained(fleet)
        measure = meter.measure(messages, time.monotonic() - began)
    finally:
        town.close()
    if town.refused:
        raise SystemExit(f"{town.refused} webhooks were refused")
    say(f"    servers: {stores.cpu_seconds / messages * 10_000:.3g} CPU s per 10,000")
    p50, p99 = (1000 * percentile(town.latencies, share) for share in (0.5, 0.99))
    return msgspec.structs.replace(measure, p50_ms=p50, p99_ms=p99)


async def drained(fleet: Fleet, seconds: float = 120) -> None:
    """Wait until a fleet has handled everything."""
    async with asyncio.timeout(seconds):
        while not fleet.has_drained():
            fleet.check()
            await asyncio.sleep(0.02)
