"""`wsm check`: what is said of a WAHA that would lose logins, and that nothing of its settings is."""

import asyncio
from pathlib import Path

import pytest

from e2e.telling import wsm
from receiver import Receiver, Reply
from wahastage import KEY
from wsm.config import WahaServer
from wsm.control.servers import Verdict, check
from wsm.core.ids import ServerName
from wsm.sandbox.waha import WahaSandbox

MAIN = ServerName("main")
CANARY = "CANARYVALUE"
WELL = {
    "WHATSAPP_SESSIONS_POSTGRESQL_URL": f"postgresql://waha:{CANARY}@postgres/waha",
    "WAHA_WORKER_ID": CANARY,
    "WAHA_NAMESPACE": CANARY,
    "WAHA_API_KEY": CANARY,
    "WHATSAPP_HOOK_HMAC_KEY": CANARY,
    "WHATSAPP_RESTART_ALL_SESSIONS": "False",
    "WHATSAPP_PROXY_SERVER": "",
}


async def said_of(environ: dict[str, str], *, key: str = KEY, route: str = "private") -> Verdict:
    """Check one server that was started with these."""
    async with WahaSandbox(api_key=KEY, environ=environ) as waha:
        url = waha.base_url if route == "private" else "https://127.0.0.1:9"
        server = WahaServer(url=url, api_key=key, route=route)  # type: ignore[arg-type]
        [verdict] = await check({MAIN: server})
    assert CANARY not in repr(verdict)
    assert KEY not in repr(verdict)
    return verdict


async def test_a_server_with_a_database_and_a_name_of_its_own_is_well() -> None:
    assert await said_of(WELL) == Verdict(MAIN, "sessions in PostgreSQL")


async def test_logins_in_files_are_warned_of() -> None:
    verdict = await said_of({**WELL, "WHATSAPP_SESSIONS_POSTGRESQL_URL": " "})
    assert verdict.says.startswith("sessions in files under /app/.sessions")
    assert verdict.warnings == ("a new container loses every login, unless these files are on a volume",)


@pytest.mark.parametrize(
    ("changed", "warning"),
    [
        ({"WHATSAPP_RESTART_ALL_SESSIONS": "True"}, "WHATSAPP_RESTART_ALL_SESSIONS is on"),
        ({"WHATSAPP_RESTART_ALL_SESSIONS": "1"}, "WHATSAPP_RESTART_ALL_SESSIONS is on"),
        ({"WAHA_WORKER_ID": ""}, "WAHA_WORKER_ID is not set"),
        ({"WAHA_NAMESPACE": ""}, "WAHA_NAMESPACE is not set"),
        ({"WHATSAPP_PROXY_SERVER": CANARY}, "a proxy for all sessions is set"),
        ({"WHATSAPP_PROXY_SERVER_LIST": f"{CANARY},{CANARY}"}, "a proxy for all sessions is set"),
    ],
)
async def test_what_mixes_sessions_up_is_warned_of(changed: dict[str, str], warning: str) -> None:
    [warned] = (await said_of({**WELL, **changed})).warnings
    assert warned.startswith(warning)


async def test_alone_with_its_files_a_server_needs_no_name_and_may_start_all() -> None:
    verdict = await said_of({"WHATSAPP_RESTART_ALL_SESSIONS": "True", "WAHA_SESSION_NAMESPACE": "all"})
    assert len(verdict.warnings) == 1
    mongo = await said_of(
        {**WELL, "WHATSAPP_SESSIONS_POSTGRESQL_URL": "", "WHATSAPP_SESSIONS_MONGO_URL": CANARY}
    )
    assert mongo.says == "sessions in MongoDB"
    assert len(mongo.warnings) == 1


async def test_a_key_that_may_not_ask_is_said_to_be_no_administrators() -> None:
    verdict = await said_of(WELL, key="another")
    assert verdict.says == "forbidden"
    assert "administrator" in verdict.warnings[0]
    async with Receiver(Reply(404)) as old:
        [verdict] = await check({MAIN: WahaServer(url=old.url, api_key=KEY)})
    assert verdict.says == "unknown"
    async with Receiver(Reply(403)) as refusing:
        [verdict] = await check({MAIN: WahaServer(url=refusing.url, api_key=KEY)})
    assert verdict.says == "forbidden"


async def test_one_that_is_away_or_answers_something_else_is_said_to_be_so() -> None:
    async with Receiver(Reply(200)) as strange:
        servers = {
            MAIN: WahaServer(url="http://127.0.0.1:9", api_key=KEY),
            ServerName("strange"): WahaServer(url=strange.url, api_key=KEY),
        }
        away, odd = await check(servers)
    assert (away.says, odd.says) == ("not reached", "not reached")
    assert away.warnings == ("not reached: ConnectError",)
    assert odd.warnings == ("unreadable answer",)


async def test_a_server_that_only_exits_lead_to_is_not_asked() -> None:
    verdict = await said_of(WELL, route="public")
    assert verdict == Verdict(MAIN, "not asked: only the exits of its sessions lead there")


async def test_the_command_ends_with_1_when_it_warns(tmp_path: Path) -> None:
    async with WahaSandbox(api_key=KEY, environ=WELL) as waha:
        environ = {"REDIS_URL": "redis://nowhere", "WAHA_URL": waha.base_url, "WAHA_API_KEY": KEY}
        well = await asyncio.to_thread(wsm, tmp_path, "check", environ=environ)
        ill = await asyncio.to_thread(wsm, tmp_path, "check", environ={**environ, "WAHA_API_KEY": "another"})
        none = await asyncio.to_thread(wsm, tmp_path, "check", environ={"REDIS_URL": "redis://nowhere"})
    assert (well.returncode, well.stdout, well.stderr) == (0, "default      sessions in PostgreSQL\n", "")
    assert ill.returncode == 1
    assert ill.stdout.splitlines()[0] == "default      forbidden"
    assert "warning: gateway answered 401: unauthorized" in ill.stdout
    assert none.returncode == 2
    assert CANARY not in well.stdout + ill.stdout + ill.stderr
