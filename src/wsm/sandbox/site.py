"""A complete wsm on one machine: the embedded servers, a WAHA that answers locally, and every process.

The story, `wsm up` and the end-to-end tests run on it. What other commands need to find it stands in
`home/site`, readable for the owner alone, as long as it runs; its secrets are made once per home.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import httpx
import msgspec

from wsm.bootstrap import opened, sessions
from wsm.config import load, master_key
from wsm.core.errors import NotFound, Unavailable
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName, TenantId
from wsm.core.notices import Policy
from wsm.sandbox.embedded import Embedded, running
from wsm.sandbox.supervisor import Child, Supervisor, free_ports, wsm_child
from wsm.sandbox.waha.control import Phone
from wsm.store import fleet
from wsm.store.database import Database
from wsm.store.migrate import migrate
from wsm.wire.signature import session_secret, sign

WORKERS = ("worker-1", "worker-2")
PROCESSES = ("ingest", "clock", *WORKERS)
WAHA_STATE = "waha"
"""The file in a home that keeps what the sandbox WAHA's volume would keep."""

_FILE = "site"
_GENERATION = 1
_KNOWN_SECONDS = 15.0

UNPACED = (
    "gap_seconds = 0, contact_gap_seconds = 0, ramp_seconds = 0, typing = false, first_gap_seconds = [0, 0], "
    "reply_per_minute = 1_000_000, reply_per_day = 1_000_000, contact_automated_per_day = 1_000, "
    "per_minute = 1_000_000, per_hour = 1_000_000, per_day = 1_000_000, "
    "first_contacts = true, first_on_first_day = 1_000_000, "
    "campaign_hours = [0, 24], campaign_weekdays = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'], "
    "same_text_contacts = 1_000_000, loop_messages = 1_000_000, loop_repeats = 1_000_000"
)
"""The pace towards a WAHA that nobody bans: no pauses, no limits. Demonstrations and tests name it."""

AT_ONCE = Policy(every=0)
"""Nobody waits two minutes to see a line move."""


class Site:
    """A running site.

    environ     the settings of its processes, as environment variables
    ops_urls    where each of `PROCESSES` answers /healthz, /readyz and /metrics
    supervisor  keeps the processes, and the sandbox `waha` unless a real one is used
    """

    def __init__(
        self,
        servers: Embedded,
        environ: Mapping[str, str],
        ops_urls: Mapping[str, str],
        supervisor: Supervisor,
    ) -> None:
        self.servers = servers
        self.environ = environ
        self.ops_urls = ops_urls
        self.supervisor = supervisor
        self.settings = load(environ)

    @property
    def webhooks_url(self) -> str:
        """Where WAHA posts to."""
        return self.settings.webhooks_url

    @property
    def waha_url(self) -> str:
        """Where its WAHA answers."""
        return self.settings.waha[DEFAULT_SERVER].url

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Open the database as the application's role."""
        async with opened(Database(self.settings.database_url, connections=2)) as database:
            yield database

    async def found(self, tenant: TenantId, name: str, *, capacity: int = 1) -> SessionName:
        """Make a tenant with a session that works: in the database, at the gateway, in the directory."""
        address = SessionAddress(tenant, SessionName(f"user_{tenant}"))
        async with opened(Database(self.settings.system_database_url, connections=1)) as database:
            await fleet.add_tenant(database, tenant, name=name, locale="pt-BR", capacity=capacity)
            await fleet.set_notices(database, tenant, AT_ONCE)
            await fleet.add_session(
                database,
                address,
                server=DEFAULT_SERVER,
                alias="",
                kid=self.settings.master_key_id,
                desired="stopped",
            )
        await self.link(address)
        return address.session

    def secret(self, address: SessionAddress) -> str:
        """Return what WAHA signs a session's webhooks with."""
        key = master_key(self.settings, self.settings.master_key_id)
        return session_secret(key, address, _GENERATION)

    async def link(self, address: SessionAddress) -> None:
        """Start a session at the gateway, as soon as ingest knows it. Safe to repeat."""
        await self.known(address)
        async with sessions(self.settings) as control:
            await control.start(address)

    async def known(self, address: SessionAddress) -> None:
        """Wait until ingest has a session in its directory.

        A signed body without an event is refused with 400 by an address that is known, with 403 by one that
        is not, and written nowhere.
        """
        url = f"{self.webhooks_url}/{address.tenant}/{address.session}"
        headers = {"X-Webhook-Hmac": sign(self.secret(address), b"{}")}
        plain = httpx.AsyncClient(trust_env=False, verify=False)  # noqa: S501 (http, on this machine)
        async with plain as client, asyncio.timeout(_KNOWN_SECONDS):
            while True:
                answer = await client.post(url, content=b"{}", headers=headers)
                if answer.status_code == HTTPStatus.BAD_REQUEST:
                    return
                await asyncio.sleep(0.1)


