"""Every command, in good and in evil: what it writes tells no secret, and of customers only what it is for.

One process runs nearly all of them, one after the other: so all of them take seconds.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from behind_exits import PASSWORD as EXIT_PASSWORD
from behind_exits import needs_exits
from e2e.canaries import HOOK_SECRET, NAME, PASSWORD, PHONES, SHOP, TEXT, canaries, check_silent
from e2e.telling import ENVIRON, wsm
from e2e.test_session_commands import POOL
from e2e.town import YOUR_TURN, Ground, Town, town
from echo import SHAPES, echo
from mailboxes import START_MS, opened
from wsm.cli import _parser
from wsm.counter.kinds import KINDS
from wsm.desk import tenant_number
from wsm.sandbox.exits import Claims, Dead, ExitProxy, Refuses, Whoami
from wsm.streams import keys
from wsm.streams.handover import Misfit

pytestmark = needs_exits

LONG_RUNNING = {"ingest", "worker", "clock", "up", "story", "sandbox serve"}
"""Processes: what they say is in their logs, to which test_privacy.py listens."""
FOR_THAT = {
    "history": {"text", "phone 0"},
    "line show": {"phone 0"},
    "line close": {"phone 0"},
    **{
        f"agent {verb}": {"phone 0"}
        for verb in ("next", "online", "offline", "remove", "reply", "transfer", "return", "park", "close")
    },
    "dead show": {"text", "phone 0"},
    "quarantine show": {"text", "phone 0"},
    "sandbox inbox": {"text"},
    **{f"send {kind}": {"phone 0"} for kind in KINDS},
}
"""What a command is there to show."""
AWAY = {
    "REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:9",
    **dict.fromkeys(
        ("DATABASE_URL", "WSM_SYSTEM_DATABASE_URL", "WSM_OWNER_DATABASE_URL"),
        f"postgresql://wsm:{PASSWORD}@127.0.0.1:9/wsm",
    ),
    "WAHA_URL": "http://127.0.0.1:9",
}


WHILE_AWAY = ("migrate", f"line show {SHOP}", "tenant list", f"session start {SHOP}", "dead list", "check")


PATIENCE_SECONDS = 5.0


class Room:
    """Runs commands, and listens. said: what each of them has written, in its order."""

    def __init__(self, at: Town, teller: subprocess.Popen[str]) -> None:
        self.at = at
        self.commands: set[str] = set()
        self._teller = teller

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._teller.stdin is not None
        assert self._teller.stdout is not None
        self._teller.stdin.write(line + "\n")
        self._teller.stdin.flush()
        answer: dict[str, Any] = json.loads(self._teller.stdout.readline())
        return answer

    async def run(self, *words: object, ends: int = 0, **changed: str) -> str:
        """Run a command to its end, which must be this exit code; return what it wrote, if that is silent."""
        environ = {**os.environ, **changed}
        asked = {"words": [*map(str, words)], "environ": environ}
        answer = await asyncio.to_thread(self._ask, json.dumps(asked))
        code, said = answer["code"], str(answer["said"])
        assert code == ends, f"{words}: {said}"
        command = command_of([*map(str, words)])
        self.commands.add(command)
        known = {**canaries(self.at), "exit password": EXIT_PASSWORD}
        heard = {what for what, canary in known.items() if canary in said} - FOR_THAT.get(command, set())
        assert not heard, f"{words} tells {heard}: {said}"
        return said

    async def tries(self, command: str) -> None:
        """Run a command that has no script here with all that it asks for, for a while, however it ends."""
        words = given(command)
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "utf8", "-m", "wsm", *words),
            env={**ENVIRON, **os.environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(running.wait(), PATIENCE_SECONDS)
        if running.returncode is None:
            running.terminate()
        said, _ = await running.communicate()
        self.commands.add(command)
        check_silent(self.at, command, said.decode())
        assert EXIT_PASSWORD not in said.decode()


def given(command: str) -> list[str]:
    """The words of a command, with something for every argument that it must have."""
    parser, words = _parser(), []
    for word in command.split():
        verbs, before = verbs_of(parser)
        words += [*(value for action in before for value in something(action)), word]
        parser = verbs[word]
    return words + [value for action in parser._actions for value in something(action)]


def something(action: argparse.Action) -> list[str]:
    """A value for an argument, if it must have one."""
    if not (action.required or (not action.option_strings and action.nargs is None)):
        return []
    value = str(SHOP) if action.type is tenant_number else "5511900000009"
    return [*action.option_strings[:1], *([] if action.nargs == 0 else [value])]


def command_of(words: list[str]) -> str:
    """The name of the command that words call: what stands before its verbs is no part of it."""
    parser, path = _parser(), []
    while (found := verbs_of(parser))[0]:
        verbs, before = found
        words = words[len(before) :]
        path.append(words[0])
        parser, words = verbs[words[0]], words[1:]
    return " ".join(path)


def verbs_of(
    parser: argparse.ArgumentParser,
) -> tuple[dict[str, argparse.ArgumentParser], list[argparse.Action]]:
    """The verbs of a parser, and the arguments that stand before them; none if it has no verbs."""
    for at, action in enumerate(parser._actions):
        if isinstance(action, argparse._SubParsersAction):
            return action.choices, [each for each in parser._actions[:at] if not each.option_strings]
    return {}, []


def leaves(parser: argparse.ArgumentParser | None = None, path: str = "") -> Iterator[str]:
    """The name of every command that there is."""
    parser = parser or _parser()
    verbs = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    for each in verbs:
        for name, verb in each.choices.items():
            yield from leaves(verb, f"{path} {name}".strip())
    if not verbs:
        yield path


@pytest.fixture
def teller() -> Iterator[subprocess.Popen[str]]:
    """A process that runs commands."""
    command = [sys.executable, "-X", "utf8", str(Path(__file__).with_name("teller.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.deadline(120)  # some eighty commands, one after the other
async def test_no_command_tells_what_it_is_not_there_for(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teller: subprocess.Popen[str]
) -> None:
    async with (
        town(ground, changed={"WEBHOOK_HMAC_SECRET": HOOK_SECRET}) as at,
        ExitProxy(password=EXIT_PASSWORD) as proxy,
        Whoami(proxy.country_of) as whoami,
    ):
        settings = tmp_path / "wsm.toml"
        settings.write_text(POOL.format(port=proxy.port, password=EXIT_PASSWORD, check_url=whoami.url))
        for name, value in at.site.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("WSM_WAHA_FIXTURES", raising=False)  # the tests' own, no setting
        monkeypatch.setenv("WSM_CONFIG", str(settings))
        monkeypatch.setenv("WSM_WEBHOOKS_URL", at.site.webhooks_url)
        monkeypatch.setenv("WSM_OWNER_DATABASE_URL", ground.database.owner_url)
        room = Room(at, teller)
        await at.found(SHOP, capacity=5)
        await at.says(SHOP, PHONES[0], TEXT, push_name=NAME)
        await at.hears(PHONES[0], YOUR_TURN)
        await at.quiet()
        await of_tenants(room)
        await of_agents(room)
        await of_sessions(room, proxy)
        await at.quiet()
        await of_letters(room)
        await of_sends(room, tmp_path)
        await of_nobody(room)
        for command in {*leaves()} - LONG_RUNNING - room.commands:
            await room.tries(command)
        assert room.commands == {*leaves()} - LONG_RUNNING
        await asyncio.gather(*(while_away(room, command) for command in WHILE_AWAY))


async def of_tenants(room: Room) -> None:
    for words in (
        ("migrate",),
        ("metrics",),
        ("tenant", "add", 99, "--name", "outra", "--direct"),
        ("tenant", "list"),
        ("tenant", "pause", 99),
        ("tenant", "show", 99),
        ("tenant", "resume", 99),
        ("line", "show", SHOP),
        ("history", SHOP, PHONES[0]),
    ):
        await room.run(*words)
    assert "no conversation" in await room.run("history", SHOP, PHONES[1], ends=1)
    assert "no conversation" in await room.run("line", "close", SHOP, f"{PHONES[1]}@c.us", ends=1)
    await room.run("tenant", "add", SHOP, "--direct", ends=2)
    await room.run("check", ends=1)
    await room.run("line", "close", SHOP, PHONES[0])


async def of_agents(room: Room) -> None:
    chat = (SHOP, "lia", PHONES[0])
    for words, says in (
        (("queue", "set", SHOP, "two", "--max-length", 5, "--pull", "--session", f"user_{SHOP}"), "done"),
        (("queue", "list", SHOP), f"from user_{SHOP}"),
        (("agent", "add", SHOP, "lia", "--capacity", 2), "done"),
        (("agent", "online", SHOP, "lia"), "done"),
        (("agent", "list", SHOP), "serves 0 of 2"),
        (("agent", "transfer", *chat, "--to", "lia"), "is served by lia"),
        (("agent", "next", SHOP, "lia"), f"serves    {PHONES[0]}"),
        (("agent", "reply", *chat, "já vai"), "asked to send"),
        (("agent", "park", *chat), "is parked"),
        (("agent", "transfer", *chat, "--queue", "two", "--level", "urgent"), "is waiting in two"),
        (("line", "show", SHOP, "--queue", "two"), "urgent"),
        (("agent", "next", SHOP, "lia"), f"serves    {PHONES[0]}"),
        (("agent", "offline", SHOP, "lia"), "done"),
        (("line", "show", SHOP), "by lia"),
        (("agent", "close", *chat), "asked to close"),
        (("agent", "remove", SHOP, "lia"), "done"),
    ):
        assert says in await room.run(*words), words
    await room.run("agent", "add", SHOP, "leo")
    assert "leo is not online" in await room.run("agent", "next", SHOP, "leo", ends=1)
    assert "no agent" in await room.run("agent", "next", SHOP, "nobody", ends=1)
    assert "no agent" in await room.run("agent", "close", SHOP, "nobody", PHONES[0], ends=1)
    await room.run("agent", "transfer", SHOP, "leo", PHONES[0], "--force", "--queue", "two", ends=2)
    assert "no queue" in await room.run("agent", "transfer", *chat, "--queue", "none", ends=1)
    await room.run("agent", "transfer", *chat, ends=2)
    await room.run("agent", "add", SHOP, "lia", "--capacity", 101, ends=2)
    await room.run("queue", "set", SHOP, "two", "--max-length", -1, ends=2)


async def of_sessions(room: Room, proxy: ExitProxy) -> None:
    """Through exits that refuse, die and lie, at gateways that are away and that repeat everything."""
    named = (SHOP, "--session", f"user_{SHOP}_b")
    await room.run("session", "create", SHOP, "--alias", "b", "--exit", "br")
    await room.run("session", "create", SHOP, "--alias", "b", "--exit", "us", ends=2)
    await room.run("session", "create", SHOP, "--alias", "b", "--direct", ends=2)
    for fault in (Refuses(), Dead(), Claims("US")):
        proxy.fault(fault)
        await room.run("session", "start", *named, ends=1)
        proxy.mend()
    for status in (400, 422, 500):
        async with echo(status, SHAPES["exception" if status == 500 else "messages"]) as url:
            for verb in ("start", "show", "qr", "restart", "stop", "logout", "delete"):
                await room.run("session", verb, *named, ends=int(verb != "show"), WAHA_URL=url)
    async with echo(200, SHAPES["names"]) as url:
        await room.run("session", "start", *named, ends=1, WAHA_URL=url)
        await room.run("check", ends=1, WAHA_URL=url)
    room.at.waha.world.auto_scan = False
    for verb in ("start", "show", "qr", "restart", "stop", "start", "logout", "delete"):
        await room.run("session", verb, *named)
    await room.run("session", "list", SHOP)


async def of_sends(room: Room, folder: Path) -> None:
    """What is said in a message is not said by who takes it, and a refusal repeats none of it."""
    to, file = (SHOP, PHONES[0]), folder / "nota.pdf"
    file.write_bytes(b"%PDF-1.7 " + TEXT.encode())
    for words in (
        ("text", TEXT),
        ("image", "--url", f"https://example.com/{PASSWORD}", "--caption", TEXT),
        ("file", "--file", file),
        ("contact", NAME, PHONES[1]),
        ("poll", TEXT, "a", "b"),
        ("location", "1.5", "-2.5", "--title", TEXT),
        ("seen",),
        ("typing",),
    ):
        await room.run("send", *to, *words)
    for words, ends in (
        (("poll", TEXT, TEXT), 2),
        (("contact", NAME, f"{PHONES[1]}x"), 2),
        (("reaction", "3EB0", TEXT), 2),
        (("edit", "3EB0", TEXT), 2),
        (("delete", f"true_{PHONES[0]}@c.us_3EB0"), 2),
        (("image", "--url", f"https://wsm:{PASSWORD}@example.com/"), 2),
        (("image", "--url", f"http://127.0.0.1/{PASSWORD}"), 2),
        (("voice", "--file", file), 2),
        (("video", "--stored", "99"), 1),
        (("text", TEXT, "--key", f"{TEXT}\n"), 2),
        (("reply", "3EB0", TEXT), 2),
    ):
        await room.run("send", *to, *words, ends=ends)
    await room.run("media", "add", SHOP, file)
    await room.run("media", "list", SHOP)
    await room.run("media", "add", SHOP, folder / "nowhere", ends=2)


async def of_letters(room: Room) -> None:
    body = b'{"event":"message.any","session":"s","payload":"%s %s"}' % (TEXT.encode(), PHONES[0].encode())
    async with opened(room.at.ground.servers.redis_url) as (handover, redis):
        await handover.accept([Misfit("default", "nobody", "session_unmapped", START_MS, body)])
        letter = {"entry": "7-0", "reason": "boom", "session": "s", "origin": "waha", "at": "1", "body": body}
        for _ in range(2):
            await redis.xadd(keys.dead(SHOP), letter)
        await redis.sadd(keys.DEAD, str(SHOP))
    for verb, ids in (("list", ()), ("show", await ids_of(room, "quarantine", "list")), ("drop", ("--all",))):
        await room.run("quarantine", verb, *ids)
    one, two = await ids_of(room, "dead", "list", SHOP)
    await room.run("dead", "list")
    await room.run("dead", "show", SHOP, one, two)
    await room.run("dead", "show", SHOP, "7-0", ends=1)
    await room.run("dead", "drop", SHOP, one)
    await room.run("dead", "replay", SHOP, two)


async def ids_of(room: Room, *words: object) -> tuple[str, ...]:
    """The first word of each line that a list shows."""
    return tuple(line.split()[0] for line in (await room.run(*words)).splitlines())


async def while_away(room: Room, command: str) -> None:
    """Run a command, as a process, while what it needs is away: it says so, and not by which password."""
    environ = {**os.environ, **AWAY}
    done = await asyncio.to_thread(wsm, room.at.ground.home, *command.split(), environ=environ)
    assert done.returncode == 1, command
    check_silent(room.at, command, done.stdout + done.stderr)


async def of_nobody(room: Room) -> None:
    """What only the sandbox has."""
    await room.run("sandbox", "say", f"user_{SHOP}", PHONES[0], TEXT)
    await room.run("sandbox", "inbox", PHONES[0])
    await room.run("sandbox", "fault", "too_many", "--phone", PHONES[0], "--retry-after", "7", "--times", "2")
    [fault] = (await room.at.phone.status())["faults"]
    assert (fault["kind"], fault["phone"]) == ("too_many", PHONES[0])
    assert (fault["retry_after"], fault["times"]) == ("7", 2)
    await room.at.phone.clear_faults()
