"""What nobody could handle, for a person to look at: dead letters of tenants, and the quarantine.

A dead letter is an entry that failed, or lost its worker, for the last time. Replayed, it returns under the
id that it had in the mailbox, and the next turn takes it as if it had come only now: what the chat has seen
since makes it late, what was seen before makes it a duplicate.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from wsm.core.ids import TenantId
from wsm.streams import keys
from wsm.streams.client import translated
from wsm.streams.scripts import load

_AT_ONCE = 500
"""Letters of one call: they may be of 1 MiB each, and Lua takes some 8,000 arguments."""


class Letter(msgspec.Struct, frozen=True):
    """A dead letter.

    id       its own; `<ms>-<n>`: when it died
    entry    what it was in the mailbox; it tells when it was accepted
    origin   who wrote it; an entry that is none of wsm's has none, and cannot be replayed
    """

    id: str
    entry: str
    reason: str
    session: str
    origin: str
    body: bytes

    @property
    def died_at_ms(self) -> int:
        """When it was given up."""
        return int(self.id.partition("-")[0])


class Misplaced(msgspec.Struct, frozen=True):
    """An authentic webhook that belongs to no session. server: the WAHA whose secret it bore."""

    id: str
    server: str
    session: str
    reason: str
    body: bytes


class DeadLetters:
    """The dead letters on one Redis. Every method raises StreamsUnavailable and may be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = load("dead")

    async def tenants(self) -> list[tuple[TenantId, int]]:
        """Every tenant who has dead letters, and how many."""
        with translated():
            found: Any = await self._redis.smembers(keys.DEAD)
            tenants = sorted(TenantId(int(tenant)) for tenant in found)
            pipe = self._redis.pipeline(transaction=False)
            for tenant in tenants:
                pipe.xlen(keys.dead(tenant))
            return list(zip(tenants, await pipe.execute(), strict=True))

    async def read(self, tenant: TenantId, ids: Sequence[str] = ()) -> list[Letter]:
        """Read a tenant's dead letters, or those named, in the order in which they died."""
        return [_letter(id_, fields) for id_, fields in await _read(self._redis, keys.dead(tenant), ids)]

    async def replay(self, tenant: TenantId, ids: Sequence[str]) -> int:
        """Let dead letters return, in the order in which they were accepted; returns how many did.

        They pass the marks of a full mailbox, and wait while their tenant is paused.
        """
        letters = sorted(await self.read(tenant, ids), key=lambda letter: _place(letter.entry))
        return await self._each(tenant, "replay", [letter.id for letter in letters])

    async def drop(self, tenant: TenantId, ids: Sequence[str]) -> int:
        """Forget dead letters for ever; returns how many."""
        return await self._each(tenant, "drop", ids)

    async def _each(self, tenant: TenantId, verb: str, ids: Sequence[str]) -> int:
        done = 0
        with translated():
            for first in range(0, len(ids), _AT_ONCE):
                done += await self._script(
                    self._redis, [tenant, verb, keys.NO_CHAT, *ids[first : first + _AT_ONCE]]
                )
        return done


class Quarantine:
    """The webhooks of no known session. Every method raises StreamsUnavailable and may be repeated."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = load("unquarantine")

    async def read(self, ids: Sequence[str] = ()) -> list[Misplaced]:
        """Read all of them, or those named, oldest first."""
        return [_misplaced(id_, fields) for id_, fields in await _read(self._redis, keys.QUARANTINE, ids)]

    async def drop(self, ids: Sequence[str]) -> int:
        """Forget them for ever; returns how many."""
        with translated():
            return sum(
                [
                    await self._script(self._redis, ids[first : first + _AT_ONCE])
                    for first in range(0, len(ids), _AT_ONCE)
                ]
            )


async def _read(redis: Redis, stream: str, ids: Sequence[str]) -> list[tuple[str, dict[str, bytes]]]:
    """Read the named entries of a stream, or all of them."""
    with translated():
        if not ids:
            found: Any = await redis.xrange(stream)
        else:
            pipe = redis.pipeline(transaction=False)
            for id_ in ids:
                pipe.xrange(stream, id_, id_)
            found = [entry for entries in await pipe.execute() for entry in entries]
    return [(id_.decode(), {name.decode(): value for name, value in fields.items()}) for id_, fields in found]


def _letter(id_: str, fields: dict[str, bytes]) -> Letter:
    return Letter(
        id=id_,
        entry=fields["entry"].decode(),
        reason=fields["reason"].decode(),
        session=fields.get("session", b"").decode(errors="replace"),
        origin=fields.get("origin", b"").decode(errors="replace"),
        body=fields.get("body", b""),
    )


def _misplaced(id_: str, fields: dict[str, bytes]) -> Misplaced:
    server, session, reason = (fields[name].decode() for name in ("server", "session", "reason"))
    return Misplaced(id_, server, session, reason, fields["body"])


def _place(entry: str) -> tuple[int, int]:
    milliseconds, counter = entry.split("-")
    return int(milliseconds), int(counter)