@asynccontextmanager
async def site(
    servers: Embedded,
    home: Path,
    *,
    real_waha: Mapping[str, str] | None = None,
    changed: Mapping[str, str] | None = None,
    dressed: Callable[[Child], Child] | None = None,
) -> AsyncIterator[Site]:
    """Run every process on started `servers` and wait until all can work.

    real_waha  WAHA_URL and WAHA_API_KEY of a WAHA to use instead of the sandbox
    changed    settings that differ, as `WSM_…` variables
    dressed    makes of each of wsm's processes what is run in its place

    Raises Unavailable with the end of a process' log when it does not become ready.
    """
    await migrate(servers.database_url())
    port, waha_port, *ops_ports = free_ports(2 + len(PROCESSES))
    ops = dict(zip(PROCESSES, ops_ports, strict=True))
    environ = {**_settings(servers, home, port), **(changed or {})}
    children = []
    if real_waha:
        environ |= real_waha
    else:
        environ = {"WSM_PACE": UNPACED, **environ, "WAHA_URL": f"http://127.0.0.1:{waha_port}"}
        children.append(_waha(home, waha_port, environ["WAHA_API_KEY"]))
    for name, ops_port in ops.items():
        command = "worker" if name in WORKERS else name
        child = wsm_child(command, settings=environ, ops_port=ops_port, alias=name)
        children.append(dressed(child) if dressed else child)
    ops_urls = {name: f"http://127.0.0.1:{ops_port}" for name, ops_port in ops.items()}
    async with Supervisor(children, logs=home / "log") as supervisor:
        await supervisor.ready()
        _write_private(home / _FILE, msgspec.json.encode(environ))
        try:
            yield Site(servers, environ, ops_urls, supervisor)
        finally:
            (home / _FILE).unlink(missing_ok=True)


def settings_of_running(homes: Path) -> dict[str, str]:
    """Return the settings of the site that runs in a home below `homes`. Raises NotFound."""
    for home in (homes / "story", homes / "up"):
        with suppress(NotFound, OSError):
            running(home)  # what a crashed run has left does not count
            return msgspec.json.decode((home / _FILE).read_bytes(), type=dict[str, str])
    raise NotFound(f"REDIS_URL is not set, and nothing runs in {homes}")


@asynccontextmanager
async def phone_at(url: str) -> AsyncIterator[Phone]:
    """Open a phone for the sandbox WAHA at `url`. Raises Unavailable when none answers there."""
    try:
        async with Phone(url) as phone:
            yield phone
    except httpx.HTTPError as exc:
        raise Unavailable(f"no sandbox answers at {url}: {type(exc).__name__}") from exc


def _settings(servers: Embedded, home: Path, port: int) -> dict[str, str]:
    kept = home / "secrets"
    if not kept.exists():
        made = {"master": secrets.token_hex(32), "api_key": secrets.token_urlsafe(24)}
        _write_private(kept, msgspec.json.encode(made))
    secret = msgspec.json.decode(kept.read_bytes(), type=dict[str, str])
    return {
        "REDIS_URL": servers.redis_url,
        "DATABASE_URL": servers.database_url("wsm_app"),
        "WSM_SYSTEM_DATABASE_URL": servers.database_url("wsm_system"),
        "WSM_MASTER_KEYS": f"k1:{secret['master']}",
        "WSM_MASTER_KEY_ID": "k1",
        "WSM_PORT": str(port),
        "WSM_WEBHOOKS_URL": f"http://127.0.0.1:{port}/webhooks/waha",
        "WSM_DRAIN_SECONDS": "5",
        "WAHA_API_KEY": secret["api_key"],
    }


def _waha(home: Path, port: int, api_key: str) -> Child:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("WSM_", "WAHA_"))}
    command = (sys.executable, "-X", "utf8", "-m", "wsm", "sandbox", "serve", "--port", str(port))
    return Child(
        name="waha",
        command=(*command, "--state", str(home / WAHA_STATE)),
        environ={**environ, "WAHA_API_KEY": api_key},
        ready_url=f"http://127.0.0.1:{port}/ping",
    )


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
        file.write(content)
    part.replace(path)
