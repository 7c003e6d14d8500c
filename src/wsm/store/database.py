"""The one place that opens transactions.

Every connection sees the schema `wsm` and gives up by itself: statements, locks and idle transactions end
after 5 s; whole transactions after 10 where the server can (17+), 5 for the lock and 5 for the work.

A tenant's transaction sees that tenant alone (row-level security by `set_config(…, true)`, which ends with
the transaction), so a forgotten WHERE shows nothing of anybody else. Every driver's error that a repetition
may cure becomes StoreUnavailable. A server that is deaf (stopped, or behind a network that swallows) keeps
no time-out of its own: its connection is cut here.
"""

import asyncio
import math
import os
import socket
import time
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any

import msgspec
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
ASK_AGAIN_SECONDS = 1.0
"""How long after a check a connection is only looked at."""
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

_BE_TENANT = b"select set_config('wsm.tenant', %(tenant)s, true)"

Connection = psycopg.AsyncConnection[Any]


class _Cursor(psycopg.AsyncCursor[Any]):
    """A cursor that only queues its statement while a pipeline is open.

    The driver's own looks at the socket after each one: a turn of the loop, which costs more than the
    statement. Here all of them leave when the pipeline ends. Outside of a pipeline it is the driver's own.
    """

    def _execute_gen(self, query: Any, params: Any = None, **options: Any) -> Generator[Any, Any, None]:
        if not self._conn._pipeline:  # noqa: SLF001 (written as the driver's own is)
            yield from super()._execute_gen(query, params, **options)
            return
        yield from self._start_query(query)
        converted = self._convert_query(query, params)
        yield from self._maybe_prepare_gen(converted, prepare=options.get("prepare"))
        self._last_query = query
        yield from self._conn._prepared.maintain_gen(self._conn)  # noqa: SLF001


class _Connection(psycopg.AsyncConnection[Any]):
    """A connection that remembers when it was last known to live."""

    seen_at = -math.inf


class Transaction:
    """An open transaction: queries by name, with `%(tenant)s` and `%(now)s` filled in.

    What answers nothing can be put off (`later`): it travels with the next query that is waited for, or with
    COMMIT, in the order in which it was said. A round trip costs more than most statements do.
    """

    def __init__(self, connection: Connection, tenant: TenantId | None, now: datetime | None) -> None:
        self._connection = connection
        self.tenant = tenant
        self._now = now
        self._put_off: list[tuple[bytes, dict[str, Any]]] = [(b"begin", {})]
        if tenant is not None:
            self._put_off.append((_BE_TENANT, {"tenant": str(tenant)}))

    @property
    def now(self) -> datetime:
        """The time that this transaction decides by."""
        if self._now is None:
            raise TypeError("this transaction was opened without a time")
        return self._now

    async def rows(self, query: str, /, **values: Any) -> list[Any]:
        """Run a query and return its rows, with columns as attributes."""
        [rows] = await self.each((query, values))
        return rows

    async def row(self, query: str, /, **values: Any) -> Any:
        """Run a query and return its first row, None if there is none."""
        return next(iter(await self.rows(query, **values)), None)

    async def run(self, query: str, /, **values: Any) -> int:
        """Run a statement and return how many rows it touched."""
        [cursor] = await self._together([(QUERIES[query], self._filled(values))])
        return cursor.rowcount

    async def each(self, *asked: tuple[str, Mapping[str, Any]]) -> list[list[Any]]:
        """Run queries in one round trip, one after the other, and return the rows of each."""
        cursors = await self._together([(QUERIES[query], self._filled(values)) for query, values in asked])
        return [await cursor.fetchall() for cursor in cursors]

    def later(self, query: str, /, **values: Any) -> None:
        """Put a statement off until the next query or COMMIT, which may then raise what it raises."""
        self._put_off.append((QUERIES[query], self._filled(values)))

    async def begin(self) -> None:
        """Send what was put off."""
        await self._together([])

    async def commit(self) -> None:
        """Commit with what was put off. Raises StoreUnavailable when the server rolled back instead."""
        [cursor] = await self._together([(b"commit", {})])
        if cursor.statusmessage != "COMMIT":
            raise StoreUnavailable("rolled back")

    async def _together(
        self, asked: Sequence[tuple[bytes, dict[str, Any]]]
    ) -> list[psycopg.AsyncCursor[Any]]:
        """Send what was put off and what is asked; return the cursors of what is asked, filled.

        The server runs them one by one, so each sees what was committed when its turn came: what is sent
        behind the lock reads what the last holder left.
        """
        sent, self._put_off = [*self._put_off, *asked], []
        if not sent:
            return []
        if len(sent) == 1:
            return [await self._connection.execute(*sent[0])]
        try:
            async with self._connection.pipeline():
                cursors = [await self._connection.execute(*each) for each in sent]
        except _ERRORS.PipelineAborted as exc:
            raise _first(exc) from None
        return cursors[len(sent) - len(asked) :]

    def _filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
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
            connection_class=_Connection,
            kwargs={
                "options": _OPTIONS,
                "cursor_factory": _Cursor,
                "row_factory": namedtuple_row,
                "connect_timeout": 5,
                "autocommit": True,  # BEGIN and COMMIT are said here, so that they share round trips
            },
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
        self, tenant: TenantId | None = None, now: datetime | None = None, *, at_once: bool = True
    ) -> AsyncIterator[Transaction]:
        """Open a transaction (READ COMMITTED): of one tenant, or of none, which sees what its role may.

        at_once  False: BEGIN is put off too, until something is asked

        Commits on leaving, rolls back on an exception. Raises LaneBusy when the wait for a lock ran out,
        StoreUnavailable when the database is away, read-only or not migrated, or another time-out ran out;
        whether a COMMIT that broke took place is for the dedupe to tell.
        """
        try:
            async with self._pool.connection() as connection:
                with cut_after(connection, self._deaf_seconds):
                    transaction = Transaction(connection, tenant, now)
                    if at_once:
                        await transaction.begin()
                    yield transaction
                    await transaction.commit()
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


async def _check(connection: _Connection) -> None:
    """Check a connection before it is handed out.

    One that was asked a moment ago is only looked at: a server that went away has closed it, or said so.
    """
    now = time.monotonic()
    if now - connection.seen_at < ASK_AGAIN_SECONDS and _is_quiet(connection):
        return
    with cut_after(connection, CHECK_SECONDS):
        await psycopg_pool.AsyncConnectionPool.check_connection(connection)
    connection.seen_at = now


def _is_quiet(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether nothing waits to be read, not even the end."""
    with socket.socket(fileno=os.dup(connection.fileno())) as its:
        try:
            its.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


async def _configure(connection: Connection) -> None:
    if connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
        await connection.execute(f"set transaction_timeout = {LIMIT_MS * 2}".encode())
        await connection.commit()


def _first(exc: BaseException) -> BaseException:
    """Return the error that aborted a pipeline: the driver raises that of a later statement in its place."""
    while isinstance(exc, _ERRORS.PipelineAborted) and exc.__context__ is not None:
        exc = exc.__context__
    return exc


def listed(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as the one JSON argument that json_to_recordset takes apart; bytes become base64."""
    return msgspec.json.encode(rows).decode()


def clean(text: str) -> str:
    """Make a text storable: PostgreSQL takes neither NUL nor lone surrogates; the raw body keeps them."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
