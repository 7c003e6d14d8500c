"""Opening the hand-over on a test's Valkey, and offers to fill it with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wsm.core.events import Origin
from wsm.core.ids import ChatId, SessionName, TenantId
from wsm.streams.client import connect
from wsm.streams.handover import Bell, Entry, Handover, Limits, Offer, Parking, Sweep
from wsm.streams.keys import Kind

TENANT = TenantId(1460561546)
OTHER = TenantId(1460561547)
CHAT = ChatId("5511999990001@c.us")
ROOMY = Limits(tenant_entries=10_000, tenant_bytes=10**8, all_bytes=10**9, quarantine_entries=100)
START_MS = 1_800_000_000_000
LEASE_MS = 4000
FULL_TURN = {Kind.TURN: 100}


@asynccontextmanager
async def opened(url: str, **changes: Any) -> AsyncIterator[tuple[Handover, Any]]:
    """Open a hand-over, with other settings where a test says so, and its client."""
    redis = connect(url, timeout_seconds=changes.pop("timeout_seconds", 5.0))
    settings = {"limits": ROOMY, "lease_seconds": LEASE_MS / 1000, "turn_entries": 8, **changes}
    try:
        yield Handover(redis, **settings), redis
    finally:
        await redis.aclose()


def offer(body: bytes, tenant: TenantId = TENANT, origin: Origin = Origin.WAHA) -> Offer:
    """Make an offer."""
    return Offer(tenant, SessionName(f"user_{tenant}"), origin, START_MS, body)


def offers(*bodies: bytes, tenant: TenantId = TENANT) -> list[Offer]:
    """Make one offer for each body."""
    return [offer(body, tenant) for body in bodies]


async def claim(handover: Handover, now_ms: int = START_MS, worker: str = "w") -> list[Bell]:
    """Ring for turns and claim every one that is ready."""
    await handover.ring(Kind.TURN, 10_000)
    return list((await handover.claim(worker, FULL_TURN, [], now_ms=now_ms)).bells)


async def claim_one(handover: Handover, now_ms: int = START_MS) -> Bell:
    """Ring and claim; there must be exactly one turn."""
    [bell] = await claim(handover, now_ms)
    return bell


def failing(bell: Bell, chat: ChatId = CHAT) -> list[Parking]:
    """Put all of a bell's entries aside as one chat, for the fault of its first."""
    return [Parking(chat, bell.entries[0].id, "boom", bell.entries)]


def bodies(entries: tuple[Entry, ...]) -> list[bytes]:
    """Return what the entries say."""
    return [entry.body for entry in entries]


async def sweep(handover: Handover, now_ms: int = START_MS) -> Sweep:
    """Sweep all active tenants in slices; returns the sums."""
    done = await handover.sweep(0, now_ms=now_ms)
    total = done
    while done.cursor:
        done = await handover.sweep(done.cursor, now_ms=now_ms)
        total = Sweep(
            done.cursor,
            total.rung + done.rung,
            total.expired + done.expired,
            total.returned + done.returned,
            total.repaired + done.repaired,
            total.foreign + done.foreign,
        )
    return total
