"""The hand-over's rules, one by one, on a real Valkey."""

import asyncio
from typing import Any

import pytest

from mailboxes import (
    CHAT,
    LEASE_MS,
    OTHER,
    START_MS,
    TENANT,
    bodies,
    claim,
    claim_one,
    failing,
    offer,
    offers,
    opened,
    sweep,
)
from wsm.core.errors import StreamsUnavailable
from wsm.core.events import Origin
from wsm.core.ids import TenantId
from wsm.streams import keys
from wsm.streams.client import connect, durability
from wsm.streams.directory import PublishedDirectory
from wsm.streams.handover import Bell, Handover, Limits, Misfit, Parking, Verdict
from wsm.streams.keys import Kind

SECOND = 1000


async def test_a_full_mailbox_refuses_its_tenant_alone_and_wsms_own_entries_pass(redis_url: str) -> None:
    limits = Limits(tenant_entries=3, tenant_bytes=100, all_bytes=150, quarantine_entries=10)
    async with opened(redis_url, limits=limits) as (handover, _):
        batch = [*offers(b"1", b"2", b"3", b"4"), offer(b"own", origin=Origin.CLOCK), offer(b"5", OTHER)]
        full = Verdict.TENANT_FULL
        ok = Verdict.ACCEPTED
        assert await handover.accept(batch) == [ok, ok, ok, full, ok, ok]
        assert await handover.accept([offer(b"x" * 101, OTHER)]) == [full]
        assert await handover.accept([offer(b"x" * 99, OTHER)]) == [ok]
        third = TenantId(7)
        assert await handover.accept([offer(b"x" * 50, third)]) == [Verdict.ALL_FULL]
        assert await handover.accept([offer(b"x" * 50, third, Origin.CLI)]) == [ok]
        assert (await handover.depth()).entries == 7


