"""Sessions that say WORKING: mute ones are found, quiet ones are left alone, and who is away is unknown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from prometheus_client import REGISTRY

from behind_exits import behind_exits, needs_exits
from databases import Database as Urls
from pasts import fill
from shop import Shop, shop
from waiting import wait_for
from wsm.config import WahaServer
from wsm.control.watchdog import Watchdog
from wsm.core.errors import GatewayUnavailable
from wsm.core.exits import Way
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName, TenantId
from wsm.core.mute import quarter, usual
from wsm.gateway.waha import Gateways, WahaSession, webhook_config
from wsm.sandbox.exits.faults import Answers502, Dead, Fault, Hangs, Refuses
from wsm.sandbox.waha import Engine, Tempo, WahaSandbox
from wsm.sandbox.waha.control import Phone
from wsm.store import fleet, watch

FRIDAY = datetime(2026, 11, 20, 10, 30, tzinfo=UTC)
CONFIG = webhook_config("http://127.0.0.1:9/webhooks", "s" * 64)
OTHER = SessionName("user_1460561546_b")


class Number(msgspec.Struct):
    """A session that heard something every quarter of an hour for five weeks, until Friday, half past ten."""

    urls: Urls
    shop: Shop
    waha: WahaSandbox
    phone: Phone
    gateways: Gateways
    gateway: WahaSession
    watchdog: Watchdog
    id: int
    heard: datetime = FRIDAY
    since: datetime = FRIDAY - timedelta(days=40)

    async def is_mute(self, now: datetime) -> bool:
        return await self.watchdog.check(
            self.gateway,
            server=DEFAULT_SERVER,
            session=self.id,
            phone="5511900000000",
            heard_ms=int(self.heard.timestamp() * 1000),
            since_ms=int(self.since.timestamp() * 1000),
            now=now,
        )

    def hears(self, now: datetime, *, from_me: bool = False) -> None:
        """Let a message come in, a customer's or the echo of an own one."""
        fill(self.urls, self.shop.address, now, days=0, from_me=from_me)
        self.heard = now

    async def says(self, status: str) -> None:
        async def reached() -> bool:
            return (await self.gateway.get()).status == status

        await wait_for(reached)


def after(minutes: float) -> datetime:
    return FRIDAY + timedelta(minutes=minutes)


def probes() -> float:
    """How many were made, whatever came of them."""
    count = 0.0
    for result in ("ok", "refused", "unavailable", "unknown", "cancelled"):
        labels = {"op": "probe", "result": result}
        count += REGISTRY.get_sample_value("wsm_gateway_requests_total", labels) or 0
    return count


@asynccontextmanager
async def number(
    urls: Urls, *, engine: Engine = Engine.GOWS, days: float = 35, look_seconds: float = 0.5
) -> AsyncIterator[Number]:
    """Run it, on a real WAHA and database."""
    sandbox = WahaSandbox(engine=engine, tempo=Tempo(waits=0.03, retries=0.01))
    async with shop(urls) as open_shop, sandbox as waha, Phone(waha.base_url) as phone:
        fill(urls, open_shop.address, FRIDAY, days=days)
        gateways = Gateways(
            {DEFAULT_SERVER: WahaServer(url=waha.base_url, api_key=waha.api_key)},
            send_timeout_seconds=5,
            look_timeout_seconds=look_seconds,
        )
        gateway = gateways.session(DEFAULT_SERVER, open_shop.address, None)
        [row] = await watch.every(open_shop.system)
        its = Number(urls, open_shop, waha, phone, gateways, gateway, Watchdog(open_shop.database), row.id)
        await gateway.create(CONFIG, start=True)
        await its.says("WORKING")
        try:
            yield its
        finally:
            await gateways.aclose()


@pytest.mark.parametrize("engine", Engine)
async def test_a_mute_session_is_found_by_two_probes_and_works_again_after_a_restart(
    engine: Engine, database: Urls
) -> None:
    async with number(database, engine=engine) as its:
        await its.phone.mute(its.gateway.address.session)
        assert (await its.gateway.get()).status == "WORKING"
        assert not await its.is_mute(after(70))
        assert not await its.is_mute(after(80)), "one failed probe is not enough"
        assert not await its.is_mute(after(80.1)), "a second one, so soon, is not made"
        assert await its.is_mute(after(81))
        assert await its.is_mute(after(81.1)), "also at a second look"
        await its.gateway.restart()
        await its.says("WORKING")
        its.since = after(82)
        for minutes in (82, 83, 84, 100):
            assert not await its.is_mute(after(minutes))


async def test_what_is_still_mute_after_a_restart_needs_two_failed_probes_again(database: Urls) -> None:
    async with number(database) as its:
        for since, first in ((-100, 80), (82, 83)):
            its.since = after(since)
            await its.phone.mute(its.gateway.address.session, "fail")
            assert not await its.is_mute(after(first))
            assert await its.is_mute(after(first + 1))


