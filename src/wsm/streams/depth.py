"""How much waits, of all tenants or of one: one round trip, whatever their number."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from wsm.core.ids import TenantId
from wsm.streams import keys
from wsm.streams.client import translated
from wsm.streams.keys import Kind
from wsm.streams.pauses import Paused, read


class Depth(msgspec.Struct, frozen=True):
    """How much waits: entries and bytes of all mailboxes, tenants in mail and ready by kind, active tenants.

    dead    dead letters of all tenants, and their bytes
    paused  tenants whose bells rest
    """

    entries: int
    bytes: int
    dead: int
    dead_bytes: int
    quarantined: int
    mail: Mapping[Kind, int]
    ready: Mapping[Kind, int]
    active: int
    paused: Sequence[Paused]


async def measure(redis: Redis) -> Depth:
    """Read it. Raises StreamsUnavailable."""
    pipe = redis.pipeline(transaction=False)
    pipe.hmget(keys.LOAD, "entries", "bytes", "dead", "dead_bytes")
    pipe.scard(keys.ACTIVE)
    pipe.xlen(keys.QUARANTINE)
    pipe.hgetall(keys.PAUSED)
    for kind in Kind:
        pipe.zcard(keys.mail(kind))
        pipe.zcard(keys.ready(kind))
    with translated():
        found: list[Any] = await pipe.execute()
    load, active, quarantined, paused, *lines = found
    entries, size, dead, dead_bytes = (int(value or 0) for value in load)
    return Depth(
        entries=entries,
        bytes=size,
        dead=dead,
        dead_bytes=dead_bytes,
        quarantined=quarantined,
        mail=dict(zip(Kind, lines[::2], strict=True)),
        ready=dict(zip(Kind, lines[1::2], strict=True)),
        active=active,
        paused=read(paused),
    )


class HeldBy(msgspec.Struct, frozen=True):
    """What waits for one tenant.

    parked  chats put aside
    dead    his dead letters
    bells   the state of each kind's bell: queued, claimed or none
    """

    entries: int
    bytes: int
    parked: int
    dead: int
    bells: Mapping[Kind, str]


async def held_by(redis: Redis, tenant: TenantId) -> HeldBy:
    """Read what waits for a tenant. Raises StreamsUnavailable."""
    pipe = redis.pipeline(transaction=False)
    pipe.hmget(keys.load(tenant), "entries", "bytes")
    pipe.zcard(keys.parked(tenant))
    pipe.xlen(keys.dead(tenant))
    for kind in Kind:
        pipe.hget(keys.pointer(tenant, kind), "state")
    with translated():
        found: list[Any] = await pipe.execute()
    load, parked, dead, *states = found
    entries, size = (int(value or 0) for value in load)
    bells = {kind: state.decode() if state else "none" for kind, state in zip(Kind, states, strict=True)}
    return HeldBy(entries=entries, bytes=size, parked=parked, dead=dead, bells=bells)
