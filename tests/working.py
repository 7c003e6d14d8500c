"""A worker on the test's Valkey and PostgreSQL, in the test's own loop or as a child process.

Whatever the loop would report (a task that leaked, an exception that nobody retrieved) fails the test.
"""

import asyncio
import gc
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from databases import Database as Urls
from mailboxes import ROOMY
from unpaced import PACING, files
from waiting import wait_for
from wsm.core.events import Origin
from wsm.core.ids import SessionName, TenantId
from wsm.gateway.waha import Gateways
from wsm.sandbox.site import UNPACED
from wsm.store.database import Database
from wsm.streams.client import connect
from wsm.streams.handover import Bell, Handover, Offer
from wsm.streams.keys import Kind
from wsm.telemetry import _fault
from wsm.worker.deliver import Deliveries
from wsm.worker.turn import Settled, Turns
from wsm.worker.worker import Worker

_numbers = itertools.count(1)
_FOUND = """
insert into tenants (tenant_id) select * from unnest(%(t)s::bigint[]);
insert into queues (tenant_id) select * from unnest(%(t)s::bigint[]);
insert into waha_servers (name) values ('default') on conflict do nothing;
insert into sessions (tenant_id, server, name, kid, exit_policy)
select t, 'default', 'user_' || t, 'k', 'direct' from unnest(%(t)s::bigint[]) t
"""


class Plant:
    """A hand-over, a database, and workers that run on them."""

    def __init__(self, handover: Handover, database: Database, system: Database) -> None:
        self.handover = handover
        self.database = database
        self.system = system
        self.workers: list[tuple[Worker, asyncio.Event, asyncio.Task[None]]] = []

    async def found(self, *tenants: int) -> None:
        """Make tenants, each with a session and a queue."""
        async with self.system.transaction() as transaction:
            for statement in _FOUND.split(";"):
                await transaction._connection.execute(statement.encode(), {"t": list(tenants)})

    async def offer(self, tenant: int, *texts: str, phone: str = "5511900000001") -> None:
        """Let a customer's messages into a tenant's mailbox, in this order."""
        await self.handover.accept([offer(tenant, text, phone) for text in texts])

    def start(
        self,
        *,
        handover: Handover | None = None,
        turns: Turns | None = None,
        deliveries: Deliveries | None = None,
        slots: int = 10,
        drain_seconds: float = 5.0,
    ) -> Worker:
        """Run a worker, with other parts where a test names them."""
        worker = Worker(
            f"worker-{next(_numbers)}",
            handover or self.handover,
            self.database,
            turns or self.turns(),
            deliveries or self.deliveries(),
            slots={Kind.TURN: slots, Kind.DELIVER: slots},
            drain_seconds=drain_seconds,
        )
        stop = asyncio.Event()
        self.workers.append((worker, stop, asyncio.create_task(worker.run(stop))))
        return worker

    async def stop(self) -> None:
        """Stop every worker and wait for its end. Raises what a worker raised."""
        workers, self.workers = self.workers, []
        for _, stop, _ in workers:
            stop.set()
        await asyncio.gather(*(task for _, _, task in workers))

    def turns(self) -> Turns:
        """The turns of a worker."""
        return Turns(self.database, clock=now, stale_after=timedelta(days=60))

    def deliveries(self) -> Deliveries:
        """Deliveries to a gateway that nobody has configured: everything waits, with a reason."""
        gateways = Gateways({}, send_timeout_seconds=1)
        return Deliveries(
            self.database,
            gateways,
            clock=now,
            monotonic=time.monotonic,
            start_within=timedelta(seconds=4),
            evidence=timedelta(seconds=180),
            pacing=PACING,
            files=files(self.database, gateways, now),
        )

    async def sweep(self, *, ahead_seconds: float = 0) -> int:
        """Sweep once, as the clock does, or as it will do later. Returns how many leases had run out."""
        cursor, expired = 0, 0
        while True:
            now_ms = time.time_ns() // 1_000_000 + int(ahead_seconds * 1000)
            done = await self.handover.sweep(cursor, now_ms=now_ms)
            expired += done.expired
            if (cursor := done.cursor) == 0:
                return expired

    async def texts(self, tenant: int) -> list[str]:
        """What the history of a tenant has, in the order of its chats."""
        rows = await self.rows(
            tenant, "select body from messages order by conversation_id, sent_at, entry_ms, entry_n"
        )
        return [row.body for row in rows]

    async def rows(self, tenant: int, query: str) -> list[Any]:
        """Ask for rows of a tenant."""
        async with self.database.transaction(TenantId(tenant)) as transaction:
            return await (await transaction._connection.execute(query.encode())).fetchall()

    async def is_drained(self) -> bool:
        """Whether no mailbox holds anything and no bell is left."""
        depth = await self.handover.depth()
        return depth.entries == 0 and depth.active == 0

    async def drained(self, timeout: float = 20.0) -> None:  # noqa: ASYNC109
        """Wait until everything was handled."""
        await wait_for(self.is_drained, timeout)


