"""A login as it happens, on every engine: codes that are renewed or typed, passkeys, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from waiting import wait_for
from wsm.config import WahaServer
from wsm.control.pairing import (
    Away,
    Code,
    Compare,
    Ended,
    PasskeyWanted,
    Starting,
    Step,
    Works,
    follow,
)
from wsm.core.errors import GatewayRefused, GatewayUnavailable
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName, TenantId
from wsm.gateway.waha import Gateways, WahaSession, webhook_config
from wsm.sandbox.waha import Engine, Tempo, WahaSandbox
from wsm.sandbox.waha.control import Phone
from wsm.sandbox.waha.state import Session

NAME = SessionName("user_77")
ADDRESS = SessionAddress(TenantId(77), NAME)
CONFIG = webhook_config("http://127.0.0.1:9/webhooks", "s" * 64)
PHONE = "5511960001234"
ASSERTION = {
    "id": "a", "rawId": "a", "type": "public-key",
    "response": {"clientDataJSON": "e30", "authenticatorData": "YQ", "signature": "YQ"},
}  # fmt: skip


class Place(msgspec.Struct):
    """A WAHA at which nobody scans by himself, and one session of it."""

    waha: WahaSandbox
    phone: Phone
    gateway: WahaSession

    @property
    def session(self) -> Session:
        return self.waha.session(NAME)

    async def is_away(self) -> bool:
        try:
            await self.gateway.get()
        except GatewayUnavailable:
            return True
        return False

    async def shows_a_code(self) -> None:
        await wait_for(lambda: self.session.status == "SCAN_QR_CODE")


@asynccontextmanager
async def place(
    engine: Engine = Engine.GOWS, *, waits: float = 0.02, create: bool = True, start: bool = True
) -> AsyncIterator[Place]:
    sandbox = WahaSandbox(engine=engine, tempo=Tempo(waits=waits, retries=0.001), auto_scan=False)
    async with sandbox as waha, Phone(waha.base_url) as phone:
        server = WahaServer(url=waha.base_url, api_key=waha.api_key)
        gateways = Gateways({DEFAULT_SERVER: server}, send_timeout_seconds=5)
        try:
            gateway = gateways.session(DEFAULT_SERVER, ADDRESS, None)
            if create:
                await gateway.create(CONFIG, start=start)
            yield Place(waha, phone, gateway)
        finally:
            await gateways.aclose()


class Following:
    """Follows a login in the background. steps: what was told."""

    def __init__(self, gateway: WahaSession, *, codes: bool = True, monotonic: Any = None) -> None:
        self.steps: list[Step] = []
        more = {} if monotonic is None else {"monotonic": monotonic}
        self._steps = follow(gateway, codes=codes, every_seconds=0.01, **more)
        self._task = asyncio.create_task(self._go())

    async def _go(self) -> None:
        async for step in self._steps:
            self.steps.append(step)

    async def told(self, fits: Callable[[Step], bool]) -> Step:
        """Wait for a step."""
        await wait_for(lambda: self._task.done() or any(map(fits, self.steps)))
        return next(filter(fits, self.steps))

    async def ends(self) -> list[Step]:
        """Wait for the end."""
        async with asyncio.timeout(10):
            await self._task
        return self.steps


@pytest.mark.parametrize("engine", Engine)
async def test_codes_are_renewed_until_one_is_scanned(engine: Engine) -> None:
    async with place(engine) as at:
        following = Following(at.gateway)
        await wait_for(lambda: len([step for step in following.steps if isinstance(step, Code)]) >= 2)
        await at.phone.scan(NAME, phone=PHONE)
        steps = await following.ends()
        codes = [step.text for step in steps if isinstance(step, Code)]
        assert len(set(codes)) == len(codes), "each is told once"
        assert all(code.startswith("2@") for code in codes)
        end = steps[-1]
        assert isinstance(end, Works)
        assert end.me == f"{PHONE}@c.us"


async def test_whoever_does_not_come_in_time_is_told_so() -> None:
    async with place(waits=0.002) as at:
        steps = await Following(at.gateway).ends()
        assert steps[-1] == Ended("FAILED")


async def test_an_engine_that_starts_again_by_itself_has_not_failed() -> None:
    async with place(Engine.WEBJS, waits=0.004) as at:
        following = Following(at.gateway, codes=False)
        await wait_for(lambda: [point.status for point in at.session.statuses[-2:]] == ["FAILED", "STARTING"])
        await at.shows_a_code()
        await at.phone.scan(NAME)
        assert isinstance((await following.ends())[-1], Works)


async def test_a_session_that_was_never_made_or_is_stopped_asks_for_nothing() -> None:
    clock = [0.0]
    async with place(create=False) as at:
        assert await Following(at.gateway).ends() == [Ended("unknown")]
        await at.gateway.create(CONFIG, start=False)
        following = Following(at.gateway, monotonic=lambda: clock[0])
        await following.told(lambda step: step == Starting())
        clock[0] = 10.0
        assert await following.ends() == [Starting(), Ended("STOPPED")]


async def test_a_restart_is_not_the_end() -> None:
    async with place(Engine.NOWEB) as at:
        await at.shows_a_code()
        following = Following(at.gateway, codes=False)
        await following.told(lambda step: isinstance(step, Code))
        restarting = asyncio.create_task(at.gateway.restart())
        await following.told(lambda step: isinstance(step, Starting))
        await restarting
        await at.shows_a_code()
        await at.phone.scan(NAME)
        steps = await following.ends()
        assert isinstance(steps[-1], Works)
        assert not [step for step in steps if isinstance(step, Ended)]


async def test_a_gateway_that_goes_away_meanwhile_is_asked_on() -> None:
    async with place() as at:
        await at.shows_a_code()
        following = Following(at.gateway, codes=False)
        await following.told(lambda step: isinstance(step, Code))
        await at.phone.refuse(0.5)
        await following.told(lambda step: isinstance(step, Away))
        await wait_for(lambda: isinstance(following.steps[-1], Code))
        await at.phone.scan(NAME)
        assert isinstance((await following.ends())[-1], Works)


async def test_a_gateway_that_is_away_from_the_first_is_an_error() -> None:
    async with place() as at:
        await at.phone.refuse(60)
        await wait_for(at.is_away)
        with pytest.raises(GatewayUnavailable):
            await Following(at.gateway).ends()


# Codes to type


@pytest.mark.parametrize("engine", Engine)
async def test_a_code_typed_on_the_phone_links_it(engine: Engine) -> None:
    async with place(engine, waits=0.05) as at:
        await at.shows_a_code()
        older, code = [await at.gateway.login.pairing_code(PHONE) for _ in range(2)]
        assert len(code) == len("ABCD-ABCD")
        assert code[4] == "-"
        assert older != code
        assert await at.phone.enter_code(NAME, code) == PHONE
        assert (await Following(at.gateway).ends())[-1] == Works(at_number(PHONE))


async def test_a_code_is_there_only_while_a_login_is_asked_for() -> None:
    async with place(waits=0.002, start=False) as at:
        with pytest.raises(GatewayUnavailable, match="session_not_working"):
            await at.gateway.login.pairing_code(PHONE)


async def test_a_number_that_is_none_is_refused() -> None:
    async with place() as at:
        await at.shows_a_code()
        with pytest.raises(GatewayRefused) as caught:
            await at.gateway.login.pairing_code("0")
        assert caught.value.status == 400


# Passkeys


async def test_a_passkey_is_asked_for_answered_and_compared() -> None:
    async with place() as at:
        await at.shows_a_code()
        assert await at.gateway.login.passkey_challenge() is None
        assert await at.gateway.login.passkey_code() is None
        following = Following(at.gateway)
        await at.phone.scan(NAME, phone=PHONE, passkey=True, code="1234")
        await following.told(lambda step: step == PasskeyWanted())
        challenge = await at.gateway.login.passkey_challenge()
        assert challenge is not None
        assert challenge["rpId"] == "web.whatsapp.com"
        with pytest.raises(GatewayRefused):
            await at.gateway.login.answer_passkey({"id": "a"})
        await at.gateway.login.answer_passkey(ASSERTION)
        await following.told(lambda step: step == Compare("1234"))
        await at.gateway.login.confirm_passkey()
        assert (await following.ends())[-1] == Works(at_number(PHONE))


async def test_a_passkey_without_a_comparison_is_enough() -> None:
    async with place() as at:
        await at.shows_a_code()
        await at.phone.enter_code(NAME, await at.gateway.login.pairing_code(PHONE), passkey=True)
        await at.gateway.login.answer_passkey(ASSERTION)
        assert (await Following(at.gateway).ends())[-1] == Works(at_number(PHONE))


async def test_a_passkey_that_nobody_has_ends_the_login() -> None:
    async with place(waits=0.002) as at:
        await at.shows_a_code()
        following = Following(at.gateway, codes=False)
        await at.phone.scan(NAME, passkey=True)
        assert (await following.ends())[-1] == Ended("FAILED")


async def test_an_engine_without_passkeys_says_that_none_is_pending() -> None:
    async with place(Engine.NOWEB) as at:
        assert await at.gateway.login.passkey_challenge() is None
        assert await at.gateway.login.passkey_code() is None


def at_number(phone: str) -> Any:
    return f"{phone}@c.us"
