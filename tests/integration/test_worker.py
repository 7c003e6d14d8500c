"""The worker on real servers: everything once, fair shares, odd entries, lost replies, and a clean end."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
import pytest
import redis

from databases import Database as Urls
from waiting import wait_for
from working import GatedTurns, Plant, gated, offer, plant
from wsm.core.errors import StreamsUnavailable
from wsm.core.ids import TenantId
from wsm.streams import handover as handover_module
from wsm.streams import keys
from wsm.streams.handover import Bell, Claim, Handover
from wsm.streams.keys import Kind
from wsm.worker.turn import Settled, Turns
from wsm.worker.worker import Worker

ONE, TWO = 11, 22
ANA, BIA = "5511900000001", "5511900000002"


@pytest.mark.deadline(150)
async def test_two_workers_drain_many_tenants_and_everything_counts_once(
    redis_url: str, database: Urls
) -> None:
    tenants = range(1, 101)
    async with plant(redis_url, database) as at:
        await at.found(*tenants)
        for round_ in range(3):
            await at.handover.accept([offer(tenant, f"nº {round_}") for tenant in tenants])
        at.start(slots=50)
        at.start(slots=50)
        await at.drained(120)
        with psycopg.connect(database.owner_url) as owner:
            counted = owner.execute(
                "select count(*), count(distinct (tenant_id, bare_id)), count(distinct tenant_id)"
                " from wsm.messages"
            ).fetchone()
        assert counted == (300, 300, 100)
        assert await at.texts(77) == ["nº 0", "nº 1", "nº 2"]


async def test_no_more_bells_than_slots_and_every_tenant_has_his_turn(redis_url: str, database: Urls) -> None:
    tenants = range(1, 61)
    async with plant(redis_url, database) as at:
        await at.found(*tenants)
        await at.handover.accept([offer(tenant, "oi") for tenant in tenants])
        turns = gated(at)
        at.start(turns=turns, slots=20)
        await wait_for(lambda: turns.waiting == 20)
        depth = await at.handover.depth()
        assert depth.ready[Kind.TURN] + depth.mail[Kind.TURN] == 40
        turns.gate.set()
        await at.drained()


async def test_a_poison_entry_is_retried_and_buried_its_chat_keeps_its_order_and_nobody_else_waits(
    redis_url: str, database: Urls, clean_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover_module, "DELAYS_SECONDS", (0.05, 0.05, 0.05, 0.05))
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("alter table wsm.messages add constraint poison check (body <> 'veneno')")
    async with plant(redis_url, database) as at:
        await at.found(ONE, TWO)
        await at.offer(ONE, "antes", "veneno", "depois", "mais")
        await at.offer(ONE, "oi", phone=BIA)
        await at.offer(TWO, "oi")
        at.start()
        await wait_for(lambda: clean_redis.hgetall(keys.attempts(TenantId(ONE))))
        await at.offer(ONE, "por fim")
        assert await at.texts(TWO) == ["oi"]

        async def buried() -> bool:
            await at.sweep()
            return await at.is_drained()

        await wait_for(buried)
        assert await at.texts(ONE) == ["antes", "depois", "mais", "por fim", "oi"]
        letters: Any = clean_redis.xrange(keys.dead(TenantId(ONE)))
        [(_, dead)] = letters
        assert b"veneno" in dead[b"body"]
        assert dead[b"reason"] == b"CheckViolation"


async def test_a_bell_that_fails_by_a_bug_is_run_again_after_its_lease(
    redis_url: str, database: Urls
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE)
        turns = at.turns()
        turns.__class__ = BuggyTurns
        worker = at.start(turns=turns)
        await at.offer(ONE, "oi")
        await wait_for(lambda: BuggyTurns.failed)
        await wait_for(lambda: not worker.busy)
        assert await at.texts(ONE) == []
        assert await at.sweep(ahead_seconds=5) == 1
        await at.drained()
        assert await at.texts(ONE) == ["oi"]


class BuggyTurns(Turns):
    """Turns of which the first has a bug."""

    failed = False

    async def run(self, bell: Bell) -> Settled:
        if not BuggyTurns.failed:
            BuggyTurns.failed = True
            raise RuntimeError("a bug, with a customer's text in it")
        return await super().run(bell)


class Lossy(Handover):
    """A hand-over whose next reply of a kind is lost after the call was done."""

    losing: str = ""

    def _lose(self, call: str) -> None:
        if self.losing == call:
            self.losing = ""
            raise StreamsUnavailable("the reply was lost")

    async def claim(self, worker: str, slots: Mapping[Kind, int], held: Sequence[Bell], **more: Any) -> Claim:
        claim = await super().claim(worker, slots, held, **more)
        if claim.bells:
            self._lose("claim")
        return claim

    async def finish(self, bell: Bell, **settled: Any) -> bool:
        mine = await super().finish(bell, **settled)
        self._lose("finish")
        return mine


@pytest.mark.parametrize("call", ["claim", "finish"])
async def test_a_reply_that_is_lost_costs_time_and_nothing_else(
    redis_url: str, database: Urls, call: str
) -> None:
    async with plant(redis_url, database, kind=Lossy) as at:
        assert isinstance(at.handover, Lossy)
        await at.found(ONE)
        at.handover.losing = call
        at.start()
        await at.offer(ONE, "oi")
        lossy = at.handover
        await wait_for(lambda: not lossy.losing)

        async def handled() -> bool:
            await at.sweep(ahead_seconds=5 if call == "claim" else 0)
            return await at.is_drained()

        await wait_for(handled)
        assert await at.texts(ONE) == ["oi"]


class Slow(Handover):
    """A hand-over whose next reply to a claim, or to a renewal alone, comes only when something is so."""

    until: Callable[[], bool] | None = None
    renewal = False

    @property
    def has_replied(self) -> bool:
        return self.until is None

    async def claim(self, worker: str, slots: Mapping[Kind, int], held: Sequence[Bell], **more: Any) -> Claim:
        claim = await super().claim(worker, slots, held, **more)
        if held and self.until is not None and self.renewal is not any(slots.values()):
            until, self.until = self.until, None
            await wait_for(until)
        return claim


async def test_a_bell_may_end_while_its_worker_renews_it(redis_url: str, database: Urls) -> None:
    async with plant(redis_url, database, kind=Slow) as at:
        assert isinstance(at.handover, Slow)
        await at.found(ONE)
        turns = gated(at)
        worker = at.start(turns=turns)
        await at.offer(ONE, "oi")
        await wait_for(lambda: turns.waiting == 1)

        def ended() -> bool:
            turns.gate.set()
            return not worker.busy

        at.handover.until = ended
        slow = at.handover
        await wait_for(lambda: slow.has_replied)
        await at.offer(ONE, "mais")
        await at.drained()
        assert await at.texts(ONE) == ["oi", "mais"]


async def test_the_last_bell_may_end_while_the_worker_drains(redis_url: str, database: Urls) -> None:
    async with plant(redis_url, database, kind=Slow) as at:
        assert isinstance(at.handover, Slow)
        await at.found(ONE)
        turns = gated(at)
        worker = at.start(turns=turns)
        await at.offer(ONE, "oi")
        await wait_for(lambda: turns.waiting == 1)

        def ended() -> bool:
            turns.gate.set()
            return not worker.busy

        at.handover.renewal, at.handover.until = True, ended
        await at.stop()
        assert at.handover.has_replied
        assert await at.texts(ONE) == ["oi"]


async def test_a_stop_lets_what_runs_end_and_takes_nothing_more(redis_url: str, database: Urls) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE, TWO)
        turns = gated(at)
        at.start(turns=turns)
        await at.offer(ONE, "oi")
        await wait_for(lambda: turns.waiting == 1)
        stopping = asyncio.create_task(at.stop())
        await asyncio.sleep(0)
        await at.offer(TWO, "oi")
        turns.gate.set()
        await stopping
        assert await at.texts(ONE) == ["oi"]
        assert await at.texts(TWO) == []


async def test_what_takes_too_long_is_handed_back_unharmed(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE)
        turns = gated(at)
        at.start(turns=turns, drain_seconds=0)
        await at.offer(ONE, "oi")
        await wait_for(lambda: turns.waiting == 1)
        await at.stop()
        assert clean_redis.hget(keys.pointer(TenantId(ONE), Kind.TURN), "state") == b"queued"
        assert not clean_redis.exists(keys.attempts(TenantId(ONE)))
        assert not clean_redis.hexists(keys.FEW, str(ONE))
        at.start()
        await at.drained()
        assert await at.texts(ONE) == ["oi"]


class Gate(Handover):
    """A hand-over whose finishes wait at a gate, before or after the call."""

    before = after = False
    reached = False

    async def finish(self, bell: Bell, **settled: Any) -> bool:
        if self.before and settled.get("handled"):
            self.reached = True
            await asyncio.Event().wait()
        mine = await super().finish(bell, **settled)
        if self.after and settled.get("handled"):
            self.reached = True
            await asyncio.Event().wait()
        return mine


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_worker_that_ends_in_the_middle_of_a_finish_loses_nothing(
    redis_url: str, database: Urls, where: str
) -> None:
    async with plant(redis_url, database, kind=Gate) as at:
        assert isinstance(at.handover, Gate)
        setattr(at.handover, where, True)
        await at.found(ONE)
        at.start(drain_seconds=0)
        await at.offer(ONE, "oi")
        gate = at.handover
        await wait_for(lambda: gate.reached)
        await at.stop()
        at.handover.before = at.handover.after = False
        at.start()
        await at.drained()
        assert await at.texts(ONE) == ["oi"]


class Deaf(Handover):
    """A hand-over without tokens; while a claim that asks for no turn is out, the turn that runs ends."""

    turns: GatedTurns
    worker: Worker

    async def claim(self, worker: str, slots: Mapping[Kind, int], held: Sequence[Bell], **its: Any) -> Claim:
        if slots.get(Kind.TURN) == 0:
            self.turns.gate.set()
            await wait_for(lambda: not self.worker.busy)
        return await super().claim(worker, slots, held, **its)

    async def finish(self, bell: Bell, **settled: Any) -> bool:
        return await super().finish(bell, **settled | {"deliver": False})

    async def wait(self, timeout_seconds: float, kinds: Sequence[Kind] = tuple(Kind)) -> None:
        await asyncio.Event().wait()


async def test_a_slot_that_is_freed_while_a_claim_is_out_is_used_at_once(
    redis_url: str, database: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in ("_IDLE_SECONDS", "_RENEW_SECONDS"):
        monkeypatch.setattr(f"wsm.worker.worker.{seconds}", 60)
    async with plant(redis_url, database, kind=Deaf) as at:
        await at.found(ONE, TWO)
        await at.offer(ONE, "oi")
        await at.offer(TWO, "oi")
        deaf = at.handover
        assert isinstance(deaf, Deaf)
        deaf.turns = gated(at)
        deaf.worker = at.start(turns=deaf.turns, slots=1)
        await wait_for(lambda: _handled(at, ONE))
        await wait_for(lambda: _handled(at, TWO))


async def test_bells_come_and_go_without_new_connections(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE)
        at.start()
        await at.offer(ONE, "oi")
        await at.drained()
        before = clean_redis.info("stats")["total_connections_received"]
        for number in range(20):
            await at.offer(ONE, f"nº {number}")
            await at.drained()
        assert clean_redis.info("stats")["total_connections_received"] - before < 5


async def test_a_hung_gateway_stops_no_turns(redis_url: str, database: Urls) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE, TWO)
        deliveries = at.deliveries()
        hung = asyncio.Event()

        async def hang(*_: object, **__: object) -> bool:
            hung.set()
            return await asyncio.Event().wait()

        deliveries.run = hang  # type: ignore[method-assign]
        at.start(deliveries=deliveries, slots=1, drain_seconds=0)
        await at.offer(ONE, "oi")
        await hung.wait()
        await at.offer(TWO, "oi")
        await wait_for(lambda: _handled(at, TWO))


async def _handled(at: Plant, tenant: int) -> bool:
    return bool(await at.texts(tenant))


async def test_waits_that_are_cut_off_leave_no_answer_to_somebody_else(
    redis_url: str, database: Urls
) -> None:
    async with plant(redis_url, database) as at:
        await at.found(ONE)
        for number in range(40):
            waiting = asyncio.create_task(at.handover.wait(1.0))
            for _ in range(number % 8):
                await asyncio.sleep(0)
            if number % 2:
                await at.offer(ONE, f"nº {number}")  # a token comes in the same moment
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert (await at.handover.depth()).entries == (number + 1) // 2
        at.start()
        await at.drained()
        assert len(await at.texts(ONE)) == 20
