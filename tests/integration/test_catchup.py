"""Catch-up from WAHAs of every engine: what was missed is there once, in its place, answered if it is young.

Webhooks reach the mailbox when the test lets them: before the catch-up, after it, or never.
"""

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from databases import Database as Urls
from wahastage import Stage, stage
from working import Plant, now, plant
from wsm.config import WahaServer
from wsm.control.catchup import Accept, CatchUp, Caught
from wsm.core.errors import GatewayRefused, GatewayUnavailable, MailboxFull, NotFound, StreamsUnavailable
from wsm.core.events import Origin
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName, TenantId
from wsm.gateway.waha import Gateways, WahaSession
from wsm.sandbox.waha import Engine
from wsm.streams.client import connect
from wsm.streams.handover import Handover, Limits, Offer, Verdict

TENANT, OTHER = 7, 8
SESSION = "user_7"
ANA, BIA, CAIO = "5511900000001", "5511900000002", "5511900000003"
GROUP = "120363000000000001@g.us"
STORE = {"noweb": {"store": {"enabled": True, "fullSync": False}}}
HIDDEN_TWIN = pytest.mark.parametrize("as_lid", [False, True])
EVERY_ENGINE = pytest.mark.parametrize("engine", Engine)

_ticks = itertools.count(1)


class Scene:
    """A WAHA with a session, a worker with its mailboxes, and a catch-up between them."""

    def __init__(self, on: Stage, at: Plant, gateways: Gateways) -> None:
        self.on = on
        self.at = at
        self.address = SessionAddress(TenantId(TENANT), SessionName(SESSION))
        self.gateways = gateways
        self.start_ms = int(time.time()) * 1000 - 600_000
        """Ten minutes ago, a whole second."""

    @property
    def gateway(self) -> WahaSession:
        """The calls of the session."""
        return self.gateways.session(DEFAULT_SERVER, self.address, None)

    async def say(self, phone: str, text: str, *, ago: float | None = None, **more: Any) -> str:
        """Let a customer write, each a second after the one before, or so long ago; nobody is told."""
        at_ms = self.start_ms + next(_ticks) * 1000 if ago is None else int((time.time() - ago) * 1000)
        said = {"told": False, "timestamp_ms": at_ms, **more}
        bare = await self.on.phone.say(SESSION, phone, text, **said)
        assert await self.on.phone.wait_idle()
        return bare

    async def webhooks(self) -> None:
        """Let what WAHA has told so far into the mailbox, and wait until it is handled."""
        bodies = [got.body for got in self.on.hook.got if b'"message.any"' in got.body]
        self.on.hook.got.clear()
        offers = [
            Offer(self.address.tenant, self.address.session, Origin.WAHA, int(time.time() * 1000), body)
            for body in bodies
        ]
        await self.at.handover.accept(offers)
        await self.at.drained()

    async def heard(self, ago: float = 600) -> None:
        """Set the mark of what was heard last."""
        await self.run(f"update sessions set heard_ms = {int((time.time() - ago) * 1000)}")

    async def mark(self) -> int:
        """Return that mark."""
        [row] = await self.at.rows(TENANT, "select heard_ms from sessions")
        return int(row.heard_ms)

    async def run(self, statement: str) -> None:
        """Change something of the tenant's."""
        async with self.at.database.transaction(self.address.tenant) as transaction:
            await transaction._connection.execute(statement.encode())

    async def fetch(self, accept: Accept | None = None, **limits: Any) -> Caught:
        """Catch up, and wait until everything is handled."""
        [row] = await self.at.rows(TENANT, "select id from sessions")
        catch_up = CatchUp(self.at.database, accept or self.at.handover.accept, now=now, **limits)
        try:
            return await catch_up.fetch(self.address, row.id, self.gateway)
        finally:
            await self.at.drained()

    async def texts(self) -> list[str]:
        """The history of all chats, in the order of the messages."""
        rows = await self.at.rows(
            TENANT, "select body from messages order by sent_at, stamped_at_ms, entry_ms, id"
        )
        return [row.body for row in rows]

    async def count(self, table: str) -> int:
        """How many rows of the tenant a table has."""
        [row] = await self.at.rows(TENANT, f"select count(*) as n from {table}")
        return int(row.n)


