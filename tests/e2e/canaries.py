"""Words that are used nowhere else: where one is heard, something was told that nobody may read there."""

import secrets
import zlib
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from e2e.town import Town, session_of
from wsm.core.ids import SessionAddress, TenantId

SHOP, OTHER = TenantId(1460561546), TenantId(1460561547)
PHONES = [f"5521{secrets.randbelow(10**9):09d}" for _ in range(6)]
NEIGHBOURS_PHONE = f"5531{secrets.randbelow(10**9):09d}"
TEXT, NAME, PASSWORD, HOOK_SECRET, NEIGHBOURS_TEXT = (f"canario{secrets.token_hex(8)}" for _ in range(5))
DURABLE = (":in", ":dead", "wsm:quarantine")
"""Keys that hold bodies as they came, by the ends of their names: mailboxes, and what nobody could handle."""
NAMES_CHATS = ":parked"
"""In these, and in their names, stand the chats that are put aside."""


def canaries(at: Town) -> Mapping[str, str]:
    """Everything that nobody may read elsewhere."""
    _, _, master_key = at.site.environ["WSM_MASTER_KEYS"].partition(":")
    return {
        **{f"phone {number}": phone for number, phone in enumerate([*PHONES, NEIGHBOURS_PHONE])},
        "text": TEXT,
        "neighbour's text": NEIGHBOURS_TEXT,
        "name": NAME,
        "database password": PASSWORD,
        "hook secret": HOOK_SECRET,
        "API key": at.waha.api_key,
        "master key": master_key,
        **{f"secret of {tenant}": secret_of(at, tenant) for tenant in (SHOP, OTHER)},
    }


def secret_of(at: Town, tenant: TenantId) -> str:
    """What a tenant's webhooks are signed with."""
    return at.site.secret(SessionAddress(tenant, session_of(tenant)))


def check_silent(at: Town, where: str, said: str, *, but: tuple[str, ...] = ()) -> None:
    """No canary sings in what was said, but those that are named."""
    heard = [what for what, canary in canaries(at).items() if canary in said and what not in but]
    assert not heard, f"{where} tells {heard}: {said[:2000]}"


async def check_redis(at: Town) -> set[str]:
    """No key but those that keep bodies, and none of RQ's, has a canary in its name or value.

    Returns the kinds of all keys that were looked at, their numbers and names as `…`.
    """
    kinds = set()
    async with Redis.from_url(at.ground.servers.redis_url) as redis:
        async for key in redis.scan_iter():
            name = key.decode()
            kinds.add(
                ":".join("…" if part[:1].isdigit() or len(part) > 20 else part for part in name.split(":"))
            )
            if not name.endswith(DURABLE) and NAMES_CHATS not in name:
                check_silent(at, name, f"{name} {await _value(redis, key)}")
    return kinds


async def _value(redis: Any, key: bytes) -> str:
    kind = (await redis.type(key)).decode()
    if kind == "hash":
        found = await redis.hgetall(key)
        job = zlib.decompress(found[b"data"]) if b"data" in found else b""
        return f"{found} {job!r}"
    read = {
        "string": lambda: redis.get(key),
        "list": lambda: redis.lrange(key, 0, -1),
        "set": lambda: redis.smembers(key),
        "zset": lambda: redis.zrange(key, 0, -1),
        "stream": lambda: redis.xrange(key),
    }.get(kind)
    return repr(await read()) if read else ""  # else it is gone by now
