"""What a command opens, and closes at its end: a database, the mailboxes, what makes and moves sessions."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from wsm.bootstrap import parts
from wsm.config import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from wsm.control.moves import Moves
    from wsm.control.sessions import Sessions
    from wsm.store.database import Database
    from wsm.streams.handover import Handover


@asynccontextmanager
async def tenant_reads(settings: Settings) -> AsyncIterator["Database"]:
    """Open the database as the application's role, for a command that reads."""
    from wsm.store.database import Database  # noqa: PLC0415

    parts.require(settings, "database_url")
    async with parts.opened(Database(settings.database_url, connections=1)) as database:
        yield database


@asynccontextmanager
async def fleet_writes(settings: Settings) -> AsyncIterator["Database"]:
    """Open the database as the system's role, for a command that provisions."""
    from wsm.store.database import Database  # noqa: PLC0415

    parts.require(settings, "system_database_url")
    async with parts.opened(Database(settings.system_database_url, connections=1)) as database:
        yield database


@asynccontextmanager
async def sessions(settings: Settings) -> AsyncIterator["Sessions"]:
    """Open what makes and moves sessions, for a command."""
    from wsm.control.sessions import Sessions  # noqa: PLC0415

    async with (
        tenant_reads(settings) as app,
        fleet_writes(settings) as system,
        moves(settings, app, system) as its,
    ):
        yield Sessions(app, system, its)


@asynccontextmanager
async def moves(settings: Settings, app: "Database", system: "Database") -> AsyncIterator["Moves"]:
    """Open what moves sessions at their gateways."""
    from wsm.control.moves import Keys, Moves  # noqa: PLC0415
    from wsm.gateway.waha import Gateways  # noqa: PLC0415

    parts.require(settings, "master_keys", "master_key_id", "webhooks_url", "waha")
    gateways = Gateways(
        parts.waha_servers(settings), settings.exits, send_timeout_seconds=settings.send_timeout_seconds
    )
    try:
        yield Moves(
            app,
            system,
            gateways,
            pools=settings.exits,
            capacities=parts.capacities(settings),
            keys=Keys(parts.master_keys(settings), settings.master_key_id),
            webhooks_url=settings.webhooks_url,
            owner=parts.process_name(),
            now=parts.utc_now,
            new_uuid=uuid.uuid4,
        )
    finally:
        await gateways.aclose()


@asynccontextmanager
async def mailroom(settings: Settings) -> AsyncIterator["Redis"]:
    """Open Redis, for a command that looks after mailboxes."""
    from wsm.streams.client import connect  # noqa: PLC0415

    parts.require(settings, "redis_url")
    redis = connect(settings.redis_url, timeout_seconds=parts.REDIS_SECONDS)
    try:
        yield redis
    finally:
        await redis.aclose()


@asynccontextmanager
async def front_door(settings: Settings) -> AsyncIterator["Handover"]:
    """Open the mailboxes, for a command that enters at the front door."""
    async with mailroom(settings) as redis:
        yield parts.handover(settings, redis)
