"""A provider of exits on this machine, its check service, and a WAHA behind them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from wsm.config import WahaServer
from wsm.core.exits import Pool
from wsm.core.ids import DEFAULT_SERVER
from wsm.gateway.waha import Gateways
from wsm.sandbox.exits import ExitProxy, Whoami, can_tell_exits
from wsm.sandbox.waha.server import WahaSandbox

PASSWORD = "CANARY-password"

needs_exits = pytest.mark.skipif(
    not can_tell_exits(), reason="this machine's loopback has one address: nobody can be told from another"
)


class Behind(msgspec.Struct):
    """What stands there. pool: the provider's, under the name `br`."""

    proxy: ExitProxy
    whoami: Whoami
    waha: WahaSandbox
    pool: Pool
    gateways: Gateways

    def address_of(self, identity: str) -> str:
        """Where an identity of the pool comes out."""
        return self.proxy.exit_of(f"acme-country-br-session-{identity}")


@asynccontextmanager
async def behind_exits(
    *, route: str = "public", hosts: Mapping[str, str] | None = None, **waha_has: Any
) -> AsyncIterator[Behind]:
    """Run it. route: of the WAHA server; hosts: names that exits know; waha_has: options of the sandbox's."""
    async with (
        ExitProxy(password=PASSWORD, hosts=hosts) as proxy,
        Whoami(proxy.country_of) as whoami,
        WahaSandbox(**waha_has) as waha,
    ):
        pool = Pool(
            provider="generic",
            endpoint=f"127.0.0.1:{proxy.port}",
            username="acme",
            password=PASSWORD,
            check_url=whoami.url,
        )
        server = WahaServer(url=waha.base_url, api_key=waha.api_key, route=route)  # type: ignore[arg-type]
        gateways = Gateways({DEFAULT_SERVER: server}, {"br": pool}, send_timeout_seconds=5)
        try:
            yield Behind(proxy, whoami, waha, pool, gateways)
        finally:
            await gateways.aclose()
