"""Tenants' numbers by command, from nothing to a customer who is served through one and its own exit.

Each command is a process, as a person starts it: that is what the seconds of these tests are.
"""

import asyncio
import os
import pty
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from behind_exits import PASSWORD, needs_exits
from e2e.telling import ENVIRON, wsm
from e2e.town import YOUR_TURN, Ground, Town, customers, town
from waiting import wait_for
from wsm.core.ids import TenantId
from wsm.sandbox.exits import Drifts, ExitProxy, Whoami, direct
from wsm.switchboard.drawing import half_blocks

pytestmark = [needs_exits, pytest.mark.deadline(180)]

SHOP = TenantId(1460561546)
NAME = f"user_{SHOP}"
OWN, OTHER = "5511960001234", "5511970005678"
ASSERTION = """{"id": "a", "rawId": "a", "type": "public-key", "response":
    {"clientDataJSON": "e30", "authenticatorData": "YQ", "signature": "YQ"}}"""
POOL = """
[exits.br]
provider = "decodo"
endpoint = "127.0.0.1:{port}"
username = "acme"
password = "{password}"
check_url = "{check_url}"
"""


class Desk(msgspec.Struct):
    """Where somebody stands who gives commands."""

    at: Town
    proxy: ExitProxy
    whoami: Whoami
    environ: Mapping[str, str]

    async def run(self, *words: object, ends: int = 0) -> str:
        """Give a command to its end; returns what it said, of one that fails on stderr too."""
        folder, said = self.at.ground.home, tuple(map(str, words))
        done = await asyncio.to_thread(wsm, folder, *said, environ=self.environ)
        assert done.returncode == ends, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout + done.stderr if ends else done.stdout

    async def begin(self, *words: object, stdout: int = PIPE) -> Process:
        """Give a command that goes on."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "utf8", "-m", "wsm", *map(str, words)),
            cwd=self.at.ground.home,
            env={**ENVIRON, **self.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "60"},
            stdout=stdout,
            stderr=PIPE,
        )

    async def asks_for_a_login(self) -> None:
        """Wait until the tenant's session shows a code, and let that last."""
        sessions = self.at.waha.world.sessions
        self.hurry(1.0)
        await wait_for(lambda: NAME in sessions and sessions[NAME].status == "SCAN_QR_CODE", 20)
        await self.at.until("select observed = 'SCAN_QR_CODE' from sessions where name = %s", NAME)

    def hurry(self, waits: float) -> None:
        """Let WAHA wait so much of its usual times from now on."""
        world = self.at.waha.world
        world.tempo = msgspec.structs.replace(world.tempo, waits=waits)


@asynccontextmanager
async def at_a_desk(ground: Ground, tmp_path: Path) -> AsyncIterator[Desk]:
    """A site with a pool of exits, whose sessions wait for a person to pair them."""
    async with ExitProxy(password=PASSWORD) as proxy, Whoami(proxy.country_of) as whoami:
        settings = tmp_path / "wsm.toml"
        settings.write_text(POOL.format(port=proxy.port, password=PASSWORD, check_url=whoami.url))
        async with town(ground, changed={"WSM_CONFIG": str(settings)}) as at:
            at.waha.world.auto_scan = False
            yield Desk(at, proxy, whoami, at.site.environ)


async def read_until(process: Process, text: str) -> str:
    """Read a command's output until a text comes."""
    assert process.stdout is not None
    said = ""
    while text not in said:
        line = await process.stdout.readline()
        assert line, said
        said += line.decode()
    return said


async def test_a_session_made_by_command_serves_a_customer(ground: Ground, tmp_path: Path) -> None:
    async with at_a_desk(ground, tmp_path) as desk:
        at, run = desk.at, desk.run
        at.waha.world.auto_scan = True
        await at.found(SHOP)
        name = f"{NAME}_b"

        made = await run("session", "create", SHOP, "--alias", "b", "--exit", "br")
        assert made == f"{name} is made on default, and stopped\n"
        assert "exists" in await run("session", "create", SHOP, "--alias", "b", "--direct", ends=2)
        assert "no pool named 'us'" in await run("session", "create", SHOP, "--exit", "us", ends=2)
        await run("session", "start", SHOP, "--session", name)

        [who] = customers(1)
        await at.phone.say(name, who, "oi")
        await at.hears(who, YOUR_TURN)
        shown = await run("session", "show", SHOP, "--session", name)
        identity = next(iter(desk.proxy.seen)).identity
        assert identity is not None
        assert f"user-acme-country-br-session-{identity.split('-')[5]}-sessionduration-30" == identity
        assert "WORKING" in shown
        assert f"br  {desk.proxy.exit_of(identity)} br" in shown
        assert direct(desk.whoami.peers, desk.proxy) == []

        await run("session", "stop", SHOP, "--session", name)
        listed = await run("session", "list", SHOP)
        assert [("should be stopped" in line) for line in listed.splitlines()] == [False, True]

        told = await run("session", "banned", SHOP, "--session", name, "--days", 7)
        assert f"nobody gets the address {desk.proxy.exit_of(identity)} before 20" in told
        assert "quarantined" in await run("session", "show", SHOP, "--session", name)
        await at.quiet()
        await at.check_sent_once()


