"""The clock on real servers: one leads, what is due happens, and one duty that fails stops no other."""

import asyncio
import signal
from datetime import datetime, timedelta

import psycopg
import redis
from prometheus_client import REGISTRY

from clockwork import KEEP, clockwork
from databases import Database as Urls
from waiting import wait_for
from working import Plant, child
from wsm.core.ids import TenantId
from wsm.sandbox.embedded import Embedded
from wsm.streams import keys
from wsm.streams.keys import Kind
from wsm.wire import directory as wire

ONE, TWO = 11, 22


async def test_one_clock_leads_and_another_takes_over_when_it_ends(redis_url: str, database: Urls) -> None:
    async with clockwork(redis_url, database) as works:
        first, second, stop = works.clock(), works.leadership(), asyncio.Event()
        running = asyncio.create_task(first.run(stop))
        await wait_for(works.published.version)
        assert not await second.leads()
        assert REGISTRY.get_sample_value("wsm_clock_leader") == 1
        stop.set()
        await running
        await wait_for(second.leads)
        assert REGISTRY.get_sample_value("wsm_clock_leader") == 0


async def test_a_lead_ends_with_its_connection(redis_url: str, database: Urls) -> None:
    async with clockwork(redis_url, database) as works:
        first, second = works.clock(), works.leadership()
        await first.tick()
        with psycopg.connect(database.owner_url, autocommit=True) as owner:
            holder = "select pid from pg_locks where locktype = 'advisory' and objid = 4294967295"
            owner.execute(f"select pg_terminate_backend(pid, 5000) from ({holder}) l")
        assert await second.leads()
        await first.tick()
        assert REGISTRY.get_sample_value("wsm_clock_leader") == 0
        await second.resign()

        async def leads_again() -> bool:
            await first.tick()
            return REGISTRY.get_sample_value("wsm_clock_leader") == 1

        await wait_for(leads_again)


async def test_who_stalls_loses_the_lead(redis_url: str, database: Urls) -> None:
    async with clockwork(redis_url, database) as works:
        stalled, second = works.leadership(stalled_seconds=0.1), works.leadership()
        assert await stalled.leads()
        assert not await second.leads()
        await wait_for(second.leads)


