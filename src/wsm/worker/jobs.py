"""Ordinary RQ jobs, beside the bells: on the few queues that every worker listens to.

Anybody may enqueue there, with RQ's own client and its JSONSerializer. Each job is run by a `Horse`, in a
thread; coroutines run on one loop in a thread of its own. Bells have nothing of this in their way: no slot,
no call to Redis that blocks, not even a job that blocks a loop.

A job moves into RQ's intermediate list as it is taken, so that none is lost with its taker. Its lease is
renewed while it runs. One worker of the fleet at a time keeps house for all, every second, by RQ's own code:
it finds abandoned jobs, and enqueues what was delayed (Retry with an interval, repeats, `enqueue_in`).
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis
from redis.asyncio import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.group import Group
from rq.registry import clean_registries
from rq.scheduler import RQScheduler
from rq.scripts import acquire_or_refresh_lock, release_lock
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.worker_registration import clean_worker_registry

from wsm.core.errors import StreamsUnavailable
from wsm.streams import keys
from wsm.streams.client import translated
from wsm.telemetry import JOB_SECONDS, JOBS, JOBS_IN_FLIGHT, logger
from wsm.worker.horses import Horse, JsonJob, Stock, stock
from wsm.worker.registration import SHOWN_QUEUE
from wsm.worker.threads import in_thread

log = logger("jobs")

LEASE_SECONDS = 15
"""After which a silent worker's jobs are taken for abandoned. Longer than a bell's: a function that keeps
Python's lock keeps the renewal from its turn."""

_WAIT_SECONDS = 1
_PAUSE_SECONDS = 0.5
_LAST_SECONDS = 1.0
_KEEPER_SECONDS = 5
_SCHEDULER = "wsm"  # one name for the fleet: who keeps house next takes over at once
_SCHEDULER_SECONDS = 61  # as RQ's own


