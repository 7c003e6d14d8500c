"""Files that are about to be sent: out of the media store, or fetched from where somebody said they are.

A file is loaded before its intent is claimed, so that no claim waits for a slow host, and kept in memory
until it was sent. So many bytes at once and no more: what finds no room is *unavailable*, and waits in the
outbox and not here.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from wsm.core import media
from wsm.core.content import Content, Loaded, MediaSource, needs_media
from wsm.core.errors import NotFound, SourceUnavailable, TooLarge
from wsm.core.exits import Way
from wsm.core.ids import TenantId
from wsm.gateway.fetch import Fetching
from wsm.gateway.waha import Gateways
from wsm.store import media as store
from wsm.store.database import Database


class Files:
    """Loads files. Belongs to one worker and its loop.

    in_flight_bytes  of all files that are in use at once
    types            that may be sent; empty: all
    """

    def __init__(
        self,
        database: Database,
        gateways: Gateways,
        fetching: Fetching,
        *,
        clock: Callable[[], datetime],
        in_flight_bytes: int,
        types: Sequence[str] = (),
    ) -> None:
        self._database = database
        self._gateways = gateways
        self._fetching = fetching
        self._clock = clock
        self._most_bytes = in_flight_bytes
        self._types = types
        self.held_bytes = 0

    @asynccontextmanager
    async def loaded(
        self, tenant: TenantId, way: Way | None, content: Content
    ) -> AsyncIterator[Loaded | None]:
        """Lend the file that something needs; None when it needs none. Nothing of a claim may be open yet.

        way  the exit of its session, through which it is fetched; None where the policy is `direct`

        Raises BadInput, NotFound, TooLarge and Refused where trying again would not help, and Unavailable of
        any kind where it may: no room, host or exit away, database away. Blocks as `fetch.Fetching.fetch`.
        """
        source = needs_media(content)
        if source is None:
            yield None
            return
        held = await self._needs(tenant, source)
        if self.held_bytes + held > self._most_bytes:
            raise SourceUnavailable("media: no room for one more file just now")
        self.held_bytes += held
        try:
            yield await self._load(tenant, way, content, source)
        finally:
            self.held_bytes -= held

    async def _needs(self, tenant: TenantId, source: MediaSource) -> int:
        """Say how much room a file takes: all that is allowed where nobody knows before it is there."""
        if source.stored is None:
            return self._fetching.limit_bytes
        size = await store.size(self._database, tenant, source.stored)
        if size is None:
            raise NotFound("media: the store has no such file, or has it no more")
        if size > self._fetching.limit_bytes:
            raise TooLarge(self._fetching.limit_bytes)
        return size

    async def _load(self, tenant: TenantId, way: Way | None, content: Content, source: MediaSource) -> Loaded:
        if source.url is not None:
            fetched = await self._gateways.fetch(way, source.url, self._fetching)
            said, name, file = fetched.mimetype, fetched.filename, fetched.content
        else:
            stored = await store.take(self._database, tenant, source.stored or 0, self._clock())
            if stored is None:
                raise NotFound("media: the store has no such file, or has it no more")
            said, name, file = stored.mimetype, stored.filename, stored.content
        return media.loaded(content, file, said=said, filename=name, types=self._types)
