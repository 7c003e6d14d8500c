"""Dead letters and the quarantine: both are bounded, and what returns is late and counts once."""

from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest
import redis
import structlog
from prometheus_client import REGISTRY

from databases import Database as Urls
from mailboxes import CHAT, OTHER, ROOMY, START_MS, TENANT, claim_one, failing, offers, opened, sweep
from waiting import wait_for
from working import now, offer, plant
from wsm.clock.clock import Clock
from wsm.core.errors import BadInput
from wsm.core.events import Origin
from wsm.core.ids import TenantId
from wsm.store.leadership import Leadership
from wsm.streams import handover as handover_module
from wsm.streams import keys
from wsm.streams.directory import PublishedDirectory
from wsm.streams.handover import Handover, Misfit, Parking, Verdict
from wsm.streams.letters import DeadLetters, Quarantine
from wsm.streams.pauses import DEAD_LETTERS_LIMIT, Pauses
from wsm.wire.waha import read

ONE, TWO = 11, 22
FOREVER_MS = 130_000


async def bury(handover: Handover, now_ms: int = START_MS) -> int:
    """Let everything that is at hand of one tenant fail until it is given up; returns the time."""
    for _ in range(5):
        bell = await claim_one(handover, now_ms)
        await handover.finish(bell, parked=failing(bell), now_ms=now_ms)
        now_ms += FOREVER_MS
        await sweep(handover, now_ms)
    return now_ms


async def test_so_many_dead_letters_stop_their_tenant_alone(redis_url: str) -> None:
    async with opened(redis_url, limits=msgspec.structs.replace(ROOMY, dead_letters=2)) as (handover, redis):
        await handover.accept(offers(b"1", b"2", b"3"))
        now_ms = await bury(handover)
        assert not await Pauses(redis).all()
        now_ms = await bury(handover, now_ms)
        [rests] = await Pauses(redis).all()
        assert (rests.tenant, rests.by, rests.reason) == (TENANT, DEAD_LETTERS_LIMIT, "boom")
        await handover.accept([*offers(b"4"), *offers(b"1", tenant=OTHER)])
        assert (await claim_one(handover, now_ms)).tenant == OTHER
        depth = await handover.depth()
        assert (depth.dead, depth.dead_bytes, depth.entries) == (2, 2, 3)

        dead = DeadLetters(redis)
        assert await dead.tenants() == [(TENANT, 2)]
        letters = await dead.read(TENANT)
        assert [(each.body, each.session, each.origin) for each in letters] == [
            (body, f"user_{TENANT}", "waha") for body in (b"1", b"2")
        ]
        assert await dead.drop(TENANT, [letters[0].id, "7-7"]) == 1
        await Pauses(redis).resume(TENANT)
        bell = await claim_one(handover, now_ms)
        assert [entry.body for entry in bell.entries] == [b"3", b"4"]
        assert (await handover.depth()).dead == 1


async def test_dead_letters_take_their_share_of_the_memory(redis_url: str) -> None:
    limits = msgspec.structs.replace(ROOMY, all_bytes=100)
    async with opened(redis_url, limits=limits) as (handover, redis):
        await handover.accept(offers(b"x" * 60))
        await bury(handover)
        assert await handover.accept(offers(b"x" * 41, tenant=OTHER)) == [Verdict.ALL_FULL]
        assert await handover.accept(offers(b"x" * 40, tenant=OTHER)) == [Verdict.ACCEPTED]
        dead = DeadLetters(redis)
        await dead.drop(TENANT, [each.id for each in await dead.read(TENANT)])
        assert await handover.accept(offers(b"x" * 60, tenant=OTHER)) == [Verdict.ACCEPTED]
        assert await redis.keys(f"wsm:{TENANT}:*") == []


