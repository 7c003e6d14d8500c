"""Ordinary RQ jobs: enqueued by RQ's own client, run beside the bells, seen by RQ's own eyes."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from rq import Callback, Queue, Repeat, Retry
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

import chores
from joblab import QUEUE, lab
from waiting import wait_for
from wsm.worker.threads import in_thread

ENDED = {JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED}


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [("add", (1, 2), 3), ("aadd", (3, 4), 7), ("nothing", (), None), ("tell", ("é",), "é")],
)
async def test_a_job_is_run_and_its_result_is_where_rq_looks_for_it(
    redis_url: str, function: str, arguments: tuple[Any, ...], result: Any
) -> None:
    async with lab(redis_url) as at:
        job = at.queue.enqueue(f"chores.{function}", *arguments)
        found = await at.ended(job)
        assert found.get_status() == JobStatus.FINISHED
        assert found.return_value() == result
        [kept] = found.results()
        assert kept.type == Result.Type.SUCCESSFUL
        assert (kept.worker_name, found.worker_name) == (at.name, at.name)
        assert FinishedJobRegistry(queue=at.queue).get_job_ids() == [job.id]
        assert at.left_over() == set()


async def test_coroutines_share_one_loop_that_is_not_the_bells(redis_url: str) -> None:
    async with lab(redis_url) as at:
        ids = {(await at.ended(at.queue.enqueue("chores.loop_id"))).return_value() for _ in range(3)}
        assert len(ids) == 1
        assert id(asyncio.get_running_loop()) not in ids


async def test_results_are_kept_as_long_as_they_were_asked_to_be(redis_url: str) -> None:
    async with lab(redis_url) as at:
        brief = await at.ended(at.queue.enqueue("chores.add", 1, result_ttl=30))
        assert 0 < at.redis.ttl(brief.key) <= 30
        assert at.redis.ttl((await at.ended(at.queue.enqueue("chores.add", 1, result_ttl=-1))).key) == -1
        none = at.queue.enqueue("chores.add", 1, result_ttl=0)
        await wait_for(lambda: not at.redis.exists(none.key))
        assert none.id not in FinishedJobRegistry(queue=at.queue).get_job_ids()
        assert at.left_over() == set()


async def test_a_failure_is_recorded_by_rqs_own_code(redis_url: str) -> None:
    async with lab(redis_url) as at:
        for function, text in (("fail", "ValueError: boom"), ("afail", "ValueError: later")):
            job = await at.ended(at.queue.enqueue(f"chores.{function}", failure_ttl=60))
            assert job.get_status() == JobStatus.FAILED
            latest = job.latest_result()
            assert latest is not None
            assert text in str(latest.exc_string)
            failed = FailedJobRegistry(queue=at.queue)
            assert job.id in failed.get_job_ids()
            score = at.redis.zscore(failed.key, job.id) - at.redis.time()[0]
            assert 0 < score <= 61
        assert at.left_over() == set()


@pytest.mark.parametrize("function", ["leave", "aleave", "not_there", "add.not_there"])
async def test_what_cannot_be_run_fails_clearly_and_harms_nobody(redis_url: str, function: str) -> None:
    async with lab(redis_url) as at:
        job = await at.ended(at.queue.enqueue(f"chores.{function}"))
        assert job.get_status() == JobStatus.FAILED
        nowhere = await at.ended(at.queue.enqueue("no_such_module.at_all"))
        latest = nowhere.latest_result()
        assert latest is not None
        assert "no_such_module" in str(latest.exc_string)
        assert (await at.ended(at.queue.enqueue("chores.aadd", 1, 1))).return_value() == 2


async def test_a_result_that_json_cannot_say_is_named_so_as_stock_rq_does(redis_url: str) -> None:
    async with lab(redis_url) as at:
        job = await at.ended(at.queue.enqueue("chores.unwritable"))
        assert job.get_status() == JobStatus.FINISHED
        assert job.return_value() == "Unserializable return value"


async def test_a_pickle_is_refused_and_never_loaded(redis_url: str) -> None:
    async with lab(redis_url) as at:
        pickled = Queue(QUEUE, connection=at.redis).enqueue("chores.tell", Trap())
        await wait_for(lambda: pickled.get_status() == JobStatus.FAILED)
        latest = pickled.latest_result()
        assert latest is not None
        assert "its data is not JSON" in str(latest.exc_string)
        assert "never loaded" in str(latest.exc_string)
        assert pickled.id in FailedJobRegistry(queue=at.queue).get_job_ids()
        assert chores.told(at.redis) == []
        assert Trap.sprung == 0


class Trap:
    """An argument that tells when somebody loads its pickle."""

    sprung = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _spring, ()


def _spring() -> None:
    Trap.sprung += 1


async def test_a_job_is_retried_at_once_and_after_an_interval(redis_url: str) -> None:
    async with lab(redis_url) as at:
        job = await at.ended(at.queue.enqueue("chores.fail_times", 2, retry=Retry(max=3)))
        assert job.return_value() == 3
        at.redis.delete("test:calls")
        delayed = at.queue.enqueue("chores.fail_times", 1, retry=Retry(max=1, interval=1))
        await wait_for(lambda: delayed.get_status() == JobStatus.SCHEDULED)
        assert (await at.ended(delayed)).return_value() == 2
        at.redis.delete("test:calls")
        asked = await at.ended(at.queue.enqueue("chores.ask_again"))
        assert asked.return_value() == 2
        spent = await at.ended(at.queue.enqueue("chores.fail_times", 99, retry=Retry(max=1)))
        assert spent.get_status() == JobStatus.FAILED
        assert at.left_over() == set()


async def test_repeats_and_what_was_enqueued_for_later_run(redis_url: str) -> None:
    async with lab(redis_url) as at:
        at.queue.enqueue("chores.tell", "again", repeat=Repeat(times=2, interval=[1, 0]))
        at.queue.enqueue_in(timedelta(seconds=1), "chores.tell", "later")
        await wait_for(lambda: sorted(chores.told(at.redis)) == ["again", "again", "again", "later"])


async def test_dependents_run_after_what_they_depend_on(redis_url: str) -> None:
    async with lab(redis_url) as at:
        first = at.queue.enqueue("chores.tell", "first")
        second = at.queue.enqueue("chores.tell", "second", depends_on=first)
        third = at.queue.enqueue("chores.tell", "third", depends_on=[first, second])
        await at.ended(third)
        assert chores.told(at.redis) == ["first", "second", "third"]
        broken = at.queue.enqueue("chores.fail")
        waiting = at.queue.enqueue("chores.tell", "never", depends_on=broken)
        await at.ended(broken)
        assert waiting.get_status() == JobStatus.DEFERRED


async def test_a_dependent_that_comes_as_a_job_ends_leaves_no_trace_of_its_run(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RQ records the end a second time then, and would forget the execution at the first."""
    tried: list[str] = []

    def enqueue_dependents(self: Queue, job: Job, **options: Any) -> None:
        if not tried:
            self.connection.sadd(job.dependents_key, "just-now")
        tried.append(job.id)
        original(self, job, **options)

    original = Queue.enqueue_dependents
    monkeypatch.setattr(Queue, "enqueue_dependents", enqueue_dependents)
    async with lab(redis_url) as at:
        job = await at.ended(at.queue.enqueue("chores.add", 1))
        assert tried == [job.id, job.id]
        assert job.return_value() == 1
        assert at.left_over() == set()


