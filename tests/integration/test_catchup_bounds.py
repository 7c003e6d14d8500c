"""The bounds of a catch-up, and what becomes of it when something goes away in its midst: nothing is lost."""

import itertools
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from catching import ANA, BIA, CAIO, EVERY_ENGINE, SESSION, TENANT, scene
from databases import Database as Urls
from waiting import wait_for
from working import now
from wsm.control.catchup import CatchUp, Caught
from wsm.core.errors import GatewayRefused, GatewayUnavailable, MailboxFull, StreamsUnavailable
from wsm.core.ids import ChatId
from wsm.gateway.history import History
from wsm.sandbox.waha import Engine
from wsm.streams.client import connect
from wsm.streams.handover import Handover, Limits, Verdict


@EVERY_ENGINE
async def test_a_catch_up_is_bounded_and_goes_on_behind_what_has_entered(
    redis_url: str, database: Urls, engine: Engine
) -> None:
    async with scene(redis_url, database, engine) as here:
        for number in range(5):
            await here.say(ANA, f"{number}")
        with capture_logs() as logs:
            assert await here.fetch(messages=2) == Caught(fetched=5, entered=2, cut_off=True)
        assert [
            (line["log_level"], line["entered"], line["cut_off"])
            for line in logs
            if line["event"] == "caught_up"
        ] == [("warning", 2, True)]
        assert await here.texts() == ["0", "1"]
        assert (await here.fetch(messages=2)).cut_off
        assert await here.fetch(messages=2) == Caught(fetched=5, entered=1)
        assert await here.texts() == ["0", "1", "2", "3", "4"]
        assert await here.fetch(limit=timedelta()) == Caught(cut_off=True)


@EVERY_ENGINE
async def test_of_many_chats_the_oldest_messages_enter_first(
    redis_url: str, database: Urls, engine: Engine
) -> None:
    async with scene(redis_url, database, engine) as here:
        for number, who in enumerate((ANA, BIA, ANA, ANA, BIA)):
            await here.say(who, f"{number}")
        assert (await here.fetch(messages=3)).cut_off
        assert await here.texts() == ["0", "1", "2"]


