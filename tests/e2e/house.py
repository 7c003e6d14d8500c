"""Ingest, a worker and the clock in one loop, on the run's servers, at a time that the test chooses.

Wired as in `bootstrap`, but for the time. No gateway is configured: nobody is written to.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
from psycopg.rows import namedtuple_row
from redis.asyncio import Redis

from e2e.town import Ground
from ingesting import connected
from unpaced import PACING, files
from waiting import wait_for
from wsm.bootstrap import handover
from wsm.clock.clock import Clock
from wsm.config import Settings
from wsm.core.ids import ServerName, SessionAddress, TenantId
from wsm.gateway.waha import Gateways
from wsm.ingest.app import Ingest
from wsm.ingest.batch import Batcher
from wsm.ingest.directory import LiveDirectory
from wsm.ingest.doors import Doors
from wsm.ingest.exchange import BodyBudget, Bounds
from wsm.ingest.ops import Ops
from wsm.ingest.security import RefusalLog
from wsm.ingest.server import listen, serve
from wsm.store import fleet
from wsm.store.database import Database
from wsm.store.leadership import Leadership
from wsm.streams import keys
from wsm.streams.client import connect
from wsm.streams.directory import PublishedDirectory
from wsm.streams.keys import Kind
from wsm.telemetry import ops_pages
from wsm.wire.signature import session_secret
from wsm.worker.deliver import Deliveries
from wsm.worker.turn import Turns
from wsm.worker.worker import Worker

KID = "k1"
MASTER_KEY = bytes(range(32))
STALE_AFTER = timedelta(days=60)


class Seat(msgspec.Struct, frozen=True):
    """A session of the house: `server` is the WAHA that it is at."""

    address: SessionAddress
    server: ServerName

    @property
    def secret(self) -> str:
        """What its webhooks are signed with."""
        return session_secret(MASTER_KEY, self.address, 1)


class House:
    """A running house. now_ms is its time, for every part of it."""

    def __init__(self, ground: Ground, port: int, redis: Redis) -> None:
        self.now_ms = time.time_ns() // 1_000_000
        self._ground = ground
        self._port = port
        self._redis = redis

    def now(self) -> datetime:
        """Its time as the parts ask for it."""
        return datetime.fromtimestamp(self.now_ms / 1000, UTC)

    async def post(self, request: bytes) -> int:
        """Send a request as it stands; return the status of the answer."""
        async with connected(self._port) as connection:
            await connection.send(request)
            return (await connection.reply()).status

    async def handled(self, tenant: TenantId) -> None:
        """Wait until a tenant's mailbox is empty and his turn is over."""

        async def empty() -> Any:
            return not await self.held(tenant)

        await wait_for(empty)

    async def held(self, tenant: TenantId) -> list[str]:
        """What of a tenant still waits in Redis."""
        names = [
            keys.mailbox(tenant),
            keys.pointer(tenant, Kind.TURN),
            keys.parked(tenant),
            keys.dead(tenant),
        ]
        return [name for name in names if await self._redis.exists(name)]

    async def rows(self, query: str) -> list[Any]:
        """Ask the database as its owner."""
        async with await psycopg.AsyncConnection.connect(
            self._ground.database.owner_url, row_factory=namedtuple_row, options="-c search_path=wsm"
        ) as connection:
            return await (await connection.execute(query.encode())).fetchall()


def stamped_ms(body: bytes) -> int | None:
    """The time that a body bears, in milliseconds; None when it bears none."""
    envelope = json.loads(body)
    said = envelope.get("timestamp")
    return int(said) if said else None


@asynccontextmanager
async def house(
    ground: Ground, seats: Iterable[Seat], hook_secrets: Mapping[ServerName, Sequence[str]]
) -> AsyncIterator[House]:
    """Run a house with these sessions, and wait until they may sign."""
    async with AsyncExitStack() as stack:
        redis = connect(ground.servers.redis_url, timeout_seconds=5)
        stack.push_async_callback(redis.aclose)
        app, system = (
            Database(ground.database.app_url, connections=4),
            Database(ground.database.system_url, connections=2),
        )
        for database in (app, system):
            await database.open()
            stack.push_async_callback(database.close)
        for seat in seats:
            await fleet.add_tenant(system, seat.address.tenant, name="", locale="en", capacity=1)
            await fleet.add_session(system, seat.address, server=seat.server, alias="", kid=KID)

        sock = stack.enter_context(listen("127.0.0.1", 0))
        at = House(ground, sock.getsockname()[1], redis)
        between = handover(Settings(redis_url=ground.servers.redis_url), redis)
        board = PublishedDirectory(redis)
        clock = Clock(
            system,
            Leadership(ground.database.system_url),
            between,
            board,
            now=at.now,
            keep_dedupe=STALE_AFTER,
            keep_media=STALE_AFTER,
        )
        await clock.tick()
        directory = LiveDirectory(version=board.version, read=board.read, master_keys={KID: MASTER_KEY})
        await directory.refresh()
        batcher = Batcher(between.accept, timeout_seconds=2)
        ingest = Ingest(
            doors=Doors(directory, hook_secrets),
            submit=batcher.submit,
            refusals=RefusalLog(),
            ops=Ops(ops_pages(_nothing)),
            clock=lambda: at.now_ms,
        )
        gateways = Gateways({}, send_timeout_seconds=1)
        stack.push_async_callback(gateways.aclose)
        deliveries = Deliveries(
            app,
            gateways,
            clock=at.now,
            monotonic=time.monotonic,
            start_within=timedelta(seconds=4),
            evidence=timedelta(seconds=180),
            pacing=PACING,
            files=files(app, gateways, at.now),
        )
        turns = Turns(app, clock=at.now, stale_after=STALE_AFTER)
        slots = {Kind.TURN: 10, Kind.DELIVER: 10}
        worker = Worker("house", between, app, turns, deliveries, slots=slots, drain_seconds=5)

        stop = asyncio.Event()
        watching = asyncio.create_task(directory.watch())
        async with asyncio.TaskGroup() as processes:
            processes.create_task(
                serve(ingest, sock, stop=stop, bounds=Bounds(), bodies=BodyBudget(1 << 24), drain_seconds=1)
            )
            processes.create_task(worker.run(stop))
            processes.create_task(clock.run(stop))
            try:
                yield at
            finally:
                stop.set()
        watching.cancel()
        await asyncio.wait([watching])
        await batcher.aclose()


async def _nothing() -> dict[str, str]:
    return {}
