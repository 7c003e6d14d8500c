"""One day, from before the shops open until the last ticket has ended."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import structlog

from databases import Database as Urls
from day.books import Books, books
from day.city import city
from day.people import People
from day.plan import Plan
from day.staff import Owner, Staff
from day.troubles import Troubles

_HOUR = timedelta(hours=1)


async def run(
    plan: Plan,
    redis_url: str,
    urls: Urls,
    *,
    until: datetime | None = None,
    say: Callable[[str], None] | None = None,
) -> Books:
    """Live through a day on an empty Redis and a migrated database, and return its books.

    until  when to stop looking, if not when all is over
    say    is told once an hour how far it is
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
            Owner(at)
            Troubles(at).come(plan)
            hours = [at.clock()]

            async def look() -> None:
                arrivals, at.arrivals = at.arrivals, []
                people.read(arrivals)
                await staff.look()
                if say and at.clock() >= hours[-1] + _HOUR:
                    hours.append(at.clock().replace(minute=0, second=0, microsecond=0))
                    say(f"{at.clock():%d %b %H:%M} UTC: {len(people.wrote)} messages, {len(at.asked)} asks")

            await at.live(until or plan.ends, look)
            return await books(at, people.wrote, errors)
    finally:
        structlog.configure(**logging)
