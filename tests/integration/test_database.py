"""The one place that opens transactions: which of the driver's errors may be cured, and which are bugs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psycopg
import pytest

from databases import Database as Urls
from waiting import wait_for
from wsm.core.errors import LaneBusy, StoreUnavailable
from wsm.core.ids import TenantId
from wsm.store.database import Database
from wsm.store.lane import locked

TENANT = TenantId(11)
NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A pool of two connections."""
    database = Database(url, connections=2)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


CURABLE = {
    "57014": "the statement took too long",
    "25P03": "the transaction idled for too long",
    "25P04": "the transaction took too long",
    "40P01": "a deadlock",
    "53100": "the disk is full",
    "53300": "too many connections",
    "57P01": "the server is being shut down",
    "57P03": "the server starts",
    "25006": "a standby, after a fail-over",
    "42P01": "no such table: not migrated",
    "42703": "no such column: not migrated",
}
BUGS = {
    "23514": "a check",
    "23505": "a unique index",
    "22021": "bytes that are no text",
    "42501": "row-level security",
    "42601": "a syntax error",
}


async def test_what_a_repetition_may_cure_is_unavailable(database: Urls) -> None:
    async with opened(database.app_url) as store:
        for state in CURABLE:
            with pytest.raises(StoreUnavailable):
                await _fails(store, state)
            await store.ping()


async def test_a_bug_is_no_outage(database: Urls) -> None:
    async with opened(database.app_url) as store:
        for state in BUGS:
            with pytest.raises(psycopg.Error) as caught:
                await _fails(store, state)
            assert caught.value.sqlstate == state


async def _fails(store: Database, state: str) -> None:
    """Let the server answer a SQLSTATE."""
    async with store.transaction(TENANT) as transaction:
        failing = f"do $$ begin raise exception using errcode = '{state}'; end $$"
        await transaction._connection.execute(failing.encode())


async def test_a_lock_that_is_not_given_is_a_busy_lane(database: Urls) -> None:
    async def waits(store: Database) -> None:
        async with store.transaction(TENANT) as transaction:
            await transaction._connection.execute("set local lock_timeout = '20ms'")
            await transaction.run("lock_lane")

    async with opened(database.app_url) as store, await _owner(database) as holder:
        await holder.execute("select pg_advisory_lock(%s)", [TENANT])
        with pytest.raises(LaneBusy):
            await waits(store)


async def test_what_was_put_off_fails_as_what_it_is(database: Urls) -> None:
    async with opened(database.app_url) as store, await _owner(database) as holder:
        await holder.execute("select pg_advisory_lock(%s)", [TENANT])
        with pytest.raises(LaneBusy):
            await _asks_behind_the_lock(store)
        await holder.execute("select pg_advisory_unlock(%s)", [TENANT])
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            await _writes_what_may_not_be(store, asking=True)
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            await _writes_what_may_not_be(store, asking=False)
        assert await _asks_behind_the_lock(store) == []


async def _asks_behind_the_lock(store: Database) -> list[object]:
    async with locked(store, TENANT, NOW) as transaction:
        transaction._put_off.insert(0, (b"set lock_timeout = '20ms'", {}))
        return await transaction.rows("show_agents")


async def _writes_what_may_not_be(store: Database, *, asking: bool) -> None:
    """Put statements off of which the first fails, and then ask, or only commit."""
    async with locked(store, TENANT, NOW) as transaction:
        transaction.later("add_aliases", aliases=["x"], contacts=[1])
        transaction.later("abandon", bell="x", again=[])
        if asking:
            await transaction.rows("show_agents")


async def test_a_process_that_slept_in_its_transaction_finds_it_unavailable(database: Urls) -> None:
    async def sleeps(store: Database, owner: psycopg.AsyncConnection) -> None:
        async with store.transaction(TENANT) as transaction:
            its = transaction._connection
            await its.execute("set local idle_in_transaction_session_timeout = '20ms'")
            query = f"select 1 from pg_stat_activity where pid = {its.info.backend_pid}"

            async def ended() -> bool:
                return await (await owner.execute(query.encode())).fetchone() is None

            await wait_for(ended)
            await transaction.rows("show_agents")

    async with opened(database.app_url) as store, await _owner(database) as owner:
        with pytest.raises(StoreUnavailable):
            await sleeps(store, owner)
        await store.ping()


async def test_a_connection_that_was_ended_is_unavailable_once(database: Urls) -> None:
    async def is_ended(store: Database, owner: psycopg.AsyncConnection) -> None:
        async with store.transaction(TENANT) as transaction:
            pid = transaction._connection.info.backend_pid
            await owner.execute("select pg_terminate_backend(%s, 5000)", [pid])
            await transaction.rows("show_agents")

    async with opened(database.app_url) as store, await _owner(database) as owner:
        with pytest.raises(StoreUnavailable):
            await is_ended(store, owner)
        await store.ping()


async def test_a_database_that_can_only_be_read_is_not_ready(database: Urls) -> None:
    async with await _owner(database) as owner:
        name = urlsplit(database.app_url).path[1:]
        await owner.execute(f"alter database {name} set default_transaction_read_only = on".encode())
        async with opened(database.app_url) as store:
            with pytest.raises(StoreUnavailable, match="read"):
                await store.ping()


async def test_a_database_that_nobody_has_migrated_is_not_ready(database: Urls) -> None:
    async with opened(database.app_url.replace(database.name, "postgres")) as store:
        with pytest.raises(StoreUnavailable, match="UndefinedTable"):
            await store.ping()


async def test_a_database_that_does_not_let_its_role_in_is_not_ready(database: Urls) -> None:
    async with await _owner(database) as owner, opened(database.app_url) as store:
        await owner.execute("revoke usage on schema wsm from wsm_app")
        await owner.execute("revoke select on wsm.tenants from wsm_app")
        with pytest.raises(StoreUnavailable, match=r"Undefined|Insufficient"):
            await store.ping()


async def _owner(database: Urls) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(database.owner_url, autocommit=True)
