"""What a WAHA server was started with, as far as logins and exits depend on it.

The call that tells it (CONTRACT 7.7) is for the administrator's key, and answers every setting in clear: keys
and passwords too. Of that only `Habits` leaves this module: which names are set, no value.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

from wsm.config import WahaServer
from wsm.core.errors import GatewayUnavailable
from wsm.core.ids import ServerName
from wsm.gateway import client
from wsm.gateway.server import Call, Server

_SECONDS = 20.0
_OFF = frozenset({"", "0", "false", "n", "no", "off"})
_CALL = Call(op="environment", method="GET", path="/api/server/environment", seconds=_SECONDS, changes=False)


class Store(StrEnum):
    """Where a WAHA keeps its sessions and their logins."""

    POSTGRESQL = "PostgreSQL"
    MONGODB = "MongoDB"
    FILES = "files"


_STORES: Mapping[Store, str] = MappingProxyType(
    {
        Store.POSTGRESQL: "WHATSAPP_SESSIONS_POSTGRESQL_URL",
        Store.MONGODB: "WHATSAPP_SESSIONS_MONGO_URL",
    }
)


class Habits(msgspec.Struct, frozen=True):
    """How a WAHA treats its sessions.

    starts_all       it starts every stored session, whosever it is
    has_worker_id    sessions are assigned to it by name
    has_namespace    where its sessions lie does not depend on its engine
    has_proxy        a session without an exit of its own leaves through one that is everybody's
    """

    store: Store
    starts_all: bool
    has_worker_id: bool
    has_namespace: bool
    has_proxy: bool


async def look(name: ServerName, configured: WahaServer) -> Habits:
    """Ask a server whose route is private. Blocks for half a minute at most.

    Raises GatewayUnavailable when it is not reached, answers something else, or has a public route: no exit
    of a session's is for this. GatewayRefused with 401 or 403 when the key is no administrator's, with 404
    when this WAHA has no such call.
    """
    if configured.route != "private":
        raise GatewayUnavailable("only the exits of its sessions lead there")
    server = Server(name)
    async with client.build(
        configured.url, api_key=configured.api_key, way=None, tls=client.tls_context()
    ) as http:
        answer = (await server.ask(http, _CALL)).json()
    if not isinstance(answer, dict):
        raise GatewayUnavailable("unreadable answer")
    return habits(answer)


def habits(environ: Mapping[str, object]) -> Habits:
    """Read what is set. An empty value is none; WAHA's switches are off when they say so."""

    def is_set(*names: str) -> bool:
        return any(str(environ.get(name) or "").strip() for name in names)

    store = next((store for store, url in _STORES.items() if is_set(url)), Store.FILES)
    restarts = str(environ.get("WHATSAPP_RESTART_ALL_SESSIONS") or "").strip().lower()
    return Habits(
        store=store,
        starts_all=restarts not in _OFF,
        has_worker_id=is_set("WAHA_WORKER_ID"),
        has_namespace=is_set("WAHA_NAMESPACE", "WAHA_SESSION_NAMESPACE"),
        has_proxy=is_set("WHATSAPP_PROXY_SERVER", "WHATSAPP_PROXY_SERVER_LIST"),
    )
