"""Migrations: once, in order, one run at a time, and by whoever may."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from databases import Database as Urls
from wsm.core.errors import BadInput, StoreUnavailable
from wsm.sandbox.embedded import Embedded
from wsm.store.migrate import migrate

ROLES = ("wsm_owner", "wsm_app", "wsm_system")
ALL = [
    "0001_main.sql", "0002_leases.sql", "0003_no_proxies.sql", "0004_upkeep.sql", "0005_media.sql",
    "0006_pace.sql", "0007_line.sql", "0008_notices.sql", "0009_people.sql",
    "0010_hidden_ids.sql",
    "0011_agents.sql",
]  # fmt: skip
_numbers = itertools.count(1)


@contextmanager
def empty(embedded: Embedded, *, owner: str = "postgres") -> Iterator[str]:
    """An empty database of a role's own; yields its name."""
    name = f"unmigrated_{next(_numbers)}"
    with psycopg.connect(embedded.database_url(database="postgres"), autocommit=True) as admin:
        admin.execute(f"create database {name} owner {owner}".encode())
        try:
            yield name
        finally:
            admin.execute(f"drop database {name} with (force)".encode())


@contextmanager
def role(embedded: Embedded, name: str, *statements: str) -> Iterator[None]:
    """A login role, and what an administrator does for it."""
    with psycopg.connect(embedded.database_url(database="postgres"), autocommit=True) as admin:
        for statement in (f"create role {name} login", *statements):
            admin.execute(statement.encode())
        try:
            yield
        finally:
            admin.execute(f"drop owned by {name} cascade; drop role {name}".encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three migrations, of which the second comes after the new code."""
    (tmp_path / "0001_one.sql").write_text("-- phase: before\ncreate table one (id int);\n")
    (tmp_path / "0002_two.sql").write_text("-- phase: after\nalter table one drop column id;\n")
    (tmp_path / "0003_three.sql").write_text("-- phase: before\nalter table one add column name text;\n")
    (tmp_path / "README").write_text("no migration")
    return tmp_path


async def test_what_is_applied_is_not_applied_again(embedded: Embedded) -> None:
    with empty(embedded) as name:
        url = embedded.database_url(database=name)
        assert await migrate(url) == ALL
        assert await migrate(url) == []


async def test_two_runs_at_once_apply_everything_once(embedded: Embedded) -> None:
    with empty(embedded) as name, empty(embedded) as other:
        urls = [embedded.database_url(database=each) for each in (name, name, name, other)]
        applied = await asyncio.gather(*(migrate(url) for url in urls))
        assert sorted(applied[:3]) == [[], [], ALL]
        assert applied[3] == ALL


async def test_the_phases_come_in_their_own_order(embedded: Embedded, folder: Path) -> None:
    with empty(embedded) as name, empty(embedded) as other:
        url = embedded.database_url(database=name)
        assert await migrate(url, phase="before", folder=folder) == ["0001_one.sql", "0003_three.sql"]
        assert await migrate(url, phase="before", folder=folder) == []
        assert await migrate(url, phase="after", folder=folder) == ["0002_two.sql"]
        everything = await migrate(embedded.database_url(database=other), folder=folder)
        assert everything == ["0001_one.sql", "0002_two.sql", "0003_three.sql"]


async def test_a_migration_that_changed_stops_the_run_with_its_name(embedded: Embedded, folder: Path) -> None:
    with empty(embedded) as name:
        url = embedded.database_url(database=name)
        await migrate(url, folder=folder)
        (folder / "0001_one.sql").write_text("-- phase: before\ncreate table one (id bigint);\n")
        (folder / "0004_four.sql").write_text("-- phase: before\ncreate table four (id int);\n")
        with pytest.raises(BadInput, match=r"0001_one\.sql: was changed after"):
            await migrate(url, folder=folder)
        assert _tables(url) == ["migrations", "one"]


async def test_a_migration_that_fails_leaves_nothing_of_itself(embedded: Embedded, folder: Path) -> None:
    with empty(embedded) as name:
        url = embedded.database_url(database=name)
        for failing in ("select 1 / 0", "alter table migrations add check (name < '0002')"):
            text = f"-- phase: after\ncreate table two (id int);\n{failing};\n"
            (folder / "0002_two.sql").write_text(text)
            with pytest.raises((psycopg.errors.DivisionByZero, psycopg.errors.CheckViolation)):
                await migrate(url, folder=folder)
        assert _tables(url) == ["migrations", "one"]
        (folder / "0002_two.sql").write_text("-- phase: after\ncreate table two (id int);\n")
        assert await migrate(url, folder=folder) == ["0002_two.sql", "0003_three.sql"]


async def test_nobody_waits_long_behind_a_migration_that_waits(embedded: Embedded, folder: Path) -> None:
    with empty(embedded) as name:
        url = embedded.database_url(database=name)
        await migrate(url, folder=folder)
        (folder / "0004_four.sql").write_text("-- phase: before\nalter table one add column x int;\n")
        async with await psycopg.AsyncConnection.connect(url) as holder:
            await holder.execute("select from wsm.one")
            migrating = asyncio.create_task(migrate(url, folder=folder))
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as reader:
                await reader.execute("set lock_timeout = '4s'")
                asked = "select from pg_locks where mode = 'AccessExclusiveLock' and not granted"
                while not await (await reader.execute(asked)).fetchall():  # noqa: ASYNC110 (rows of another process)
                    await asyncio.sleep(0.01)
                await reader.execute("select from wsm.one")
            assert not migrating.done()
        assert await migrating == ["0004_four.sql"]


@pytest.mark.parametrize("first", ["", "create table x ();", "-- phase: during", "-- Phase: before"])
async def test_a_migration_without_a_phase_is_refused(embedded: Embedded, tmp_path: Path, first: str) -> None:
    (tmp_path / "0001_one.sql").write_text(f"{first}\nselect 1;\n")
    with empty(embedded) as name, pytest.raises(BadInput, match=r"0001_one\.sql: its first line"):
        await migrate(embedded.database_url(database=name), folder=tmp_path)


async def test_a_member_of_the_owner_may_migrate_what_an_administrator_prepared(
    embedded: Embedded, database: Urls
) -> None:
    with role(embedded, "deployer", "grant wsm_owner to deployer"), empty(embedded) as name:
        with psycopg.connect(embedded.database_url(database=name), autocommit=True) as admin:
            admin.execute("create schema wsm authorization wsm_owner")
        url = embedded.database_url("deployer", name)
        assert await migrate(url) == ALL
        assert await migrate(url) == []
        assert _owners(embedded.database_url(database=name)) == {"wsm_owner"}


async def test_who_may_not_migrate_is_told_what_he_needs(embedded: Embedded, database: Urls) -> None:
    with role(embedded, "stranger"), empty(embedded) as name:
        with pytest.raises(BadInput, match=r"owner_database_url: .*wsm_owner"):
            await migrate(embedded.database_url("stranger", name))
        assert _tables(embedded.database_url(database=name)) == []
    with (
        role(embedded, "member", "grant wsm_owner to member"),
        empty(embedded) as name,
        pytest.raises(BadInput, match=r"owner_database_url: .*schema"),
    ):
        await migrate(embedded.database_url("member", name))


async def test_an_administrator_who_is_no_superuser_makes_the_roles_himself(
    embedded: Embedded, database: Urls
) -> None:
    with _without_roles(embedded), role(embedded, "steward", "alter role steward createrole"):
        with empty(embedded, owner="steward") as name:
            assert await migrate(embedded.database_url("steward", name)) == ALL
            with psycopg.connect(embedded.database_url("wsm_app", name)) as app:
                assert app.execute("select count(*) from wsm.messages").fetchone() == (0,)
        with psycopg.connect(embedded.database_url(database="postgres"), autocommit=True) as admin:
            for each in ROLES:
                admin.execute(f"drop role {each}".encode())


async def test_a_database_that_is_away_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await migrate("postgresql://postgres@/wsm?host=/nowhere")


@contextmanager
def _without_roles(embedded: Embedded) -> Iterator[None]:
    """Let the cluster's roles have other names for a while."""
    with psycopg.connect(embedded.database_url(database="postgres"), autocommit=True) as admin:
        for each in ROLES:
            admin.execute(f"alter role {each} rename to kept_{each}".encode())
        try:
            yield
        finally:
            for each in ROLES:
                admin.execute(f"alter role kept_{each} rename to {each}".encode())


def _tables(url: str) -> list[str]:
    query = "select tablename from pg_tables where schemaname = 'wsm' order by tablename"
    return [name for (name,) in _ask(url, query)]


def _owners(url: str) -> set[str]:
    return {
        name for (name,) in _ask(url, "select distinct tableowner from pg_tables where schemaname = 'wsm'")
    }


def _ask(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()
