"""A town that can be broken: Redis, PostgreSQL and WAHA stand behind a relay each."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from chaos.cables import Cable
from e2e.town import Ground, Town
from wsm.core.ids import TenantId
from wsm.sandbox.servers import POSTGRES_PORT
from wsm.sandbox.site import UNPACED, site
from wsm.sandbox.supervisor import Child
from wsm.sandbox.waha import Engine, Tempo, WahaSandbox
from wsm.sandbox.waha.control import Phone
from wsm.sandbox.waha.webhooks import Attempt, unwatched

TEMPO = Tempo(waits=0.05, retries=0.02)
SETTINGS = {
    "WSM_RETRY_AFTER_SECONDS": "1",
    "WSM_SEND_TIMEOUT_SECONDS": "2",
    "WSM_EVIDENCE_SECONDS": "6",
    "WSM_ACCEPT_TIMEOUT_SECONDS": "1",
}
"""Evidence comes later than any call can still have an effect, as 180 s do with a real WAHA."""

Dress = Callable[[Child], Child]


class Stand(msgspec.Struct, frozen=True):
    """A town and the cables that it hangs on: redis, postgres, gateway."""

    town: Town
    cables: Mapping[str, Cable]


@asynccontextmanager
async def stand(
    ground: Ground,
    tenants: Iterable[TenantId],
    *,
    capacity: int,
    changed: Mapping[str, str] | None = None,
    dressed: Dress | None = None,
    watch: Callable[[Attempt], None] = unwatched,
) -> AsyncIterator[Stand]:
    """Run a site behind cables and found the tenants.

    changed  settings that differ, as `WSM_…` variables
    dressed  makes of each of wsm's processes what is run in its place
    watch    is told of every attempt of WAHA's
    """
    async with AsyncExitStack() as stack:
        sockets = Path(tempfile.mkdtemp(prefix="wsm-cables-"))
        stack.callback(shutil.rmtree, sockets)
        waha = await stack.enter_async_context(WahaSandbox(engine=Engine.GOWS, tempo=TEMPO))
        waha.courier.watch = watch
        phone = await stack.enter_async_context(Phone(waha.base_url))
        services = ground.servers.services
        name = f".s.PGSQL.{POSTGRES_PORT}"
        at = urlsplit(waha.base_url)
        cables = {
            "redis": Cable(sockets / "redis", Path(services.redis_socket)),
            "postgres": Cable(sockets / name, Path(services.postgres_sockets) / name),
            "gateway": Cable(("127.0.0.1", 0), (str(at.hostname), int(at.port or 0))),
        }
        where = {}
        for word, cable in cables.items():
            where[word] = await cable.open()
            stack.push_async_callback(cable.aclose)

        def through(url: str) -> str:
            return url.replace(quote(services.postgres_sockets, safe=""), quote(str(sockets), safe=""))

        host, port = where["gateway"]  # type: ignore[misc]  # it is a pair: the gateway's is TCP
        own = {
            "REDIS_URL": f"unix://{quote(str(sockets / 'redis'))}",
            "DATABASE_URL": through(ground.database.app_url),
            "WSM_SYSTEM_DATABASE_URL": through(ground.database.system_url),
            "WSM_PACE": UNPACED,
            **SETTINGS,
            **(changed or {}),
        }
        real = {"WAHA_URL": f"http://{host}:{port}", "WAHA_API_KEY": waha.api_key}
        running = await stack.enter_async_context(
            site(ground.servers, ground.home, real_waha=real, changed=own, dressed=dressed)
        )
        found = Town(ground, running, waha, phone)
        await asyncio.gather(*(found.found(tenant, capacity=capacity) for tenant in tenants))
        yield Stand(found, cables)
