"""A tenant is paused, or all of RQ is suspended: mailboxes fill, nothing begins, and all goes on at once."""

import asyncio
from typing import Any

import msgspec
import redis
from rq.suspension import resume, suspend

from databases import Database as Urls
from mailboxes import LEASE_MS, ROOMY, START_MS, TENANT, offer, offers, opened, sweep
from waiting import wait_for
from working import gated, plant
from wsm.core.ids import TenantId
from wsm.sandbox.embedded import Embedded
from wsm.streams import keys
from wsm.streams.handover import Verdict
from wsm.streams.keys import Kind
from wsm.streams.pauses import CLI, Pauses

ONE, TWO = 11, 22
BOTH = {Kind.TURN: 9, Kind.DELIVER: 9}


async def test_a_paused_tenant_fills_his_mailbox_and_nobody_elses(redis_url: str) -> None:
    async with opened(redis_url, limits=msgspec.structs.replace(ROOMY, tenant_entries=3)) as (
        handover,
        redis,
    ):
        pauses = Pauses(redis)
        assert await pauses.pause(TENANT, "pays no bill")
        assert not await pauses.pause(TENANT, "moves to another house")
        full = [Verdict.ACCEPTED] * 3 + [Verdict.TENANT_FULL]
        assert await handover.accept(offers(b"1", b"2", b"3", b"4")) == full
        await handover.mail(Kind.DELIVER, [TENANT])
        await handover.accept([offer(b"1", TenantId(7))])
        for now in (START_MS, START_MS + 1000):
            for kind in Kind:
                await handover.ring(kind)
            bells = (await handover.claim("w", BOTH, [], now_ms=now)).bells
            assert [bell.tenant for bell in bells] == ([7] if now == START_MS else [])
            assert (await sweep(handover, now)).rung == 0
        [rests] = await pauses.all()
        assert (rests.tenant, rests.by, rests.reason) == (TENANT, CLI, "moves to another house")
        assert (await handover.depth()).paused == [rests]

        assert await pauses.resume(TENANT)
        assert not await pauses.resume(TENANT)
        for kind in Kind:
            assert await redis.exists(keys.wake(kind))
            await handover.ring(kind)
        bells = (await handover.claim("w", BOTH, [], now_ms=START_MS)).bells
        assert {bell.kind: len(bell.entries) for bell in bells} == {Kind.TURN: 3, Kind.DELIVER: 0}


async def test_a_delivery_under_way_is_told_to_begin_nothing_more_and_stays_its_workers(
    redis_url: str,
) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.mail(Kind.DELIVER, [TENANT])
        await handover.ring(Kind.DELIVER)
        [bell] = (await handover.claim("w", BOTH, [], now_ms=START_MS)).bells
        await Pauses(redis).pause(TENANT, "now")
        later = START_MS + LEASE_MS - 1
        assert (await handover.claim("w", BOTH, [bell], now_ms=later)).lost == (bell.id,)
        assert (await sweep(handover, later + LEASE_MS)).expired == 0
        assert await handover.finish(bell, more=True)
        assert await redis.keys(f"wsm:{TENANT}:*") == []
        assert await redis.keys("rq:*") == []
        await Pauses(redis).resume(TENANT)
        assert await handover.ring(Kind.DELIVER) == 1


async def test_a_pause_outlives_redis_and_workers_and_ends_without_a_sweep(
    redis_url: str, database: Urls, embedded: Embedded
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE, TWO)
        pauses = Pauses(at.handover._redis)
        at.start()
        await at.offer(ONE, "antes")
        await at.drained()
        await pauses.pause(TenantId(ONE), "restarts")
        await at.stop()
        await asyncio.to_thread(embedded.valkey.restart)
        at.start()
        await at.offer(ONE, "durante")
        await at.offer(TWO, "oi")

        async def other_is_served() -> bool:
            await at.sweep()
            return await at.texts(TWO) == ["oi"]

        await wait_for(other_is_served)
        assert await at.texts(ONE) == ["antes"]
        assert (await at.handover.depth()).entries == 1
        await pauses.resume(TenantId(ONE))
        await at.drained()
        assert await at.texts(ONE) == ["antes", "durante"]


async def test_what_rq_suspends_hands_out_nothing_and_keeps_its_leases(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with plant(redis_url, database, lease_seconds=2.0) as at:
        await at.found(ONE, TWO)
        turns = gated(at)
        at.start(turns=turns, slots=5)
        await at.offer(ONE, "oi")
        await wait_for(lambda: turns.waiting == 1)
        suspend(clean_redis)
        await at.offer(TWO, "oi")
        await wait_for(lambda: clean_redis.exists(keys.pointer(TenantId(TWO), Kind.TURN)))
        pointer = keys.pointer(TenantId(ONE), Kind.TURN)
        lease = _until(clean_redis, pointer)
        await wait_for(lambda: _until(clean_redis, pointer) > lease + 2000)
        assert await at.sweep() == 0
        turns.gate.set()
        await wait_for(lambda: not clean_redis.exists(keys.mailbox(TenantId(ONE))))
        assert clean_redis.hget(keys.pointer(TenantId(TWO), Kind.TURN), "state") == b"queued"
        resume(clean_redis)
        await at.drained()
        assert [await at.texts(tenant) for tenant in (ONE, TWO)] == [["oi"], ["oi"]]


def _until(client: Any, pointer: str) -> int:
    return int(client.hget(pointer, "until") or 0)
