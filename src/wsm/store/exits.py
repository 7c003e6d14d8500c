"""Leases of exits: which identity of which pool a session has, from a start until a stop.

That no two sessions share an identifier, an identity or an address is the database's word, in unique indexes
over all tenants that row-level security does not soften. Rows stay as history.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from wsm.core.errors import BadInput
from wsm.core.exits import Pool, Seen, Way, fault, identity, new_identifier
from wsm.core.ids import TenantId
from wsm.store.database import Database


class Lease(msgspec.Struct, frozen=True):
    """A session's exit, as long as it has it.

    pool, identity  whose it is at the provider: `core.exits.exit_of`
    address  where it came out when it was last looked at; None before
    trouble  why nothing may leave through it; None when nothing is wrong
    """

    id: int
    session: int
    pool: str
    identifier: str
    identity: str
    address: str | None
    verified_at: datetime | None
    trouble: str | None

    @property
    def way(self) -> Way:
        """What the session acts through as long as it has this."""
        return Way(self.pool, self.identity)

    @property
    def is_usable(self) -> bool:
        """Whether messages may leave through it: it was looked at, and nothing was wrong."""
        return self.verified_at is not None and self.trouble is None


async def take(
    database: Database,
    tenant: TenantId,
    session: int,
    pools: Mapping[str, Pool],
    uuid: UUID,
    now: datetime,
) -> Lease:
    """Return the session's lease, which is made if it has none. Safe to repeat, also at the same time.

    pools  those of the settings, by name
    uuid   a fresh one for the identifier

    Raises BadInput when there is no such session, its way out is direct, or its pool is none of these.
    """
    identifier = new_identifier(uuid, now)
    async with database.transaction(tenant, now) as transaction:
        row = await transaction.row("lock_session", session=session)
        if row is None:
            raise BadInput("session", "there is none")
        if row.exit_pool is None:
            raise BadInput("session", "its way out is direct")
        if row.exit_pool not in pools:
            raise BadInput("exits", f"no pool named {row.exit_pool!r}")
        transaction.later(
            "take_lease",
            session=session,
            pool=row.exit_pool,
            identifier=identifier,
            identity=identity(pools[row.exit_pool], identifier),
        )
        found = await transaction.row("lease", session=session)
        if found is None:  # the identity, of 41 bits at least, is somebody else's: chance
            raise BadInput("uuid", "gives an identity that is in use; take another one")
        return _lease(found)


async def current(database: Database, tenant: TenantId, session: int) -> Lease | None:
    """Return the session's lease, None when it has none."""
    async with database.transaction(tenant) as transaction:
        row = await transaction.row("lease", session=session)
        return None if row is None else _lease(row)


async def judge(
    database: Database,
    system: Database,
    tenant: TenantId,
    lease: Lease,
    *,
    country: str,
    seen: Seen,
    now: datetime,
) -> Lease:
    """Keep where an exit came out, and what is wrong with it; return the lease as it is then.

    system   as the role that sees every tenant's quarantine
    country  where it should be

    An address that another live session has, or that is in quarantine, is trouble. The first address with
    which nothing was wrong stays the one that the lease is held to. Raises BadInput when it ended meanwhile.
    """
    trouble = fault(seen, before=lease.address, country=country)
    async with system.transaction(now=now) as transaction:
        if await transaction.row("quarantined", address=seen.address) is not None:
            trouble = "quarantined"
    address = lease.address or (seen.address if trouble is None else None)
    judged = msgspec.structs.replace(lease, address=address, verified_at=now, trouble=trouble)
    try:
        return await _keep(database, tenant, judged, seen, now)
    except psycopg.errors.UniqueViolation:
        shared = msgspec.structs.replace(judged, address=None, trouble="shared")
        return await _keep(database, tenant, shared, seen, now)


async def fail(database: Database, tenant: TenantId, lease: Lease, now: datetime) -> Lease:
    """Keep that nothing was reached through an exit, `dead`, and return the lease as it is then.

    Nothing leaves through it until `judge` finds it in order again, at the address where it was. Raises
    BadInput when it ended meanwhile. Safe to repeat.
    """
    async with database.transaction(tenant, now) as transaction:
        if not await transaction.run("fail_lease", id=lease.id):
            raise BadInput("lease", "it has ended")
    return msgspec.structs.replace(lease, trouble="dead", verified_at=now)


async def _keep(database: Database, tenant: TenantId, lease: Lease, seen: Seen, now: datetime) -> Lease:
    values = {"address": lease.address, "country": seen.country, "trouble": lease.trouble}
    async with database.transaction(tenant, now) as transaction:
        if not await transaction.run("judge_lease", id=lease.id, **values):
            raise BadInput("lease", "it has ended")
    return lease


async def release(database: Database, tenant: TenantId, session: int, now: datetime) -> bool:
    """End the session's lease: on stop, logout or delete, not on a flap. Returns whether it had one."""
    async with database.transaction(tenant, now) as transaction:
        return bool(await transaction.run("release_lease", session=session))


async def quarantine(
    database: Database, tenant: TenantId, session: int, until: datetime, now: datetime
) -> str | None:
    """Keep everybody, the session too, from the address that it has or had last, until then. Returns which.

    None when it never had one. What is leased there already is in trouble from its next `judge` on, the
    session's own lease at once.
    """
    async with database.transaction(tenant, now) as transaction:
        row = await transaction.row("quarantine_lease", session=session, until=until)
        return None if row is None else str(row.address)


async def history(database: Database, tenant: TenantId, session: int) -> list[Any]:
    """Every lease that a session ever had, the oldest first: identifier, pool, address, country, trouble,
    leased_at, verified_at, released_at."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("leases", session=session)


def _lease(row: Any) -> Lease:
    return Lease(
        id=row.id,
        session=row.session_id,
        pool=row.pool,
        identifier=row.identifier,
        identity=row.identity,
        address=row.address,
        verified_at=row.verified_at,
        trouble=row.trouble,
    )
