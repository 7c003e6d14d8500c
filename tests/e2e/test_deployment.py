"""The processes as deploy/compose.yaml starts them, elsewhere, with a WAHA that has one global hook."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from databases import Database
from waiting import wait_for
from wsm.core.ids import SessionAddress, SessionName, TenantId
from wsm.core.templates import DEFAULT_LOCALE, render
from wsm.sandbox.site import UNPACED
from wsm.sandbox.supervisor import Child, Supervisor, free_ports
from wsm.sandbox.waha.control import Phone
from wsm.sandbox.waha.server import WahaSandbox
from wsm.wire.signature import session_secret, sign

COMPOSE = Path(__file__).resolve().parents[2] / "deploy" / "compose.yaml"
TENANT, SESSION, CUSTOMER = "1460561546", "user_1460561546", "5511960000001"
MASTER_KEY = "ab" * 32
SECRETS = {
    "${WSM_MASTER_KEYS:?}": f"k1:{MASTER_KEY}",
    "${WEBHOOK_HMAC_SECRET:?}": "hook-secret",
    "${WAHA_API_KEY:?}": "sandbox-key",
}


def environment(services: dict[str, Any], name: str, addresses: dict[str, str]) -> dict[str, str]:
    """A service's settings, with the secrets filled in and every address replaced; nothing else is set."""
    given: dict[str, str] = services[name]["environment"]
    settings = {key: SECRETS.get(value, value) for key, value in given.items()}
    settings |= {key: value for key, value in addresses.items() if key in given}
    return {"PATH": os.environ["PATH"], **settings}


async def run(words: list[str], environ: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wsm", *words, env=environ, stdout=-1, stderr=-2
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def is_known(hook: str) -> bool:
    """Whether ingest has the session in its directory: a signed body without an event is then a 400."""
    address = SessionAddress(TenantId(int(TENANT)), SessionName(SESSION))
    signature = sign(session_secret(bytes.fromhex(MASTER_KEY), address, 1), b"{}")
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"{hook}/{TENANT}/{SESSION}"
        answer = await client.post(url, content=b"{}", headers={"X-Webhook-Hmac": signature})
    return answer.status_code == 400


async def test_what_compose_starts_serves_a_customer_through_the_shared_hook(
    redis_url: str, database: Database, tmp_path: Path
) -> None:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    port, *ops = free_ports(4)
    hook: dict[str, Any] = {
        "url": f"http://127.0.0.1:{port}/webhooks/waha",
        "events": services["waha"]["environment"]["WHATSAPP_HOOK_EVENTS"].split(","),
        "hmac": {"key": SECRETS[services["waha"]["environment"]["WHATSAPP_HOOK_HMAC_KEY"]]},
    }
    addresses = {
        "REDIS_URL": redis_url,
        "DATABASE_URL": database.app_url,
        "WSM_SYSTEM_DATABASE_URL": database.system_url,
        "WSM_PACE": UNPACED,
        "WSM_OWNER_DATABASE_URL": database.owner_url,
        "WSM_HOST": "127.0.0.1",
    }
    async with WahaSandbox(api_key=SECRETS["${WAHA_API_KEY:?}"], global_webhooks=[hook]) as waha:
        addresses["WAHA_URL"] = waha.base_url
        assert await run(services["migrate"]["command"], environment(services, "migrate", addresses)) == (
            "nothing to apply\n"
        )
        children = []
        for name, ops_port in zip(("ingest", "worker", "clock"), ops, strict=True):
            environ = environment(services, name, addresses | {"WSM_OPS_PORT": str(ops_port)})
            if name == "ingest":
                environ["WSM_PORT"] = str(port)
            command = (sys.executable, "-m", "wsm", *services[name]["command"])
            ready = f"http://127.0.0.1:{ops_port}/readyz"
            children.append(Child(name=name, command=command, environ=environ, ready_url=ready))
        async with Supervisor(children, logs=tmp_path / "log") as supervisor, Phone(waha.base_url) as phone:
            await supervisor.ready()
            words = ["tenant", "add", TENANT, "--name", "Padaria Aurora", "--direct"]
            added = await run(words, environment(services, "clock", addresses))
            assert added == f"webhook: /webhooks/waha/{TENANT}/{SESSION}\n"
            known: bool = await wait_for(lambda: is_known(hook["url"]))
            assert known
            async with httpx.AsyncClient(headers={"X-Api-Key": waha.api_key}, trust_env=False) as client:
                made = await client.post(
                    f"{waha.base_url}/api/sessions", json={"name": SESSION, "start": True}
                )
                assert made.is_success, made.text
            await wait_for(lambda: waha.world.sessions[SESSION].status == "WORKING")
            await phone.say(SESSION, CUSTOMER, "bom dia")

            inbox: list[dict[str, Any]] = await wait_for(lambda: phone.inbox(CUSTOMER), timeout=20)
            assert [message["text"] for message in inbox] == [render("turn", DEFAULT_LOCALE, {})]
