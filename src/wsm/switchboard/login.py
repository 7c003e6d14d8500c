"""A login at the terminal: a code drawn or typed, a passkey, and what happens until the number works.

Codes are secrets for as long as they live: they go to the screen, to standard output or into a file that its
owner alone can read, and nowhere else. Who stops looking (Ctrl-C) stops nothing: the session goes on.
"""

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from wsm.config import Settings
from wsm.control.pairing import Away, Code, Compare, Ended, PasskeyWanted, Starting, Step, Works, follow
from wsm.core.errors import BadInput, GatewayRefused
from wsm.core.ids import SessionAddress
from wsm.core.phones import masked, phone_digits
from wsm.gateway.waha import WahaSession
from wsm.sandbox.screen import plain
from wsm.switchboard.drawing import half_blocks, modules, picture

if TYPE_CHECKING:
    from wsm.control.sessions import Sessions

_BAD_REQUEST = 400
_ENDS = {
    "FAILED": "has failed: nobody came in time, or WhatsApp said no; `wsm session restart` asks again",
    "STOPPED": "is stopped; `wsm session start` starts it",
    "unknown": "is not known to its gateway; `wsm session start` makes it there",
}


async def qr(arguments: argparse.Namespace, settings: Settings, address: SessionAddress) -> int:
    """Show the codes to scan, one after the other, until the session works or ends."""
    surface = _Surface(png=arguments.png, raw=arguments.raw)
    once = arguments.once or surface.is_piped
    async with _followed(settings, address) as (control, gateway):
        async for step in follow(gateway, codes=True):
            if isinstance(step, Code):
                surface.show(step.text)
                if once:
                    return 0
            elif isinstance(step, Works | Ended):
                return await _end(surface.say, control, address, step)
            else:
                surface.say(_told(address, step))
    return 1


async def pair(arguments: argparse.Namespace, settings: Settings, address: SessionAddress) -> int:
    """Show a code to type on the phone, and tell what happens until the session works or ends."""
    phone = phone_digits("phone", arguments.phone)
    async with _followed(settings, address) as (control, gateway):
        async for step in follow(gateway, codes=False):
            if isinstance(step, Code):
                code = await _code(gateway, phone)
                _say(
                    f"on the phone {masked(phone)}: Linked devices, Link a device,"
                    f" Link with phone number instead; then type\n\n    {plain(code)}\n"
                )
            elif isinstance(step, Works | Ended):
                return await _end(_say, control, address, step)
            else:
                _say(_told(address, step))
    return 1


async def passkey(arguments: argparse.Namespace, settings: Settings, address: SessionAddress) -> int:
    """Say what a passkey is to sign, or hand in what it signed, or that the codes are equal."""
    async with _followed(settings, address) as (control, gateway):
        if arguments.answer is None and not arguments.confirm:
            return await _say_passkey(address, gateway)
        if arguments.answer is not None:
            await gateway.login.answer_passkey(_assertion(arguments.answer))
        else:
            await gateway.login.confirm_passkey()
        async for step in follow(gateway, codes=False):
            if isinstance(step, Works | Ended):
                return await _end(_say, control, address, step)
            if isinstance(step, Compare) and not arguments.confirm:
                _say(_told(address, step))
                return 0
            if not isinstance(step, Compare | PasskeyWanted):  # these two are what was just answered
                _say(_told(address, step))
    return 1


async def _say_passkey(address: SessionAddress, gateway: WahaSession) -> int:
    challenge = await gateway.login.passkey_challenge()
    if challenge is not None:
        _say(
            f"{address.session}: WhatsApp wants the account's passkey, within a minute. Where the passkey is,"
            " open https://web.whatsapp.com in a browser; in its console, `challenge` being the line below:\n"
            "  JSON.stringify((await navigator.credentials.get({publicKey:"
            " PublicKeyCredential.parseRequestOptionsFromJSON(challenge)})).toJSON())\n"
            "Put what it answers into a file: `wsm session passkey --answer FILE`.",
            file=sys.stderr,
        )
        print(msgspec.json.encode(challenge).decode())
        return 0
    code = await gateway.login.passkey_code()
    if code is None:
        raise BadInput("session", "asks for no passkey now")
    _say(_told(address, Compare(code)))
    return 0


