"""Ordinary jobs whose worker ends, is killed, or loses Redis: handed back, found, retried or failed."""

import asyncio
import json
import signal
from datetime import timedelta
from typing import Any

import pytest
import redis
from rq import Callback, Queue, Retry
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

import chores
from databases import Database as Urls
from joblab import QUEUE, Lab, lab, threads
from waiting import wait_for
from working import child, plant
from wsm.sandbox.embedded import Embedded


async def test_running_jobs_end_before_the_worker_does(redis_url: str) -> None:
    async with lab(redis_url) as at:
        job = at.queue.enqueue("chores.through_gate", redis_url)
        await wait_for(lambda: chores.told(at.redis))
        at.stopping.set()
        late = at.queue.enqueue("chores.nothing")
        at.redis.rpush(chores.GATE, "1")
        await at.running
        assert job.return_value() == "through"
        assert late.get_status() == JobStatus.QUEUED
        assert at.queue.get_job_ids() == [late.id]


@pytest.mark.parametrize("function", ["spin", "await_for_ever", "block"])
async def test_what_takes_too_long_at_the_end_is_handed_back_and_nothing_is_counted(
    redis_url: str, function: str
) -> None:
    async with lab(redis_url, drain_seconds=0.1) as at:
        arguments = () if function == "block" else (redis_url,)
        job = at.queue.enqueue(
            f"chores.{function}", *arguments, retry=Retry(max=2), on_failure=Callback("chores.on_failure")
        )
        await wait_for(lambda: chores.told(at.redis))
        await at.stop()
        assert at.queue.get_job_ids() == [job.id]
        found = Job.fetch(job.id, connection=at.redis, serializer=JSONSerializer)
        assert (found.get_status(), found.retries_left, found.started_at) == (JobStatus.QUEUED, 2, None)
        assert found.results() == []
        assert found.get_executions() == []
        assert at.left_over() == {at.queue.key}
        assert "failure" not in " ".join(chores.told(at.redis))
        if function == "await_for_ever":
            assert chores.told(at.redis) == ["waiting", "cleaned up"]
        kept = at.redis.hgetall(job.key)
        chores.unblock()
        await wait_for(lambda: not threads())
        assert at.redis.hgetall(job.key) == kept


async def test_the_jobs_of_a_killed_worker_are_found_by_another(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    queue = Queue(QUEUE, connection=clean_redis, serializer=JSONSerializer)
    settings = {"PYTHONPATH": "tests", "WSM_DRAIN_SECONDS": "1"}
    async with child(redis_url, database, **settings) as first:
        tried = queue.enqueue("chores.through_gate", redis_url, retry=Retry(max=1))
        untried = queue.enqueue(
            "chores.await_for_ever", redis_url, on_failure=Callback("chores.raising_callback")
        )
        await wait_for(lambda: len(chores.told(clean_redis)) == 2, 20)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        clean_redis.rpush(chores.GATE, "1")
        async with child(redis_url, database, **settings) as second:
            await wait_for(lambda: tried.get_status() == JobStatus.FINISHED, 40)
            await wait_for(lambda: untried.get_status() == JobStatus.FAILED, 5)
            assert tried.retries_left is not None
            assert untried.id in FailedJobRegistry(queue=queue).get_job_ids()
            latest = untried.latest_result()
            assert latest is not None
            assert "AbandonedJobError" in str(latest.exc_string)
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), 20) == 0


