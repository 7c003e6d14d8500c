"""RQ's keys as the scripts write them, against stock RQ 2.12: what it reads, and what it may do to them.

And what of RQ's own code the ordinary jobs replace or call: when RQ changes that, these tests say so.
"""

import asyncio
import inspect
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Retry, SimpleWorker
from rq.cli.helpers import show_queues
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import utcparse
from rq.version import VERSION
from rq.worker import BaseWorker

from joblab import QUEUE, lab
from mailboxes import LEASE_MS, START_MS, TENANT, bodies, claim_one, offers, opened, sweep
from waiting import wait_for
from wsm.streams import keys
from wsm.streams.handover import JOBS
from wsm.streams.keys import Kind
from wsm.worker.horses import Horse, JsonJob, Stock
from wsm.worker.threads import Deadline

NAME = str(TENANT)


@pytest.fixture
def stock(redis_url: str) -> Iterator[Any]:
    """The client that stock RQ uses."""
    with Redis.from_url(redis_url) as client:
        yield client


def queue(stock: Any) -> Queue:
    return Queue(NAME, connection=stock, serializer=JSONSerializer)


def run_stock_worker(stock: Any, *queues: str) -> None:
    """Let a stock worker empty the queues, as somebody's `rq worker --burst` would."""
    worker = SimpleWorker(list(queues), connection=stock, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="ERROR")


@pytest.mark.parametrize("kind", Kind)
async def test_a_bell_is_field_by_field_what_stock_rq_would_have_enqueued(
    redis_url: str, stock: Any, kind: Kind
) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.mail(kind, [TENANT])
        await handover.ring(kind)
    [bell] = queue(stock).get_job_ids()
    ours = stock.hgetall(f"rq:job:{bell}")
    theirs = stock.hgetall(
        queue(stock).enqueue(JOBS[kind], description=f"{kind}({NAME})", result_ttl=0, failure_ttl=300).key
    )
    assert ours.keys() == theirs.keys()
    for field in ours.keys() - {b"data", b"created_at", b"enqueued_at"}:
        assert ours[field] == theirs[field], field
    assert json.loads(zlib.decompress(ours[b"data"])) == json.loads(zlib.decompress(theirs[b"data"]))
    for field in (b"created_at", b"enqueued_at"):
        difference = utcparse(theirs[field].decode()) - utcparse(ours[field].decode())
        assert 0 <= difference.total_seconds() < 60
    assert stock.ttl(f"rq:job:{bell}") == -1
    assert stock.smembers(keys.RQ_QUEUES) == {f"rq:queue:{NAME}".encode()}


async def test_stock_rq_reads_a_bell_as_it_waits_runs_and_ends(redis_url: str, stock: Any) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.accept(offers(b"1"))
        await handover.ring(Kind.TURN)
        [job] = queue(stock).jobs
        assert (job.get_status(), job.origin, job.func_name) == (JobStatus.QUEUED, NAME, JOBS[Kind.TURN])
        assert (job.description, job.result_ttl, job.ttl) == (f"turn({NAME})", 0, None)
        assert figures(stock) == f"queue {NAME} 1, 0 executing, 0 finished, 0 failed"

        bell = await claim_one(handover)
        started = StartedJobRegistry(queue=queue(stock))
        job = Job.fetch(bell.id, connection=stock, serializer=JSONSerializer)
        assert (job.get_status(), job.worker_name) == (JobStatus.STARTED, "w")
        assert isinstance(job.started_at, datetime)
        assert started.get_job_and_execution_ids(cleanup=False) == [(bell.id, "1")]
        assert figures(stock) == f"queue {NAME} 0, 1 executing, 0 finished, 0 failed"
        lease_seconds = (START_MS + LEASE_MS) / 1000
        assert started.get_expired_job_ids(lease_seconds + 59) == []  # SWEEP is a minute earlier

        assert await handover.finish(bell, handled=bell.entries)
        assert stock.keys("rq:*") == []


def figures(stock: Any) -> str:
    """What `rq info` says of the queues."""
    with redirect_stdout(StringIO()) as said:
        found = Queue.all(connection=stock, serializer=JSONSerializer)
        show_queues(found, raw=True, by_queue=False, queue_class=None, worker_class=None, connection=stock)
    return said.getvalue().strip()


