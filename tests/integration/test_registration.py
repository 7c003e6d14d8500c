"""What RQ's own tools see of a worker: born, busy or idle, alive after a Redis that forgot, dead."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import redis
import rq
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from waiting import wait_for
from wsm.sandbox.embedded import Embedded
from wsm.worker.registration import connect, registered

NAME = "host-1-abc123"
BEAT_SECONDS = 0.05


@asynccontextmanager
async def shown(url: str, busy: Callable[[], bool]) -> AsyncIterator[asyncio.Task[None]]:
    """Show a worker until the end of the block."""
    with connect(url, connections=5) as connection:
        beating = registered(connection, NAME, ["jobs"], busy, beat_seconds=BEAT_SECONDS)
        task = asyncio.create_task(beating)
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def seen(connection: redis.Redis) -> dict[str, str]:
    """The workers that stock RQ lists, with their states."""
    workers = rq.Worker.all(connection=connection, serializer=JSONSerializer)
    return {worker.name: str(worker.get_state()) for worker in workers}


async def test_a_living_worker_is_listed_busy_or_idle_and_gone_when_it_ends(
    clean_redis: redis.Redis, redis_url: str
) -> None:
    busy = [False]
    async with shown(redis_url, lambda: busy[0]):
        await wait_for(lambda: seen(clean_redis) == {NAME: "idle"})
        busy[0] = True
        await wait_for(lambda: seen(clean_redis) == {NAME: "busy"})
        suspend(clean_redis)
        assert seen(clean_redis) == {NAME: "busy"}  # what runs goes on
        busy[0] = False
        await wait_for(lambda: seen(clean_redis) == {NAME: "suspended"})
        resume(clean_redis)
        await wait_for(lambda: seen(clean_redis) == {NAME: "idle"})
        assert 0 < clean_redis.ttl(f"rq:worker:{NAME}") <= 60
        told = await asyncio.to_thread(_rq_info, redis_url)
        assert NAME in told
        assert "1 workers" in told
    assert seen(clean_redis) == {}


def _rq_info(url: str) -> str:
    command = (Path(sys.executable).with_name("rq"), "info", "--url", url)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_redis_that_forgot_everything_is_told_again(clean_redis: redis.Redis, redis_url: str) -> None:
    async with shown(redis_url, lambda: False):
        await wait_for(lambda: seen(clean_redis))
        clean_redis.flushall()
        await wait_for(lambda: seen(clean_redis) == {NAME: "idle"})
        with clean_redis.pipeline() as at_once:
            at_once.flushall()
            at_once.hset(f"rq:worker:{NAME}", "state", "busy")
            at_once.execute()
        await wait_for(lambda: seen(clean_redis) == {NAME: "idle"})


async def test_a_redis_that_is_away_stops_nothing(
    embedded: Embedded, redis_url: str, clean_redis: redis.Redis
) -> None:
    async with shown(redis_url, lambda: False) as task:
        await wait_for(lambda: seen(clean_redis))
        await asyncio.to_thread(embedded.valkey.kill)
        await asyncio.sleep(0)
        await asyncio.to_thread(embedded.start)
        with redis.Redis.from_url(redis_url) as again:
            again.flushall()
            await wait_for(lambda: seen(again) == {NAME: "idle"})
        assert not task.done()


async def test_a_worker_that_never_reached_redis_ends_quietly() -> None:
    async with shown("unix:///nowhere/redis.sock", lambda: False) as task:
        done, _ = await asyncio.wait([task], timeout=4 * BEAT_SECONDS)
        assert not done