@contextlib.asynccontextmanager
async def _followed(
    settings: Settings, address: SessionAddress
) -> AsyncIterator[tuple["Sessions", WahaSession]]:
    """Open what a session is asked of, for who follows its login, and its bound calls."""
    from wsm.bootstrap import sessions  # noqa: PLC0415 (each command loads its own parts)

    async with sessions(settings) as control:
        yield control, await control.bound(address)


async def _code(gateway: WahaSession, phone: str) -> str:
    try:
        return await gateway.login.pairing_code(phone)
    except GatewayRefused as exc:
        if exc.status == _BAD_REQUEST:
            raise BadInput("phone", "the gateway takes no such number") from exc
        raise


def _assertion(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as exc:
        raise BadInput("answer", f"cannot read the file: {exc.strerror}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise BadInput("answer", "must be what the browser wrote: an object, as JSON")
    return found


def _told(address: SessionAddress, step: Step) -> str:
    """Say a step at which something or nothing is to be done."""
    name = address.session
    match step:
        case Starting():
            return f"{name} is connecting"
        case PasskeyWanted():
            return f"{name}: WhatsApp wants the account's passkey; `wsm session passkey` says what to do"
        case Compare(code=None):
            return f"{name}: the phone shows a code; WAHA does not say with which one to compare it"
        case Compare(code=code):
            return (
                f"{name}: the phone shows a code; if it is {code}, `wsm session passkey --confirm`,"
                " and if it is another one, somebody else is logging in"
            )
        case Away(reason=reason):
            return f"{name}: {reason}; asking on"
        case _:
            raise TypeError(step)


def _say(text: str, file: TextIO | None = None) -> None:
    print(text, file=file, flush=True)


async def _end(
    say: Callable[[str], None], control: "Sessions", address: SessionAddress, step: Works | Ended
) -> int:
    """Keep the number that it ended with, and say how it ended; returns the exit code."""
    if isinstance(step, Ended):
        say(f"{address.session} {_ENDS[step.status]}")
        return 1
    row = await control.paired(address, step.me)
    say(f"{address.session} works{f', with the number {masked(step.me)}' if step.me else ''}")
    if row.other_phone is not None:
        say(
            f"its own number is {masked(row.phone)}: nothing leaves until `wsm session confirm` says that the"
            " other one is right"
        )
    return 0


class _Surface:
    """Where codes are shown: drawn in the terminal, as text, in a file; and where words go.

    In a terminal the next code is drawn over the last one. Words go beside the text, never into it.
    """

    def __init__(self, *, png: Path | None, raw: bool) -> None:
        self._png = png
        draws = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and _takes_blocks()
        self.is_piped = png is None and not raw and not sys.stdout.isatty()
        self._raw = raw or (png is None and not draws)
        self._drawn = 0

    def show(self, text: str) -> None:
        """Show a code."""
        if self._png is not None:
            _write(self._png, picture(text))
            self.say(f"written to {self._png}; it is good for some 20 seconds")
        if self._raw:
            _say(plain(text))
        elif self._png is None:
            self._draw(text)

    def say(self, text: str) -> None:
        """Say something beside the codes."""
        _say(text, sys.stderr if self._raw else None)
        self._drawn = 0

    def _draw(self, text: str) -> None:
        drawn, columns = half_blocks(text), len(modules(text))
        width, height = shutil.get_terminal_size()
        whole = [*drawn, "scan it on the phone: Linked devices, Link a device; Ctrl-C stops looking"]
        if width < columns or height <= len(whole):
            whole.append(f"the window is too small: make it {columns} by {len(whole) + 2}, or use --png FILE")
        back = f"\033[{self._drawn}F\033[J" if 0 < self._drawn < height else ""
        print(back + "\n".join(whole), flush=True)
        self._drawn = len(whole)


def _takes_blocks() -> bool:
    """Whether what is printed can have half-blocks in it."""
    try:
        "▀▄█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    """Put a file in place at once: who looks at it meanwhile sees the old one or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        beside.replace(path)
    except OSError as exc:
        beside.unlink(missing_ok=True)
        raise BadInput("--png", f"cannot write there: {exc.strerror}") from exc