async def test_a_code_is_drawn_and_renewed_in_a_terminal_until_it_is_scanned(
    ground: Ground, tmp_path: Path
) -> None:
    async with at_a_desk(ground, tmp_path) as desk:
        run = desk.run
        await run("tenant", "add", SHOP, "--exit", "br")
        await desk.asks_for_a_login()
        piped = await run("session", "qr", SHOP)
        assert piped.startswith("2@"), "a pipe gets what the code says, once"
        assert len(piped.splitlines()) == 1

        picture = tmp_path / "code.png"
        assert "written to" in await run("session", "qr", SHOP, "--png", picture, "--once")
        assert picture.read_bytes().startswith(b"\x89PNG")

        process = await desk.begin("session", "qr", SHOP, "--raw")
        assert process.stdout is not None
        assert process.stderr is not None
        for code in (desk.at.waha.session(NAME).qr, f"2@{'one more' * 10}"):
            desk.at.waha.session(NAME).qr = code
            assert (await process.stdout.readline()).decode() == f"{code}\n"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert await process.stderr.read() == b""

        ours, theirs = pty.openpty()
        process = await desk.begin("session", "qr", SHOP, stdout=theirs)
        os.close(theirs)
        screen = Screen(ours)
        for code in (desk.at.waha.session(NAME).qr, f"2@{'another' * 20}"):
            desk.at.waha.session(NAME).qr = code
            await screen.shows("\n".join(half_blocks(code)))
        desk.hurry(0.05)
        await desk.at.phone.scan(NAME, phone=OWN)
        assert await process.wait() == 0
        await screen.shows(f"{NAME} works, with the number …1234\n")
        assert re.search(r"\033\[\d+F\033\[J", screen.text), "each is drawn over the last one"
        assert "2@" not in screen.text


class Screen:
    """What comes to a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._said = b""
        self._reading = asyncio.create_task(asyncio.to_thread(self._read))

    @property
    def text(self) -> str:
        return self._said.decode(errors="replace").replace("\r\n", "\n")

    async def shows(self, text: str) -> None:
        await wait_for(lambda: text in self.text, 20)

    def _read(self) -> None:
        with suppress(OSError):  # its last writer has gone, as Linux says it
            while part := os.read(self._descriptor, 65_536):
                self._said += part
        os.close(self._descriptor)


async def test_a_number_is_paired_by_a_code_tried_out_and_replaced_after_a_confirmation(
    ground: Ground, tmp_path: Path
) -> None:
    async with at_a_desk(ground, tmp_path) as desk:
        at, run = desk.at, desk.run
        [who] = customers(1)
        await run("tenant", "add", SHOP, "--exit", "br")
        await desk.asks_for_a_login()
        waiting = await run("session", "show", SHOP)
        assert "`wsm session pair`" in waiting
        assert "unconfirmed" not in waiting

        await _pair(desk, OWN)
        assert await at.value("select phone from sessions") == OWN, "kept at once"
        assert "it has arrived on the phone" in await run("session", "test-send", SHOP, who, "--text", "oi")
        assert at.inbox(who) == ["oi"]
        kept = "select count(*) = 1 from messages where from_me and body = 'oi'"
        assert await at.value(kept), "its echo is an own message"

        desk.proxy.fault(Drifts())
        assert "drift" in await run("session", "test-send", SHOP, who, ends=1)
        desk.proxy.mend()

        await run("session", "logout", SHOP)
        await run("session", "start", SHOP)
        await desk.asks_for_a_login()
        told = await _pair(desk, OTHER)
        assert "its own number is …1234: nothing leaves until `wsm session confirm`" in told
        assert await at.value("select other_phone from sessions") == OTHER, "kept at once"
        refused = await run("session", "test-send", SHOP, who, ends=1)
        assert "nobody confirmed" in refused
        listed = await run("session", "list", SHOP)
        assert "works with …5678: unconfirmed" in listed
        assert OWN not in listed + refused
        assert "keeps the number …5678" in await run("session", "confirm", SHOP)
        assert "arrived" in await run("session", "test-send", SHOP, who, "--text", "de novo", "--wait", 3)
        assert at.inbox(who) == ["oi", "de novo"]
        assert direct(desk.whoami.peers, desk.proxy) == []
        logged = "".join(map(str, at.log_lines()))
        assert all(secret not in logged for secret in (OWN, OTHER, "de novo"))


async def _pair(desk: Desk, phone: str) -> str:
    """Pair a phone with what the command says; returns all that it said."""
    process = await desk.begin("session", "pair", SHOP, f"+{phone}")
    said = await read_until(process, "\n\n")
    said += await read_until(process, "\n\n")
    [code] = re.findall(r"^ +([A-Z0-9]{4}-[A-Z0-9]{4})$", said, re.MULTILINE)
    desk.hurry(0.05)
    await desk.at.phone.enter_code(NAME, code)
    rest, _ = await process.communicate()
    assert process.returncode == 0
    return said + rest.decode()


async def test_a_passkey_is_explained_answered_and_compared(ground: Ground, tmp_path: Path) -> None:
    async with at_a_desk(ground, tmp_path) as desk:
        run = desk.run
        await run("tenant", "add", SHOP, "--direct")
        await desk.asks_for_a_login()
        assert "asks for no passkey" in await run("session", "passkey", SHOP, ends=2)
        await desk.at.phone.scan(NAME, phone=OWN, passkey=True, code="4711")
        challenge: Any = msgspec.json.decode(await run("session", "passkey", SHOP))
        assert challenge["rpId"] == "web.whatsapp.com"
        await desk.at.until("select observed = 'PASSKEY_REQUIRED' from sessions")
        assert "`wsm session passkey` says what to do" in await run("session", "show", SHOP)
        answer = tmp_path / "answer.json"
        answer.write_text(ASSERTION)
        assert "if it is 4711" in await run("session", "passkey", SHOP, "--answer", answer)
        assert "the code to compare is 4711" in await run("session", "show", SHOP)
        desk.hurry(0.05)
        assert "works, with the number …1234" in await run("session", "passkey", SHOP, "--confirm")
