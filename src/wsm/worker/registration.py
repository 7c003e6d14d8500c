"""The worker as RQ's own tools see it: born, alive, busy or idle, dead.

RQ's code writes its keys; it is synchronous and runs in a thread. What it shows is for people: nothing of
the hand-over depends on it, and a Redis that is away or full only makes the picture old.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from wsm.streams.sentinels import ASK_SECONDS, watched

_BEAT_SECONDS = 10
_TTL_SECONDS = 60
SHOWN_QUEUE = "tenants"
"""What stands in the list of queues of a worker that serves every tenant's."""


async def registered(
    url: str, name: str, busy: Callable[[], bool], *, beat_seconds: float = _BEAT_SECONDS
) -> None:
    """Show the worker `name` until cancelled. Never raises for a Redis that is away or forgets."""
    connection = _connection(url)
    worker: SimpleWorker | None = None
    try:
        while True:
            with contextlib.suppress(redis.RedisError):
                if worker is None:
                    worker = await asyncio.to_thread(_born, connection, name)
                await asyncio.to_thread(_beat, worker, busy=busy())
            await asyncio.sleep(beat_seconds)
    finally:
        if worker is not None:
            with contextlib.suppress(redis.RedisError):
                await asyncio.to_thread(worker.register_death)
        connection.close()


def _connection(url: str) -> redis.Redis:
    settings: dict[str, Any] = {"socket_timeout": 5, "retry": Retry(NoBackoff(), 0)}
    found = watched(url)
    if found is None:
        return redis.Redis.from_url(url, **settings)
    asked = Sentinel(found.sentinels, sentinel_kwargs={**settings, "socket_timeout": ASK_SECONDS})  # type: ignore[no-untyped-call]
    master = asked.master_for(found.service, **found.credentials, **settings)  # type: ignore[no-untyped-call]
    return cast("redis.Redis", master)


def _born(connection: redis.Redis, name: str) -> SimpleWorker:
    return SimpleWorker(
        [SHOWN_QUEUE], name=name, connection=connection, serializer=JSONSerializer, worker_ttl=_TTL_SECONDS
    )


def _beat(worker: SimpleWorker, *, busy: bool) -> None:
    if not worker.connection.hexists(worker.key, "birth"):  # the first time, and when Redis forgot
        worker.connection.delete(worker.key)  # what a beat wrote in the moment of the forgetting
        worker.register_birth()  # type: ignore[no-untyped-call]
    worker.set_state(WorkerStatus.BUSY if busy else WorkerStatus.IDLE)
    worker.heartbeat(_TTL_SECONDS)
