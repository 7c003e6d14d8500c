"""Workers through outages: PostgreSQL away, Redis restarted, a process that is stopped, a signal."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import redis
from prometheus_client import REGISTRY

from databases import Database as Urls
from waiting import wait_for
from working import Plant, child, plant
from wsm.core.ids import TenantId
from wsm.sandbox.embedded import Embedded
from wsm.store.database import Database
from wsm.streams import keys
from wsm.streams.keys import Kind

ONE, TWO = 11, 22
LEASE_SECONDS = 2.0


async def test_a_database_that_is_away_is_held_against_nobody(
    redis_url: str, database: Urls, clean_redis: redis.Redis, embedded: Embedded
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE, TWO)
        worker = at.start(slots=1)
        await asyncio.to_thread(embedded.postgres.kill)
        await at.offer(ONE, "oi")
        await at.offer(TWO, "oi")
        await wait_for(lambda: worker.busy)
        await wait_for(lambda: not worker.busy, 15)
        for tenant in (ONE, TWO):
            pointer = keys.pointer(TenantId(tenant), Kind.TURN)
            assert clean_redis.hget(pointer, "state") in {b"queued", None}, "nobody claims any more"
            assert not clean_redis.exists(keys.attempts(TenantId(tenant)))
            assert not clean_redis.hexists(keys.FEW, str(tenant))
        await asyncio.to_thread(embedded.start)
        await at.drained()
        assert [await at.texts(tenant) for tenant in (ONE, TWO)] == [["oi"], ["oi"]]


async def test_a_database_that_nobody_has_migrated_yet_is_waited_for_in_peace(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE)
        pings = at.database.__class__ = CountedPings
        with psycopg.connect(database.owner_url, autocommit=True) as owner:
            owner.execute("alter schema wsm rename to not_yet")
            before = _handed_back()
            at.start()
            await at.offer(ONE, "oi")
            await wait_for(lambda: _handed_back() > before)
            await at.offer(ONE, "alguém aí?")
            await wait_for(lambda: pings.count >= 3)
            owner.execute("alter schema not_yet rename to wsm")
        await at.drained()
        assert await at.texts(ONE) == ["oi", "alguém aí?"]
        assert not clean_redis.exists(keys.dead(TenantId(ONE)))
        assert _handed_back() - before < 3, "a worker that knows it is away claims nothing"


class CountedPings(Database):
    """A database that counts how often it is asked whether it is there."""

    count = 0

    async def ping(self) -> None:
        CountedPings.count += 1
        await super().ping()


def _handed_back() -> float:
    labels = {"kind": "turn", "outcome": "handed_back"}
    return REGISTRY.get_sample_value("wsm_bells_total", labels) or 0


async def test_a_redis_that_was_killed_and_restarted_is_found_again(
    redis_url: str, database: Urls, embedded: Embedded
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE, TWO)
        async with lane_held(database, ONE) as held:
            at.start()
            await at.offer(ONE, "antes")
            await held.waited_for()
            await asyncio.to_thread(embedded.valkey.kill)
        await wait_for(lambda: _has(at, ONE))
        await asyncio.to_thread(embedded.start)
        await at.offer(TWO, "depois")

        async def handled() -> bool:
            await at.sweep(ahead_seconds=5)
            return await at.is_drained()

        await wait_for(handled)
        assert [await at.texts(tenant) for tenant in (ONE, TWO)] == [["antes"], ["depois"]]


async def test_a_process_that_was_stopped_past_its_lease_commits_nothing_twice(
    redis_url: str, database: Urls
) -> None:
    settings = {"WSM_LEASE_SECONDS": str(LEASE_SECONDS), "WSM_REDIS_DURABILITY": "trust"}
    async with (
        plant(redis_url, database, lease_seconds=LEASE_SECONDS) as at,
        child(redis_url, database, **settings) as process,
    ):
        await at.found(ONE)
        async with lane_held(database, ONE) as held:
            await at.offer(ONE, "oi")
            await held.waited_for()
            process.send_signal(signal.SIGSTOP)
            await wait_for(lambda: at.sweep(ahead_seconds=LEASE_SECONDS + 1))
            at.start()
            await held.waited_for(2)
            process.send_signal(signal.SIGCONT)
        await at.drained()
        assert await at.texts(ONE) == ["oi"]
        await at.offer(ONE, "mais")
        await at.drained()
        await at.stop()
        await at.offer(ONE, "ainda vive")
        await at.drained()
        assert await at.texts(ONE) == ["oi", "mais", "ainda vive"]
        process.terminate()
        assert await process.wait() == 0


async def test_a_signal_hands_back_what_does_not_end_and_the_process_ends_well(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with (
        plant(redis_url, database) as at,
        child(redis_url, database, WSM_DRAIN_SECONDS="0.2") as process,
    ):
        await at.found(ONE)
        async with lane_held(database, ONE) as held:
            await at.offer(ONE, "oi")
            await held.waited_for()
            process.terminate()
            assert await process.wait() == 0
        pointer = keys.pointer(TenantId(ONE), Kind.TURN)
        assert clean_redis.hget(pointer, "state") == b"queued"
        assert not clean_redis.exists(keys.attempts(TenantId(ONE)))
        at.start()
        await at.drained()
        assert await at.texts(ONE) == ["oi"]


class Held:
    """A tenant's lock in the test's hands."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection

    async def waited_for(self, count: int = 1) -> None:
        """Wait until somebody waits for the lock."""
        query = b"select count(*) >= %s from pg_locks where locktype = 'advisory' and not granted"

        async def waits() -> bool:
            row = await (await self._connection.execute(query, [count])).fetchone()
            return bool(row and row[0])

        await wait_for(waits)


@asynccontextmanager
async def lane_held(database: Urls, tenant: int) -> AsyncIterator[Held]:
    """Hold a tenant's lock, so that his turns stand still in their transaction."""
    async with await psycopg.AsyncConnection.connect(database.owner_url, autocommit=True) as connection:
        await connection.execute("select pg_advisory_lock(%s)", [tenant])
        yield Held(connection)


async def _has(at: Plant, tenant: int) -> bool:
    return bool(await at.texts(tenant))
