"""Clocks on a plant, by a time that the test moves."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta

from databases import Database as Urls
from shop import START
from working import Plant, plant
from wsm.clock.clock import Clock
from wsm.store.leadership import Leadership
from wsm.streams.client import connect
from wsm.streams.directory import PublishedDirectory

KEEP = timedelta(days=60)


class Clockwork:
    """Clocks on one plant."""

    def __init__(self, at: Plant, urls: Urls, published: PublishedDirectory) -> None:
        self.at = at
        self.urls = urls
        self.published = published
        self.now: datetime = START
        self.leaderships: list[Leadership] = []

    def leadership(self, **more: float) -> Leadership:
        """One clock's wish to lead."""
        self.leaderships.append(Leadership(self.urls.system_url, **more))
        return self.leaderships[-1]

    def clock(self) -> Clock:
        """Another clock."""
        return Clock(
            self.at.system,
            self.leadership(),
            self.at.handover,
            self.published,
            now=lambda: self.now,
            keep_dedupe=KEEP,
            keep_media=KEEP,
        )


@asynccontextmanager
async def clockwork(redis_url: str, urls: Urls) -> AsyncIterator[Clockwork]:
    """Open a plant for clocks."""
    async with plant(redis_url, urls) as at, AsyncExitStack() as stack:
        client = connect(redis_url, timeout_seconds=5.0)
        stack.push_async_callback(client.aclose)
        works = Clockwork(at, urls, PublishedDirectory(client))
        try:
            yield works
        finally:
            for each in works.leaderships:
                await each.resign()
