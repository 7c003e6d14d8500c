"""The HTTP clients of one process: one for each session and exit, as many as are used."""

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

import httpx


class _Kept:
    __slots__ = ("http", "users")

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.users = 0


class Clients:
    """Keeps clients by key. Beyond `most` the one that was idle for the longest is closed, none in use."""

    def __init__(self, most: int = 5_000) -> None:
        self._most = most
        self._kept: dict[Hashable, _Kept] = {}

    @asynccontextmanager
    async def use(
        self, key: Hashable, build: Callable[[], httpx.AsyncClient]
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Lend the client of a key, built if there is none. May close others."""
        its = self._kept.pop(key, None) or _Kept(build())
        self._kept[key] = its  # the last used stands last
        its.users += 1
        try:
            if len(self._kept) > self._most:
                await self._close_idle()
            yield its.http
        finally:
            its.users -= 1

    async def aclose(self) -> None:
        """Close all of them. Calls in flight break."""
        kept, self._kept = self._kept, {}
        for its in kept.values():
            await its.http.aclose()

    async def _close_idle(self) -> None:
        idle = [key for key, its in self._kept.items() if not its.users]
        closing = [self._kept.pop(key) for key in idle[: len(self._kept) - self._most]]
        for its in closing:
            await its.http.aclose()
