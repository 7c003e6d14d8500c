"""Where the directory of sessions lies between the clock, which writes it, and ingest, which reads it.

Bytes in, bytes out: their form is `wire.directory`. The version beside them is small enough to be asked for
twice a second. Every call raises StreamsUnavailable and may be repeated.
"""

from typing import Any

from redis.asyncio import Redis

from wsm.streams import keys
from wsm.streams.client import translated


class PublishedDirectory:
    """The directory on one Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def publish(self, version: str, body: bytes) -> None:
        """Replace the directory and its version at once."""
        with translated():
            await self._redis.mset({keys.DIRECTORY: body, keys.DIRECTORY_VERSION: version})

    async def version(self) -> str | None:
        """Return the version; None when nothing was published."""
        with translated():
            found: Any = await self._redis.get(keys.DIRECTORY_VERSION)
        return None if found is None else str(found, "utf-8")

    async def read(self) -> bytes | None:
        """Return the directory; None when nothing was published."""
        with translated():
            found: Any = await self._redis.get(keys.DIRECTORY)
        return None if found is None else bytes(found)
