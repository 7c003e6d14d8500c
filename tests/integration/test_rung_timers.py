"""Timers on real servers: by the clock, in order, once, and none lost."""

import json
from datetime import timedelta

import redis
from prometheus_client import REGISTRY

from clockwork import Clockwork, clockwork
from databases import Database as Urls
from wsm.clock import clock as module
from wsm.core.events import Origin
from wsm.core.ids import TenantId
from wsm.streams import keys
from wsm.streams.keys import Kind

ONE, TWO = TenantId(11), TenantId(22)


async def _arm(works: Clockwork, tenant: TenantId, kind: str, *seconds: float) -> None:
    """Write timers that are due so many seconds after now, one for each queue that is made for them."""
    async with works.at.system.transaction() as system:
        for second in seconds:
            name = f"{kind} {second}"
            await system._connection.execute(
                b"insert into queues (tenant_id, name) values (%s, %s) on conflict do nothing", [tenant, name]
            )
    async with works.at.database.transaction(tenant) as transaction:
        for second in seconds:
            await transaction._connection.execute(
                b"insert into timers (tenant_id, queue_id, kind, due_at)"
                b" select %s, id, %s, %s from queues where name = %s",
                [tenant, kind, works.now + timedelta(seconds=second), f"{kind} {second}"],
            )


async def _fired(works: Clockwork) -> list[tuple[int, Origin, int]]:
    """Claim all mailboxes: the timers that their entries name, as seconds before now."""
    claim = await works.at.handover.claim("w", {Kind.TURN: 10}, [], ring=[Kind.TURN])
    found = []
    for bell in claim.bells:
        for entry in bell.entries:
            due = json.loads(entry.body)["payload"]["due"]
            found.append((int(bell.tenant), entry.origin, round(due - works.now.timestamp() * 1000) // 1000))
        await works.at.handover.finish(bell, handled=bell.entries)
    return found


async def test_due_timers_are_put_into_the_mailbox_once_the_oldest_first(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with clockwork(redis_url, database) as works:
        await works.at.found(ONE, TWO)
        await _arm(works, ONE, "pulse", -1, -7200, 5, -60)
        await _arm(works, TWO, "pulse", -30)
        clock = works.clock()
        await clock.tick()
        await clock.tick()
        assert sorted(await _fired(works)) == [
            (ONE, Origin.CLOCK, -7200),
            (ONE, Origin.CLOCK, -60),
            (ONE, Origin.CLOCK, -1),
            (TWO, Origin.CLOCK, -30),
        ]
        works.now += timedelta(seconds=6)
        await clock.tick()
        assert await _fired(works) == [(ONE, Origin.CLOCK, -1)]
        works.now += timedelta(hours=1)
        await clock.tick()
        assert len(await _fired(works)) == 5, "whoever lay in a mailbox for an hour may have been lost"


async def test_a_pile_is_worked_off_in_order_a_part_with_each_tick(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    at_once, per_tick = module.TIMERS_AT_ONCE, module.TIMERS_PER_TICK
    module.TIMERS_AT_ONCE, module.TIMERS_PER_TICK = 2, 4
    try:
        async with clockwork(redis_url, database) as works:
            await works.at.found(ONE)
            await _arm(works, ONE, "pulse", *range(-70, 0, 10))
            clock = works.clock()
            await clock.tick()
            assert [due for _, _, due in await _fired(works)] == [-70, -60, -50, -40]
            assert REGISTRY.get_sample_value("wsm_timers_due") == 3
            assert REGISTRY.get_sample_value("wsm_timers_oldest_age_seconds") == 30
            await clock.tick()
            assert [due for _, _, due in await _fired(works)] == [-30, -20, -10]
            assert REGISTRY.get_sample_value("wsm_timers_due") == 0
    finally:
        module.TIMERS_AT_ONCE, module.TIMERS_PER_TICK = at_once, per_tick


async def test_a_full_mailbox_takes_timers_all_the_same(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with clockwork(redis_url, database) as works:
        await works.at.found(ONE)
        clean_redis.hset(keys.load(ONE), mapping={"entries": 10**9, "bytes": 10**12})
        await _arm(works, ONE, "pulse", -1)
        await works.clock().tick()
        assert await _fired(works) == [(ONE, Origin.CLOCK, -1)]
