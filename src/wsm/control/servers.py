"""Whether the WAHA servers keep what they are trusted with: logins over a new container, sessions apart.

Nothing is changed, and nothing of a server's settings is said but which of them are there.
"""

from collections.abc import Mapping

import msgspec

from wsm.config import WahaServer
from wsm.core.errors import GatewayRefused, Unavailable
from wsm.core.ids import ServerName
from wsm.gateway import environment
from wsm.gateway.environment import Habits, Store

_NO_ADMINISTRATOR = frozenset({401, 403})


class Verdict(msgspec.Struct, frozen=True):
    """What there is to say of a server: what it is, and what somebody should change, if anything."""

    server: ServerName
    says: str
    warnings: tuple[str, ...] = ()


async def check(servers: Mapping[ServerName, WahaServer]) -> list[Verdict]:
    """Ask every server, one after the other. One that cannot be asked is a verdict, too."""
    return [await _of(name, server) for name, server in servers.items()]


async def _of(name: ServerName, server: WahaServer) -> Verdict:
    if server.route != "private":
        return Verdict(name, "not asked: only the exits of its sessions lead there")
    try:
        return Verdict(name, *judge(await environment.look(name, server)))
    except GatewayRefused as exc:
        if exc.status in _NO_ADMINISTRATOR:
            return Verdict(name, "forbidden", (f"{exc}: ask again with the administrator's key",))
        return Verdict(name, "unknown", (f"{exc}: look yourself where it keeps its sessions",))
    except Unavailable as exc:
        return Verdict(name, "not reached", (str(exc),))


def judge(its: Habits) -> tuple[str, tuple[str, ...]]:
    """Say where the sessions are kept, and what is wrong with that and with the rest (CONTRACT 8, 9)."""
    is_shared = its.store is not Store.FILES
    told = {
        "a new container loses every login, unless these files are on a volume": not is_shared,
        "MongoDB is not for the engine GOWS, and WAHA gives it up": its.store is Store.MONGODB,
        "WHATSAPP_RESTART_ALL_SESSIONS is on: it starts sessions of every other WAHA on that store": (
            is_shared and its.starts_all
        ),
        "WAHA_WORKER_ID is not set: after a restart it does not know which sessions are its own": (
            is_shared and not its.has_worker_id
        ),
        "WAHA_NAMESPACE is not set: with another engine it finds no session any more": not its.has_namespace,
        "a proxy for all sessions is set: one that lost its own exit would leave through that, unseen": (
            its.has_proxy
        ),
    }
    where = its.store if is_shared else "files under /app/.sessions, or where WAHA_LOCAL_STORE_BASE_DIR says"
    return f"sessions in {where}", tuple(text for text, holds in told.items() if holds)