async def test_what_returns_has_the_place_that_it_had(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        await handover.accept(offers(b"1", b"2", b"3"))
        bell = await claim_one(handover)
        entries = [entry.id for entry in bell.entries]
        await handover.finish(bell)
        now_ms = START_MS
        for _ in range(3):
            now_ms = await bury(handover, now_ms)
        await handover.accept(offers(b"4"))
        dead = DeadLetters(redis)
        letters = await dead.read(TENANT)
        assert await dead.replay(TENANT, [each.id for each in reversed(letters)]) == 3
        assert await dead.replay(TENANT, [each.id for each in letters]) == 0
        bell = await claim_one(handover, now_ms)
        assert [entry.body for entry in bell.entries] == [b"1", b"2", b"3", b"4"]
        assert [entry.id for entry in bell.entries][:3] == entries
        again = await bury_once(handover, bell, now_ms)
        assert [entry.body for entry in again.entries] == [b"1", b"2", b"3", b"4"], "five lives once more"


ODD = {
    "in another order": [b"origin", b"waha", b"at", b"1", b"session", b"s", b"body", b"x"],
    "without a time": [b"at", b"soon", b"origin", b"waha", b"session", b"s", b"body", b"x"],
    "with a time that no number is": [b"at", b"9" * 20, b"origin", b"waha", b"session", b"s", b"body", b"x"],
    "under other names": [b"at", b"1", b"source", b"waha", b"name", b"s", b"body", b"x"],
    "with more fields": [b"at", b"1", b"origin", b"waha", b"session", b"s", b"body", b"x", b"more", b"y"],
}
"""What another tool, or an older wsm, may have left in a stream."""


async def test_what_is_no_entry_of_wsm_stops_no_worker_wherever_it_lies(redis_url: str) -> None:
    async with opened(redis_url) as (handover, redis):
        for fields in ODD.values():
            await redis.execute_command("XADD", keys.mailbox(TENANT), "*", *fields)
        await handover.accept(offers(b"1"))
        assert [entry.body for entry in (await claim_one(handover)).entries] == [b"1"]
        dead = DeadLetters(redis)
        assert {each.reason for each in await dead.read(TENANT)} == {"not an entry of wsm"}
        for fields in ODD.values():
            letter = [b"entry", b"7-7", b"reason", b"boom", *fields]
            await redis.execute_command("XADD", keys.dead(TENANT), "*", *letter)
        letters = [each.id for each in await dead.read(TENANT)]
        assert len(letters) == 2 * len(ODD)
        assert await dead.replay(TENANT, letters) == 0, "they stay, for a person to look at or to drop"
        assert await dead.drop(TENANT, letters) == 2 * len(ODD)


async def test_an_entry_of_an_origin_that_is_not_known_here_fails_alone(redis_url: str) -> None:
    """A newer wsm may have written it: it is put aside like what fails, and its bytes are kept."""
    async with opened(redis_url) as (handover, redis):
        fields = [b"at", b"1", b"origin", b"pigeon", b"session", b"\xff", b"body", b"{}"]
        await redis.execute_command("XADD", keys.mailbox(TENANT), "*", *fields)
        await handover.accept(offers(b"1"))
        bell = await claim_one(handover)
        assert [entry.origin for entry in bell.entries] == [Origin.UNKNOWN, Origin.WAHA]
        with pytest.raises(BadInput, match="origin"):
            read(
                b'{"event": "message.any"}',
                tenant=TENANT,
                session=bell.entries[0].session,
                origin=bell.entries[0].origin,
                entry=bell.entries[0].id,
                received_at_ms=1,
            )
        aside = Parking(CHAT, bell.entries[0].id, "boom", bell.entries[:1])
        await handover.finish(bell, handled=bell.entries[1:], parked=[aside], now_ms=START_MS)
        [(_, kept)] = await redis.xrange(keys.parked_chat(TENANT, CHAT))
        assert kept[b"origin"] == b"pigeon"


async def bury_once(handover: Handover, bell: Any, now_ms: int) -> Any:
    await handover.finish(bell, parked=failing(bell, CHAT), now_ms=now_ms)
    await sweep(handover, now_ms + 1001)
    return await claim_one(handover, now_ms + 1001)


async def test_the_quarantine_is_bounded_in_number_and_bytes_and_can_be_emptied(redis_url: str) -> None:
    limits = msgspec.structs.replace(ROOMY, quarantine_entries=5, quarantine_bytes=100)
    async with opened(redis_url, limits=limits) as (handover, redis):

        async def misfits(*bodies: bytes) -> list[bytes]:
            await handover.accept([Misfit("default", "s", "unknown", START_MS, body) for body in bodies])
            return [each.body for each in await Quarantine(redis).read()]

        assert await misfits(*(b"%d" % number for number in range(8))) == [b"3", b"4", b"5", b"6", b"7"]
        assert await misfits(b"x" * 97) == [b"5", b"6", b"7", b"x" * 97]
        assert await misfits(b"y" * 200) == [b"y" * 200]
        quarantine = Quarantine(redis)
        assert await quarantine.drop([each.id for each in await quarantine.read()]) == 1
        assert await misfits(b"1", b"x" * 99) == [b"1", b"x" * 99]


@pytest.fixture
def quick_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover_module, "DELAYS_SECONDS", (0.05, 0.05, 0.05, 0.05))


