"""What crosses tenants, under the role `wsm_system`: provisioning, the directory, due work, the purge."""

from datetime import date, datetime
from typing import Any

import psycopg

from wsm.core.errors import BadInput
from wsm.core.ids import ServerName, SessionAddress, TenantId
from wsm.store.database import Database


async def add_tenant(database: Database, tenant: TenantId, *, name: str, locale: str, capacity: int) -> None:
    """Make a tenant with one queue of `capacity`. Safe to repeat. BadInput names a bad field."""
    if tenant <= 0 or tenant >= 2**63:
        raise BadInput("tenant", "a positive number below 2^63")
    if not 0 <= capacity < 2**31:
        raise BadInput("capacity", "how many customers are served at a time, at least 0")
    if locale not in {"pt-BR", "en"}:
        raise BadInput("locale", "`pt-BR` or `en`")
    async with database.transaction() as transaction:
        await transaction.run("add_tenant", tenant=tenant, name=name, locale=locale)
        await transaction.run("add_queue", tenant=tenant, capacity=capacity)


async def add_session(
    database: Database,
    address: SessionAddress,
    *,
    server: ServerName,
    alias: str,
    kid: str,
    phone: str | None = None,
    exit_pool: str | None = None,
    desired: str = "running",
) -> None:
    """Make a session. BadInput when the name is taken on that server.

    exit_pool  where its exits come from; None: its way out is direct, which is a choice and never a fall back
    """
    try:
        async with database.transaction() as transaction:
            await transaction.run("add_server", name=server)
            await transaction.run(
                "add_session",
                tenant=address.tenant,
                server=server,
                name=address.session,
                alias=alias,
                kid=kid,
                exit_policy="direct" if exit_pool is None else "proxy",
                exit_pool=exit_pool,
                desired=desired,
                phone=phone,
            )
    except psycopg.errors.UniqueViolation:
        raise BadInput("session", f"{address.session} exists on server {server}") from None
    except psycopg.errors.ForeignKeyViolation:
        raise BadInput("tenant", f"there is no tenant {address.tenant}") from None
    except psycopg.errors.CheckViolation:
        raise BadInput("session", "letters, digits, `_` and `-` only, at most 54") from None


async def desire(database: Database, tenant: TenantId, session: int, desired: str) -> None:
    """Write what a session should be: `running` or `stopped`. Its repairs are counted anew from now on."""
    async with database.transaction() as transaction:
        await transaction.run("desire", tenant=tenant, id=session, desired=desired)


async def retire(database: Database, tenant: TenantId, session: int) -> None:
    """Let a session sign nothing more: it is in no directory until it should run again. Safe to repeat."""
    async with database.transaction() as transaction:
        await transaction.run("retire", tenant=tenant, id=session)


async def directory(database: Database) -> list[Any]:
    """Every session that may sign: tenant_id, name, server, kid, generations, phone."""
    async with database.transaction() as transaction:
        return await transaction.rows("directory")


async def tenants(database: Database) -> list[Any]:
    """Every tenant: tenant_id, name, sessions (how many)."""
    async with database.transaction() as transaction:
        return await transaction.rows("tenants")


async def due_tenants(database: Database, now: datetime) -> list[Any]:
    """The tenants with intents whose time has come: tenant_id, oldest (created_at), intents."""
    async with database.transaction(now=now) as transaction:
        return await transaction.rows("due_tenants")


async def purge_dedupe(database: Database, before: datetime, *, limit: int = 5000) -> int:
    """Forget dedupe rows older than `before`, at most `limit` of them; returns how many."""
    async with database.transaction() as transaction:
        return await transaction.run("purge_dedupe", before=before, limit=limit)


async def ensure_month(database: Database, day: date) -> None:
    """Make the month of history that `day` falls into. Safe to repeat."""
    async with database.transaction() as transaction:
        await transaction.run("ensure_month", month=day)
