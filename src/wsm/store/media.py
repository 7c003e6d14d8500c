"""The media store: files of one tenant that are to be sent, each once, by its content.

What is put in again, or taken out, is young again; what nobody used for long the clock purges.
"""

import hashlib
from datetime import datetime
from typing import Any

import msgspec

from wsm.core.ids import TenantId
from wsm.store.database import Database


class Stored(msgspec.Struct, frozen=True):
    """A file of the store. mimetype, filename: as it was put in."""

    content: bytes
    mimetype: str
    filename: str | None

    def __repr__(self) -> str:
        return f"Stored({len(self.content)} bytes, {self.mimetype!r})"


async def put(
    database: Database,
    tenant: TenantId,
    content: bytes,
    *,
    mimetype: str,
    filename: str | None,
    now: datetime,
) -> int:
    """Put a file in and return its number; a content that is there keeps number, type and name."""
    sha256 = hashlib.sha256(content).digest()
    values = {"sha256": sha256, "mimetype": mimetype, "filename": filename, "content": content}
    async with database.transaction(tenant, now) as transaction:
        return int((await transaction.row("put_media", **values)).id)


async def size(database: Database, tenant: TenantId, number: int) -> int | None:
    """Return how many bytes a file has; None when there is no such file, or not any more."""
    async with database.transaction(tenant) as transaction:
        row = await transaction.row("measure_media", id=number)
    return None if row is None else int(row.bytes)


async def take(database: Database, tenant: TenantId, number: int, now: datetime) -> Stored | None:
    """Return a file, which is young again; None when there is none."""
    async with database.transaction(tenant, now) as transaction:
        row = await transaction.row("take_media", id=number)
    return None if row is None else Stored(bytes(row.content), row.mimetype, row.filename)


async def listed(database: Database, tenant: TenantId) -> list[Any]:
    """What there is: id, mimetype, filename, bytes, created_at, used_at."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("show_media")


async def purge(database: Database, before: datetime, *, limit: int = 100) -> int:
    """Forget what nobody used since `before`, at most `limit` files of all tenants; returns how many."""
    async with database.transaction() as transaction:
        return await transaction.run("purge_media", before=before, limit=limit)
