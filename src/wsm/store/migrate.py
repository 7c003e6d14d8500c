"""Bring a database to the present: roles, schema, migrations in the order of their names.

A migration is one file and one transaction. Its first line says whether it runs before or after the new
code (`-- phase: before|after`). Two runs at once are ordered by an advisory lock; what is applied is never
applied again, and an applied file that has changed since stops the run.
"""

import hashlib
from importlib import resources

import psycopg
from psycopg import sql

from wsm.core.errors import BadInput, StoreUnavailable

_LOCK = -2
_ROLES = {"wsm_owner": "nologin", "wsm_app": "login", "wsm_system": "login"}


async def migrate(owner_url: str, *, phase: str | None = None) -> list[str]:
    """Apply what is missing and return the names of what was applied.

    owner_url  a role that may create roles and schemas, or one that is a member of `wsm_owner` when an
               administrator made the three roles and the schema `wsm`
    phase      `before` or `after` the new code; None applies both

    Raises BadInput when an applied migration was changed, StoreUnavailable when the database is away.
    Blocks while another run holds the lock.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(owner_url, autocommit=True)
    except psycopg.OperationalError as exc:
        raise StoreUnavailable("cannot reach the database to migrate it") from exc
    async with connection:
        await connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        await _found(connection)
        return [name for name, text in _files() if await _apply(connection, name, text, phase)]


def _files() -> list[tuple[str, str]]:
    folder = resources.files("wsm.store") / "migrations"
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
    async with connection.transaction():
        await connection.execute(text.encode())
        await connection.execute("insert into migrations (name, sha256) values (%s, %s)", [name, digest])
    return True