def now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def offer(tenant: int, text: str, phone: str = "5511900000001") -> Offer:
    """A customer's message, written now, as an offer."""
    milliseconds = time.time_ns() // 1_000_000
    chat, session = f"{phone}@c.us", f"user_{tenant}"
    payload = {"id": f"false_{chat}_3EB0{next(_numbers):016X}", "timestamp": milliseconds // 1000,
               "from": chat, "fromMe": False, "source": "app", "body": text, "hasMedia": False}  # fmt: skip
    whole = {"id": f"evt_{next(_numbers)}", "timestamp": milliseconds, "event": "message.any",
             "session": session, "payload": payload, "engine": "GOWS"}  # fmt: skip
    return Offer(
        TenantId(tenant), SessionName(session), Origin.WAHA, milliseconds, json.dumps(whole).encode()
    )


class GatedTurns(Turns):
    """Turns that wait at a gate."""

    def gated(self) -> "GatedTurns":
        self.gate, self.waiting = asyncio.Event(), 0
        return self

    async def run(self, bell: Bell) -> Settled:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        return await super().run(bell)


def gated(at: Plant) -> GatedTurns:
    """Make turns that wait until their gate is set."""
    turns = at.turns()
    turns.__class__ = GatedTurns
    assert isinstance(turns, GatedTurns)
    return turns.gated()


@asynccontextmanager
async def plant(
    redis_url: str, urls: Urls, *, kind: type[Handover] = Handover, lease_seconds: float = 4.0
) -> AsyncIterator[Plant]:
    """Open a plant; its workers are stopped at the end, and nothing may be left behind."""
    logging = structlog.get_config()
    structlog.configure(processors=[_fault, structlog.processors.KeyValueRenderer()])  # quick, unlike its own
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    redis = connect(redis_url, timeout_seconds=5.0)
    database, system = Database(urls.app_url, connections=8), Database(urls.system_url, connections=1)
    await database.open()
    await system.open()
    before = asyncio.all_tasks()
    handover = kind(redis, limits=ROOMY, lease_seconds=lease_seconds, turn_entries=200)
    here = Plant(handover, database, system)
    try:
        yield here
        await here.stop()
        await asyncio.sleep(0)
        assert not (left := _left(before)), left
    finally:
        for _, _, task in here.workers:
            task.cancel()
        await asyncio.gather(*(task for _, _, task in here.workers), return_exceptions=True)
        await database.close()
        await system.close()
        await redis.aclose()
        structlog.configure(**logging)
    gc.collect()
    assert not reported, reported


def _left(before: Iterable[asyncio.Task[Any]]) -> list[str]:
    """Describe the tasks that a test has left, without the pool's own and what those wait for."""
    left = asyncio.all_tasks() - set(before) - {asyncio.current_task()}
    named = {repr(task): task.get_name() for task in left}
    return [
        text for text, name in named.items() if not name.startswith("pool-") and "_release_waiter" not in text
    ]


@asynccontextmanager
async def child(
    redis_url: str, urls: Urls, *, command: str = "worker", **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `wsm worker`, or another command, as a process of its own; killed at the end if it still runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WSM_", "WAHA_"))}
    environ = {
        **kept,
        "REDIS_URL": redis_url,
        "DATABASE_URL": urls.app_url,
        "WAHA_URL": "http://127.0.0.1:9",
        "WAHA_API_KEY": "none",
        "WSM_PACE": UNPACED,
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "utf8", "-m", "wsm", command), env=environ, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.communicate()