async def test_what_has_been_mute_and_answers_again_is_not_mute(database: Urls) -> None:
    async with number(database) as its:
        await its.phone.mute(its.gateway.address.session, "fail")
        assert not await its.is_mute(after(80))
        assert await its.is_mute(after(81))
        await its.phone.unmute(its.gateway.address.session)
        assert not await its.is_mute(after(82))
        await its.phone.mute(its.gateway.address.session, "fail")
        its.hears(after(83))
        assert not await its.is_mute(after(84))


@pytest.mark.parametrize("engine", Engine)
async def test_a_quiet_number_is_asked_a_few_times_and_never_found_mute(
    engine: Engine, database: Urls
) -> None:
    async with number(database, engine=engine) as its:
        before = probes()
        for minutes in range(0, 3 * 24 * 60, 20):
            assert not await its.is_mute(after(minutes))
        assert 3 <= probes() - before <= 7


async def test_who_was_heard_within_the_hour_or_is_hardly_known_is_not_even_asked(database: Urls) -> None:
    async with number(database, days=12) as its:
        await its.phone.mute(its.gateway.address.session, "fail")
        before = probes()
        for minutes in (10, 59, 120, 24 * 60):
            assert not await its.is_mute(after(minutes))
        assert probes() == before


async def test_what_wsm_sends_and_the_engine_echoes_is_no_sign_of_life(database: Urls) -> None:
    async with number(database) as its:
        await its.phone.mute(its.gateway.address.session, "fail")
        found = []
        for minutes in range(5, 90, 5):
            its.hears(after(minutes), from_me=True)
            found.append(await its.is_mute(after(minutes)))
        assert found == [False] * 15 + [True] * 2


async def test_a_gateway_that_is_away_or_hangs_as_a_whole_says_nothing_of_its_sessions(
    database: Urls,
) -> None:
    async with number(database) as its:
        await its.waha.stop()
        for minutes in range(80, 100):
            assert not await its.is_mute(after(minutes))
        with pytest.raises(GatewayUnavailable):
            await its.gateway.probe("5511900000000")
        async with silent_server() as url:
            hanging = Gateways(
                {DEFAULT_SERVER: WahaServer(url=url, api_key="key")},
                send_timeout_seconds=5,
                look_timeout_seconds=0.1,
            )
            its.gateway = hanging.session(DEFAULT_SERVER, its.shop.address, None)
            for minutes in (81, 82, 83, 84):
                assert not await its.is_mute(after(minutes))
            await hanging.aclose()
        await its.waha.start()


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """Take connections and requests, and answer nothing."""
    done = asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        done.set()
        server.close()
        await server.wait_closed()


@needs_exits
@pytest.mark.parametrize("fault", [Dead(), Refuses(), Answers502(), Hangs()])
async def test_an_exit_in_trouble_says_nothing_of_the_session(fault: Fault) -> None:
    async with behind_exits(tempo=Tempo(waits=0.01)) as behind:
        server = WahaServer(url=behind.waha.base_url, api_key=behind.waha.api_key, route="public")
        gateways = Gateways(
            {DEFAULT_SERVER: server}, {"br": behind.pool}, send_timeout_seconds=5, look_timeout_seconds=0.2
        )
        address = SessionAddress(TenantId(7), SessionName("user_7"))
        gateway = gateways.session(DEFAULT_SERVER, address, Way("br", "abcdef0123456789"))
        try:
            await gateway.create(CONFIG, start=True)
            await wait_for(lambda: behind.waha.session("user_7").status == "WORKING")
            assert await gateway.probe("5511900000000")
            behind.proxy.fault(fault)
            with pytest.raises(GatewayUnavailable):
                await gateway.probe("5511900000000")
        finally:
            await gateways.aclose()


async def test_a_session_that_does_not_say_working_is_not_judged(database: Urls) -> None:
    async with number(database, look_seconds=5) as its:
        await its.gateway.stop()
        with pytest.raises(GatewayUnavailable, match="session_not_working"):
            await its.gateway.probe("5511900000000")


async def test_the_past_of_a_session_is_its_own_and_what_customers_wrote(database: Urls) -> None:
    async with number(database, days=12) as its:
        address = SessionAddress(its.shop.tenant, OTHER)
        await fleet.add_session(its.shop.system, address, server=DEFAULT_SERVER, alias="b", kid="k1")
        stranger = SessionAddress(TenantId(77), SessionName("user_77"))
        await fleet.add_tenant(its.shop.system, stranger.tenant, name="", locale="en", capacity=1)
        await fleet.add_session(its.shop.system, stranger, server=DEFAULT_SERVER, alias="", kid="k1")
        fill(database, address, FRIDAY, every=timedelta(hours=1), days=40)
        fill(database, stranger, FRIDAY)
        rows = {row.name: row.id for row in await watch.every(its.shop.system)}
        now = after(60)
        past = await watch.past_of(its.shop.database, address, rows[OTHER], now)
        assert past.heard.bit_count() == 32 * 24
        assert past.since + past.heard.bit_length() - 1 == quarter(FRIDAY)
        assert usual(past, FRIDAY, after(24 * 60)) == 23
        nothing = await watch.past_of(its.shop.database, address, rows[stranger.session], now)
        assert nothing.heard == 0
