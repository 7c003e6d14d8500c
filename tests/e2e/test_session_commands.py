"""A tenant's number by command, from nothing to a customer who is served through it and its own exit."""

import asyncio
from pathlib import Path

from behind_exits import PASSWORD, needs_exits
from e2e.telling import wsm
from e2e.town import YOUR_TURN, Ground, customers, town
from wsm.core.ids import TenantId
from wsm.sandbox.exits import ExitProxy, Whoami, direct

pytestmark = needs_exits

SHOP = TenantId(1460561546)
POOL = """
[exits.br]
provider = "decodo"
endpoint = "127.0.0.1:{port}"
username = "acme"
password = "{password}"
check_url = "{check_url}"
"""


async def test_a_session_made_by_command_serves_a_customer(ground: Ground, tmp_path: Path) -> None:
    async with town(ground) as at, ExitProxy(password=PASSWORD) as proxy, Whoami(proxy.country_of) as whoami:
        await at.found(SHOP)
        settings = tmp_path / "wsm.toml"
        settings.write_text(POOL.format(port=proxy.port, password=PASSWORD, check_url=whoami.url))
        environ = {
            **at.site.environ,
            "WSM_CONFIG": str(settings),
            "WSM_WEBHOOKS_URL": at.site.webhooks_url,
        }
        name = f"user_{SHOP}_b"

        async def run(*words: object, ends: int = 0) -> str:
            done = await asyncio.to_thread(wsm, ground.home, *map(str, words), environ=environ)
            assert done.returncode == ends, done.stderr
            assert PASSWORD not in done.stdout + done.stderr
            return done.stderr if ends else done.stdout

        made = await run("session", "create", SHOP, "--alias", "b", "--exit", "br")
        assert made == f"{name} is made and stopped\n"
        assert "exists" in await run("session", "create", SHOP, "--alias", "b", "--direct", ends=2)
        assert "no pool named 'us'" in await run("session", "create", SHOP, "--exit", "us", ends=2)
        await run("session", "start", SHOP, "--session", name)

        [who] = customers(1)
        await at.phone.say(name, who, "oi")
        await at.hears(who, YOUR_TURN)
        shown = await run("session", "show", SHOP, "--session", name)
        identity = next(iter(proxy.seen)).identity
        assert identity is not None
        assert f"user-acme-country-br-session-{identity.split('-')[5]}-sessionduration-30" == identity
        assert "WORKING" in shown
        assert f"br  {proxy.exit_of(identity)} br" in shown
        assert direct(whoami.peers, proxy) == []

        await run("session", "stop", SHOP, "--session", name)
        listed = await run("session", "list", SHOP)
        assert [("should be stopped" in line) for line in listed.splitlines()] == [False, True]
        await at.quiet()
        await at.check_sent_once()
