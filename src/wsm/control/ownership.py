"""The leave to move a session: one process has it at a time, as long as its lease lasts.

Who has it says so in the database every few seconds; of who died it is free again after `LEASE_SECONDS`. Each
lease has an epoch, which fences what its holder writes; a call to a gateway begins only while the lease
certainly lasts by the own monotonic clock. A call that has begun may outlast it, when the database goes away
meanwhile: WAHA itself lets one call at a time change a session (CONTRACT 6.2).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from wsm.core.errors import SessionBusy, Unavailable
from wsm.core.ids import TenantId
from wsm.store import owners
from wsm.store.database import Database

LEASE_SECONDS = 15.0
_RENEWALS = 3
_AGAIN_SECONDS = 0.2


class Owned:
    """A lease. epoch: which one."""

    def __init__(self, epoch: int, until: float, monotonic: Callable[[], float]) -> None:
        self.epoch = epoch
        self._until = until
        self._monotonic = monotonic

    def check(self) -> None:
        """Raise SessionBusy unless the lease certainly lasts."""
        if self._monotonic() >= self._until:
            raise SessionBusy("the leave to move this session ran out")

    def lasts_until(self, moment: float) -> None:
        """Note that it was prolonged, or by a moment that is over, that it is lost."""
        self._until = moment


@asynccontextmanager
async def owned(
    database: Database,
    tenant: TenantId,
    session: int,
    *,
    owner: str,
    monotonic: Callable[[], float] = time.monotonic,
    lease_seconds: float = LEASE_SECONDS,
    patience_seconds: float = 0.0,
) -> AsyncIterator[Owned]:
    """Take the leave to move a session, and keep it until the end.

    Waits so long while it is taken; raises SessionBusy then.
    """
    over_at = monotonic() + patience_seconds
    asked = monotonic()
    while (epoch := await owners.take(database, tenant, session, owner, seconds=lease_seconds)) is None:
        if monotonic() >= over_at:
            raise SessionBusy("another process moves this session just now")
        await asyncio.sleep(_AGAIN_SECONDS)
        asked = monotonic()
    mine = Owned(epoch, asked + lease_seconds, monotonic)

    async def keep() -> None:
        while True:
            await asyncio.sleep(lease_seconds / _RENEWALS)
            asked = monotonic()
            with suppress(Unavailable):
                kept = await owners.keep(database, tenant, session, mine.epoch, seconds=lease_seconds)
                mine.lasts_until(asked + lease_seconds if kept else 0.0)

    keeping = asyncio.create_task(keep())
    try:
        yield mine
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        with suppress(Unavailable):
            await owners.leave(database, tenant, session, mine.epoch)