@pytest.mark.usefixtures("quick_delays")
async def test_what_returns_after_the_fault_is_mended_is_late_in_order_and_counts_once(
    redis_url: str, database: Urls, clean_redis: redis.Redis
) -> None:
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        owner.execute("alter table wsm.messages add constraint poison check (body not like 'veneno%')")
        async with plant(redis_url, database) as at:
            await at.found(ONE)
            poison = [offer(ONE, f"veneno {number}") for number in range(3)]
            await at.handover.accept([*poison, poison[1]])
            await at.offer(ONE, "depois")
            at.start()

            async def buried() -> bool:
                await at.sweep()
                return await at.is_drained()

            await wait_for(buried, 30)
            assert await at.texts(ONE) == ["depois"]
            tickets = await at.rows(ONE, "select id, state from tickets")
            dead = DeadLetters(at.handover._redis)
            letters = await dead.read(TenantId(ONE))
            assert len(letters) == 4

            owner.execute("alter table wsm.messages drop constraint poison")
            await dead.replay(TenantId(ONE), [each.id for each in reversed(letters)])
            await at.drained()
            rows = await at.rows(
                ONE, "select body, late from messages order by sent_at, stamped_at_ms, entry_ms, entry_n"
            )
            assert [tuple(row) for row in rows] == [
                *((f"veneno {number}", True) for number in range(3)),
                ("depois", False),
            ]
            assert await at.rows(ONE, "select id, state from tickets") == tickets, "no flow starts anew"
    assert not clean_redis.exists(keys.dead(TenantId(ONE)), keys.DEAD)


async def test_the_clock_says_who_was_stopped(redis_url: str, database: Urls) -> None:
    async with plant(redis_url, database) as at:
        at.handover._limits = msgspec.structs.replace(ROOMY, dead_letters=1)
        await at.handover.accept([offer(ONE, "oi")])
        await bury(at.handover)
        await Pauses(at.handover._redis).pause(TenantId(TWO), "by hand")
        clock = Clock(
            at.system,
            leadership := Leadership(database.system_url),
            at.handover,
            PublishedDirectory(at.handover._redis),
            now=now,
            keep_dedupe=timedelta(days=60),
            keep_media=timedelta(days=30),
        )
        with structlog.testing.capture_logs() as lines:
            await clock.tick()
            await clock.tick()
        await leadership.resign()
        told = [line for line in lines if line["event"] == "tenant_stopped"]
        assert [(line["tenant"], line["log_level"]) for line in told] == [(ONE, "error")]
        for by in ("cli", "dead_letters"):
            assert REGISTRY.get_sample_value("wsm_tenants_paused", {"by": by}) == 1
        assert REGISTRY.get_sample_value("wsm_dead_letters") == 1
