"""Workers of every kind on one Redis: how each is filled and started, and what it does in how long.

What each guarantees, by its code and documents:

    wsm            a bell may vanish, a message may not: it lies in its stream until FINISH, in order
    rq             popped from several queues, a job is lost with its worker; popped from one, it is failed
                   minutes later; in the order of the queue while there is one worker
    taskiq list    popped is gone: the jobs of a killed worker are lost
    taskiq stream  a killed worker's jobs are handed out again 10 minutes later
    huey           popped is gone
"""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice

import msgspec
import redis
from rq import Queue

from bench import webhooks
from bench.fleet import LIMITS
from bench.harness import PYTHON, ROOT, Measure, Meter, running, wait_until
from wsm.core.events import Origin
from wsm.core.ids import TenantId
from wsm.sandbox.embedded import Embedded
from wsm.streams.client import connect
from wsm.streams.handover import Handover, Offer
from wsm.streams.keys import Kind

_BATCH = 500
_RECEIVED_AT_MS = 1_790_000_000_000
_MEASURED_SECONDS = 8.0
_LONGEST_START_SECONDS = 240.0  # SimpleWorker with 10,000 queues on a busy machine

Fill = Callable[[str, int], None]
"""Puts so many jobs into the Redis of this URL."""


class Work(msgspec.Struct, frozen=True):
    """One kind of worker with jobs for it: how they get there, and what runs them."""

    name: str
    command: Sequence[str]
    fill: Fill
    count: int


class Bench:
    """A Redis that is emptied for each measure, and a file in which every job leaves a byte."""

    def __init__(self, servers: Embedded) -> None:
        self._url = servers.redis_url
        self._marks = servers.home / "marks"  # a file of this run alone

    @property
    def environ(self) -> Mapping[str, str]:
        """What a worker must know."""
        return {"REDIS_URL": self._url, "BENCH_PROGRESS": str(self._marks)}

    def measure(self, work: Work, also: Sequence[int] = ()) -> Measure:
        """Fill, start the worker, and measure it from the first tenth of its jobs to the last, or for 8 s.

        also  processes whose cost is counted too
        """
        self.prepare(work)
        with running(_log(work), *work.command, environ=self.environ) as child:
            begun = max(1, work.count // 10)
            wait_until(
                lambda: self._done() >= begun, work.name, seconds=_LONGEST_START_SECONDS, beside=child.check
            )
            done, since_ns = self._done(), self._last_ns()
            meter = Meter(child.pid, *also)

            def beside() -> None:
                child.check()
                meter.peek()

            until = time.monotonic() + _MEASURED_SECONDS
            wait_until(
                lambda: self._done() >= work.count or time.monotonic() > until, work.name, beside=beside
            )
            return meter.measure(self._done() - done, (self._last_ns() - since_ns) / 1e9)

    def prepare(self, work: Work) -> None:
        """Empty Redis and fill it, without an fsync for every job of it."""
        self._marks.write_bytes(b"")
        with redis.Redis.from_url(self._url) as connection:
            connection.flushall()
            connection.config_set("appendfsync", "no")
            work.fill(self._url, work.count)
            connection.config_set("appendfsync", "always")

    def seconds_to_first(self, work: Work) -> float:
        """Take the time from the start of the process to its first finished job."""
        began = time.time_ns()
        with running(_log(work), *work.command, environ=self.environ) as child:
            wait_until(
                lambda: self._done() >= 1, work.name, seconds=_LONGEST_START_SECONDS, beside=child.check
            )
            return (self._last_ns() - began) / 1e9

    def _done(self) -> int:
        return self._marks.stat().st_size

    def _last_ns(self) -> int:
        return self._marks.stat().st_mtime_ns


def fleet(job: str, *, slots: int, entries: int = 200) -> Sequence[str]:
    """Command of a wsm worker."""
    return ("-m", "bench.fleet", job, "--slots", str(slots), "--entries", str(entries))


def rq(*queues: str, simple: bool) -> Sequence[str]:
    """Command of a stock RQ worker; the fork-per-job kind unless it is simple."""
    kind = "rq.SimpleWorker" if simple else "rq.Worker"
    return ("-m", "rq.cli", "worker", "--quiet", "--worker-class", kind, *queues)


def taskiq(broker: str, *, at_once: int) -> Sequence[str]:
    """Command of a taskiq worker: one process, so many tasks at once."""
    options = ("--workers", "1", "--max-async-tasks", str(at_once), "--log-level", "WARNING")
    return ("-m", "taskiq", "worker", f"bench.peers.taskiq_app:on_{broker}", *options)


def huey(kind: str, *, workers: int) -> Sequence[str]:
    """Command of a huey consumer with so many threads or processes."""
    options = ("--workers", str(workers), "--worker-type", kind, "--quiet", "--no-periodic")
    return ("-m", "huey.bin.huey_consumer", "bench.peers.huey_app.huey", *options)


def bells(url: str, count: int) -> None:
    """Ring a turn's bell for so many tenants whose mailboxes are empty."""

    async def fill(handover: Handover) -> None:
        tenants = iter(range(webhooks.FIRST_TENANT, webhooks.FIRST_TENANT + count))
        while some := [TenantId(tenant) for tenant in islice(tenants, _BATCH)]:
            await handover.mail(Kind.TURN, some)
            await handover.ring(Kind.TURN, _BATCH)

    _handed_over(url, fill)


def mailboxes(tenants: int) -> Fill:
    """Accept messages, of so many tenants in turn."""

    def fill(url: str, count: int) -> None:
        async def accept(handover: Handover) -> None:
            offers = (_offer(number % tenants, number // tenants) for number in range(count))
            while some := list(islice(offers, _BATCH)):
                await handover.accept(some)

        _handed_over(url, accept)

    return fill


def rq_jobs(job: str, *, queues: Sequence[str] = ("bench",), messages: bool = False) -> Fill:
    """Enqueue jobs, on the queues in turn; each with a message for its argument if asked to."""

    def fill(url: str, count: int) -> None:
        with redis.Redis.from_url(url) as connection:
            for place, name in enumerate(queues):
                jobs = [
                    Queue.prepare_data(
                        f"bench.peers.jobs.{job}", args=(_offer(number, 0).body,) if messages else ()
                    )
                    for number in range(place, count, len(queues))
                ]
                if jobs:
                    Queue(name, connection=connection).enqueue_many(jobs)

    return fill


def by_app(*arguments: str) -> Fill:
    """Have a peer's own module enqueue."""

    def fill(url: str, count: int) -> None:
        command = [*PYTHON, "-m", *arguments, str(count)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "REDIS_URL": url}, check=True)

    return fill


def _log(work: Work) -> str:
    return "worker-" + re.sub(r"\W+", "-", work.name)


def _offer(tenant: int, number: int) -> Offer:
    its = webhooks.address(tenant)
    body = webhooks.message(its, number)
    return Offer(its.tenant, its.session, Origin.WAHA, _RECEIVED_AT_MS, body)


def _handed_over(url: str, work: Callable[[Handover], Awaitable[None]]) -> None:
    async def main() -> None:
        client = connect(url, timeout_seconds=30)
        try:
            await work(Handover(client, limits=LIMITS, lease_seconds=4, turn_entries=200))
        finally:
            await client.aclose()

    asyncio.run(main())
