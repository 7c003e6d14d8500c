"""FINISH in groups: fewer calls, and everyone his own answer."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from mailboxes import OTHER, START_MS, TENANT, claim, failing, offer, opened
from waiting import wait_for
from wsm.core.errors import StreamsUnavailable
from wsm.core.ids import TenantId
from wsm.streams import keys
from wsm.streams.finishing import Finishing
from wsm.streams.handover import Bell
from wsm.streams.keys import Kind
from wsm.streams.scripts import Arguments

TENANTS = [TenantId(number) for number in range(1, 81)]


async def calls(redis: Any) -> int:
    """Count the scripts that were run."""
    found = await redis.info("commandstats")
    return sum(found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def test_bells_that_end_together_share_a_call(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept([offer(b"1", tenant) for tenant in TENANTS])
        bells = await claim(handover)
        before = await calls(redis)
        done = await asyncio.gather(*(handover.finish(bell, handled=bell.entries) for bell in bells))
        assert done == [True] * len(TENANTS)
        assert await calls(redis) - before <= len(TENANTS) / 10
        depth = await handover.depth()
        assert (depth.entries, depth.active) == (0, 0)


async def test_everyone_of_a_group_has_his_own_answer_and_what_follows(redis_url: str) -> None:
    async with opened(redis_url, turn_entries=1) as (handover, redis):
        await handover.accept([offer(b"1"), offer(b"2"), offer(b"3", OTHER), offer(b"4", TenantId(3))])
        some = {bell.tenant: bell for bell in await claim(handover)}
        taken = some[TenantId(3)]
        await redis.delete(keys.pointer(taken.tenant, Kind.TURN))
        answers = tuple(
            await asyncio.gather(
                handover.finish(some[TENANT], handled=some[TENANT].entries, now_ms=START_MS),
                handover.finish(some[OTHER], parked=failing(some[OTHER]), now_ms=START_MS),
                handover.finish(taken, handled=taken.entries, now_ms=START_MS),
            )
        )
        assert answers == (True, True, False)
        [again] = [bell for bell in await claim(handover) if bell.tenant == TENANT]
        assert [entry.body for entry in again.entries] == [b"2"]
        assert await redis.zcard(keys.parked(OTHER)) == 1
        assert await redis.xlen(keys.mailbox(TenantId(3))) == 1


async def test_new_bells_of_a_group_are_all_different(redis_url: str) -> None:
    async with opened(redis_url, turn_entries=1) as (handover, _):
        for _ in range(2):
            await handover.accept([offer(b"1", tenant) for tenant in TENANTS])
        first = await claim(handover)
        await asyncio.gather(*(handover.finish(bell, handled=bell.entries) for bell in first))
        second = await claim(handover)
        assert len({bell.id for bell in (*first, *second)}) == 2 * len(TENANTS)


async def test_a_bell_that_breaks_the_script_fails_alone(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept([offer(b"1", tenant) for tenant in TENANTS])
        bells = await claim(handover)
        broken = bells[5]
        await redis.set(keys.parked(broken.tenant), "no sorted set")

        async def finish(bell: Bell) -> bool | Exception:
            try:
                if bell is broken:
                    return await handover.finish(bell, parked=failing(bell))
                return await handover.finish(bell, handled=bell.entries)
            except Exception as exc:  # noqa: BLE001 (it is what the test is about)
                return exc

        answers = dict(
            zip([bell.id for bell in bells], await asyncio.gather(*map(finish, bells)), strict=True)
        )
        assert "WRONGTYPE" in str(answers.pop(broken.id))
        assert all(isinstance(answer, bool) for answer in answers.values())
        assert (await handover.depth()).entries <= 1  # the broken bell's at most


class Gate:
    """A call that waits until it may go on, and remembers what it was called with."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.open = asyncio.Event()
        self.fault: Exception | None = None

    async def __call__(self, _now_ms: int | None, bells: Sequence[Arguments]) -> list[bool]:
        self.groups.append(len(bells))
        await self.open.wait()
        if self.fault is not None:
            raise self.fault
        return [True] * len(bells)


async def test_what_ends_while_a_call_is_out_shares_the_next_one() -> None:
    gate = Gate()
    finishing = Finishing(gate)
    first = asyncio.create_task(finishing.settle(None, [1]))
    await wait_for(lambda: gate.groups == [1])
    others = [asyncio.create_task(finishing.settle(None, [number])) for number in range(5)]
    await asyncio.sleep(0)
    others[0].cancel()
    await asyncio.wait([others[0]])
    gate.open.set()
    assert await asyncio.gather(first, *others[1:]) == [True] * 5
    assert gate.groups == [1, 5]  # whoever left has still ended


async def test_one_call_takes_so_many_bells_and_values_and_one_time() -> None:
    gate = Gate()
    gate.open.set()
    finishing = Finishing(gate)
    long = [0] * 3000
    await asyncio.gather(*(finishing.settle(None, long) for _ in range(2)))
    await asyncio.gather(*(finishing.settle(None, [1]) for _ in range(140)))
    await asyncio.gather(finishing.settle(1, [1]), finishing.settle(2, [1]), finishing.settle(2, [1]))
    assert gate.groups == [1, 1, 128, 12, 1, 2]


async def test_a_redis_that_is_away_is_told_to_everyone_and_the_next_call_is_made() -> None:
    gate = Gate()
    gate.fault = StreamsUnavailable("away")
    gate.open.set()
    finishing = Finishing(gate)
    answers = await asyncio.gather(*(finishing.settle(None, [1]) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StreamsUnavailable] * 3
    assert gate.groups == [3]
    gate.fault = None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await finishing.settle(None, [1])
    assert await finishing.settle(None, [1])
