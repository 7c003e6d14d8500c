"""The jobs on huey: a list that is popped, so a killed worker loses what it held; no order, no tenants.

`python -m bench.peers.huey_app JOB COUNT` enqueues.
"""

import os
import sys

from huey import RedisHuey
from redis import BlockingConnectionPool

from bench.peers import jobs

_pool = BlockingConnectionPool.from_url(os.environ["REDIS_URL"], max_connections=1000)  # one per thread
huey = RedisHuey("bench", connection_pool=_pool, results=False)
empty = huey.task()(jobs.empty)
wait = huey.task()(jobs.wait)


if __name__ == "__main__":
    for _ in range(int(sys.argv[2])):
        {"empty": empty, "wait": wait}[sys.argv[1]]()
