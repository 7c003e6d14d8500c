"""Catch-up from WAHAs of every engine: what was missed is there once, in its place, answered if young."""

import time

import pytest
from structlog.testing import capture_logs

from catching import ANA, BIA, CAIO, EVERY_ENGINE, OTHER, SESSION, STORE, TENANT, Scene, scene
from databases import Database as Urls
from receiver import Reply
from working import now
from wsm.control.catchup import CatchUp, Caught
from wsm.core.errors import GatewayRefused, NotFound
from wsm.core.events import Origin
from wsm.sandbox.waha import Engine
from wsm.streams.handover import Offer

GROUP = "120363000000000001@g.us"
HIDDEN_TWIN = pytest.mark.parametrize("as_lid", [False, True])


@EVERY_ENGINE
async def test_what_was_missed_is_there_once_and_in_order(
    redis_url: str, database: Urls, engine: Engine
) -> None:
    async with scene(redis_url, database, engine) as here:
        await here.say(ANA, "um", told=True)
        await here.webhooks()
        await here.say(BIA, "dois")
        await here.say(CAIO, "três", as_lid=True)
        await here.say(CAIO, "uma foto", as_lid=True, media=True)
        await here.say(BIA, "no grupo", group=GROUP)
        await here.say(BIA, "quatro")
        assert await here.fetch() == Caught(fetched=6, entered=5)
        assert await here.texts() == ["um", "dois", "três", "uma foto", "no grupo", "quatro"]
        [late] = await here.at.rows(TENANT, "select count(*) as n from messages where late")
        assert late.n == 0
        line = await here.at.rows(TENANT, "select state from tickets order by entered_at, seq")
        assert [row.state for row in line] == ["served", "waiting", "waiting"]
        assert await here.fetch() == Caught(fetched=6, entered=0)
        assert await here.count("messages") == 6


@EVERY_ENGINE
async def test_what_a_killed_waha_could_not_tell_and_what_came_while_it_was_dead(
    redis_url: str, database: Urls, engine: Engine
) -> None:
    async with scene(redis_url, database, engine) as here:
        here.on.hook.usual = Reply(503)
        await here.on.phone.say(SESSION, ANA, "não contada")
        await here.on.hook.wait(1, lambda got: b'"message.any"' in got.body)
        assert await here.on.phone.kill() > 0
        await here.on.phone.say(SESSION, BIA, "com o aparelho fora")
        here.on.hook.got.clear()
        here.on.hook.usual = Reply(200)
        await here.on.session(SESSION, config=STORE)
        await here.webhooks()
        assert await here.texts() == ["com o aparelho fora"]
        assert await here.fetch() == Caught(fetched=2, entered=1)
        assert await here.texts() == ["não contada", "com o aparelho fora"]
        assert await here.count("tickets") == 2


async def both_write(here: Scene, *, as_lid: bool) -> None:
    """A customer writes, under both her ids, and the agent from the phone; WAHA tells of both."""
    await here.say(ANA, "oi", told=True, twin=True, as_lid=as_lid)
    await here.on.phone.type_as_agent(SESSION, f"{ANA}@c.us", "bom dia")
    assert await here.on.phone.wait_idle()


@EVERY_ENGINE
@HIDDEN_TWIN
async def test_a_webhook_that_comes_after_all_is_a_duplicate(
    redis_url: str, database: Urls, engine: Engine, as_lid: bool
) -> None:
    async with scene(redis_url, database, engine) as here:
        await both_write(here, as_lid=as_lid)
        assert await here.fetch() == Caught(fetched=2, entered=2)
        assert await here.texts() == ["oi", "bom dia"]
        await here.webhooks()
        assert await here.texts() == ["oi", "bom dia"]
        assert await here.count("tickets") == 1


@EVERY_ENGINE
@HIDDEN_TWIN
async def test_what_a_webhook_brought_is_not_fetched_again(
    redis_url: str, database: Urls, engine: Engine, as_lid: bool
) -> None:
    async with scene(redis_url, database, engine) as here:
        await both_write(here, as_lid=as_lid)
        await here.webhooks()
        assert await here.fetch() == Caught(fetched=2, entered=0)
        assert await here.texts() == ["oi", "bom dia"]


