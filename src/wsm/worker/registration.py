"""The worker as RQ's own tools see it: born, alive, busy, idle or suspended, dead.

RQ's code writes its keys; it is synchronous and runs in threads. What it shows is for people: nothing of
the hand-over depends on it, and a Redis that is away or full only makes the picture old.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel
from rq.suspension import is_suspended
from rq.worker import WorkerStatus

from wsm.streams.sentinels import ASK_SECONDS, watched
from wsm.worker.horses import Stock, stock
from wsm.worker.threads import in_thread

_BEAT_SECONDS = 2
SHOWN_QUEUE = "tenants"
"""What stands in the list of queues of a worker for those of all tenants."""


async def registered(
    connection: redis.Redis,
    name: str,
    queues: Sequence[str],
    busy: Callable[[], bool],
    *,
    beat_seconds: float = _BEAT_SECONDS,
) -> None:
    """Show the worker `name` until cancelled. Never raises for a Redis that is away or forgets.

    queues  those of ordinary jobs that it listens to
    """
    worker: Stock | None = None
    try:
        while True:
            with contextlib.suppress(redis.RedisError):
                if worker is None:
                    worker = await in_thread(stock, connection, name, [*queues, SHOWN_QUEUE])
                await in_thread(_beat, worker, busy())
            await asyncio.sleep(beat_seconds)
    finally:
        if worker is not None:
            with contextlib.suppress(redis.RedisError):
                await in_thread(worker.register_death)


def connect(url: str, *, connections: int) -> redis.Redis:
    """Build the client of RQ's code for `url`, as `streams.client.connect` takes it; nothing is sent yet."""
    settings: dict[str, Any] = {
        "socket_timeout": 5, "retry": Retry(NoBackoff(), 0), "max_connections": connections,
    }  # fmt: skip
    found = watched(url)
    if found is None:
        return redis.Redis.from_url(url, **settings)
    asked = Sentinel(found.sentinels, sentinel_kwargs={**settings, "socket_timeout": ASK_SECONDS})  # type: ignore[no-untyped-call]
    master = asked.master_for(found.service, **found.credentials, **settings)  # type: ignore[no-untyped-call]
    return cast("redis.Redis", master)


def _beat(worker: Stock, busy: bool) -> None:
    connection, key = worker.connection, worker.key
    if not (connection.hexists(key, "birth") and connection.sismember(worker.redis_workers_keys, key)):
        # The first time, and when Redis forgot; what a beat wrote in the moment of the forgetting goes.
        connection.delete(key)
        worker.register_birth()  # type: ignore[no-untyped-call]
    suspended = is_suspended(connection)
    worker.set_state(
        WorkerStatus.BUSY if busy else WorkerStatus.SUSPENDED if suspended else WorkerStatus.IDLE
    )
    worker.heartbeat()
