"""The jobs on taskiq: a broker on a list, which loses what a killed worker held, and one on a stream.

The stream's broker acknowledges after the job and hands out again what was not, after 10 minutes by default.
Neither keeps an order or knows tenants. No result backend: results are not kept.

`python -m bench.peers.taskiq_app BROKER JOB COUNT` enqueues.
"""

import asyncio
import os
import sys

from taskiq import AsyncBroker
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from bench.peers import jobs

_URL = os.environ["REDIS_URL"]
_AT_ONCE = 50

on_list = ListQueueBroker(_URL, queue_name="taskiq-list")
on_stream = RedisStreamBroker(_URL, queue_name="taskiq-stream", consumer_id="0")


async def empty() -> None:
    """Do nothing."""
    jobs.empty()


def _register(broker: AsyncBroker) -> None:
    broker.register_task(empty, "empty")
    broker.register_task(jobs.wait_on_the_loop, "wait")


_register(on_list)
_register(on_stream)


async def _fill(broker: AsyncBroker, job: str, count: int) -> None:
    task = broker.find_task(job)
    assert task is not None
    for _ in range(0, count, _AT_ONCE):
        await asyncio.gather(*(task.kiq() for _ in range(_AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(_fill({"list": on_list, "stream": on_stream}[sys.argv[1]], sys.argv[2], int(sys.argv[3])))
