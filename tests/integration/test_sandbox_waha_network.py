"""The sandbox's sessions on their way to WhatsApp: through their proxy, as each engine reads it, or not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from behind_exits import PASSWORD, needs_exits
from wahastage import Stage, stage
from waiting import wait_for
from wsm.sandbox.exits import Dead, ExitProxy, Fault, Hangs, Refuses, direct
from wsm.sandbox.waha import Engine, Tempo
from wsm.sandbox.waha.network import NotReached, Proxy, proxy_of
from wsm.sandbox.whatsapp import WhatsApp

pytestmark = needs_exits

CUSTOMER = "5511977776666"
ENGINES = ("GOWS", "NOWEB", "WEBJS", "WPP")
FAULTS = [Dead(), Refuses(), Hangs()]
QUICK = Tempo(waits=0.02, retries=0.01)


class Wired(msgspec.Struct):
    """A stage with a WhatsApp behind a provider of exits."""

    on: Stage
    proxy: ExitProxy
    whatsapp: WhatsApp

    def setting(self, who: str = "ann", **more: Any) -> dict[str, Any]:
        """The configuration of a session whose way out is an identity's."""
        server = f"127.0.0.1:{self.proxy.port}"
        return {"proxy": {"server": server, "username": who, "password": PASSWORD, **more}}

    async def begin(self, config: dict[str, Any]) -> int:
        """Create and start a session, whatever becomes of it; return the start's status."""
        whole = {**config, "webhooks": [self.on.webhook()]}
        await self.on.post("/api/sessions", name="main", config=whole)
        return (await self.on.api.post("/api/sessions/main/start")).status_code

    def statuses(self) -> list[str]:
        return self.on.hook.statuses()

    async def say(self, *statuses: str) -> None:
        """Wait until the last statuses were these."""
        await wait_for(lambda: self.statuses()[-len(statuses) :] == list(statuses))


@asynccontextmanager
async def wired(engine: str = "GOWS", **options: Any) -> AsyncIterator[Wired]:
    async with (
        ExitProxy(password=PASSWORD) as proxy,
        WhatsApp() as whatsapp,
        stage(**{"engine": engine, "tempo": QUICK, "whatsapp": whatsapp.address, **options}) as on,
    ):
        yield Wired(on, proxy, whatsapp)


@pytest.mark.parametrize("engine", ENGINES)
async def test_whatsapp_sees_a_session_and_its_messages_come_from_its_exit(engine: str) -> None:
    async with wired(engine) as at:
        await at.on.session(config=at.setting())
        exit_ = at.proxy.exit_of("ann")
        assert at.whatsapp.present() == {"main": [exit_]}
        sent = await at.on.send("oi")
        assert sent.status_code == 201
        [received] = await at.on.phone.inbox(CUSTOMER)
        await wait_for(lambda: at.whatsapp.visits[-1].sent == [received["id"]])
        assert direct(at.whatsapp.peers, at.proxy) == []
        await at.on.post("/api/sessions/main/stop")
        await wait_for(lambda: at.whatsapp.present() == {})


async def test_without_a_proxy_a_session_goes_directly_and_whatsapp_sees_that() -> None:
    async with wired() as at:
        await at.on.session()
        assert at.whatsapp.present() == {"main": ["127.0.0.1"]}
        assert len(direct(at.whatsapp.peers, at.proxy)) == 1


async def test_another_proxy_counts_from_the_next_start_and_a_put_is_one() -> None:
    async with wired() as at:
        await at.on.session(config=at.setting("ann"))
        at.on.waha.session("main").config = at.setting("bob")
        await at.on.phone.drop("main")
        assert await at.on.phone.wait_idle()
        assert at.whatsapp.addresses_of("main") == {at.proxy.exit_of("ann")}
        await at.on.api.put("/api/sessions/main", json={"config": at.setting("cleo")})
        assert await at.on.phone.wait_idle()
        assert await at.on.status() == "WORKING"
        await wait_for(lambda: at.whatsapp.present() == {"main": [at.proxy.exit_of("cleo")]})


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize(
    ("engine", "version", "started", "statuses"),
    [
        ("GOWS", "2026.7.1", 500, ["STARTING", "FAILED"]),
        ("GOWS", "2026.4.3", 201, ["STARTING"]),
        ("NOWEB", "2026.7.1", 201, ["STARTING"] * 4),
        ("WEBJS", "2026.7.1", 201, ["STARTING", "FAILED", "STARTING", "FAILED"]),
    ],
)
async def test_a_start_through_a_proxy_that_fails(
    engine: str, version: str, started: int, statuses: list[str], fault: Fault
) -> None:
    async with wired(engine, version=version) as at:
        at.proxy.fault(fault)
        assert await at.begin(at.setting()) == started
        await wait_for(lambda: len(at.statuses()) >= len(statuses) and len(at.proxy.seen) >= 1)
        assert at.statuses()[: len(statuses)] == statuses
        assert list(at.whatsapp.peers) == []
        at.proxy.mend()
        if engine == "GOWS":
            assert await at.on.phone.wait_idle()
            assert at.statuses() == statuses, "it does not come back by itself"
            await at.on.post("/api/sessions/main/restart")
        await wait_for(lambda: at.on.waha.session("main").status == "WORKING")
        assert at.whatsapp.addresses_of("main") == {at.proxy.exit_of("ann")}