@pytest.mark.parametrize("others", [(), ("somebody-elses",)])
async def test_a_stock_worker_that_pops_a_bell_harms_nothing(
    redis_url: str, stock: Any, others: tuple[str, ...]
) -> None:
    """With one queue stock RQ moves the bell to an intermediate list, with several it pops it."""
    async with opened(redis_url) as (handover, _):
        await handover.accept(offers(b"1"))
        await handover.ring(Kind.TURN)
        run_stock_worker(stock, NAME, *others)
        assert not (await handover.claim("w", {Kind.TURN: 1}, [])).bells
        done = await sweep(handover)
        assert (done.repaired, done.rung) == (1, 1)
        bell = await claim_one(handover)
        assert bodies(bell.entries) == [b"1"]
        assert await handover.finish(bell, handled=bell.entries)
        assert [name for name in stock.keys("rq:*") if not name.startswith(b"rq:worker:")] == []


@pytest.mark.parametrize("serializer", [(), ("--serializer", "rq.serializers.JSONSerializer")])
@pytest.mark.parametrize("others", [(), ("somebody-elses",)])
async def test_somebodys_rq_worker_that_pops_a_bell_harms_nothing(
    redis_url: str, stock: Any, serializer: tuple[str, ...], others: tuple[str, ...]
) -> None:
    """As it comes, it takes everything for a pickle, and fails to decode a bell."""
    async with opened(redis_url) as (handover, _):
        await handover.accept(offers(b"1"))
        await handover.ring(Kind.TURN)
        [bell] = queue(stock).get_job_ids()
        command = [
            str(Path(sys.executable).with_name("rq")),
            "worker",
            "--burst",
            "--quiet",
            "--url",
            redis_url,
        ]
        worker = await asyncio.create_subprocess_exec(*command, *serializer, NAME, *others)
        assert await worker.wait() == 0
        assert not (await handover.claim("w", {Kind.TURN: 1}, [])).bells
        has_failed = not serializer
        assert stock.exists(f"rq:results:{bell}") == has_failed  # a success leaves none: result_ttl is 0
        assert (await sweep(handover)).rung == 1
        again = await claim_one(handover)
        assert bodies(again.entries) == [b"1"]
        assert await handover.finish(again, handled=again.entries)
        left = {name for name in stock.keys("rq:*") if not name.startswith((b"rq:worker:", b"rq:results:"))}
        assert left <= {f"rq:failed:{NAME}".encode()}  # RQ's own cleaning forgets it after its failure_ttl


async def test_a_stock_worker_that_pops_a_bell_for_deliveries_harms_nothing(
    redis_url: str, stock: Any
) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.mail(Kind.DELIVER, [TENANT])
        await handover.ring(Kind.DELIVER)
        [bell] = queue(stock).get_job_ids()
        run_stock_worker(stock, NAME)
        assert (await sweep(handover)).rung == 1
        await handover.ring(Kind.DELIVER)
        [again] = (await handover.claim("w", {Kind.DELIVER: 1}, [])).bells
        assert again.id != bell
        assert await handover.finish(again)
        assert [name for name in stock.keys("rq:*") if not name.startswith(b"rq:worker:")] == []


async def test_a_stock_worker_that_dies_with_a_bell_leaves_nothing_behind(redis_url: str, stock: Any) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.accept(offers(b"1"))
        await handover.ring(Kind.TURN)
        assert Queue.lmove(stock, f"rq:queue:{NAME}", None)
        await sweep(handover)
        bell = await claim_one(handover)
        assert await handover.finish(bell, handled=bell.entries)
        assert stock.keys("rq:*") == []


async def test_an_emptied_queue_is_rung_again(redis_url: str, stock: Any) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.accept(offers(b"1"))
        await handover.ring(Kind.TURN)
        await asyncio.to_thread(queue(stock).empty)
        assert (await sweep(handover)).rung == 1
        assert bodies((await claim_one(handover)).entries) == [b"1"]


async def test_jobs_of_other_tools_are_counted_and_left_alone(redis_url: str, stock: Any) -> None:
    async with opened(redis_url) as (handover, _):
        job = queue(stock).enqueue("somebody.elses", description="not wsm's")
        await sweep(handover)  # the first finds the queue, from then on it is looked at
        assert (await sweep(handover)).foreign == 1
        await handover.accept(offers(b"1"))
        bell = await claim_one(handover)
        assert await handover.finish(bell, handled=bell.entries)
        assert (await sweep(handover)).foreign == 1
        assert queue(stock).get_job_ids() == [job.id]
        job.delete()
        await sweep(handover)
        assert not stock.exists(keys.ACTIVE, keys.RQ_QUEUES)


# Ordinary jobs

