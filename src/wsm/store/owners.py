"""Who may move a session: one at a time, by a lease with an epoch. Its times are the database's own."""

from wsm.core.ids import TenantId
from wsm.store.database import Database


async def take(
    database: Database, tenant: TenantId, session: int, owner: str, *, seconds: float
) -> int | None:
    """Take the lease of a session and return its epoch; None while somebody else has it."""
    async with database.transaction(tenant) as transaction:
        row = await transaction.row("own_session", session=session, owner=owner, seconds=seconds)
        return None if row is None else int(row.epoch)


async def keep(database: Database, tenant: TenantId, session: int, epoch: int, *, seconds: float) -> bool:
    """Prolong a lease; False when it had run out."""
    async with database.transaction(tenant) as transaction:
        return bool(await transaction.run("keep_session", session=session, epoch=epoch, seconds=seconds))


async def leave(database: Database, tenant: TenantId, session: int, epoch: int) -> None:
    """End a lease. Safe to repeat."""
    async with database.transaction(tenant) as transaction:
        await transaction.run("leave_session", session=session, epoch=epoch)
