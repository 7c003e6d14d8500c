"""The HTTP clients of one process: one for each session and exit, as many as are used."""

import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

import httpx

_CLOSED_AT_ONCE = 16


class _Kept:
    __slots__ = ("http", "left_at", "users")

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.users = 0
        self.left_at = 0.0


class Clients:
    """Keeps clients by key. Beyond `most` the one that was idle for the longest is closed, none in use.

    idle_seconds  after so long one is closed too, when another is used: longer than its connections may be
                  used again. Left alone, httpx keeps the socket of each, closed or not by the other side:
                  one for every session that was ever asked. To build another costs a tenth of a call
    """

    def __init__(
        self, most: int = 5_000, *, idle_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._idle_seconds = idle_seconds
        self._clock = clock
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
            await self._close_idle()
            yield its.http
        finally:
            its.users -= 1
            its.left_at = self._clock()

    async def aclose(self) -> None:
        """Close all of them. Calls in flight break."""
        kept, self._kept = self._kept, {}
        for its in kept.values():
            await its.http.aclose()

    async def _close_idle(self) -> None:
        """Close what is too many or idle for too long: a few at a time, the last used stand last."""
        too_many, long_ago = len(self._kept) - self._most, self._clock() - self._idle_seconds
        closing: list[Hashable] = []
        for key, its in self._kept.items():
            if its.users:
                continue
            if len(closing) >= max(too_many, _CLOSED_AT_ONCE if its.left_at < long_ago else 0):
                break
            closing.append(key)
        for kept in [self._kept.pop(key) for key in closing]:
            await kept.http.aclose()
