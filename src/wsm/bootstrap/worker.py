"""`wsm worker`: what it is made of."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from datetime import timedelta

from wsm import telemetry
from wsm.bootstrap import parts, watched
from wsm.config import Settings

_CALLS_PER_SERVER = 64
"""Of one worker at once, or half of its slots for deliveries: a server that hangs leaves the rest."""


def run_worker(settings: Settings) -> None:
    """Ring, run bells and ordinary jobs until SIGTERM. Raises BadInput when a setting is missing."""
    from wsm.gateway.fetch import Fetching  # noqa: PLC0415
    from wsm.gateway.waha import Gateways  # noqa: PLC0415
    from wsm.ingest.server import run  # noqa: PLC0415
    from wsm.store.database import Database  # noqa: PLC0415
    from wsm.store.paces import Pacing  # noqa: PLC0415
    from wsm.streams.client import connect  # noqa: PLC0415
    from wsm.streams.keys import Kind  # noqa: PLC0415
    from wsm.worker import registration  # noqa: PLC0415
    from wsm.worker.commands import obeyed  # noqa: PLC0415
    from wsm.worker.deliver import Deliveries  # noqa: PLC0415
    from wsm.worker.jobs import Jobs  # noqa: PLC0415
    from wsm.worker.media import Files  # noqa: PLC0415
    from wsm.worker.turn import Turns  # noqa: PLC0415
    from wsm.worker.worker import Worker  # noqa: PLC0415

    telemetry.configure_logging("worker", settings.log_level)
    parts.require(settings, "redis_url", "database_url", "waha")
    name = parts.process_name()

    async def main(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            redis = connect(settings.redis_url, timeout_seconds=parts.REDIS_SECONDS)
            stack.push_async_callback(redis.aclose)
            database = Database(settings.database_url, connections=settings.database_connections)
            await database.open()
            stack.push_async_callback(database.close)
            gateways = Gateways(
                parts.waha_servers(settings),
                settings.exits,
                send_timeout_seconds=settings.send_timeout_seconds,
                concurrent_calls=max(1, min(_CALLS_PER_SERVER, settings.deliver_slots // 2)),
            )
            stack.push_async_callback(gateways.aclose)
            worker = Worker(
                name,
                parts.handover(settings, redis),
                database,
                Turns(
                    database,
                    clock=parts.utc_now,
                    stale_after=timedelta(days=settings.stale_days),
                    answer_backfilled_within=timedelta(minutes=settings.answer_backfilled_minutes),
                    pace=settings.pace,
                ),
                Deliveries(
                    database,
                    gateways,
                    clock=parts.utc_now,
                    monotonic=time.monotonic,
                    start_within=timedelta(seconds=settings.lease_seconds),
                    evidence=timedelta(seconds=settings.evidence_seconds),
                    pacing=Pacing(settings.pace, random.random),
                    files=Files(
                        database,
                        gateways,
                        Fetching(limit_bytes=settings.media_limit_bytes, hosts=settings.media_hosts),
                        clock=parts.utc_now,
                        in_flight_bytes=settings.media_in_flight_bytes,
                        types=settings.media_types,
                    ),
                ),
                slots={Kind.TURN: settings.turn_slots, Kind.DELIVER: settings.deliver_slots},
                drain_seconds=settings.drain_seconds,
            )
            connection = registration.connect(settings.redis_url, connections=2 * settings.job_slots + 10)
            stack.callback(connection.close)
            jobs = Jobs(
                name,
                redis,
                connection,
                queues=settings.job_queues,
                slots=settings.job_slots,
                drain_seconds=settings.drain_seconds,
            )

            async def stop_job(job_id: str) -> bool:
                return jobs.stop(job_id) or await worker.hand_back(job_id)

            checks = {"redis": watched.durable(settings, redis), "database": database.ping}
            await stack.enter_async_context(watched.observed(settings, checks))
            shown = registration.registered(
                connection, name, settings.job_queues, lambda: worker.busy or jobs.busy
            )
            told = obeyed(redis, name, stop_job, stop.set)
            await stack.enter_async_context(watched.beside(shown, told))
            async with asyncio.TaskGroup() as both:
                both.create_task(jobs.run(stop))
                both.create_task(worker.run(stop))

    run(main)
