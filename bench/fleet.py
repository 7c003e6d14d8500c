"""A `wsm worker` whose turns do nothing, or wait: `python -m bench.fleet --slots N [--wait S] [--entries N]`.

Everything but the turn is the real one: the loop, the scripts, the leases, the registration in RQ's keys.
PostgreSQL is never asked.
"""

import argparse
import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

from bench.peers import jobs
from wsm import telemetry
from wsm.bootstrap import utc_now
from wsm.core.pacing import Pace
from wsm.gateway.fetch import Fetching
from wsm.gateway.waha import Gateways
from wsm.ingest.server import run
from wsm.store.database import Database
from wsm.store.paces import Pacing
from wsm.streams.client import connect
from wsm.streams.handover import Bell, Handover, Limits
from wsm.streams.keys import Kind
from wsm.worker import registration
from wsm.worker.deliver import Deliveries
from wsm.worker.media import Files
from wsm.worker.turn import Settled, Turns
from wsm.worker.worker import Worker

LIMITS = Limits(tenant_entries=10**6, tenant_bytes=2**32, all_bytes=2**32, quarantine_entries=100)
_NEVER = "postgresql://nobody@/nothing"


async def _empty() -> None:
    jobs.empty()


class _Jobs(Turns):
    """Turns that run a job, and have then handled their entries."""

    def __init__(self, database: Database, job: Callable[[], Awaitable[None]]) -> None:
        super().__init__(database, clock=utc_now, stale_after=timedelta(days=60))
        self._job = job

    async def run(self, bell: Bell) -> Settled:
        """Run the job of one bell, whatever its entries are."""
        await self._job()
        return Settled(handled=list(bell.entries))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.fleet")
    parser.add_argument("job", choices=("empty", "wait"))
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--entries", type=int, default=200, help="of a turn")
    its = parser.parse_args()
    telemetry.configure_logging("worker", "info")
    url = os.environ["REDIS_URL"]
    database = Database(_NEVER, connections=1)
    gateways = Gateways({}, send_timeout_seconds=1)
    deliveries = Deliveries(
        database,
        gateways,
        clock=utc_now,
        monotonic=lambda: 0,
        start_within=timedelta(seconds=4),
        evidence=timedelta(seconds=180),
        pacing=Pacing(Pace(typing=False), random.random),
        files=Files(database, gateways, Fetching(limit_bytes=1), clock=utc_now, in_flight_bytes=1),
    )

    async def until(stop: asyncio.Event) -> None:
        redis = connect(url, timeout_seconds=5)
        worker = Worker(
            f"bench-{os.getpid()}",
            Handover(redis, limits=LIMITS, lease_seconds=4, turn_entries=its.entries),
            database,
            _Jobs(database, {"empty": _empty, "wait": jobs.wait_on_the_loop}[its.job]),
            deliveries,
            slots={Kind.TURN: its.slots, Kind.DELIVER: its.slots},
            drain_seconds=1,
        )
        connection = registration.connect(url, connections=5)
        beating = registration.registered(connection, f"bench-{os.getpid()}", [], lambda: worker.busy)
        shown = asyncio.create_task(beating)
        try:
            await worker.run(stop)
        finally:
            shown.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await shown
            connection.close()
            await redis.aclose()

    run(until)


if __name__ == "__main__":
    main()