FATES: dict[str, dict[str, Any]] = {
    "add": {"args": (1, 2)},
    "nothing": {},
    "fail": {"failure_ttl": 60},
    "unwritable": {"result_ttl": -1},
    "tell": {"args": ("x",), "result_ttl": 0},
    "ask_again": {},
}


@pytest.mark.parametrize("retry", [None, Retry(max=1), Retry(max=1, interval=3600)], ids=repr)
@pytest.mark.parametrize("function", FATES)
async def test_a_job_leaves_what_stock_rq_would_have_left(
    redis_url: str, stock: Any, function: str, retry: Retry | None
) -> None:
    jobs = Queue(QUEUE, connection=stock, serializer=JSONSerializer)

    def enqueue() -> Job:
        stock.flushall()
        first = jobs.enqueue(f"chores.{function}", **FATES[function], retry=retry, job_id="first")
        jobs.enqueue(
            "chores.nothing", depends_on=first, job_id="second", on_success=Callback("chores.on_success")
        )
        return first

    enqueue()
    run_stock_worker(stock, QUEUE)
    theirs = left_in(stock)
    async with lab(redis_url) as at:
        enqueue()
        await wait_for(lambda: left_in(stock) == theirs or None)
        await wait_for(lambda: not at.jobs.busy)
        assert left_in(stock) == theirs


def left_in(stock: Any) -> dict[str, Any]:
    """What RQ keeps of jobs: keys, fields and members, without times, names and workers."""
    left: dict[str, Any] = {}
    for key in sorted(name.decode() for name in stock.keys("rq:*")):
        kind = stock.type(key).decode()
        if key.startswith(("rq:worker", "rq:scheduler-lock", "rq:clean_registries")):
            continue
        if kind == "hash":
            fields = stock.hgetall(key)
            left[key] = (sorted(fields), fields.get(b"status"), fields.get(b"retries_left"))
        elif kind == "stream":
            left[key] = [(sorted(fields), fields[b"type"]) for _, fields in stock.xrange(key)]
        elif kind == "zset":
            left[key] = [member for member, _ in stock.zrange(key, 0, -1, withscores=True)]
        else:
            left[key] = stock.smembers(key) if kind == "set" else stock.lrange(key, 0, -1)
        left[key] = (kind, _minutes(stock.ttl(key)), left[key])
    return left


def _minutes(seconds: int) -> int | None:
    """How long a key is kept, as both are asked at different moments; None: for ever."""
    return None if seconds < 0 else round(seconds / 60)


@pytest.mark.parametrize("ours", [JsonJob, Stock, Horse, Deadline])
def test_what_is_replaced_of_rq_is_there_and_takes_what_it_took(ours: type) -> None:
    checked = 0
    for name, value in vars(ours).items():
        theirs = getattr(ours.__base__, name, None)
        if not inspect.isroutine(theirs) or name in {"__init__", "death_penalty_class"}:
            continue
        named = list(inspect.signature(getattr(ours, name)).parameters)
        assert named == list(inspect.signature(theirs).parameters), f"{name} {value}"
        checked += 1
    assert checked >= 2


def test_the_private_parts_of_rq_that_are_relied_on_are_there(stock: Any) -> None:
    assert VERSION.startswith("2.12.")
    jobs = Queue(QUEUE, connection=stock)
    worker = SimpleWorker([jobs], connection=stock)
    assert {"execution", "queues", "_stopped_job_id", "log_job_description"} <= vars(worker).keys()
    assert callable(jobs._enqueue_job)
    assert jobs.intermediate_queue_key == f"{jobs.key}:intermediate"
    assert RQScheduler.get_locking_key(QUEUE) == f"rq:scheduler-lock:{QUEUE}"
    source = inspect.getsource(RQScheduler.enqueue_scheduled_jobs)
    assert "queue._enqueue_job(job, pipeline=pipeline, at_front=job.should_enqueue_at_front())" in source
    assert WORKERS_SUSPENDED == "rq:suspended"
    calls = inspect.getsource(BaseWorker.perform_job)
    for each in (
        "len(self.queues) == 1",
        "self.death_penalty_class(timeout, JobTimeoutException",
        "self.handle_execution_ended(",
        "execute_success_callback(self.death_penalty_class,",
        "execute_failure_callback(self.death_penalty_class,",
    ):
        assert each in calls, each
    for ended in (BaseWorker.handle_job_success, BaseWorker.handle_job_failure, BaseWorker.handle_job_retry):
        assert "self.cleanup_execution(job, pipeline=pipeline)" in inspect.getsource(ended)
