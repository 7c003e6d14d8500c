"""What was heard through a session last, and which of its messages are known: for who fetches the rest."""

from collections.abc import Collection
from typing import Any

from wsm.core.ids import TenantId
from wsm.store.database import Database


async def heard(database: Database, tenant: TenantId, session_id: int) -> Any:
    """Return a session's `heard_ms`, 0 when nothing ever was, and its `engine`, None while nobody has said.

    None when the tenant has no such session.
    """
    async with database.transaction(tenant) as transaction:
        return await transaction.row("heard", id=session_id)


async def known(database: Database, tenant: TenantId, session_id: int, keys: Collection[str]) -> set[str]:
    """Return which of these keys turns have counted. What still lies in the mailbox is not among them."""
    async with database.transaction(tenant) as transaction:
        rows = await transaction.rows("known_keys", session=session_id, keys=list(keys))
        return {row.key for row in rows}


async def heard_all(database: Database, tenant: TenantId, session_id: int, until_ms: int) -> None:
    """Keep that everything up to a message of that time has entered. Never moves back."""
    async with database.transaction(tenant) as transaction:
        await transaction.run("heard_all", id=session_id, at_ms=until_ms)
