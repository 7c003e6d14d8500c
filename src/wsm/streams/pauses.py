"""Tenants whose bells rest: who is paused, since when, by whom and why.

The truth is one hash in Redis, which the scripts read: a pause holds from the call's return on, outlives
every process, and needs no database. What was claimed before it comes to its end: a turn its one
transaction, a delivery the messages that are on their way. Mailboxes go on filling until they are full.
"""

import time
from typing import Any

import msgspec
from redis.asyncio import Redis

from wsm.core.ids import TenantId
from wsm.streams import keys
from wsm.streams.client import translated
from wsm.streams.scripts import load

CLI = "cli"
DEAD_LETTERS_LIMIT = "dead_letters"
"""Who may pause a tenant: a person, or the scripts when he has too many dead letters."""


class Paused(msgspec.Struct, frozen=True):
    """A tenant who rests. by: CLI or DEAD_LETTERS_LIMIT."""

    tenant: TenantId
    at_ms: int
    by: str
    reason: str


class Pauses:
    """The pauses on one Redis. Every method raises StreamsUnavailable and may be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = load("pause")

    async def pause(self, tenant: TenantId, reason: str) -> bool:
        """Pause a tenant; False if he was already, and then the reason is the new one."""
        return await self._call(tenant, f"{time.time_ns() // 1_000_000} {CLI} {reason}")

    async def resume(self, tenant: TenantId) -> bool:
        """Let a tenant go on, and ring for what waits; False if he was not paused."""
        return await self._call(tenant, "")

    async def all(self) -> list[Paused]:
        """Every paused tenant, by number."""
        with translated():
            found: Any = await self._redis.hgetall(keys.PAUSED)
        return read(found)

    async def _call(self, tenant: TenantId, why: str) -> bool:
        with translated():
            changed: int = await self._script(self._redis, [tenant, why])
        return changed == 1


def read(found: dict[bytes, bytes]) -> list[Paused]:
    """Read the hash."""
    return sorted((_paused(tenant, why.decode()) for tenant, why in found.items()), key=lambda it: it.tenant)


def _paused(tenant: bytes, why: str) -> Paused:
    at_ms, by, reason = why.split(" ", 2)
    return Paused(TenantId(int(tenant)), int(at_ms), by, reason)
