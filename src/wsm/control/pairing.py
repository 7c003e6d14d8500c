"""A login as it happens: what a session asks for, step by step, until it works or nobody can help it.

A session shows one code after the other (every 20 s or so) for as long as WhatsApp waits; a passkey may come
between the code and the end. Looking changes nothing: whoever stops looking has stopped nothing else.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import msgspec

from wsm.core.errors import GatewayRefused, GatewayUnavailable
from wsm.core.ids import ChatId
from wsm.core.upkeep import COMES_BACK
from wsm.gateway.waha import SessionInfo, WahaSession

LOOK_SECONDS = 1.0
_NOT_FOUND = 404
_ENDS = {"STOPPED": 6.0, "FAILED": 10.0}
"""For how many seconds they last before they are the end: STOPPED passes by in every restart, which takes up
to 5 s (OBSERVED, REST), and engines that come back start again 2 s after FAILED (CONTRACT 3.3)."""


class Step(msgspec.Struct, frozen=True, tag=True):
    """What is to be told."""


class Starting(Step, frozen=True):
    """It connects: there is nothing to do yet."""


class Code(Step, frozen=True):
    """It shows this code to scan, or waits for the one that is typed: then `text` is empty."""

    text: str


class PasskeyWanted(Step, frozen=True):
    """WhatsApp wants the account's passkey."""


class Compare(Step, frozen=True):
    """The code must be the one that the phone shows; None: the gateway does not say it."""

    code: str | None


class Away(Step, frozen=True):
    """The gateway does not answer just now."""

    reason: str


class Works(Step, frozen=True):
    """It is paired, with this number. The end."""

    me: ChatId | None


class Ended(Step, frozen=True):
    """It asks for nothing more: `FAILED` (nobody came in time), `STOPPED` or `unknown`. The end."""

    status: str


async def follow(
    gateway: WahaSession,
    *,
    codes: bool,
    every_seconds: float = LOOK_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Step]:
    """Look every so often and yield each step that differs from the one before; the last is Works or Ended.

    codes  whether the codes to scan are asked for

    Raises what the first look raises; later the gateway may be away, and is asked on.
    """
    told: Step | None = None
    ending_since: float | None = None
    while True:
        try:
            step, patience = await _look(gateway, codes=codes)
        except GatewayUnavailable as exc:
            if told is None:
                raise
            step, patience = Away(str(exc)), 0.0
        moment = monotonic()
        if not isinstance(step, Ended):
            ending_since = None
        else:
            ending_since = moment if ending_since is None else ending_since
            step = step if moment - ending_since >= patience else Starting()
        if step != told:
            yield step
            told = step
        if isinstance(step, Works | Ended):
            return
        await asyncio.sleep(every_seconds)


async def _look(gateway: WahaSession, *, codes: bool) -> tuple[Step, float]:
    """What there is to tell now, and for how long an end must last before it is one."""
    try:
        info = await gateway.get()
    except GatewayRefused as exc:
        if exc.status == _NOT_FOUND:
            return Ended("unknown"), 0.0
        raise
    if info.status in _ENDS:
        stays = info.status == "FAILED" and info.engine not in COMES_BACK
        return Ended(info.status), 0.0 if stays else _ENDS[info.status]
    try:
        return await _asked(gateway, info, codes=codes), 0.0
    except GatewayUnavailable:
        if (await gateway.get()).status == info.status:
            raise
        return Starting(), 0.0  # it went on between the two questions


async def _asked(gateway: WahaSession, info: SessionInfo, *, codes: bool) -> Step:
    match info.status:
        case "WORKING":
            return Works(info.me)
        case "SCAN_QR_CODE":
            return Code(await gateway.login.qr_text() if codes else "")
        case "PASSKEY_REQUIRED":
            return PasskeyWanted()
        case "PASSKEY_CONFIRMATION_REQUIRED":
            return Compare(await gateway.login.passkey_code())
        case _:
            return Starting()