@asynccontextmanager
async def scene(
    redis_url: str, database: Urls, engine: Engine = Engine.GOWS, config: Any = STORE
) -> AsyncIterator[Scene]:
    """Set it, with a session that works and has heard something ten minutes ago."""
    async with stage(engine=engine) as on, plant(redis_url, database) as at:
        server = WahaServer(url=on.waha.base_url, api_key=on.waha.api_key)
        gateways = Gateways({DEFAULT_SERVER: server}, send_timeout_seconds=5, look_timeout_seconds=5)
        try:
            await at.found(TENANT, OTHER)
            await on.session(SESSION, config=config)
            at.start()
            here = Scene(on, at, gateways)
            await here.run(f"update sessions set engine = '{engine}'")
            await here.heard()
            yield here
        finally:
            await gateways.aclose()


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
@HIDDEN_TWIN
async def test_a_webhook_that_comes_after_all_is_a_duplicate(
    redis_url: str, database: Urls, engine: Engine, as_lid: bool
) -> None:
    async with scene(redis_url, database, engine) as here:
        await here.say(ANA, "oi", told=True, twin=True, as_lid=as_lid)
        await here.on.phone.type_as_agent(SESSION, f"{ANA}@c.us", "bom dia")
        assert await here.on.phone.wait_idle()
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
        await here.say(ANA, "oi", told=True, twin=True, as_lid=as_lid)
        await here.on.phone.type_as_agent(SESSION, f"{ANA}@c.us", "bom dia")
        assert await here.on.phone.wait_idle()
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


async def test_who_never_heard_anything_fetches_nothing(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        await here.run("update sessions set heard_ms = 0")
        await here.say(ANA, "de antes")
        assert await here.fetch() == Caught()
        assert await here.mark() == 0


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
        messages = WahaSession.messages

        class Watched(WahaSession):
            async def messages(self, *args: Any) -> list[object]:
                asked.append(args[0])
                return await messages(self, *args)

        gateway = here.gateway
        gateway.__class__ = Watched
        [row] = await here.at.rows(TENANT, "select id from sessions")
        catch_up = CatchUp(here.at.database, here.at.handover.accept, now=now, chats=2)
        assert await catch_up.fetch(here.address, row.id, gateway) == Caught(2, 2, cut_off=True)
        assert asked == [chat for who in (CAIO, BIA) for chat in [f"{who}@c.us"] * 2]


async def test_more_than_a_page_is_fetched_to_the_end(redis_url: str, database: Urls) -> None:
    async with scene(redis_url, database) as here:
        for number in range(250):
            at_ms = here.start_ms + number * 1000
            await here.on.phone.say(SESSION, ANA, f"{number}", told=False, timestamp_ms=at_ms)
        assert await here.fetch() == Caught(250, 250)
        assert await here.texts() == [f"{number}" for number in range(250)]


@EVERY_ENGINE
async def test_a_gateway_that_dies_in_the_midst_loses_and_doubles_nothing(
    redis_url: str, database: Urls, engine: Engine
) -> None:
    async with scene(redis_url, database, engine) as here:
        for number in range(3):
            await here.say(ANA, f"{number}")
            await here.say(BIA, f"{number}.")
        before = await here.mark()
        messages, calls = WahaSession.messages, itertools.count(1)

        class Dying(WahaSession):
            async def messages(self, *args: Any) -> list[object]:
                if next(calls) > 1:
                    await here.on.waha._listener.close()
                return await messages(self, *args)

        gateway = here.gateway
        gateway.__class__ = Dying
        [row] = await here.at.rows(TENANT, "select id from sessions")
        catch_up = CatchUp(here.at.database, here.at.handover.accept, now=now)
        with pytest.raises(GatewayUnavailable):
            await catch_up.fetch(here.address, row.id, gateway)
        assert await here.mark() == before
        await here.on.waha._listener.open()
        await here.at.drained()
        assert not (await here.fetch()).cut_off
        assert await here.texts() == ["0", "0.", "1", "1.", "2", "2."]
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
