"""The months of history: a message needs its month's partition, which is made when it is first needed."""

from datetime import datetime

from wsm.store import fleet
from wsm.store.database import Database


class Months:
    """Makes months, and asks for each one once per process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[tuple[int, int]] = set()

    async def cover(self, *times: datetime) -> None:
        """Make sure that messages of these times can be kept. Raises StoreUnavailable."""
        for time in times:
            month = (time.year, time.month)
            if month not in self._known:
                await fleet.ensure_month(self._database, time.date())
                self._known.add(month)
