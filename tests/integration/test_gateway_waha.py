"""The gateway's calls against a WAHA that answers as the real one does, one engine at a time."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from waiting import wait_for
from wsm.config import WahaServer
from wsm.core.errors import GatewayRefused, GatewayUnavailable, OutcomeUnknown
from wsm.core.ids import BareId, ChatId, ServerName, SessionAddress, SessionName, TenantId
from wsm.gateway.waha import Gateways, SessionInfo, WahaSession, webhook_config
from wsm.sandbox.waha import Engine, Tempo, WahaSandbox
from wsm.sandbox.waha.control import Phone
from wsm.sandbox.waha.faults import Fault, Wrong

SERVER = ServerName("default")
ADDRESS = SessionAddress(TenantId(1460561546), SessionName("user_1460561546"))
PHONE = "5511977776666"
CHAT = ChatId(f"{PHONE}@c.us")
CONFIG = webhook_config("http://127.0.0.1:9/webhooks", "s" * 64)
OWN_IDS = [Engine.NOWEB, Engine.GOWS]


@asynccontextmanager
async def waha(
    engine: Engine, *, working: bool = True, auto_scan: bool = True, send_timeout_seconds: float = 30
) -> AsyncIterator[tuple[WahaSandbox, WahaSession]]:
    sandbox = WahaSandbox(engine=engine, tempo=Tempo(waits=0.002, retries=0.001), auto_scan=auto_scan)
    async with sandbox:
        server = WahaServer(url=sandbox.base_url, api_key=sandbox.api_key)
        gateways = Gateways({SERVER: server}, send_timeout_seconds=send_timeout_seconds)
        session = gateways.session(SERVER, ADDRESS, None)
        try:
            if working:
                await session.create(CONFIG, start=True)
                await wait_for_status(session, "WORKING")
            yield sandbox, session
        finally:
            await gateways.aclose()


async def wait_for_status(session: WahaSession, status: str) -> SessionInfo:
    async def reached() -> bool:
        return (await session.get()).status == status

    done: bool = await wait_for(reached)
    assert done
    return await session.get()


def received(sandbox: WahaSandbox) -> list[tuple[str, str]]:
    return [(message.id, message.text) for message in sandbox.world.phone(PHONE).inbox]


@pytest.mark.parametrize("engine", Engine)
async def test_a_message_is_sent_seen_and_found(engine: Engine) -> None:
    async with waha(engine) as (sandbox, session):
        since_s = int(time.time()) - 1
        reserved = await session.new_message_id()
        assert (reserved is not None) == (engine in OWN_IDS)
        await session.send_seen(CHAT)
        await session.start_typing(CHAT)
        await session.stop_typing(CHAT)
        sent = await session.send_text(CHAT, "Você é o 1º da fila", id=reserved)
        assert received(sandbox) == [(sent, "Você é o 1º da fila")]
        assert [signal.kind for signal in sandbox.world.phone(PHONE).signals] == ["seen", "typing", "paused"]
        listed = await session.own_messages(CHAT, since_s)
        assert [(found.id, found.body) for found in listed] == [(sent, "Você é o 1º da fila")]
        if reserved is not None:
            assert sent == reserved
            found = await session.find_message(reserved)
            assert found is not None
            assert (found.id, found.body) == (sent, "Você é o 1º da fila")
            assert await session.find_message(BareId("3EB000000000000000FFFF")) is None


@pytest.mark.parametrize("engine", OWN_IDS)
@pytest.mark.parametrize("kind", [Wrong.FAIL_AFTER, Wrong.CUT_AFTER, Wrong.HANG_AFTER])
async def test_what_left_before_the_answer_was_lost_is_found_by_its_id(engine: Engine, kind: Wrong) -> None:
    async with waha(engine, send_timeout_seconds=0.3) as (sandbox, session):
        reserved = await session.new_message_id()
        assert reserved is not None
        sandbox.world.faults.add(Fault(kind=kind, seconds=5.0))
        with pytest.raises(OutcomeUnknown):
            await session.send_text(CHAT, "oi", id=reserved)
        found = await session.find_message(reserved)
        assert found is not None
        assert found.id == reserved
        assert received(sandbox) == [(reserved, "oi")]


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("kind", [Wrong.FAIL_BEFORE, Wrong.CUT_BEFORE])
async def test_what_did_not_leave_is_unknown_too_and_sent_once(engine: Engine, kind: Wrong) -> None:
    async with waha(engine) as (sandbox, session):
        sandbox.world.faults.add(Fault(kind=kind))
        with pytest.raises(OutcomeUnknown):
            await session.send_text(CHAT, "oi")
        assert received(sandbox) == []
        assert await session.own_messages(CHAT, 0) == []


async def test_a_restricted_account_is_a_refusal() -> None:
    async with waha(Engine.GOWS) as (sandbox, session):
        sandbox.world.faults.add(Fault(kind=Wrong.ERROR_463))
        with pytest.raises(GatewayRefused) as caught:
            await session.send_text(CHAT, "oi")
        assert (caught.value.status, caught.value.reason) == (500, "reachout_timelock")
        assert received(sandbox) == []


@pytest.mark.parametrize("engine", Engine)
async def test_a_session_that_does_not_work_sends_nothing(engine: Engine) -> None:
    async with waha(engine, working=False) as (sandbox, session):
        for create in (False, True):
            if create:
                await session.create(CONFIG, start=False)
            with pytest.raises(GatewayUnavailable, match="session_not_working"):
                await session.new_message_id()
            with pytest.raises(GatewayUnavailable, match="session_not_working"):
                await session.send_text(CHAT, "oi")
        assert received(sandbox) == []


@pytest.mark.parametrize("engine", Engine)
async def test_a_session_lives_from_creation_to_deletion(engine: Engine) -> None:
    async with waha(engine, working=False, auto_scan=False) as (sandbox, session):
        with pytest.raises(GatewayRefused) as caught:
            await session.get()
        assert caught.value.status == 404
        await session.create(CONFIG, start=False)
        with pytest.raises(GatewayRefused, match="already_exists"):
            await session.create(CONFIG, start=False)
        created = await session.get()
        assert (created.name, created.status, created.me) == (ADDRESS.session, "STOPPED", None)
        with pytest.raises(GatewayUnavailable, match="session_not_working"):
            await session.login.qr_text()
        await session.start()
        await wait_for_status(session, "SCAN_QR_CODE")
        assert (await session.login.qr_text()).startswith("2@")
        phone = Phone(sandbox.base_url)
        await phone.scan(ADDRESS.session)
        await phone.aclose()
        working = await wait_for_status(session, "WORKING")
        assert working.engine == engine
        await session.start()
        assert (await session.get()).status == "WORKING"
        await session.stop()
        assert (await session.get()).status == "STOPPED"
        await session.stop()
        await session.delete()
        await session.delete()
        await session.stop()
        with pytest.raises(GatewayRefused):
            await session.get()


async def test_the_configuration_arrives_whole() -> None:
    async with waha(Engine.NOWEB) as (sandbox, _):
        assert sandbox.session(ADDRESS.session).config == CONFIG.as_json()


async def test_a_gateway_that_refuses_connections_was_not_reached() -> None:
    async with waha(Engine.GOWS) as (sandbox, session):
        await sandbox.stop()
        with pytest.raises(GatewayUnavailable, match="not reached"):
            await session.send_text(CHAT, "oi")
        assert received(sandbox) == []
        await sandbox.start()