@pytest.mark.parametrize("prefix", ["", "a"])
async def test_callbacks_are_called_whether_coroutines_or_not(redis_url: str, prefix: str) -> None:
    async with lab(redis_url) as at:
        callbacks = {
            "on_success": Callback(f"chores.{prefix}on_success"),
            "on_failure": Callback(f"chores.{prefix}on_failure"),
        }
        word = "async " if prefix else ""
        await at.ended(at.queue.enqueue("chores.add", 2, 3, **callbacks))
        await at.ended(at.queue.enqueue("chores.afail", **callbacks))
        assert chores.told(at.redis) == [f"{word}success 5", f"{word}failure ValueError"]
        raising = Callback("chores.raising_callback")
        job = await at.ended(at.queue.enqueue("chores.add", 2, on_success=raising))
        latest = job.latest_result()
        assert latest is not None
        assert "a call-back that raises" in str(latest.exc_string)


@pytest.mark.parametrize("function", ["spin", "await_for_ever"])
async def test_a_job_that_takes_too_long_is_ended(redis_url: str, function: str) -> None:
    async with lab(redis_url) as at:
        one = at.queue.enqueue(f"chores.{function}", redis_url, job_timeout=1)
        two = at.queue.enqueue(f"chores.{function}", redis_url, job_timeout=2)
        for job, seconds in ((one, 1), (two, 2)):
            latest = (await at.ended(job)).latest_result()
            assert latest is not None
            told = str(latest.exc_string)
            assert f"JobTimeoutException: Task exceeded maximum timeout value ({seconds} seconds)" in told
        if function == "await_for_ever":
            assert chores.told(at.redis).count("cleaned up") == 2