async def test_noweb_gives_up_after_sixty_tries() -> None:
    async with wired("NOWEB", tempo=Tempo(waits=0.001, retries=0.01)) as at:
        at.proxy.fault(Dead())
        await at.begin(at.setting())
        await wait_for(lambda: at.statuses()[-1:] == ["FAILED"])
        assert at.statuses() == [*["STARTING"] * 61, "FAILED"]


@pytest.mark.parametrize(
    ("engine", "away", "back"),
    [
        ("GOWS", ["STARTING"], ["STARTING", "WORKING"]),
        ("NOWEB", ["STARTING", "STARTING", "STARTING"], ["STARTING", "WORKING"]),
        ("WEBJS", ["FAILED", "STARTING", "FAILED"], ["STARTING", "WORKING"]),
    ],
)
async def test_a_proxy_that_dies_in_mid_session(engine: str, away: list[str], back: list[str]) -> None:
    async with wired(engine) as at:
        await at.on.session(config=at.setting())
        before = len(at.statuses())
        at.proxy.fault(Refuses())
        at.proxy.cut()
        await wait_for(lambda: not at.on.waha.session("main").connected)
        refused = await at.on.send("into the void")
        assert refused.status_code in {422, 500}
        await at.on.phone.say("main", CUSTOMER, "oi?")
        await wait_for(lambda: len(at.statuses()) >= before + len(away))
        assert at.statuses()[before:][: len(away)] == away
        assert at.on.hook.events("message.any") == []
        at.proxy.mend()
        await at.say(*back)
        await wait_for(lambda: at.on.hook.events("message.any"))
        assert (await at.on.send("again")).status_code == 201
        assert at.whatsapp.present() == {"main": [at.proxy.exit_of("ann")]}
        assert direct(at.whatsapp.peers, at.proxy) == []


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_media_file_comes_through_the_proxy_and_with_noweb_around_it(engine: str) -> None:
    async with wired(engine) as at:
        await at.on.session(config=at.setting())
        await at.on.phone.say("main", CUSTOMER, "look", media=True)
        assert await at.on.phone.wait_idle()
        [heard] = at.on.hook.events("message.any")
        assert heard["payload"]["media"]["url"]
        [media] = [visit for visit in at.whatsapp.visits if visit.kind == "media"]
        expected = "127.0.0.1" if engine == "NOWEB" else at.proxy.exit_of("ann")
        assert media.came_from[0] == expected


async def test_a_media_file_that_cannot_be_fetched_is_told_of_without_one() -> None:
    async with wired() as at:
        await at.on.session(config=at.setting())
        at.proxy.fault(Dead())
        await at.on.phone.say("main", CUSTOMER, "look", media=True)
        assert await at.on.phone.wait_idle()
        [heard] = at.on.hook.events("message.any")
        assert heard["payload"]["media"]["error"]
        assert not heard["payload"]["media"].get("url")


async def test_whoever_loses_his_sessions_loses_their_connections() -> None:
    async with wired() as at:
        await at.on.session(config=at.setting())
        await at.on.waha.kill()
        await wait_for(lambda: at.whatsapp.present() == {})
        await wait_for(lambda: at.whatsapp.connected == 0)


SERVER = {"server": "127.0.0.1:7000"}
BOTH = {**SERVER, "username": "ann", "password": "s3"}
READ = Proxy("127.0.0.1", 7000, ("ann", "s3"))
OPEN = Proxy("127.0.0.1", 7000, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_reads_host_port_user_name_and_password(engine: str) -> None:
    assert proxy_of(Engine(engine), BOTH) == READ
    assert proxy_of(Engine(engine), SERVER) == OPEN
    assert proxy_of(Engine(engine), None) is None
    assert proxy_of(Engine(engine), {"server": ""}) is None


@pytest.mark.parametrize("engine", ENGINES)
def test_a_user_name_without_a_password_is_left_out_but_by_noweb(engine: str) -> None:
    expected = Proxy("127.0.0.1", 7000, ("ann", "")) if engine == "NOWEB" else OPEN
    assert proxy_of(Engine(engine), {**SERVER, "username": "ann"}) == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_a_scheme_leads_nowhere_with_gows_and_socks_with_none(engine: str) -> None:
    schemed = {**BOTH, "server": "http://127.0.0.1:7000"}
    found = proxy_of(Engine(engine), schemed) if engine != "GOWS" else None
    assert found == (READ if engine != "GOWS" else None)
    if engine == "GOWS":
        assert proxy_of(Engine.GOWS, schemed) == Proxy("http", 80, ("ann", "s3"))
    else:
        with pytest.raises(NotReached):
            proxy_of(Engine(engine), {**BOTH, "server": "socks5://127.0.0.1:7000"})


def test_gows_escapes_nothing() -> None:
    odd = {**BOTH, "password": "a%41"}
    assert proxy_of(Engine.GOWS, odd) == Proxy("127.0.0.1", 7000, ("ann", "aA"))
    assert proxy_of(Engine.NOWEB, odd) == Proxy("127.0.0.1", 7000, ("ann", "a%41"))
    with pytest.raises(NotReached):
        proxy_of(Engine.GOWS, {**BOTH, "password": "a b"})
    with pytest.raises(NotReached):
        proxy_of(Engine.GOWS, {**BOTH, "password": "a/b"})
