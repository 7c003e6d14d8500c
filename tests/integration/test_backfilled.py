"""Turns of what was fetched instead of a webhook, and the mark from which the next catch-up begins."""

import msgspec
import pytest

from databases import Database as Urls
from shop import SESSION, Shop, shop
from wsm.core.events import Origin
from wsm.wire.waha import backfilled

ANA, BIA = "5511900000001", "5511900000002"
HIDDEN = f"9{ANA}@lid"
ALT = f"{ANA}@s.whatsapp.net"


def fetched(at: Shop, body: bytes) -> bytes:
    """A webhook's message as the gateway's history has it."""
    again = backfilled(SESSION, msgspec.json.decode(body)["payload"], engine="GOWS")
    assert again is not None
    return again


@pytest.mark.parametrize("fetched_first", [True, False])
@pytest.mark.parametrize("hidden", [True, False])
async def test_a_message_that_was_fetched_and_told_is_one(
    database: Urls, fetched_first: bool, hidden: bool
) -> None:
    async with shop(database) as at:
        told = at.says(ANA, "oi", id="3EB0AA", ago=60)
        listed = at.message(HIDDEN, "oi", id="3EB0AA", alt=ALT, ago=60) if hidden else told
        entries = [(told, Origin.WAHA), (fetched(at, listed), Origin.CATCH_UP)]
        for body, origin in reversed(entries) if fetched_first else entries:
            await at.turn(body, origin=origin)
        assert await at.count("messages") == 1
        assert len(await at.line()) == 1
        assert await at.count("outbox") == 1


async def test_what_was_fetched_too_late_takes_its_place_in_the_history_and_opens_nothing(
    database: Urls,
) -> None:
    async with shop(database) as at:
        old, young = at.says(ANA, "ontem", ago=31 * 60), at.says(ANA, "agora?", ago=29 * 60)
        await at.turn(fetched(at, old), origin=Origin.CATCH_UP)
        assert await at.line() == []
        assert await at.count("outbox") == 0
        await at.turn(fetched(at, young), origin=Origin.CATCH_UP)
        assert await at.line() == [(ANA, None)]
        await at.turn(fetched(at, at.says(ANA, "antes", ago=32 * 60)), origin=Origin.CATCH_UP)
        assert [(row.body, row.late) for row in await at.history(ANA)] == [
            ("antes", True),
            ("ontem", True),
            ("agora?", False),
        ]
        assert await at.count("tickets") == 1


async def test_what_was_fetched_from_before_any_dedupe_row_is_kept_as_stale(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(fetched(at, at.says(ANA, "de outro tempo", ago=61 * 86400)), origin=Origin.CATCH_UP)
        assert (await at.count("session_events"), await at.count("messages")) == (1, 0)


async def heard(at: Shop) -> float:
    """How long ago, in seconds; 0 for what is now."""
    async with at.database.transaction(at.tenant) as transaction:
        row = await (await transaction._connection.execute("select heard_ms from sessions")).fetchone()
    assert row is not None
    return at.now.timestamp() - float(row.heard_ms) / 1000


async def test_what_was_heard_last_is_known_to_ten_seconds(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi", ago=60), at.says(BIA, "oi", ago=90), at.ack(HIDDEN, "X", 1))
        assert await heard(at) == 60
        await at.turn(at.says(ANA, "nove segundos", ago=51))
        assert await heard(at) == 60
        await at.turn(at.message(f"{ANA}@c.us", "dez", from_me=True, ago=50))
        assert await heard(at) == 50
        await at.turn(at.says(ANA, "antes", ago=3600))
        assert await heard(at) == 50


async def test_a_phone_whose_clock_runs_ahead_was_heard_now(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi", phone_ahead=200))
        assert await heard(at) == 0


async def test_while_something_is_to_be_fetched_the_mark_stays(database: Urls) -> None:
    def working(at: Shop, status: str) -> bytes:
        at_ms = int(at.now.timestamp() * 1000)
        return at.body("session.status", {"status": status, "statuses": [{"timestamp": at_ms}]})

    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi"))
        at.later(3600)
        await at.turn(working(at, "WORKING"), at.says(ANA, "e depois?"))
        await at.turn(at.says(ANA, "alô?"))
        assert await heard(at) == 3600
        await at.turn(fetched(at, at.says(ANA, "perdida", ago=1800)), origin=Origin.CATCH_UP)
        assert await heard(at) == 3600
        async with at.system.transaction() as transaction:
            await transaction._connection.execute("update sessions set caught_up_ms = since_ms")
        await at.turn(fetched(at, at.says(ANA, "mais uma", ago=1700)), origin=Origin.CATCH_UP)
        assert await heard(at) == 3600
        await at.turn(at.says(ANA, "alguém?", ago=20))
        assert await heard(at) == 20