@pytest.mark.parametrize("function", ["spin", "await_for_ever"])
@pytest.mark.parametrize("prefix", ["", "a"])
async def test_a_stopped_job_ends_as_stopped(redis_url: str, function: str, prefix: str) -> None:
    async with lab(redis_url) as at:
        job = at.queue.enqueue(
            f"chores.{function}", redis_url,
            retry=Retry(max=3),
            on_stopped=Callback(f"chores.{prefix}on_stopped"),
            on_failure=Callback("chores.on_failure"),
        )  # fmt: skip
        await wait_for(lambda: chores.told(at.redis))
        assert not at.jobs.stop("another")
        assert at.jobs.stop(job.id)
        found = await at.ended(job)
        assert found.get_status() == JobStatus.STOPPED
        latest = found.latest_result()
        assert latest is not None
        assert "Job stopped by user." in str(latest.exc_string)
        assert chores.told(at.redis)[-1] == ("async stopped" if prefix else "stopped")
        assert not any("failure" in word for word in chores.told(at.redis))
        assert job.id in FailedJobRegistry(queue=at.queue).get_job_ids()
        assert at.left_over() == set()


async def test_a_running_job_is_seen_and_its_lease_is_renewed(redis_url: str) -> None:
    async with lab(redis_url, lease_seconds=2) as at:
        job = at.queue.enqueue("chores.through_gate", redis_url)
        await wait_for(lambda: chores.told(at.redis))
        [execution] = job.get_executions()
        assert execution.worker_name == at.name
        registry = StartedJobRegistry(queue=at.queue)
        assert registry.get_job_and_execution_ids() == [(job.id, execution.id)]

        def score() -> float:
            return float(at.redis.zscore(registry.key, execution.composite_key))

        first, beat = score(), execution.last_heartbeat
        await wait_for(lambda: score() > first + 2)  # past the lease that it began with
        assert job.get_executions()[0].last_heartbeat > beat
        assert 0 < at.redis.ttl(execution.key) <= 2
        at.redis.rpush(chores.GATE, "1")
        assert (await at.ended(job)).return_value() == "through"
        assert job.get_executions() == []
        assert at.left_over() == set()


async def test_a_renewal_that_hangs_holds_up_nobody_who_stops_the_job(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(redis_url) as at:
        job = at.queue.enqueue("chores.await_for_ever", redis_url)
        await wait_for(lambda: chores.told(at.redis))
        [horse] = at.jobs._running.values()
        hangs, answers = threading.Event(), threading.Event()

        def maintain_heartbeats(_: Job) -> None:
            hangs.set()
            answers.wait()

        monkeypatch.setattr(horse, "maintain_heartbeats", maintain_heartbeats)
        renewal = asyncio.create_task(in_thread(horse.renew))
        await wait_for(hangs.is_set)
        try:
            await asyncio.wait_for(in_thread(at.jobs.stop, job.id), 5)
        finally:
            answers.set()
            await renewal
        assert (await at.ended(job)).get_status() == JobStatus.STOPPED


async def test_no_job_begins_while_workers_are_suspended(redis_url: str) -> None:
    async with lab(redis_url) as at:

        def times_looked() -> int:
            return int(at.redis.info("commandstats")["cmdstat_exists"]["calls"])

        await at.ended(at.queue.enqueue("chores.nothing"))
        suspend(at.redis)
        job = at.queue.enqueue("chores.tell", "on")
        again = at.queue.enqueue("chores.tell", "on")
        looked = times_looked()
        await wait_for(lambda: times_looked() > looked + 2)
        assert at.queue.get_job_ids() == [job.id, again.id]
        resume(at.redis)
        await at.ended(again)
        assert chores.told(at.redis) == ["on", "on"]


async def test_no_more_jobs_than_slots(redis_url: str) -> None:
    async with lab(redis_url, slots=2) as at:
        jobs = [at.queue.enqueue("chores.through_gate", redis_url) for _ in range(5)]
        await wait_for(lambda: len(chores.told(at.redis)) == 2)
        assert len(at.queue.get_job_ids()) == 3
        for _ in jobs:
            at.redis.rpush(chores.GATE, "1")
        for job in jobs:
            await at.ended(job)


async def test_every_queue_is_listened_to(redis_url: str) -> None:
    async with lab(redis_url, queues=("reports", QUEUE)) as at:
        reports = Queue("reports", connection=at.redis, serializer=JSONSerializer)
        for queue in (at.queue, reports):
            assert (await at.ended(queue.enqueue("chores.add", 1, 1))).return_value() == 2


async def test_a_job_that_was_deleted_or_cannot_be_read_is_passed_by(redis_url: str) -> None:
    async with lab(redis_url) as at:
        at.redis.rpush(at.queue.key, "gone")
        at.redis.hset("rq:job:broken", mapping={"data": b"x", "status": "nonsense"})
        at.redis.rpush(at.queue.key, "broken")
        assert (await at.ended(at.queue.enqueue("chores.add", 1))).return_value() == 1
        await wait_for(lambda: not at.redis.exists(at.queue.intermediate_queue_key))