class Jobs:
    """One process' share of the ordinary jobs.

    name           the worker's, as it is registered
    client         one of `streams.client.connect`
    connection     what RQ's code uses: synchronous, for twice as many threads as there are slots
    queues         their names; none of them is a number
    slots          how many jobs run at once; one more for each queue but the first
    drain_seconds  how long after the stop they may take before they are handed back
    """

    def __init__(
        self,
        name: str,
        client: Redis,
        connection: redis.Redis,
        *,
        queues: Sequence[str],
        slots: int,
        drain_seconds: float,
        lease_seconds: int = LEASE_SECONDS,
    ) -> None:
        self._name = name
        self._client = client
        self._connection = connection
        self._queues = [
            Queue(queue, connection=connection, serializer=JSONSerializer, job_class=JsonJob)
            for queue in queues
        ]
        self._slots = slots
        self._drain_seconds = drain_seconds
        self._lease_seconds = lease_seconds
        self._loop = asyncio.new_event_loop()
        self._running: dict[asyncio.Task[None], Horse] = {}  # horses of one worker are all equal to RQ
        self._freed = asyncio.Event()
        self._stock: Stock | None = None
        self._taken: dict[str, dict[str, float]] = {}

    @property
    def busy(self) -> bool:
        """Whether any job runs."""
        return bool(self._running)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then take nothing more, let the running jobs end, or hand them back."""
        coroutines = threading.Thread(target=self._loop.run_forever, daemon=True)
        coroutines.start()
        beside = [asyncio.create_task(self._renew()), asyncio.create_task(self._keep_house())]
        for task in beside:
            task.add_done_callback(_tell)
        try:
            await asyncio.gather(*(self._listen(queue, stop) for queue in self._queues))
            await self._drain()
        finally:
            for task in (*beside, *self._running):
                task.cancel()
            await asyncio.gather(*beside, *self._running, return_exceptions=True)
            self._loop.call_soon_threadsafe(self._loop.stop)
            await in_thread(coroutines.join, _LAST_SECONDS)
            if not coroutines.is_alive():
                self._loop.close()

    def stop(self, job_id: str) -> bool:
        """End a job as stopped; False when it does not run here."""
        found = [horse for horse in self._running.values() if horse.job_id == job_id]
        for horse in found:
            horse.stop()
        return bool(found)

    async def _listen(self, queue: Queue, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                if len(self._running) >= self._slots:
                    await self._wait_for_a_slot(stop)
                elif await self._is_suspended():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _WAIT_SECONDS)
                elif (job_id := await self._take(queue)) is not None:
                    if stop.is_set() or await self._is_suspended():
                        await self._put_back(queue, job_id)
                    else:
                        await self._begin(queue, job_id)
            except (StreamsUnavailable, redis.RedisError) as exc:
                log.warning("jobs_wait", queue=queue.name, reason=type(exc).__name__)
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception:  # a bug here must not end the bells
                log.exception("jobs_wait", queue=queue.name)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _wait_for_a_slot(self, stop: asyncio.Event) -> None:
        self._freed.clear()
        waiting = [asyncio.create_task(self._freed.wait()), asyncio.create_task(stop.wait())]
        await asyncio.wait(waiting, timeout=_WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()

    async def _take(self, queue: Queue) -> str | None:
        """Wait for a job, as RQ does. Never cancelled: the reply would be lost, and the job stand still."""
        with translated():
            found: Any = await self._client.blmove(queue.key, queue.intermediate_queue_key, _WAIT_SECONDS)
        return found.decode() if found else None

    async def _put_back(self, queue: Queue, job_id: str) -> None:
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.lrem(queue.intermediate_queue_key, 1, job_id)
            pipe.lpush(queue.key, job_id)
            with translated():
                await pipe.execute()

    async def _is_suspended(self) -> bool:
        with translated():
            return bool(await self._client.exists(WORKERS_SUSPENDED))

    async def _begin(self, queue: Queue, job_id: str) -> None:
        if self._stock is None:
            self._stock = await in_thread(stock, self._connection, self._name, [queue.name])
        horse = Horse(self._stock, queue, job_id, self._loop, self._lease_seconds)
        task = asyncio.create_task(self._see_to(horse, queue.name))
        self._running[task] = horse
        task.add_done_callback(self._ended)
        JOBS_IN_FLIGHT.inc()

    async def _see_to(self, horse: Horse, queue: str) -> None:
        """Run one job to its end; the word it ended in is counted."""
        started = time.monotonic()
        outcome = "unrecorded"
        try:
            outcome = await in_thread(horse.run)
            log.info("job_ended", queue=queue, job=horse.job_id, outcome=outcome)
        except redis.RedisError as exc:
            log.warning("job_unrecorded", queue=queue, job=horse.job_id, reason=type(exc).__name__)
        except Exception:  # a bug: the job is found abandoned, like an unrecorded one
            log.exception("job_broken", queue=queue, job=horse.job_id)
        finally:
            JOBS.labels(queue, outcome).inc()
            JOB_SECONDS.labels(queue).observe(time.monotonic() - started)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._freed.set()
        JOBS_IN_FLIGHT.dec()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 5)
            renewals = (in_thread(horse.renew) for horse in self._running.values())
            for answer in await asyncio.gather(*renewals, return_exceptions=True):
                if isinstance(answer, BaseException):
                    log.warning("job_not_renewed", reason=type(answer).__name__)

    async def _drain(self) -> None:
        """Let running jobs end, and hand back what takes too long."""
        if tasks := list(self._running):
            await asyncio.wait(tasks, timeout=self._drain_seconds)
        late = [horse for horse in self._running.values() if horse.give_up()]
        if tasks := list(self._running):
            await asyncio.wait(tasks, timeout=_LAST_SECONDS)
        for answer in await asyncio.gather(
            *(in_thread(horse.hand_back) for horse in late), return_exceptions=True
        ):
            if isinstance(answer, BaseException):
                log.warning("job_not_handed_back", reason=type(answer).__name__)

    async def _keep_house(self) -> None:
        """Clean and schedule for the whole fleet, while no other worker does."""
        work: set[asyncio.Task[None]] = set()
        try:
            while True:
                if await self._is_keeper() and not work:
                    work = {asyncio.create_task(in_thread(self._clean))}
                await asyncio.sleep(_WAIT_SECONDS)
                work = {task for task in work if not task.done()}  # some callback takes long
        finally:
            if work:
                await asyncio.wait(work, timeout=_LAST_SECONDS)
            with contextlib.suppress(redis.RedisError):
                await in_thread(release_lock, self._connection, keys.KEEPER, self._name)

    async def _is_keeper(self) -> bool:
        try:
            asked = (self._connection, keys.KEEPER, self._name, _KEEPER_SECONDS)
            return await in_thread(acquire_or_refresh_lock, *asked) != "taken"
        except redis.RedisError as exc:
            log.warning("house_not_kept", reason=type(exc).__name__)
            return False

    def _clean(self) -> None:
        """Call RQ's own cleaning; a part that fails leaves the others be."""
        parts: list[tuple[str, Callable[[], Any]]] = [
            ("groups", partial(Group.clean_registries, self._connection)),
            ("workers", partial(clean_worker_registry, Queue(SHOWN_QUEUE, connection=self._connection))),
        ]
        for queue in self._queues:
            parts += [
                ("schedule", partial(_schedule, queue)),
                ("registries", partial(clean_registries, queue)),
                ("workers", partial(clean_worker_registry, queue)),
                ("taken", partial(self._give_back_taken, queue)),
            ]
        for part, clean in parts:
            try:
                clean()
            except redis.RedisError as exc:
                log.warning("house_not_kept", part=part, reason=type(exc).__name__)
                return
            except Exception:
                log.exception("house_not_kept", part=part)  # what lies there is others' writing

    def _give_back_taken(self, queue: Queue) -> None:
        """Put first in the queue what was taken and never begun, for its taker died in between.

        RQ's own way is not taken: it fails such a job, and it marks, for a day, what it sees being taken, so
        that the next run of a job that is seen twice counts as stuck.
        """
        now = time.monotonic()
        held = queue.intermediate_queue.get_job_ids()
        before = self._taken.get(queue.name, {})
        self._taken[queue.name] = {job_id: before.get(job_id, now) for job_id in held}
        for job_id, since in self._taken[queue.name].items():
            if now - since > self._lease_seconds and job_id not in queue.started_job_registry:
                waits = self._connection.hget(JsonJob.key_for(job_id), "status") == b"queued"
                with self._connection.pipeline() as pipe:
                    pipe.lrem(queue.intermediate_queue_key, 1, job_id)
                    if waits:
                        pipe.lpush(queue.key, job_id)
                    pipe.execute()
                log.warning("job_taken_and_left", queue=queue.name, job=job_id)


def _schedule(queue: Queue) -> None:
    """Enqueue what is due, unless somebody's `rq worker --with-scheduler` does that.

    One by one: RQ's own way ends at the first hash that it cannot read.
    """
    lock = RQScheduler.get_locking_key(queue.name)
    if acquire_or_refresh_lock(queue.connection, lock, _SCHEDULER, _SCHEDULER_SECONDS) == "taken":
        return
    registry = queue.scheduled_job_registry
    for job_id in registry.get_jobs_to_schedule():
        with queue.connection.pipeline() as pipe:
            try:
                job = JsonJob.fetch(job_id, queue.connection, JSONSerializer)
                queue._enqueue_job(job, pipeline=pipe, at_front=job.should_enqueue_at_front())  # noqa: SLF001 (RQ has no other)
            except NoSuchJobError as exc:
                log.warning("job_not_scheduled", queue=queue.name, reason=str(exc))
            registry.remove(job_id, pipeline=pipe)
            pipe.execute()


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (exc := task.exception()) is not None:
        log.critical("jobs_broken", exc_info=exc)
