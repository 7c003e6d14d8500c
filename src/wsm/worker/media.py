"""Files that are about to be sent: out of the media store, or fetched from where somebody said they are.

A file is loaded before its intent is claimed, so that no claim waits for a slow host, and kept in memory
until it was sent. So many bytes at once and no more, and for one tenant half of them: what finds no room is
*unavailable*, and waits in the outbox and not here. What is fetched takes room as it comes, for a host that
hangs sends nothing; so many are waited for at once, and of one tenant few.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

from wsm.core import media
from wsm.core.content import Content, Loaded, MediaSource, needs_media
from wsm.core.errors import NoRoom, NotFound, TooLarge
from wsm.core.exits import Way
from wsm.core.ids import TenantId
from wsm.gateway.fetch import Fetched, Fetching, Take
from wsm.gateway.waha import Gateways
from wsm.store import media as store
from wsm.store.database import Database
from wsm.store.media import Stored

_NOT_STORED = "media: the store has no such file, or has it no more"
_FETCHES, _FETCHES_OF_ONE = 64, 8
"""Fewer than the deliveries of a worker (`deliver_slots`): hosts that hang never take all of them."""


class _Room:
    """So much of something, for all tenants and for one."""

    def __init__(self, most: int, of_one: int) -> None:
        self._most = most
        self._of_one = of_one
        self._held: dict[TenantId, int] = {}
        self.held = 0

    @contextmanager
    def lent(self, tenant: TenantId, size: int = 0) -> Iterator[Take]:
        """Lend so much, and more by what is yielded, until its end. Raises NoRoom."""
        mine = 0

        def take(more: int) -> None:
            nonlocal mine
            if self.held + more > self._most or self._held.get(tenant, 0) + more > self._of_one:
                raise NoRoom("media: no room for one more file just now")
            mine += more
            self.held += more
            self._held[tenant] = self._held.get(tenant, 0) + more

        try:
            take(size)
            yield take
        finally:
            self.held -= mine
            self._held[tenant] = self._held.get(tenant, 0) - mine
            if not self._held[tenant]:
                del self._held[tenant]


class Files:
    """Loads files. Belongs to one worker and its loop.

    in_flight_bytes  of all files that are in use at once; of one tenant half, and one file in any case
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
        self._bytes = _Room(in_flight_bytes, max(in_flight_bytes // 2, fetching.limit_bytes))
        self._fetches = _Room(_FETCHES, _FETCHES_OF_ONE)
        self._types = types

    @property
    def held_bytes(self) -> int:
        """Of the files that are in memory."""
        return self._bytes.held

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
        if source.url is not None:
            with self._bytes.lent(tenant) as take:
                with self._fetches.lent(tenant, 1):
                    fetched = await self._gateways.fetch(way, source.url, self._fetching, take)
                yield self._fit(content, fetched)
            return
        with self._bytes.lent(tenant, await self._size(tenant, source)):
            yield self._fit(content, await self._taken(tenant, source))

    async def _size(self, tenant: TenantId, source: MediaSource) -> int:
        """Say how much room a stored file takes."""
        size = await store.size(self._database, tenant, source.stored or 0)
        if size is None:
            raise NotFound(_NOT_STORED)
        if size > self._fetching.limit_bytes:
            raise TooLarge(self._fetching.limit_bytes)
        return size

    async def _taken(self, tenant: TenantId, source: MediaSource) -> Stored:
        stored = await store.take(self._database, tenant, source.stored or 0, self._clock())
        if stored is None:
            raise NotFound(_NOT_STORED)
        return stored

    def _fit(self, content: Content, file: Fetched | Stored) -> Loaded:
        said, name = file.mimetype, file.filename
        return media.loaded(content, file.content, said=said, filename=name, types=self._types)
