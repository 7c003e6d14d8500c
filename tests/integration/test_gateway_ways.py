"""Sessions through their own exits: where they come out, what fails, and that nothing goes around one."""

import msgspec
import pytest

from behind_exits import PASSWORD, behind_exits, needs_exits
from wsm.config import WahaServer
from wsm.core.errors import BadInput, GatewayUnavailable, OutcomeUnknown
from wsm.core.exits import Pool, Seen, Way
from wsm.core.ids import DEFAULT_SERVER, ChatId, SessionAddress, SessionName, TenantId
from wsm.gateway.waha import Gateways, SessionConfig
from wsm.sandbox.exits import (
    Answers502,
    Claims,
    Dead,
    Drifts,
    Fault,
    Hangs,
    Refuses,
    direct,
)
from wsm.sandbox.waha.control import Phone

pytestmark = needs_exits

ANN = SessionAddress(TenantId(77), SessionName("user_77"))
BOB = SessionAddress(TenantId(78), SessionName("user_78"))
WAY, OTHER = Way("br", "ann0000000000000"), Way("br", "bob0000000000000")
PHONE = "5511977776666"
CHAT = ChatId(f"{PHONE}@c.us")
CONFIG = SessionConfig(url="http://127.0.0.1:9/x", secret="s" * 64, retry_attempts=0)


async def test_a_look_tells_where_an_identity_comes_out() -> None:
    async with behind_exits() as at:
        assert await at.gateways.look(WAY) == Seen(at.address_of(WAY.identity), "br")
        assert await at.gateways.look(OTHER) == Seen(at.address_of(OTHER.identity), "br")
        assert at.address_of(WAY.identity) != at.address_of(OTHER.identity)
        assert direct(at.whoami.peers, at.proxy) == []


async def test_a_look_sees_drift_and_another_country() -> None:
    async with behind_exits() as at:
        first = await at.gateways.look(WAY)
        at.proxy.fault(Drifts())
        moved = await at.gateways.look(WAY)
        assert moved.address != first.address
        at.proxy.fault(Claims("US"))
        assert (await at.gateways.look(WAY)).country == "us"


@pytest.mark.parametrize(
    ("fault", "says"),
    [(Dead(), "exit: "), (Refuses(), "refuses the password"), (Answers502(), "exit: "), (Hangs(), "in time")],
    ids=lambda value: type(value).__name__ if isinstance(value, Fault) else "",
)
async def test_an_exit_that_fails_says_why_without_its_password(
    fault: Fault, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsm.gateway.exits._LOOK_SECONDS", 0.5)
    async with behind_exits() as at:
        at.proxy.fault(fault)
        with pytest.raises(GatewayUnavailable, match=says) as caught:
            await at.gateways.look(WAY)
        assert PASSWORD not in f"{caught.value!r} {caught.value}"
        assert list(at.whoami.peers) == []


async def test_every_call_of_a_session_leaves_through_its_exit() -> None:
    async with behind_exits() as at:
        for address, way in ((ANN, WAY), (BOB, OTHER)):
            session = at.gateways.session(DEFAULT_SERVER, address, way)
            await session.create(CONFIG, start=True)
            assert await at.waha.idle()
            fresh = await session.new_message_id()
            assert await session.send_text(CHAT, "oi", id=fresh) == fresh
            await session.get()
            await session.send_seen(CHAT)
            await session.stop()
            await session.start()
            await session.delete()
        used = {passage.identity for passage in at.proxy.seen}
        assert used == {f"acme-country-br-session-{way.identity}" for way in (WAY, OTHER)}
        of_ann = [passage for passage in at.proxy.seen if (passage.identity or "").endswith(WAY.identity)]
        assert len(of_ann) >= 8
        assert {passage.leaves_from[0] for passage in of_ann if passage.leaves_from} == {
            at.address_of(WAY.identity)
        }


@pytest.mark.parametrize("fault", [Dead(), Refuses(), Answers502()], ids=lambda fault: type(fault).__name__)
async def test_a_session_whose_exit_fails_reaches_nothing(fault: Fault) -> None:
    async with behind_exits() as at, Phone(at.waha.base_url) as phone:
        session = at.gateways.session(DEFAULT_SERVER, ANN, WAY)
        await session.create(CONFIG, start=True)
        assert await at.waha.idle()
        at.proxy.fault(fault)
        at.proxy.cut()
        with pytest.raises((GatewayUnavailable, OutcomeUnknown)):
            await session.send_text(CHAT, "oi")
        assert await phone.inbox(PHONE) == []
        at.proxy.mend()
        assert await session.send_text(CHAT, "oi")
        assert len(await phone.inbox(PHONE)) == 1
        assert direct(at.whoami.peers, at.proxy) == []


async def test_a_dead_exit_opens_no_circuit_for_the_others() -> None:
    async with behind_exits() as at:
        at.proxy.fault(Dead(), of=f"acme-country-br-session-{WAY.identity}")
        await at.proxy.down()
        for _ in range(8):
            with pytest.raises(GatewayUnavailable, match="not reached"):
                await at.gateways.session(DEFAULT_SERVER, ANN, WAY).start_typing(CHAT)
        await at.proxy.up()
        other = at.gateways.session(DEFAULT_SERVER, BOB, OTHER)
        await other.create(CONFIG, start=False)
        assert (await other.get()).status == "STOPPED"


async def test_a_private_gateway_is_reached_without_the_exit_and_a_missing_pool_is_unavailable() -> None:
    async with behind_exits() as at:
        server = WahaServer(url=at.waha.base_url, api_key=at.waha.api_key)
        gateways = Gateways({DEFAULT_SERVER: server}, send_timeout_seconds=5)
        await gateways.session(DEFAULT_SERVER, ANN, WAY).create(CONFIG, start=False)
        assert list(at.proxy.seen) == []
        with pytest.raises(GatewayUnavailable, match="no such pool"):
            await gateways.look(WAY)
        public = msgspec.structs.replace(server, route="public")
        gateways_2 = Gateways({DEFAULT_SERVER: public}, send_timeout_seconds=5)
        with pytest.raises(GatewayUnavailable, match="no such pool"):
            await gateways_2.session(DEFAULT_SERVER, ANN, WAY).get()
        await gateways.aclose()
        await gateways_2.aclose()


@pytest.mark.parametrize(
    "url", ["", "ip.example", "ftp://x", "http://", "http://[", "http://x:0", "http://a:CANARY@x"]
)
def test_a_check_that_nobody_can_be_asked_at_is_refused_by_its_field(url: str) -> None:
    pool = Pool(provider="generic", endpoint="x:1", username="a", password="b", check_url=url)
    with pytest.raises(BadInput) as caught:
        Gateways({}, {"br": pool}, send_timeout_seconds=1)
    assert caught.value.field == "exits.br.check_url"
    assert "CANARY" not in str(caught.value)