async def test_a_worker_process_ends_in_time_though_a_job_does_not(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    queue = Queue(QUEUE, connection=clean_redis, serializer=JSONSerializer)
    async with child(redis_url, database, PYTHONPATH="tests", WSM_DRAIN_SECONDS="0.2") as process:
        jobs = [queue.enqueue("chores.block"), queue.enqueue("chores.spin", redis_url)]
        await wait_for(lambda: len(chores.told(clean_redis)) == 2, 20)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        assert set(queue.get_job_ids()) == {job.id for job in jobs}


async def test_nothing_that_a_job_was_given_or_said_is_logged(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    queue = Queue(QUEUE, connection=clean_redis, serializer=JSONSerializer)
    async with child(redis_url, database, PYTHONPATH="tests", WSM_LOG_LEVEL="debug") as process:
        jobs = [queue.enqueue(f"chores.{name}", "PRIVATE") for name in ("fail", "tell", "add")]
        jobs.append(queue.enqueue("chores.fail", "PRIVATE", on_failure=Callback("chores.raising_callback")))
        await wait_for(lambda: all(job.get_status() in ("finished", "failed") for job in jobs), 20)
        process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["job"] for line in lines if line["event"] == "job_ended"] != []
    assert b"PRIVATE" not in said


def abandon(at: Lab, function: str = "chores.nothing", **options: Any) -> Job:
    """Make a job that a worker began and then died with, its lease over."""
    job = at.queue.enqueue(function, **options)
    at.redis.lrem(at.queue.key, 1, job.id)
    with at.redis.pipeline() as pipe:
        job.prepare_for_execution("dead-worker", pipe)
        execution = Execution.create(job, 10, pipe, worker_name="dead-worker")
        pipe.execute()
    at.redis.zadd(StartedJobRegistry(queue=at.queue).key, {execution.composite_key: 1})
    return job


@pytest.mark.parametrize("callback", ["raising_callback", "on_failure", "aon_failure", "not_there", "leave"])
async def test_no_callback_of_an_abandoned_job_stops_the_cleaning_of_others(
    redis_url: str, callback: str
) -> None:
    async with lab(redis_url) as at:
        poison = abandon(at, on_failure=Callback(f"chores.{callback}"))
        other = abandon(at, retry=Retry(max=1))
        assert (await at.ended(poison)).get_status() == JobStatus.FAILED
        assert (await at.ended(other)).get_status() == JobStatus.FINISHED
        if callback.endswith("on_failure"):
            word = "async failure" if callback.startswith("a") else "failure"
            assert chores.told(at.redis) == [f"{word} AbandonedJobError"]


async def test_a_hash_that_nobody_can_read_stops_neither_cleaning_nor_scheduling(redis_url: str) -> None:
    async with lab(redis_url) as at:
        late = at.queue.enqueue_in(timedelta(0), "chores.nothing", job_id="a")
        at.redis.hset(late.key, "status", "nonsense")
        await at.ended(at.queue.enqueue_in(timedelta(0), "chores.nothing", job_id="b"))
        poison = abandon(at)
        at.redis.hset(poison.key, "status", "nonsense")
        assert (await at.ended(abandon(at, retry=Retry(max=1)))).get_status() == JobStatus.FINISHED
        assert at.redis.zcard(StartedJobRegistry(queue=at.queue).key) == 0


async def test_what_was_taken_and_never_begun_runs_after_all(redis_url: str) -> None:
    async with lab(redis_url, lease_seconds=1) as at:
        with at.redis.pipeline() as pipe:
            lost = at.queue.enqueue("chores.add", 1, pipeline=pipe)
            gone = at.queue.enqueue("chores.add", 1, pipeline=pipe)
            pipe.delete(gone.key)
            for job in (lost, gone):
                pipe.lrem(at.queue.key, 1, job.id)
                pipe.rpush(at.queue.intermediate_queue_key, job.id)
            pipe.execute()
        assert (await at.ended(lost)).return_value() == 1
        await wait_for(lambda: not at.redis.exists(at.queue.intermediate_queue_key))


async def test_one_worker_keeps_house_and_another_takes_over(
    redis_url: str, clean_redis: redis.Redis
) -> None:
    clean_redis.set("wsm:keeper", "another-one", ex=2)
    async with lab(redis_url) as at:
        job = abandon(at, retry=Retry(max=1))
        await at.ended(at.queue.enqueue("chores.nothing"))
        assert clean_redis.get("wsm:keeper") == b"another-one"
        assert job.get_status() == JobStatus.STARTED
        await at.ended(job)
        assert clean_redis.get("wsm:keeper") == at.name.encode()
        assert clean_redis.get(f"rq:scheduler-lock:{QUEUE}") == b"wsm"
    assert not clean_redis.exists("wsm:keeper")


async def test_workers_that_have_gone_are_listed_no_more(redis_url: str, clean_redis: redis.Redis) -> None:
    lists = ("rq:workers", f"rq:workers:{QUEUE}", "rq:workers:tenants")
    for name in lists:
        clean_redis.sadd(name, "rq:worker:gone")
    async with lab(redis_url):
        await wait_for(lambda: not clean_redis.exists(*lists))


async def test_a_stock_scheduler_may_have_the_lock(redis_url: str, clean_redis: redis.Redis) -> None:
    lock = f"rq:scheduler-lock:{QUEUE}"
    clean_redis.set(lock, "a-stock-one", ex=2)
    async with lab(redis_url) as at:
        job = at.queue.enqueue_in(timedelta(0), "chores.nothing")
        await at.ended(abandon(at, retry=Retry(max=1)))
        assert job.get_status() == JobStatus.SCHEDULED
        assert clean_redis.get(lock) == b"a-stock-one"
        await at.ended(job)
        assert clean_redis.get(lock) == b"wsm"


async def test_jobs_go_on_after_redis_was_away(redis_url: str, embedded: Embedded) -> None:
    async with lab(redis_url) as at:
        assert (await at.ended(at.queue.enqueue("chores.add", 1))).return_value() == 1
        await asyncio.to_thread(embedded.valkey.kill)
        await asyncio.to_thread(embedded.start)
        await wait_for(lambda: _answers(at.redis))
        assert (await at.ended(at.queue.enqueue("chores.aadd", 1, 1))).return_value() == 2


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


async def test_jobs_that_block_delay_no_bell(redis_url: str, database: Urls) -> None:
    async with plant(redis_url, database) as works, lab(redis_url, slots=4, drain_seconds=0.1) as at:
        await works.found(1)
        for _ in range(2):
            at.queue.enqueue("chores.hold_loop", redis_url, 30)
            at.queue.enqueue("chores.block")
        await wait_for(lambda: len(chores.told(at.redis)) >= 3)
        works.start()
        await works.offer(1, "oi")
        await works.drained(10)
        assert await works.texts(1) == ["oi"]
        await works.stop()
        at.redis.rpush(chores.GATE, "1", "1")
