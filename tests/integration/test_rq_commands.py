"""What RQ's tools tell a worker over pub/sub: stop a job, stop a bell, shut down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import redis
from rq import Queue
from rq.command import send_command, send_kill_horse_command, send_shutdown_command, send_stop_job_command
from rq.job import JobStatus
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker import Worker as RqWorker

import chores
from databases import Database as Urls
from joblab import NAME, QUEUE
from waiting import wait_for
from working import child, gated, plant
from wsm.streams.client import connect
from wsm.worker.commands import obeyed


class Ears:
    """What was asked for."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.shut_down = 0

    async def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return False

    def end(self) -> None:
        self.shut_down += 1


@asynccontextmanager
async def listening(url: str, ears: Ears, name: str = NAME) -> AsyncIterator[asyncio.Task[None]]:
    """Listen until the end of the block."""
    client = connect(url, timeout_seconds=5.0)
    task = asyncio.create_task(obeyed(client, name, ears.stop_job, ears.end))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.aclose()


async def test_commands_arrive_and_what_is_none_harms_nothing(
    redis_url: str, clean_redis: redis.Redis
) -> None:
    ears = Ears()
    async with listening(redis_url, ears) as task:
        await wait_for(lambda: clean_redis.pubsub_numsub(f"rq:pubsub:{NAME}")[0][1])
        for nonsense in ("", "[]", "{}", '"stop-job"', "\xff", '{"command": {}}'):
            clean_redis.publish(f"rq:pubsub:{NAME}", nonsense)
        send_kill_horse_command(clean_redis, NAME)
        send_command(clean_redis, NAME, "stop-job", job_id="one")
        send_shutdown_command(clean_redis, NAME)
        await wait_for(lambda: ears.shut_down)
        assert ears.stopped == ["one"]
        assert not task.done()


async def test_commands_are_heard_again_after_the_connection_was_lost(
    redis_url: str, clean_redis: redis.Redis
) -> None:
    ears = Ears()
    async with listening(redis_url, ears):
        await wait_for(lambda: clean_redis.pubsub_numsub(f"rq:pubsub:{NAME}")[0][1])
        clean_redis.client_kill_filter(_type="pubsub")

        def heard() -> int:
            send_shutdown_command(clean_redis, NAME)
            return ears.shut_down

        await wait_for(heard)


async def test_a_stopped_bell_is_cancelled_and_handed_back(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(1)
        turns = gated(at)
        worker = at.start(turns=turns)
        await at.offer(1, "oi")
        await wait_for(lambda: turns.waiting)
        queue = Queue("1", connection=clean_redis, serializer=JSONSerializer)
        [bell] = StartedJobRegistry(queue=queue).get_job_ids()
        assert not await worker.hand_back("another")
        assert await worker.hand_back(bell)
        await wait_for(lambda: StartedJobRegistry(queue=queue).get_job_ids() not in ([], [bell]))
        turns.gate.set()
        await at.drained()
        assert await at.texts(1) == ["oi"]


async def test_a_bell_that_is_stopped_before_it_began_leaves_its_slot_free(
    redis_url: str, database: Urls
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(1)
        worker = at.start()
        await at.stop()
        await at.offer(1, "oi")
        await worker._hand_over(claiming=True)
        [bell] = worker._running
        assert await worker.hand_back(bell)
        assert not worker.busy
        at.start()
        await at.drained()
        assert await at.texts(1) == ["oi"]


async def test_rqs_command_stops_a_bell(redis_url: str, database: Urls, clean_redis: redis.Redis) -> None:
    queue = Queue("1", connection=clean_redis, serializer=JSONSerializer)

    def started() -> list[str]:
        return StartedJobRegistry(queue=queue).get_job_ids()

    async with plant(redis_url, database) as at, child(redis_url, database):
        await at.found(1)
        with psycopg.connect(database.owner_url) as owner:
            owner.execute("select pg_advisory_lock(1)")
            await at.offer(1, "oi")
            [bell] = await wait_for(started, 20)
            send_stop_job_command(clean_redis, bell, JSONSerializer)
            await wait_for(lambda: started() not in ([], [bell]))
        await at.drained()
        assert await at.texts(1) == ["oi"]


async def test_a_whole_worker_is_listed_and_obeys_rqs_commands(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    queue = Queue(QUEUE, connection=clean_redis, serializer=JSONSerializer)

    def listed() -> Any:
        return RqWorker.all(queue=queue, serializer=JSONSerializer)

    async with child(redis_url, database, PYTHONPATH="tests") as process:
        job = queue.enqueue("chores.await_for_ever", redis_url)
        await wait_for(lambda: chores.told(clean_redis), 20)
        [worker] = await wait_for(listed)
        assert worker.queue_names() == [QUEUE, "tenants"]
        await wait_for(lambda: listed()[0].get_state() == "busy")
        send_stop_job_command(clean_redis, job.id, JSONSerializer)
        await wait_for(lambda: job.get_status() == JobStatus.STOPPED)
        assert chores.told(clean_redis) == ["waiting", "cleaned up"]
        await wait_for(lambda: listed()[0].get_state() == "idle")
        assert listed()[0].failed_job_count == 1
        send_shutdown_command(clean_redis, worker.name)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert listed() == []
