"""Turns in order over thousands of tenants: nobody overtakes, and no call costs more for their number."""

import re
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest
import redis

from databases import Database as Urls
from mailboxes import ROOMY, START_MS, offer, offers, opened
from waiting import wait_for
from working import gated, plant
from wsm.core.ids import TenantId
from wsm.streams import keys
from wsm.streams.keys import Kind

ONE, TWO = 11, 22
K = 1
"""How many turns of a tenant may begin between the arrival of another's message and its turn."""

LOUD = TenantId(1)
LOTS = 100_000
SLOTS = {Kind.TURN: 150}


async def test_a_hundred_thousand_messages_of_one_delay_nobody_by_more_than_a_turn(redis_url: str) -> None:
    """Two workers with many slots each; 1,500 others write once, some all together, some later."""
    limits = msgspec.structs.replace(ROOMY, tenant_entries=LOTS)
    async with opened(redis_url, limits=limits, turn_entries=200) as (handover, _):
        for _ in range(LOTS // 1000):
            await handover.accept(offers(*[b"{}"] * 1000, tenant=LOUD))
        quiet = iter(range(2, 1502))
        arrived: dict[TenantId, int] = {}
        delays: Counter[int] = Counter()
        loud_turns = 0

        async def arrive(number: int) -> None:
            tenants = [TenantId(next(quiet)) for _ in range(number)]
            await handover.accept([offer(b"{}", tenant) for tenant in tenants])
            arrived.update(dict.fromkeys(tenants, loud_turns))

        await arrive(1000)
        while arrived:
            for worker in ("ana", "bia"):
                await handover.ring(Kind.TURN)
                for bell in (await handover.claim(worker, SLOTS, [])).bells:
                    if bell.tenant == LOUD:
                        loud_turns += 1
                    else:
                        delays[loud_turns - arrived.pop(bell.tenant)] += 1
                    assert await handover.finish(bell, handled=bell.entries)
            if sum(delays.values()) + len(arrived) < 1500:
                await arrive(5)
        assert delays.total() == 1500
        assert max(delays) <= K
        assert (await handover.depth()).entries == LOTS - 200 * loud_turns


async def test_who_must_wait_for_the_mail_to_be_rung_is_looked_at_again_at_once(redis_url: str) -> None:
    """Mail that makes no bell, for its tenants have theirs, holds up those behind it for no second."""
    async with opened(redis_url) as (handover, redis):
        held = [TenantId(number) for number in range(1, 151)]
        await handover.mail(Kind.DELIVER, held)
        await handover.ring(Kind.DELIVER, 150)
        slots = {Kind.DELIVER: 150}
        bells = (await handover.claim("ana", slots, [], now_ms=START_MS)).bells
        assert len(bells) == 150
        await handover.mail(Kind.DELIVER, held[1:])
        assert await handover.finish(bells[0], more=True, now_ms=START_MS)
        await redis.delete(keys.wake(Kind.DELIVER))
        await handover.ring(Kind.DELIVER)
        assert not (await handover.claim("bia", slots, [], now_ms=START_MS)).bells
        assert await redis.exists(keys.wake(Kind.DELIVER))
        await handover.ring(Kind.DELIVER)
        assert len((await handover.claim("bia", slots, [], now_ms=START_MS)).bells) == 1


async def test_a_new_tenant_is_served_by_workers_that_run_already(redis_url: str, database: Urls) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE)
        at.start()
        await at.offer(ONE, "oi")
        await at.drained()
        await at.found(TWO)
        await at.offer(TWO, "cheguei")
        await at.drained()
        assert await at.texts(TWO) == ["cheguei"]


async def test_a_full_worker_leaves_the_tokens_to_those_who_have_room(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE, TWO)
        turns = gated(at)
        at.start(turns=turns, slots=1)
        await at.offer(ONE, "oi")
        await wait_for(lambda: turns.waiting == 1)
        await at.offer(TWO, "oi")
        await wait_for(lambda: clean_redis.exists(keys.pointer(TenantId(TWO), Kind.TURN)))
        for _ in range(3):  # it does wait, for what it has room for
            clean_redis.lpush(keys.wake(Kind.DELIVER), 1)
            await wait_for(lambda: not clean_redis.exists(keys.wake(Kind.DELIVER)))
        assert clean_redis.exists(keys.wake(Kind.TURN)), "somebody took it who can do nothing with it"
        turns.gate.set()
        await at.drained()


@pytest.mark.deadline(120)
async def test_no_call_costs_more_when_there_are_more_tenants(
    redis_url: str, clean_redis: redis.Redis
) -> None:
    """Counted are the commands that a call runs inside Redis; a sweep's for each tenant that it looked at."""
    few, many = [await _costs(redis_url, clean_redis, crowd) for crowd in (10, 10_000)]
    assert few == many


async def _costs(redis_url: str, clean_redis: redis.Redis, crowd: int) -> dict[str, dict[str, float]]:
    clean_redis.flushall()
    costs: dict[str, dict[str, float]] = {}

    async def count(name: str, call: Awaitable[Any]) -> Any:
        clean_redis.config_resetstat()
        answer = await call
        stats: Any = clean_redis.info("commandstats")
        costs[name] = {
            command.removeprefix("cmdstat_"): figures["calls"]
            for command, figures in stats.items()
            if not re.search("config|eval|sismember", command)
        }
        return answer

    async with opened(redis_url) as (handover, _):
        for first in range(1, crowd, 1000):
            last = min(first + 1000, crowd + 1)
            await handover.accept([offer(b"{}", TenantId(number)) for number in range(first, last)])
        await count("accept", handover.accept([offer(b"{}", TenantId(crowd + 1))]))
        await count("ring", handover.ring(Kind.TURN, 5))
        await handover.ring(Kind.TURN, crowd)
        slots = {Kind.TURN: 1}
        [held] = (await handover.claim("w", slots, [], now_ms=START_MS)).bells
        claim = await count("claim", handover.claim("w", slots, [held], now_ms=START_MS))
        assert len(claim.bells) == 1
        assert await count("finish", handover.finish(held, handled=held.entries))
        await handover.accept([offer(b"{}", held.tenant)])
        await handover.ring(Kind.TURN)
        await handover.finish(claim.bells[0])
        await count("sweep", handover.sweep(0, slice_size=10, now_ms=START_MS))
    looked = costs["sweep"]["llen"]
    fixed = {"sscan", "srandmember"}
    costs["sweep"] = {name: n / (1 if name in fixed else looked) for name, n in costs["sweep"].items()}
    return costs