async def test_a_clock_that_is_killed_is_followed_and_a_signal_ends_one_well(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    settings = {"WSM_SYSTEM_DATABASE_URL": database.system_url, "WSM_REDIS_DURABILITY": "trust"}
    async with clockwork(redis_url, database) as works:
        async with child(redis_url, database, command="clock", **settings) as first:
            await wait_for(works.published.version)
            assert not await works.leadership().leads()
            first.kill()
            await first.wait()
            await wait_for(works.leaderships[-1].leads)
        await works.leaderships[-1].resign()
        clean_redis.flushall()
        async with child(redis_url, database, command="clock", **settings) as next_one:
            await wait_for(works.published.version)
            next_one.send_signal(signal.SIGTERM)
            assert await next_one.wait() == 0


async def test_the_directory_is_published_when_it_changed_and_when_redis_forgot_it(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with clockwork(redis_url, database) as works:
        clock = works.clock()
        await works.at.found(ONE)
        await clock.tick()
        first = await works.published.version()
        clean_redis.set(keys.DIRECTORY, b"as it was")
        await clock.tick()
        assert await works.published.read() == b"as it was", "nothing changed, nothing was published"
        await works.at.found(TWO)
        await clock.tick()
        body = await works.published.read()
        assert body is not None
        assert [listed.tenant for listed in wire.read(body).sessions] == [ONE, TWO]
        assert await works.published.version() not in {None, first}
        clean_redis.flushall()
        await clock.tick()
        assert await works.published.read() == body


async def test_tenants_with_due_intents_are_rung_for(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with clockwork(redis_url, database) as works:
        await works.at.found(ONE, TWO)
        await _intend(works.at, ONE, works.now)
        await _intend(works.at, TWO, works.now + timedelta(seconds=30))
        clock = works.clock()
        await clock.tick()
        assert clean_redis.zrange(keys.mail(Kind.DELIVER), 0, -1) == [b"11"]
        assert REGISTRY.get_sample_value("wsm_outbox_due") == 1
        works.now += timedelta(seconds=31)
        await clock.tick()
        assert clean_redis.zrange(keys.mail(Kind.DELIVER), 0, -1) == [b"11", b"22"]
        assert REGISTRY.get_sample_value("wsm_outbox_oldest_age_seconds") == 31


async def test_the_house_is_kept_a_part_at_a_time(redis_url: str, database: Urls) -> None:
    async with clockwork(redis_url, database) as works:
        await works.at.found(ONE)
        await _remember(works.at, ONE, 7000, works.now - KEEP - timedelta(hours=1))
        await _remember(works.at, ONE, 10, works.now - KEEP + timedelta(hours=1), prefix="young")
        clock = works.clock()
        await clock.tick()
        assert await _count(works.at, ONE, "inbound_dedupe") == 2010, "one part, and then the other duties"
        await clock.tick()
        await clock.tick()
        assert await _count(works.at, ONE, "inbound_dedupe") == 10
        with psycopg.connect(database.owner_url) as owner:
            found = owner.execute(
                "select relname from pg_class where relispartition and relkind = 'r' order by relname"
            )
            assert [row[0] for row in found] == ["messages_2026_11", "messages_2026_12"]


async def test_a_duty_that_fails_stops_no_other(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with clockwork(redis_url, database) as works:
        await works.at.found(ONE)
        await _intend(works.at, ONE, works.now)
        await works.at.offer(ONE, "oi")
        clean_redis.delete(keys.mail(Kind.TURN))
        with psycopg.connect(database.owner_url, autocommit=True) as owner:
            owner.execute("revoke select on wsm.sessions from wsm_system")
            owner.execute("revoke execute on function wsm.ensure_month(date) from wsm_system")
            clock = works.clock()
            await clock.tick()
            assert await works.published.version() is None
            assert clean_redis.zrange(keys.mail(Kind.TURN), 0, -1) == [b"11"]
            assert clean_redis.zrange(keys.mail(Kind.DELIVER), 0, -1) == [b"11"]
            owner.execute("grant select on wsm.sessions to wsm_system")
        await clock.tick()
        assert await works.published.version() is not None


async def test_redis_or_the_database_away_costs_ticks_and_nothing_else(
    redis_url: str, database: Urls, embedded: Embedded
) -> None:
    async with clockwork(redis_url, database) as works:
        clock = works.clock()
        await asyncio.to_thread(embedded.valkey.kill)
        await clock.tick()
        assert REGISTRY.get_sample_value("wsm_clock_leader") == 1
        await asyncio.to_thread(embedded.postgres.kill)
        await clock.tick()
        assert REGISTRY.get_sample_value("wsm_clock_leader") == 0
        await asyncio.to_thread(embedded.start)

        async def published() -> bool:
            await clock.tick()
            return await works.published.version() is not None

        await wait_for(published)


async def test_the_figures_of_an_earlier_lead_are_not_shown(redis_url: str, database: Urls) -> None:
    async with clockwork(redis_url, database) as works:
        await works.at.found(ONE)
        await works.at.offer(ONE, "oi", "oi")
        clock, stop = works.clock(), asyncio.Event()
        await clock.tick()
        assert REGISTRY.get_sample_value("wsm_backlog_entries") == 2
        stop.set()
        await clock.run(stop)
        other = works.leadership()
        await wait_for(other.leads)
        await clock.tick()
        assert REGISTRY.get_sample_value("wsm_backlog_entries") == 0


async def _intend(at: Plant, tenant: int, not_before: datetime) -> None:
    """Write an intent, as a turn would."""
    statement = """
        with contact as (insert into contacts (tenant_id) values (%(t)s) returning id),
        talk as (insert into conversations (tenant_id, session_id, contact_id, chat_id, kind)
                 select %(t)s, s.id, contact.id, '5511900000001@c.us', 'direct' from sessions s, contact
                 returning id, session_id),
        paced as (insert into pace (tenant_id, session_id, due_at) select %(t)s, session_id, %(at)s from talk)
        insert into outbox
            (tenant_id, session_id, conversation_id, class, intent_key, not_before, expires_at, created_at)
        select %(t)s, session_id, id, 'turn', 'turn:1', %(at)s, %(at)s + interval '1 day', %(at)s from talk
    """
    async with at.database.transaction(TenantId(tenant)) as transaction:
        await transaction._connection.execute(statement.encode(), {"t": tenant, "at": not_before})


async def _remember(at: Plant, tenant: int, count: int, seen_at: datetime, prefix: str = "old") -> None:
    """Write dedupe rows of a time."""
    statement = """insert into inbound_dedupe (tenant_id, session_id, key, seen_at)
                   select %(t)s, s.id, %(prefix)s || n, %(at)s from sessions s, generate_series(1, %(n)s) n"""
    async with at.database.transaction(TenantId(tenant)) as transaction:
        values = {"t": tenant, "at": seen_at, "n": count, "prefix": prefix}
        await transaction._connection.execute(statement.encode(), values)


async def _count(at: Plant, tenant: int, table: str) -> int:
    [row] = await at.rows(tenant, f"select count(*) as n from {table}")
    return int(row.n)
