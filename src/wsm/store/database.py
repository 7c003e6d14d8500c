"""The one place that opens transactions.

Every connection sees the schema `wsm` and gives up by itself: statements, locks and idle transactions end
after 5 s; whole transactions after 10 where the server can (17+), 5 for the lock and 5 for the work.

A tenant's transaction sees that tenant alone (row-level security by `set_config(…, true)`, which ends with
the transaction), so a forgotten WHERE shows nothing of anybody else. Every driver's error that a repetition
may cure becomes StoreUnavailable. A server that is deaf (stopped, or behind a network that swallows) keeps
no time-out of its own: its connection is cut here.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any

import psycopg
import psycopg_pool
from psycopg.rows import namedtuple_row

from wsm.core.errors import LaneBusy, StoreUnavailable
from wsm.core.ids import TenantId
from wsm.store.queries import QUERIES

LIMIT_MS = 5000
DEAF_SECONDS = 12.0
"""When a transaction that the server should have ended at the latest after 10 s is cut off."""
CHECK_SECONDS = 2.0
_OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        "search_path=wsm",
        f"statement_timeout={LIMIT_MS}",
        f"lock_timeout={LIMIT_MS - 500}",  # before the statement's, so that one can tell them apart
        f"idle_in_transaction_session_timeout={LIMIT_MS}",
        "timezone=UTC",
    )
)
_TRANSACTION_TIMEOUT_SINCE = 170000
_ERRORS = psycopg.errors
_AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    # Time-outs and states of the server that are no OperationalError to the driver.
    _ERRORS.IdleInTransactionSessionTimeout,
    _ERRORS.TransactionTimeout,
    _ERRORS.ReadOnlySqlTransaction,
    # Nobody has migrated it yet: no entry's fault.
    _ERRORS.UndefinedTable,
    _ERRORS.UndefinedColumn,
    _ERRORS.UndefinedFunction,
)

Connection = psycopg.AsyncConnection[Any]


class Transaction:
    """An open transaction: queries by name, with `%(tenant)s` and `%(now)s` filled in."""

    def __init__(self, connection: Connection, tenant: TenantId | None, now: datetime | None) -> None:
        self._connection = connection
        self.tenant = tenant
        self._now = now

    @property
    def now(self) -> datetime:
        """The time that this transaction decides by."""
        if self._now is None:
            raise TypeError("this transaction was opened without a time")
        return self._now

    async def rows(self, query: str, /, **values: Any) -> list[Any]:
        """Run a query and return its rows, with columns as attributes."""
        return await (await self._execute(query, values)).fetchall()

    async def row(self, query: str, /, **values: Any) -> Any:
        """Run a query and return its first row, None if there is none."""
        return await (await self._execute(query, values)).fetchone()

    async def run(self, query: str, /, **values: Any) -> int:
        """Run a statement and return how many rows it touched."""
        return (await self._execute(query, values)).rowcount

    async def many(self, query: str, rows: Sequence[dict[str, Any]]) -> None:
        """Run one statement for every row of values, in one round trip."""
        if rows:
            filled = [self._filled(values) for values in rows]
            await self._connection.cursor().executemany(QUERIES[query], filled)

    async def _execute(self, query: str, values: dict[str, Any]) -> psycopg.AsyncCursor[Any]:
        return await self._connection.execute(QUERIES[query], self._filled(values))

    def _filled(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"tenant": self.tenant, "now": self._now, **values}


class Database:
    """A pool of connections of one role. `deaf_seconds`: how long a transaction may take in all."""

    def __init__(self, url: str, *, connections: int, deaf_seconds: float = DEAF_SECONDS) -> None:
        self._deaf_seconds = deaf_seconds
        self._pool = psycopg_pool.AsyncConnectionPool(
            url,
            open=False,
            min_size=1,
            max_size=connections,
            timeout=LIMIT_MS / 1000,
            max_idle=60,
            check=_check,
            configure=_configure,
            kwargs={"options": _OPTIONS, "row_factory": namedtuple_row, "connect_timeout": 5},
        )

    async def open(self) -> None:
        """Start the pool; a database that is away does not stop it, only the transactions."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def ping(self) -> None:
        """Raise StoreUnavailable unless the database answers, is migrated and can be written."""
        try:
            async with self.transaction() as transaction:
                row = await transaction.row("ping")
        except psycopg.Error as exc:
            raise StoreUnavailable(type(exc).__name__) from exc
        if row.read_only != "off":
            raise StoreUnavailable("it can only be read")

    @asynccontextmanager
    async def transaction(
        self, tenant: TenantId | None = None, now: datetime | None = None
    ) -> AsyncIterator[Transaction]:
        """Open a transaction (READ COMMITTED): of one tenant, or of none, which sees what its role may.

        Commits on leaving, rolls back on an exception. Raises LaneBusy when the wait for a lock ran out,
        StoreUnavailable when the database is away, read-only or not migrated, or another time-out ran out;
        whether a COMMIT that broke took place is for the dedupe to tell.
        """
        try:
            async with self._pool.connection() as connection:
                with cut_after(connection, self._deaf_seconds):
                    if tenant is not None:
                        await connection.execute("select set_config('wsm.tenant', %s, true)", [str(tenant)])
                    yield Transaction(connection, tenant, now)
                    await connection.commit()
        except _ERRORS.ProgramLimitExceeded:
            raise  # the statement's own fault, though the driver calls it operational
        except _ERRORS.LockNotAvailable as exc:
            raise LaneBusy("the tenant's lock is held") from exc
        except _AWAY as exc:
            raise StoreUnavailable(type(exc).__name__) from exc


@contextmanager
def cut_after(connection: psycopg.AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Cut a connection's socket if the block takes longer: the driver then sees a broken connection.

    To cancel the driver's wait instead would wait for the deaf server once more.
    """
    handle = asyncio.get_running_loop().call_later(seconds, _cut, connection)
    try:
        yield
    finally:
        handle.cancel()


def _cut(connection: psycopg.AsyncConnection[Any]) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as its:
        its.shutdown(socket.SHUT_RDWR)


async def _check(connection: Connection) -> None:
    """Check a connection before it is handed out."""
    with cut_after(connection, CHECK_SECONDS):
        await psycopg_pool.AsyncConnectionPool.check_connection(connection)


async def _configure(connection: Connection) -> None:
    if connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
        await connection.execute(f"set transaction_timeout = {LIMIT_MS * 2}".encode())
        await connection.commit()


def clean(text: str) -> str:
    """Make a text storable: PostgreSQL takes neither NUL nor lone surrogates; the raw body keeps them."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