@EVERY_ENGINE
async def test_webhooks_that_still_lie_in_the_mailbox_make_no_second_row(
    redis_url: str, database: Urls, engine: Engine
) -> None:
    async with scene(redis_url, database, engine) as here:
        await here.at.stop()
        for number in range(5):
            await here.say(ANA, f"{number}", told=True)
        told = [got.body for got in here.on.hook.got if b'"message.any"' in got.body]
        [row] = await here.at.rows(TENANT, "select id from sessions")
        catch_up = CatchUp(here.at.database, here.at.handover.accept, now=now)
        for bodies in (told[:2], told[2:]):
            await here.at.handover.accept(
                [Offer(here.address.tenant, here.address.session, Origin.WAHA, 0, body) for body in bodies]
            )
            assert (await catch_up.fetch(here.address, row.id, here.gateway)).entered == 5
        here.at.start()
        await here.at.drained()
        assert await here.texts() == ["0", "1", "2", "3", "4"]


@EVERY_ENGINE
async def test_what_is_older_than_the_limit_is_in_the_history_and_unanswered(
    redis_url: str, database: Urls, engine: Engine
) -> None:
    async with scene(redis_url, database, engine) as here:
        await here.heard(ago=4 * 86_400)
        await here.say(ANA, "de outra semana", ago=73 * 3600)
        await here.say(ANA, "de ontem", ago=86_400)
        await here.say(BIA, "de agora", ago=60)
        assert await here.fetch() == Caught(fetched=2, entered=2)
        rows = await here.at.rows(TENANT, "select body, late, ticket_id from messages order by sent_at")
        assert [(row.body, row.late, row.ticket_id is None) for row in rows] == [
            ("de ontem", True, True),
            ("de agora", False, False),
        ]
        assert await here.count("tickets") == 1
        assert await here.count("outbox") == 1


async def test_a_message_that_was_fetched_says_so(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        await here.say(ANA, "um", told=True)
        await here.webhooks()
        await here.say(ANA, "dois")
        await here.fetch()
        rows = await here.at.rows(
            TENANT,
            "select convert_from(raw, 'UTF8')::json ->> 'backfilled' as said from messages order by sent_at",
        )
        assert [row.said for row in rows] == [None, "true"]


async def test_who_is_new_fetches_nothing_and_what_he_misses_from_then_on(
    redis_url: str, database: Urls
) -> None:
    async with scene(redis_url, database) as here:
        await here.run("update sessions set heard_ms = 0")
        await here.say(ANA, "de antes", ago=3600)
        assert await here.fetch() == Caught()
        assert time.time() - await here.mark() / 1000 == pytest.approx(0, abs=30)
        await here.say(ANA, "perdida")
        assert (await here.fetch()).entered == 1


async def test_the_mark_moves_to_the_newest_when_everything_has_entered(
    redis_url: str, database: Urls
) -> None:
    async with scene(redis_url, database) as here:
        await here.run("update sessions set since_ms = 5, observed = 'WORKING'")
        await here.say(ANA, "um", ago=300)
        await here.say(ANA, "dois", ago=200)
        before = await here.mark()
        assert (await here.fetch(messages=1)).cut_off
        assert await here.mark() == before
        await here.fetch()
        assert time.time() - await here.mark() / 1000 == pytest.approx(200, abs=30)
        await here.say(ANA, "do futuro", ago=-200)
        await here.fetch()
        assert await here.mark() <= time.time() * 1000


async def test_an_engine_that_nobody_has_named_is_asked_for(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database, Engine.WPP) as here:
        await here.run("update sessions set engine = null")
        await here.say(ANA, "oi")
        assert await here.fetch() == Caught(1, 1)
        await here.run("update sessions set engine = 'GOWS'")
        with pytest.raises(GatewayRefused):
            await here.fetch()


async def test_no_other_tenant_is_touched_and_nobody_elses_session_is_found(
    redis_url: str, database: Urls
) -> None:
    async with scene(redis_url, database) as here:
        await here.say(ANA, "oi")
        await here.fetch()
        assert await here.at.texts(OTHER) == []
        theirs = await here.at.rows(OTHER, "select id, heard_ms from sessions")
        assert [row.heard_ms for row in theirs] == [0]
        catch_up = CatchUp(here.at.database, here.at.handover.accept, now=now)
        with pytest.raises(NotFound):
            await catch_up.fetch(here.address, theirs[0].id, here.gateway)


async def test_nothing_of_what_was_said_is_told_to_the_log(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        await here.say(ANA, "segredo")
        with capture_logs() as logs:
            await here.fetch()
        [line] = [line for line in logs if line["event"] == "caught_up"]
        assert line == {
            "event": "caught_up", "log_level": "info", "room": "control", "tenant": TENANT,
            "session": SESSION, "fetched": 1, "entered": 1, "cut_off": False,
        }  # fmt: skip
        assert not [line for line in logs if "segredo" in str(line) or ANA in str(line)]
