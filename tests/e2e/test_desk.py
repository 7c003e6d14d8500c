"""Who looks after a fleet at his desk: pauses, dead letters and the quarantine, by command."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from e2e.telling import wsm
from e2e.town import YOUR_TURN, Ground, customers, town
from mailboxes import START_MS, claim_one, failing, offer, opened, sweep
from wsm.core.ids import TenantId
from wsm.sandbox.site import PROCESSES
from wsm.streams.handover import Misfit

SHOP, OTHER = TenantId(1460561546), TenantId(1460561547)
Desk = Callable[..., str]


def desk(folder: Path, urls: Mapping[str, str]) -> Desk:
    """Return the command, which must end as told, with what it writes there."""

    def run(*words: object, ends: int = 0) -> str:
        done = wsm(folder, *map(str, words), environ=urls)
        assert done.returncode == ends, done.stderr
        return done.stderr if ends else done.stdout

    return run


async def test_a_paused_tenant_waits_through_restarts_and_his_neighbour_does_not(ground: Ground) -> None:
    async with town(ground) as at:
        await at.found(SHOP)
        await at.found(OTHER)
        urls = {
            "REDIS_URL": ground.servers.redis_url,
            "WSM_SYSTEM_DATABASE_URL": ground.database.system_url,
        }
        run = desk(ground.home, urls)
        [a], [b] = customers(1), customers(1, shop=2)
        assert run("tenant", "pause", SHOP, "--reason", "moves house") == f"tenant {SHOP} is paused\n"
        await at.says(SHOP, a, "oi")
        await at.says(OTHER, b, "oi")
        await at.hears(b, YOUR_TURN)
        for name in PROCESSES:
            await at.site.supervisor.kill(name)
        await asyncio.to_thread(ground.servers.valkey.restart)
        await at.site.supervisor.ready()
        await at.says(OTHER, b, "alô")
        await at.until("select count(*) = 2 from messages where author = 'customer'")
        assert await at.value("select count(*) from messages where tenant_id = %s", SHOP) == 0
        shown = run("tenant", "show", SHOP)
        assert "paused since" in shown
        assert "moves house" in shown
        assert "1 entries" in shown
        listed = run("tenant", "list").splitlines()
        assert [("moves house" in line, "runs" in line) for line in listed] == [(True, False), (False, True)]
        assert run("tenant", "resume", SHOP) == f"tenant {SHOP} goes on\n"
        await at.hears(a, YOUR_TURN)
        await at.quiet()
        await at.check_nothing_lost()
        await at.check_sent_once()


def test_dead_letters_are_listed_without_their_text_and_shown_replayed_and_dropped_by_name(
    redis_url: str, tmp_path: Path
) -> None:
    asyncio.run(_three_dead(redis_url))
    run = desk(tmp_path, {"REDIS_URL": redis_url})
    assert run("dead", "list") == f"{SHOP:<20} 3\n"
    lines = run("dead", "list", SHOP).splitlines()
    assert all("message.any" in line and "boom" in line and " bytes" in line for line in lines)
    assert "segredo" not in "".join(lines)
    one, two, three = (line.split()[0] for line in lines)
    assert "segredo 2" in run("dead", "show", SHOP, two)
    assert "ID: name the letters" in run("dead", "drop", SHOP, ends=2)
    assert "ID: name the letters" in run("dead", "replay", SHOP, one, "--all", ends=2)
    assert "looks like" in run("dead", "show", SHOP, "all", ends=2)
    assert run("dead", "show", SHOP, "7-0", ends=1) == "wsm: there is no 7-0\n"

    dropped = wsm(tmp_path, "dead", "drop", str(SHOP), one, environ={"REDIS_URL": redis_url})
    assert dropped.stdout == "1 dropped\n"
    line = json.loads(dropped.stderr)
    assert (line["event"], line["tenant"], line["ids"]) == ("dead_letters_dropped", SHOP, [one])
    run("tenant", "pause", SHOP)
    returned = run("dead", "replay", SHOP, "--all")
    assert returned == "2 returned to the mailbox; it waits, for the tenant is paused\n"
    assert run("dead", "list") == run("dead", "list", SHOP) == "there are no dead letters\n"
    assert "2 entries" in run("tenant", "show", SHOP)
    assert three


async def _three_dead(redis_url: str) -> None:
    async with opened(redis_url) as (handover, _):
        for number in range(1, 4):
            body = json.dumps({"event": "message.any", "session": "s", "payload": f"segredo {number}"})
            await handover.accept([offer(body.encode(), SHOP)])
        now_ms = START_MS
        for _ in range(15):
            bell = await claim_one(handover, now_ms)
            await handover.finish(bell, parked=failing(bell), now_ms=now_ms)
            now_ms += 130_000
            await sweep(handover, now_ms)


def test_the_quarantine_is_listed_without_what_it_says_and_emptied_by_name(
    redis_url: str, tmp_path: Path
) -> None:
    async def fill() -> None:
        async with opened(redis_url) as (handover, _):
            body = b'{"event":"message","session":"nobody","payload":"segredo"}'
            await handover.accept([Misfit("default", "nobody", "session_unknown", START_MS, body)] * 2)

    asyncio.run(fill())
    run = desk(tmp_path, {"REDIS_URL": redis_url})
    lines = run("quarantine", "list").splitlines()
    assert all("nobody" in line and "session_unknown" in line for line in lines)
    assert "segredo" not in "".join(lines)
    one, _ = (line.split()[0] for line in lines)
    assert "segredo" in run("quarantine", "show", one)
    assert run("quarantine", "drop", one) == "1 dropped\n"
    assert run("quarantine", "drop", "--all") == "1 dropped\n"
    assert run("quarantine", "list") == "the quarantine is empty\n"


def test_nothing_that_a_stranger_wrote_is_obeyed_by_the_terminal(redis_url: str, tmp_path: Path) -> None:
    async def fill() -> None:
        async with opened(redis_url) as (handover, _):
            body = json.dumps(
                {"event": "x\x1b[2J", "session": "n\nm", "payload": "\x9b2J\u202e"}, ensure_ascii=False
            )
            misfit = Misfit(
                "default", "no\x1b]0;body\x07\n1-1 more", "session_unmapped", START_MS, body.encode()
            )
            await handover.accept([misfit])

    asyncio.run(fill())
    run = desk(tmp_path, {"REDIS_URL": redis_url})
    [line] = run("quarantine", "list").splitlines()
    for shown in (line, run("quarantine", "show", line.split()[0])):
        assert not {*shown} & {*"\x1b\x07\x9b\u202e"}
