"""A gateway that hangs or is away, the exits of sessions, and what never leaves them."""

import asyncio
from collections.abc import Iterator

import pytest

from scripted_gateway import (
    ADDRESS,
    CHAT,
    KEY,
    NOT_WORKING,
    SENT,
    SERVER,
    TEXT,
    cuts,
    cuts_in_mid_answer,
    failure,
    gateway,
    hangs,
    over,
    says,
)
from waiting import wait_for
from wsm.config import WahaServer
from wsm.core.errors import BadInput, GatewayUnavailable, OutcomeUnknown, WsmError
from wsm.core.ids import ServerName, SessionAddress, TenantId
from wsm.gateway.waha import Gateways, webhook_config
from wsm.telemetry import GATEWAY_REQUESTS

# A server that hangs, or is away


async def test_a_hung_server_fails_fast_and_is_asked_again_later() -> None:
    now = 1000.0
    async with gateway(send_timeout_seconds=0.1, clock=lambda: now) as (behind, session):
        behind.reply = hangs
        for _ in range(5):
            with pytest.raises(OutcomeUnknown):
                await session.send_text(CHAT, TEXT)
        for _ in range(3):
            with pytest.raises(GatewayUnavailable, match="does not answer"):
                await session.send_text(CHAT, TEXT)
        assert len(behind.asked) == 5, "nothing reached it while the circuit was open"
        now += 1.0
        behind.reply = says(201, SENT)
        assert await session.send_text(CHAT, TEXT) == "3EB0"


async def test_refusals_and_engine_errors_open_no_circuit() -> None:
    async with gateway() as (behind, session):
        for reply in (says(400, {}), failure(500, "x"), says(422, NOT_WORKING)) * 3:
            behind.reply = reply
            with pytest.raises(WsmError):
                await session.send_text(CHAT, TEXT)
        behind.reply = says(201, SENT)
        assert await session.send_text(CHAT, TEXT) == "3EB0"


async def test_a_full_server_refuses_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsm.gateway.server._SLOT_SECONDS", 0.05)
    async with gateway(concurrent_calls=2) as (behind, session):
        behind.reply = hangs
        held = [asyncio.create_task(session.send_text(CHAT, TEXT)) for _ in range(2)]
        await wait_for(lambda: len(behind.asked) == 2)
        with pytest.raises(GatewayUnavailable, match="too many calls"):
            await session.send_text(CHAT, TEXT)
        assert len(behind.asked) == 2
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_one_servers_trouble_is_not_anothers() -> None:
    async with gateway() as (away, _), gateway() as (well, _):
        servers = {
            ServerName("away"): WahaServer(url=away.url, api_key=KEY),
            ServerName("well"): WahaServer(url=well.url, api_key=KEY),
        }
        gateways = Gateways(servers, send_timeout_seconds=0.05)
        away.reply = hangs
        for _ in range(6):
            with pytest.raises(WsmError):
                await gateways.session(ServerName("away"), ADDRESS, None).send_text(CHAT, TEXT)
        assert await gateways.session(ServerName("well"), ADDRESS, None).send_text(CHAT, TEXT) == "3EB0"
        await gateways.aclose()


# Exits and secrets


async def test_no_proxy_of_the_environment_is_ever_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as (elsewhere, _), gateway() as (behind, _):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, elsewhere.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        gateways = over(behind.url)
        await gateways.session(SERVER, ADDRESS, None).send_text(CHAT, TEXT)
        await gateways.aclose()
        assert elsewhere.connections == 0
        assert len(behind.asked) == 1


async def test_sessions_do_not_share_connections() -> None:
    async with gateway() as (behind, _):
        gateways = over(behind.url)
        other = SessionAddress(TenantId(2), ADDRESS.session)
        await gateways.session(SERVER, ADDRESS, None).send_text(CHAT, TEXT)
        await gateways.session(SERVER, ADDRESS, None).send_text(CHAT, TEXT)
        assert behind.connections == 1
        await gateways.session(SERVER, other, None).send_text(CHAT, TEXT)
        assert behind.connections == 2
        await gateways.aclose()


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


async def test_no_secret_and_no_text_is_in_errors_or_logs(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = [
        says(400, {"message": "CANARY"}),
        failure(500, "CANARY"),
        says(201, b"CANARY"),
        says(302, b"CANARY", "Location: http://CANARY/"),
    ]
    async with gateway(send_timeout_seconds=0.05) as (behind, session):
        for reply in (*answered, cuts, cuts_in_mid_answer, *[hangs] * 4):
            behind.reply = reply
            with pytest.raises(WsmError) as caught:
                await session.send_text(CHAT, TEXT)
            for exc in chain(caught.value):
                assert "CANARY" not in f"{exc} {exc!r} {exc.args}"
                assert "5511977776666" not in f"{exc} {exc!r} {exc.args}"
    printed = capsys.readouterr()
    assert "gateway_circuit" in printed.out + printed.err
    assert "CANARY" not in printed.out + printed.err + caplog.text
    assert "5511977776666" not in printed.out + printed.err + caplog.text
    assert "CANARY" not in repr(webhook_config("http://x/", "CANARY"))


@pytest.mark.parametrize(
    ("url", "key", "field"),
    [
        ("ftp://x", "k", "waha.default.url"),
        ("//x", "k", "waha.default.url"),
        ("http://", "k", "waha.default.url"),
        ("http://user:CANARY@x", "k", "waha.default.url"),
        ("http://x/?CANARY", "k", "waha.default.url"),
        ("http://x", "", "waha.default.api_key"),
        ("http://x", "CANARY é", "waha.default.api_key"),
        ("http://x", "CANARY\r\nX: y", "waha.default.api_key"),
    ],
)
def test_an_impossible_server_is_refused_by_its_field(url: str, key: str, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        Gateways({SERVER: WahaServer(url=url, api_key=key)}, send_timeout_seconds=1)
    assert caught.value.field == field
    assert "CANARY" not in str(caught.value)


async def test_a_gateway_may_stand_under_a_path() -> None:
    async with gateway() as (behind, _):
        gateways = over(behind.url + "/waha/")
        await gateways.session(SERVER, ADDRESS, None).send_text(CHAT, TEXT)
        await gateways.aclose()
        assert behind.asked[0].path == "/waha/api/sendText"


async def test_calls_are_counted_by_what_they_came_to() -> None:
    def count(result: str) -> float:
        return float(GATEWAY_REQUESTS.labels("send_seen", result)._value.get())

    before = {result: count(result) for result in ("ok", "refused", "unavailable", "unknown")}
    async with gateway() as (behind, session):
        for reply in (says(201, {}), says(400, {}), says(422, NOT_WORKING), failure(500, "x")):
            behind.reply = reply
            try:
                await session.send_seen(CHAT)
            except WsmError as exc:
                assert "gateway answered" in str(exc)  # noqa: PT017 (the first call has none)
    assert {result: count(result) - before[result] for result in before} == dict.fromkeys(before, 1.0)
