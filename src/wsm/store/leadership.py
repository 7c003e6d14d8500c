"""Which of several clocks leads: whoever holds one advisory lock, as long as its connection stands.

A leader that has stopped, or whose machine is gone, says nothing on its connection: the server ends it then.
"""

import psycopg

from wsm.core.errors import StoreUnavailable
from wsm.store.database import CHECK_SECONDS, cut_after

_LOCK = -1
STALLED_SECONDS = 30.0


class Leadership:
    """One connection that holds the lock or stands by. A broken connection is a lost lead.

    stalled_seconds  who does not ask for so long loses the lead
    """

    def __init__(self, url: str, *, stalled_seconds: float = STALLED_SECONDS) -> None:
        self._url = url
        self._options = f"-c idle_session_timeout={int(stalled_seconds * 1000)}"
        self._connection: psycopg.AsyncConnection | None = None
        self._leads = False

    async def leads(self) -> bool:
        """Ask whether this process leads, trying to take a free lead. Raises StoreUnavailable."""
        try:
            if self._connection is None:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=5, options=self._options
                )
            query = "select true" if self._leads else "select pg_try_advisory_lock(%s)"
            with cut_after(self._connection, CHECK_SECONDS):
                cursor = await self._connection.execute(query, None if self._leads else [_LOCK])
                row = await cursor.fetchone()
            self._leads = bool(row and row[0])
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            await self.resign()
            raise StoreUnavailable("the clock lost its database") from exc
        return self._leads

    async def resign(self) -> None:
        """Let go of the lead and the connection."""
        self._leads = False
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
