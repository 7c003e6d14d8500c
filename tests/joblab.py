"""Ordinary jobs on the test's Valkey: RQ's own client on one side, ours on the other."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

import chores
from waiting import wait_for
from wsm.streams.client import connect
from wsm.worker import registration
from wsm.worker.jobs import LEASE_SECONDS, Jobs

QUEUE = "jobs"
NAME = "host-1-abc123"
_ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED)


class Lab:
    """A worker's ordinary jobs, and the queue and client that somebody else uses."""

    name = NAME

    def __init__(self, jobs: Jobs, client: Any) -> None:
        self.jobs = jobs
        self.redis = client
        self.queue = Queue(QUEUE, connection=client, serializer=JSONSerializer)
        self.stopping = asyncio.Event()
        self.running = asyncio.create_task(jobs.run(self.stopping))

    async def ended(self, job: Job, timeout: float = 20.0) -> Job:  # noqa: ASYNC109
        """Wait until a job has ended, one way or another, and everything is recorded."""
        await wait_for(lambda: job.get_status() in _ENDED, timeout)
        await wait_for(lambda: not self.jobs.busy)
        return Job.fetch(job.id, connection=self.redis, serializer=JSONSerializer)

    async def stop(self) -> None:
        """End it as SIGTERM does. Raises what it raised."""
        self.stopping.set()
        await self.running

    def left_over(self) -> set[str]:
        """Name RQ's keys of jobs that run: there must be none when none does."""
        names = {name.decode() for name in self.redis.keys("rq:*")}
        return {name for name in names if name.startswith(("rq:wip:", "rq:execution", "rq:queue:"))}


@asynccontextmanager
async def lab(
    url: str,
    *,
    queues: Sequence[str] = (QUEUE,),
    slots: int = 10,
    drain_seconds: float = 5.0,
    lease_seconds: int = LEASE_SECONDS,
) -> AsyncIterator[Lab]:
    """Run a worker's ordinary jobs until the end of the block."""
    client = connect(url, timeout_seconds=5.0)
    with Redis.from_url(url) as theirs, registration.connect(url, connections=50) as connection:
        jobs = Jobs(
            NAME,
            client,
            connection,
            queues=queues,
            slots=slots,
            drain_seconds=drain_seconds,
            lease_seconds=lease_seconds,
        )
        at = Lab(jobs, theirs)
        try:
            yield at
            await at.stop()
        finally:
            at.stopping.set()
            await asyncio.wait([at.running])
            chores.unblock()
            await wait_for(lambda: not threads())
            await client.aclose()


def threads() -> list[str]:
    """Name the threads in which something for a worker is still being called."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wsm-")]
