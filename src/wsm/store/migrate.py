"""Bring a database to the present: roles, schema, migrations in the order of their names.

A migration is one file and one transaction. Its first line says whether it runs before or after the new
code (`-- phase: before|after`). Two runs at once are ordered by an advisory lock; what is applied is never
applied again, and an applied file that has changed since stops the run.
"""

import asyncio
import hashlib
import random
from importlib import resources
from importlib.resources.abc import Traversable

import psycopg
from psycopg import sql

from wsm.core.errors import BadInput, StoreUnavailable

_LOCK = -2
_LOCK_TIMEOUT = "2s"
"""Less than the 5 s that a turn waits for a lock: one that stands behind a migration gets it in time."""
_ATTEMPTS = 20
_OWNER = "wsm_owner"
_ROLES = {_OWNER: "nologin", "wsm_app": "login", "wsm_system": "login"}
_FOLDER = resources.files("wsm.store") / "migrations"
_NEEDS = "it must be able to make roles and schemas, or be a member of wsm_owner where the schema wsm is made"


async def migrate(owner_url: str, *, phase: str | None = None, folder: Traversable = _FOLDER) -> list[str]:
    """Apply what is missing of a folder's migrations and return the names of what was applied.

    owner_url  a role that may create roles and schemas, or one that is a member of `wsm_owner` when an
               administrator made the three roles and the schema `wsm`
    phase      `before` or `after` the new code; None applies both

    Works beside turns: a migration lets go of everything and begins again when it cannot have a lock within
    2 s, so that nobody waits behind it for longer.

    Raises BadInput when an applied migration was changed or the role may not do this, StoreUnavailable when
    the database is away or one migration had no luck in a minute. Blocks while another run holds the lock.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(owner_url, autocommit=True)
    except psycopg.OperationalError as exc:
        raise StoreUnavailable("cannot reach the database to migrate it") from exc
    async with connection:
        await connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        try:
            await _found(connection)
        except psycopg.errors.InsufficientPrivilege as exc:
            raise BadInput("owner_database_url", f"{_NEEDS} ({exc.diag.message_primary})") from exc
        return [name for name, text in _files(folder) if await _apply(connection, name, text, phase)]


def _files(folder: Traversable) -> list[tuple[str, str]]:
    return sorted(
        (file.name, file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".sql")
    )


async def _found(connection: psycopg.AsyncConnection) -> None:
    """Make the roles, the schema and the table of what was applied, where they are missing."""
    for role, login in _ROLES.items():
        known = await connection.execute("select 1 from pg_roles where rolname = %s", [role])
        if await known.fetchone() is None:
            try:
                await connection.execute(
                    sql.SQL("create role {} {}").format(sql.Identifier(role), sql.SQL(login))
                )
                if role == _OWNER:  # who made a role is no member of it, unless he is a superuser
                    await connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(role)))
            except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                continue  # another database of the same cluster was migrated in the same moment
    made = await connection.execute("select 1 from pg_namespace where nspname = 'wsm'")
    if await made.fetchone() is None:
        await connection.execute("create schema wsm authorization wsm_owner")
    await connection.execute("set role wsm_owner")
    await connection.execute("set search_path = wsm")
    await connection.execute(
        "create table if not exists migrations "
        "(name text primary key, sha256 text not null, applied_at timestamptz not null default now())"
    )


async def _apply(connection: psycopg.AsyncConnection, name: str, text: str, phase: str | None) -> bool:
    digest = hashlib.sha256(text.encode()).hexdigest()
    row = await (await connection.execute("select sha256 from migrations where name = %s", [name])).fetchone()
    if row is not None:
        if row[0] != digest:
            raise BadInput(name, "was changed after it had been applied")
        return False
    own_phase = text.partition("\n")[0].removeprefix("-- phase:").strip()
    if own_phase not in {"before", "after"}:
        raise BadInput(name, "its first line is not `-- phase: before` or `-- phase: after`")
    if phase not in {None, own_phase}:
        return False
    for attempt in range(_ATTEMPTS):
        try:
            async with connection.transaction():
                await connection.execute("select set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
                await connection.execute(text.encode())
                await connection.execute(
                    "insert into migrations (name, sha256) values (%s, %s)", [name, digest]
                )
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            await asyncio.sleep(random.uniform(0.1, 0.1 * (attempt + 2)))  # noqa: S311 (only to spread)
        else:
            return True
    raise StoreUnavailable(f"{name}: others hold what it changes; run it again when there is less to do")