async def test_pages_that_overlap_enter_nothing_twice(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        await here.say(ANA, "oi")

        class Shifting(History):
            async def messages(self, chat: ChatId, since_s: int, page: int) -> list[object]:
                return await super().messages(chat, since_s, max(0, page - 1))

        here.history = Shifting
        await here.at.stop()
        [row] = await here.at.rows(TENANT, "select id from sessions")
        catch_up = CatchUp(here.at.database, here.at.handover.accept, now=now)
        assert await catch_up.fetch(here.address, row.id, here.gateway) == Caught(fetched=2, entered=1)


@pytest.mark.parametrize("engine", [Engine.WEBJS, Engine.WPP])
async def test_only_chats_in_which_something_happened_are_looked_at_and_not_too_many(
    redis_url: str, database: Urls, engine: Engine
) -> None:
    async with scene(redis_url, database, engine) as here:
        for number in range(25):
            await here.say(f"55119100000{number:02}", "faz tempo", ago=86_400)
        for who in (ANA, BIA, CAIO):
            await here.say(who, "oi")
        asked: list[str] = []

        class Watched(History):
            async def messages(self, chat: ChatId, since_s: int, page: int) -> list[object]:
                asked.append(chat)
                return await super().messages(chat, since_s, page)

        here.history = Watched
        assert await here.fetch() == Caught(3, 3)
        assert asked == [f"{who}@c.us" for who in (CAIO, CAIO, BIA, BIA, ANA, ANA)]
        assert await here.fetch(chats=2) == Caught(2, 0, cut_off=True)


async def test_more_than_a_page_is_fetched_to_the_end(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        for number in range(250):
            at_ms = here.start_ms + number * 1000
            await here.on.phone.say(SESSION, ANA, f"{number}", told=False, timestamp_ms=at_ms)
        assert await here.fetch() == Caught(250, 250)
        assert await here.texts() == [f"{number}" for number in range(250)]


async def test_a_page_of_which_nothing_was_left_is_not_the_end(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        await here.say(ANA, "oi")

        class Sparse(History):
            async def messages(self, chat: ChatId, since_s: int, page: int) -> list[object]:
                return await super().messages(chat, since_s, page - 1) if page else []

        here.history = Sparse
        assert await here.fetch() == Caught(1, 1)


@pytest.mark.parametrize("fault", [GatewayUnavailable("engine_error"), GatewayRefused(404, "not_found")])
async def test_a_chat_that_cannot_be_read_keeps_no_other_one_out(
    redis_url: str, database: Urls, fault: Exception
) -> None:
    async with scene(redis_url, database, Engine.WEBJS) as here:
        for who in (ANA, BIA, CAIO):
            await here.say(who, f"oi de {who}")
        before = await here.mark()

        class Odd(History):
            async def messages(self, chat: ChatId, since_s: int, page: int) -> list[object]:
                if chat.startswith(BIA):
                    raise fault
                return await super().messages(chat, since_s, page)

        here.history = Odd
        with pytest.raises(type(fault)):
            await here.fetch()
        assert await here.texts() == [f"oi de {ANA}", f"oi de {CAIO}"]
        assert await here.mark() == before
        here.history = History
        assert await here.fetch() == Caught(3, 1)


@EVERY_ENGINE
async def test_a_gateway_that_dies_in_the_midst_loses_and_doubles_nothing(
    redis_url: str, database: Urls, engine: Engine
) -> None:
    async with scene(redis_url, database, engine) as here:
        for number in range(120):
            at_ms = here.start_ms + number * 1000
            await here.on.phone.say(
                SESSION, (ANA, BIA)[number % 3 == 0], f"{number}", told=False, timestamp_ms=at_ms
            )
        before, calls = await here.mark(), itertools.count(1)

        class Dying(History):
            async def messages(self, chat: ChatId, since_s: int, page: int) -> list[object]:
                if next(calls) > 1:
                    await here.on.waha._listener.close()
                return await super().messages(chat, since_s, page)

        here.history = Dying
        with pytest.raises(GatewayUnavailable):
            await here.fetch()
        entered = 0 if engine.in_browser else 100
        assert await here.texts() == [f"{number}" for number in range(entered)]
        assert await here.mark() == before
        await here.on.waha._listener.open()
        here.history = History

        async def repeated() -> Caught | None:
            with suppress(GatewayUnavailable):  # until its breaker lets calls through again
                return await here.fetch()
            return None

        assert await wait_for(repeated) == Caught(120, 120 - entered)
        assert await here.texts() == [f"{number}" for number in range(120)]
        assert await here.mark() > before


async def test_a_session_that_does_not_work_is_unavailable(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        await here.on.phone.unlink(SESSION)
        with pytest.raises(GatewayUnavailable):
            await here.fetch()


async def test_a_full_mailbox_stops_it_and_nothing_is_lost(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        for number in range(3):
            await here.say(ANA, f"{number}")
        redis = connect(redis_url, timeout_seconds=5.0)
        two = Limits(tenant_entries=2, tenant_bytes=10**8, all_bytes=10**9, quarantine_entries=1)
        small = Handover(redis, limits=two, lease_seconds=4.0, turn_entries=200)
        with pytest.raises(MailboxFull, match="tenant"):
            await here.fetch(small.accept)
        await redis.aclose()
        assert await here.texts() == ["0", "1"]
        assert await here.fetch() == Caught(3, 1)
        assert await here.texts() == ["0", "1", "2"]


async def test_a_redis_that_may_have_taken_it_is_asked_again(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        await here.say(ANA, "oi")

        async def taken_and_lost(offers: Any) -> list[Verdict]:
            await here.at.handover.accept(offers)
            raise StreamsUnavailable("gone")

        with pytest.raises(StreamsUnavailable):
            await here.fetch(taken_and_lost)
        await here.fetch()
        assert await here.texts() == ["oi"]


async def test_noweb_without_its_store_is_told_of_once(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database, Engine.NOWEB, config={}) as here:
        [row] = await here.at.rows(TENANT, "select id from sessions")
        catch_up = CatchUp(here.at.database, here.at.handover.accept, now=now)
        with capture_logs() as logs:
            for _ in range(2):
                assert await catch_up.fetch(here.address, row.id, here.gateway) == Caught()
        assert [line["event"] for line in logs if line.get("room") == "control"] == ["catch_up_without_store"]
