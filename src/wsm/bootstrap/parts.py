"""What more than one process is made of: the clock they decide by, the hand-over, a pool that is opened, and
what the settings say of servers and keys.
"""

import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from wsm.config import Settings, WahaServer
from wsm.core.errors import BadInput
from wsm.core.ids import DEFAULT_SERVER, ServerName

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from wsm.store.database import Database
    from wsm.streams.handover import Handover

REDIS_SECONDS = 5.0


def utc_now() -> datetime:
    """The wall clock that every process decides by."""
    return datetime.now(UTC)


def handover(settings: Settings, redis: "Redis") -> "Handover":
    """The hand-over of this process on `redis`."""
    from wsm.streams.handover import Handover, Limits  # noqa: PLC0415 (see the package's docstring)

    return Handover(
        redis,
        limits=Limits(
            tenant_entries=settings.mailbox_entries,
            tenant_bytes=settings.mailbox_bytes,
            all_bytes=settings.all_mailboxes_bytes,
            quarantine_entries=settings.quarantine_entries,
            quarantine_bytes=settings.quarantine_bytes,
            dead_letters=settings.dead_letters,
        ),
        lease_seconds=settings.lease_seconds,
        turn_entries=settings.turn_entries,
        wait_replicas=settings.wait_replicas,
    )


def capacities(settings: Settings) -> dict[ServerName, int]:
    """How many sessions each server may have; where the settings name none, there is the default one."""
    servers = settings.waha or {DEFAULT_SERVER: WahaServer()}
    return {ServerName(name): server.capacity for name, server in servers.items()}


def master_keys(settings: Settings) -> dict[str, bytes]:
    return {kid: bytes.fromhex(key) for kid, key in settings.master_keys.items()}


def waha_servers(settings: Settings) -> dict[ServerName, WahaServer]:
    return {ServerName(name): server for name, server in settings.waha.items()}


def process_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def require(settings: Settings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name):
            raise BadInput(name, "is needed here and not set")


@asynccontextmanager
async def opened(database: "Database") -> AsyncIterator["Database"]:
    """Open a pool, and close it at the end."""
    await database.open()
    try:
        yield database
    finally:
        await database.close()