async def test_what_belongs_to_no_session_is_kept_in_a_capped_quarantine(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        misfit = Misfit("default", "user_9", "unknown_session", START_MS, b"{}")
        assert await handover.accept([misfit, offer(b"1")]) == [Verdict.ACCEPTED] * 2
        [(_, fields)] = await redis.xrange(keys.QUARANTINE)
        assert (fields[b"server"], fields[b"session"]) == (b"default", b"user_9")
        assert fields[b"reason"] == b"unknown_session"
        await handover.accept([misfit] * 500)
        assert (await handover.depth()).quarantined <= 200  # capped at 100, in whole nodes of the stream


async def test_a_full_memory_refuses_a_batch_before_its_first_write_and_lets_the_rest_drain(
    redis_url: str,
) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept(offers(b"1", b"2"))
        await redis.config_set("maxmemory", 1)
        with pytest.raises(StreamsUnavailable, match="OutOfMemory"):
            await handover.accept([*offers(b"3"), offer(b"4", OTHER)])
        assert (await handover.depth()).entries == 2
        bell = await claim_one(handover)
        assert await handover.finish(bell, handled=bell.entries[:1], parked=[Parking(CHAT, None, "", ())])
        await handover.mail(Kind.DELIVER, [TENANT])
        bell = await claim_one(handover)
        assert await handover.finish(bell, handled=bell.entries, deliver=True)
        assert (await sweep(handover)).rung == 0
        assert (await handover.depth()).entries == 0
        assert not await redis.exists(keys.mailbox(OTHER))


async def test_a_redis_that_is_away_is_unavailable() -> None:
    async with opened("redis://127.0.0.1:1") as (handover, _):
        with pytest.raises(StreamsUnavailable):
            await handover.accept(offers(b"1"))
        with pytest.raises(StreamsUnavailable):
            await handover.wait(1)


async def test_tenants_take_turns_and_a_turn_brings_a_share_of_a_long_mailbox(redis_url: str) -> None:
    async with opened(redis_url, turn_entries=2) as (handover, _):
        await handover.accept(offers(b"a1", b"a2", b"a3"))
        await handover.accept(offers(b"b1", tenant=OTHER))
        served = []
        await handover.ring(Kind.TURN)
        while bells := (await handover.claim("w", {Kind.TURN: 1}, [])).bells:
            served.append(bodies(bells[0].entries))
            assert await handover.finish(bells[0], handled=bells[0].entries)
        assert served == [[b"a1", b"a2"], [b"b1"], [b"a3"]]


async def test_a_turn_stops_at_its_bytes_but_brings_one_entry_always(redis_url: str) -> None:
    async with opened(redis_url, turn_bytes=100) as (handover, _):
        await handover.accept(offers(b"x" * 150, b"y" * 60, b"z" * 41, b"z"))
        for expected in (1, 1, 2):
            bell = await claim_one(handover)
            assert len(bell.entries) == expected
            await handover.finish(bell, handled=bell.entries)


async def test_a_long_turn_is_read_whole(redis_url: str) -> None:
    async with opened(redis_url, turn_entries=95) as (handover, _):
        await handover.accept(offers(*(b"%d" % number for number in range(100))))
        bell = await claim_one(handover)
        assert bodies(bell.entries) == [b"%d" % number for number in range(95)]


async def test_a_claim_stops_when_its_reply_is_full_and_leaves_a_token(redis_url: str) -> None:
    async with opened(redis_url, turn_bytes=10) as (handover, redis):
        await handover.accept([offer(b"x" * 10, TenantId(number)) for number in range(1, 12)])
        assert len(await claim(handover)) == 8
        assert await redis.llen(keys.wake(Kind.TURN)) > 0
        assert len(await claim(handover)) == 3


async def test_entries_that_arrive_during_a_turn_ring_again_when_it_finishes(redis_url: str) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.accept(offers(b"1"))
        bell = await claim_one(handover)
        await handover.accept(offers(b"2"))
        assert await handover.ring(Kind.TURN) == 0
        assert await handover.finish(bell, handled=bell.entries, deliver=True)
        assert await handover.finish(bell, handled=bell.entries, deliver=True) is False
        assert bodies((await claim_one(handover)).entries) == [b"2"]
        assert await handover.ring(Kind.DELIVER) == 1
        assert await handover.ring(Kind.DELIVER) == 0


async def deliveries_due(handover: Handover) -> int:
    """Have a delivery rung for; returns how many bells that made."""
    await handover.mail(Kind.DELIVER, [TENANT, TENANT])
    return await handover.ring(Kind.DELIVER)


async def claim_deliveries(handover: Handover) -> list[Bell]:
    return list((await handover.claim("w", {Kind.DELIVER: 2}, [])).bells)


async def test_a_delivery_that_runs_is_told_to_look_again_and_one_that_waits_is_not(redis_url: str) -> None:
    async with opened(redis_url) as (handover, _):
        assert await deliveries_due(handover) == 1
        assert await deliveries_due(handover) == 0
        [bell] = await claim_deliveries(handover)
        assert await handover.finish(bell)
        assert await claim_deliveries(handover) == []

        assert await deliveries_due(handover) == 1
        [bell] = await claim_deliveries(handover)
        assert await deliveries_due(handover) == 0
        assert await handover.finish(bell)
        [bell] = await claim_deliveries(handover)
        assert await handover.finish(bell)
        assert await claim_deliveries(handover) == []


async def test_a_delivery_with_more_to_do_goes_to_the_tail(redis_url: str) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.mail(Kind.DELIVER, [TENANT, OTHER])
        await handover.ring(Kind.DELIVER)
        served = []
        for more in (True, False, False):
            [bell] = (await handover.claim("w", {Kind.DELIVER: 1}, [])).bells
            served.append(bell.tenant)
            assert await handover.finish(bell, more=more)
        assert served == [TENANT, OTHER, TENANT]
        assert await claim_deliveries(handover) == []


async def test_a_renewed_lease_lasts_and_a_lost_one_is_told(redis_url: str) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.accept([*offers(b"1"), offer(b"2", OTHER)])
        kept, lost = await claim(handover)
        later = START_MS + LEASE_MS - 1
        assert (await handover.claim("w", {}, [kept], now_ms=later)).lost == ()
        assert (await sweep(handover, START_MS + LEASE_MS + 1)).expired == 1
        told = await handover.claim("w", {}, [kept, lost], now_ms=later)
        assert told.lost == (lost.id,)
        assert await handover.finish(lost, handled=lost.entries) is False
        assert await handover.finish(kept, handled=kept.entries)


async def test_after_a_lost_lease_turns_begin_with_one_entry_and_grow_back(redis_url: str) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.accept(offers(*(b"%d" % number for number in range(30))))
        assert len((await claim_one(handover)).entries) == 8
        now = START_MS + LEASE_MS + 1
        await sweep(handover, now)
        for expected in (1, 2, 4, 8, 8):
            bell = await claim_one(handover, now)
            assert (len(bell.entries), bell.alone) == (expected, expected == 1)
            await handover.finish(bell, handled=bell.entries)


async def test_an_entry_that_kills_its_worker_five_times_is_a_dead_letter(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept(offers(b"killer", b"next"))
        now = START_MS
        await claim_one(handover, now)
        for _ in range(5):
            await sweep(handover, now := now + LEASE_MS + 1)
            bell = await claim_one(handover, now)
            assert (bodies(bell.entries), bell.alone) == ([b"killer"], True)
        await sweep(handover, now := now + LEASE_MS + 1)
        bell = await claim_one(handover, now)
        assert (bodies(bell.entries), bell.alone) == ([b"next"], True)
        [(_, letter)] = await redis.xrange(keys.dead(TENANT))
        assert (letter[b"body"], letter[b"reason"]) == (b"killer", b"lost its worker every time")
        assert await handover.finish(bell, handled=bell.entries)
        assert (await handover.depth()).dead == 1
        assert not await redis.smembers(keys.ACTIVE)


async def test_a_lone_turn_that_is_handed_back_was_no_attempt(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept(offers(b"1"))
        await claim_one(handover)
        await sweep(handover, START_MS + LEASE_MS + 1)
        for _ in range(7):
            bell = await claim_one(handover)
            assert bell.alone
            assert await handover.finish(bell)
        assert not await redis.exists(keys.attempts(TENANT))


async def test_a_worker_has_one_lone_turn_at_a_time_so_that_nobody_pays_for_anothers_fault(
    redis_url: str,
) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept([offer(b"1", TenantId(number)) for number in (1, 2, 3)])
        assert len(await claim(handover)) == 3
        now = START_MS + LEASE_MS + 1
        await sweep(handover, now)
        await handover.accept([offer(b"healthy", OTHER)])
        bells = await claim(handover, now)
        assert sorted(bell.alone for bell in bells) == [False, True]
        assert not (await handover.claim("w", {Kind.TURN: 9}, bells)).bells
        [another] = (await handover.claim("v", {Kind.TURN: 9}, [])).bells
        assert another.alone
        for bell in bells:
            await redis.delete(keys.wake(Kind.TURN))
            await handover.finish(bell, handled=bell.entries)
            assert await redis.exists(keys.wake(Kind.TURN)) == bell.alone
        [third] = (await handover.claim("w", {Kind.TURN: 9}, [])).bells
        assert len({bell.tenant for bell in (*bells, another, third)}) == 4


async def test_a_failing_chat_waits_longer_each_time_and_its_culprit_is_buried_at_the_fifth(
    redis_url: str,
) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept(offers(b"bad", b"behind"))
        now = START_MS
        for delay in (1, 5, 30, 120):
            bell = await claim_one(handover, now)
            assert bodies(bell.entries) == [b"bad", b"behind"]
            assert await handover.finish(bell, parked=failing(bell), now_ms=now)
            assert (await sweep(handover, now + delay * SECOND - 1)).returned == 0
            now += delay * SECOND
            assert (await sweep(handover, now)).returned == 1
        bell = await claim_one(handover, now)
        assert await handover.finish(bell, parked=failing(bell), now_ms=now)
        bell = await claim_one(handover, now)
        assert bodies(bell.entries) == [b"behind"]
        assert await handover.finish(bell, handled=bell.entries)
        [(_, letter)] = await redis.xrange(keys.dead(TENANT))
        assert (letter[b"body"], letter[b"reason"]) == (b"bad", b"boom")
        assert not await redis.exists(keys.attempts(TENANT), keys.parked(TENANT), keys.load(TENANT))


async def test_new_entries_of_a_chat_put_aside_join_it_and_come_back_in_order(redis_url: str) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.accept(offers(b"1", b"2"))
        bell = await claim_one(handover)
        ids = [entry.id for entry in bell.entries]
        await handover.finish(bell, parked=failing(bell), now_ms=START_MS)
        await handover.accept(offers(b"3", b"other chat"))
        bell = await claim_one(handover)
        assert bell.parked == {CHAT}
        joining, other = bell.entries
        ids.append(joining.id)
        parking = Parking(CHAT, None, "", (joining,))
        assert await handover.finish(bell, handled=[other], parked=[parking], now_ms=START_MS + 999)
        assert (await handover.depth()).entries == 3
        assert not await claim(handover)
        assert (await sweep(handover, START_MS + SECOND)).returned == 1
        bell = await claim_one(handover)
        assert ([entry.id for entry in bell.entries], bodies(bell.entries)) == (ids, [b"1", b"2", b"3"])
        assert {entry.from_parked for entry in bell.entries} == {CHAT}
        assert bell.parked == frozenset()


async def test_a_clock_step_costs_an_entry_its_id_and_nothing_else(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept(offers(b"1"))
        bell = await claim_one(handover)
        await handover.finish(bell, parked=failing(bell), now_ms=START_MS)
        await redis.xadd(
            keys.mailbox(TENANT), {"at": 1, "origin": "waha", "session": "s", "body": b"2"}, id="5-0"
        )
        await redis.hincrby(keys.load(TENANT), "entries", 1)
        await redis.hincrby(keys.load(TENANT), "bytes", 1)
        await sweep(handover)
        bell = await claim_one(handover)
        assert [entry.id for entry in bell.entries] == ["5-0"]
        await handover.finish(bell, parked=failing(bell), now_ms=START_MS)
        [old, new] = [entry for entry, _ in await redis.xrange(keys.parked_chat(TENANT, CHAT))]
        assert await redis.hgetall(keys.attempts(TENANT)) == {old: b"1", new: b"1"}
        assert await redis.hmget(keys.load(TENANT), "entries", "bytes") == [b"2", b"2"]
        await sweep(handover, START_MS + SECOND)
        assert bodies((await claim_one(handover)).entries) == [b"1", b"2"]


async def test_what_is_no_entry_of_wsm_is_buried_and_stops_nobody(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        await redis.xadd(keys.mailbox(TENANT), {"hello": "world"})
        await handover.accept([*offers(b"1"), offer(b"2", OTHER)])
        assert [bodies(bell.entries) for bell in await claim(handover)] == [[b"1"], [b"2"]]
        [(_, letter)] = await redis.xrange(keys.dead(TENANT))
        assert letter[b"hello"] == b"world"


async def test_a_backlog_of_thousands_makes_no_storm(redis_url: str) -> None:
    async with opened(redis_url) as (handover, _):
        tenants = [TenantId(number) for number in range(1, 3001)]
        await handover.accept([offer(b"1", tenant) for tenant in tenants])
        assert await handover.ring(Kind.TURN, 2000) == 2000
        for now in (START_MS, START_MS + 3600 * SECOND):
            done = await sweep(handover, now)
            assert (done.rung, done.expired, done.repaired) == (0, 0, 0)
        depth = await handover.depth()
        assert (depth.mail[Kind.TURN], depth.ready[Kind.TURN], depth.active) == (1000, 2000, 3000)


async def test_a_sweep_finds_what_nobody_rings_for(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept([offer(b"1", TenantId(number)) for number in (1, 2, 3)])
        await redis.delete(keys.mail(Kind.TURN))
        assert (await sweep(handover)).rung == 3
        await handover.ring(Kind.TURN)
        await redis.delete(keys.ready(Kind.TURN))
        assert (await sweep(handover)).repaired == 3
        await redis.lpop(keys.rq_queue(TenantId(1)))
        await redis.rpush(keys.rq_queue(TenantId(2)), "turn-" + "0" * 32)
        done = await sweep(handover)
        assert (done.repaired, done.rung) == (2, 1)
        assert len(await claim(handover)) == 3


async def test_idle_workers_wake_at_a_token_and_a_wait_never_looks_like_a_dead_server(redis_url: str) -> None:
    async with opened(redis_url, timeout_seconds=0.2) as (handover, redis):
        await handover.wait(60)  # at most half the client's time-out
    async with opened(redis_url) as (handover, redis):
        waiting = asyncio.create_task(handover.wait(2))
        await handover.accept(offers(b"1"))
        await waiting
        for _ in range(100):
            await handover.mail(Kind.DELIVER, [TENANT])
            await handover.ring(Kind.DELIVER)
            await redis.delete(keys.pointer(TENANT, Kind.DELIVER))
        assert await redis.llen(keys.wake(Kind.DELIVER)) == 64


async def test_a_culprit_must_be_among_the_entries(redis_url: str) -> None:
    async with opened(redis_url) as (handover, _):
        await handover.accept(offers(b"1", b"2"))
        bell = await claim_one(handover)
        with pytest.raises(ValueError, match="is not in list"):
            await handover.finish(bell, parked=[Parking(CHAT, bell.entries[0].id, "", bell.entries[1:])])


async def test_a_server_that_may_lose_what_it_confirmed_is_named(redis_url: str) -> None:
    redis: Any = connect(redis_url, timeout_seconds=5)
    before = await redis.config_get("appendfsync")
    try:
        await redis.config_set("appendfsync", "always")
        assert await durability(redis) == []
        await redis.config_set("appendfsync", "everysec")
        assert await durability(redis) == ["appendfsync is everysec, not always"]
    finally:
        await redis.config_set("appendfsync", before["appendfsync"])
        await redis.aclose()


async def test_the_directory_comes_back_as_it_was_published(redis_url: str) -> None:
    redis = connect(redis_url, timeout_seconds=5)
    published = PublishedDirectory(redis)
    assert (await published.version(), await published.read()) == (None, None)
    await published.publish("v1", b"{}")
    assert (await published.version(), await published.read()) == ("v1", b"{}")
    await redis.aclose()
