"""One day, from before the shops open until the last ticket has ended."""

from datetime import datetime
from typing import Any

import structlog

from databases import Database as Urls
from day.books import Books, books
from day.city import city
from day.people import People
from day.plan import Plan
from day.staff import Staff, supervise
from day.troubles import Troubles


async def run(plan: Plan, redis_url: str, urls: Urls, *, until: datetime | None = None) -> Books:
    """Live through a day on an empty Redis and a migrated database, and return its books.

    until  when to stop looking, if not when all is over
    """
    errors: list[str] = []

    def hear(_logger: Any, level: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if level in {"error", "critical", "exception"}:
            errors.append(str(line))
        raise structlog.DropEvent

    logging = structlog.get_config()
    structlog.configure(processors=[hear])
    try:
        async with city(plan, redis_url, urls) as at:
            people, staff = People(at), Staff(at)
            await staff.begin()
            supervise(at, plan, plan.chance("supervisor"))
            Troubles(at).come(plan)

            async def look() -> None:
                arrivals, at.arrivals = at.arrivals, []
                people.read(arrivals)
                await staff.look()

            await at.live(until or plan.ends, look)
            return await books(at, people.wrote, errors)
    finally:
        structlog.configure(**logging)
