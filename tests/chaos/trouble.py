"""What brings a message to the points that a good day never sees."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import httpx
import psycopg
from redis.asyncio import Redis

from chaos.crowd import Crowd
from e2e.town import Town, customers, session_of
from wsm.core.errors import Unavailable
from wsm.core.ids import TenantId
from wsm.sandbox.site import PROCESSES
from wsm.sandbox.waha.faults import Wrong
from wsm.streams import keys
from wsm.wire.signature import sign

Trouble = Callable[[], Awaitable[None]]

HOOK_SECRET = "segredo-do-servidor"
_SOME_SECONDS = 1.5
_OUTAGE_SECONDS = 7.0
"""A worker waits 5 s for a connection before it calls the database away."""
_BREAK = """
create function broken() returns trigger language plpgsql as
$$ begin raise exception 'broken on purpose'; end $$;
create trigger broken before insert on messages for each row
when (new.body like '%quebra%') execute function broken()
"""
_AWAY = (OSError, httpx.HTTPError, psycopg.Error, Unavailable)


def troubles(
    at: Town,
    crowd: Crowd,
    tenants: Sequence[TenantId],
    chance: random.Random,
    count: Callable[[], int],
) -> list[Trouble]:
    """Return what can be done to a town. Each ends by itself, may be done again, and meets dead processes.

    count  counts something that an outage may change, and the outage lasts while it does
    """
    servers = at.ground.servers

    async def outage() -> None:
        before = None
        while before != (before := count()):  # noqa: ASYNC110 (deaths are counted in files of other processes)
            await asyncio.sleep(_OUTAGE_SECONDS)

    async def valkey_dies() -> None:
        await asyncio.to_thread(servers.valkey.kill)
        await outage()
        await asyncio.to_thread(servers.valkey.start)

    async def postgres_dies() -> None:
        await asyncio.to_thread(servers.postgres.kill)
        await outage()
        await asyncio.to_thread(servers.postgres.start)

    async def redis_forgets() -> None:
        async with Redis.from_url(servers.redis_url) as redis:
            await redis.script_flush()
            await redis.delete(keys.DIRECTORY_VERSION)

    async def waha_refuses() -> None:
        async with crowd.silent:  # the phones are WAHA's too
            await at.phone.refuse(2 * _SOME_SECONDS)
            for shop in tenants[:6]:  # somebody is told that it is his turn
                if line := await at.line(shop):
                    await at.closes(shop, line[0][0])
            await asyncio.sleep(2 * _SOME_SECONDS + 0.5)

    async def sends_go_wrong() -> None:
        for kind in Wrong:
            if kind.passes or kind is Wrong.ERROR_463:
                await at.phone.fault(kind, seconds=1)

    async def entries_break() -> None:
        """Let several messages of several customers fail in one turn: they gather while the lane is held."""
        shop = chance.choice(tenants)
        await at.execute("drop function if exists broken() cascade")
        await at.execute(_BREAK)
        async with at.held(shop):
            for who in customers(3, shop=999):
                for text in ("oi", "quebra", "oi?"):
                    await at.says(shop, who, text)
            await asyncio.sleep(_SOME_SECONDS)
        await asyncio.sleep(2 * _SOME_SECONDS)
        await at.execute("drop function broken() cascade")

    async def somebody_comes_back_in_the_turn_of_his_closing() -> None:
        """Hold lanes by a turn of somebody else's, so that both come in the one after it."""
        shops, (who, another) = chance.sample(tenants, 6), customers(2, shop=998)
        for shop in shops:
            await at.says(shop, who, "oi")
        await asyncio.sleep(_SOME_SECONDS)
        async with at.held(*shops):
            for shop in shops:
                await at.says(shop, another, "oi")
            await asyncio.sleep(_SOME_SECONDS / 2)
            for shop in shops:
                await at.closes(shop, who)
                await at.says(shop, who, "mais uma coisa")
            await asyncio.sleep(_SOME_SECONDS / 2)

    async def nobody_hears_what_was_sent() -> None:
        """Messages leave, their answers are lost, and their echoes find ingest standing still."""
        shops, who = chance.sample(tenants, 6), customers(1, shop=997)[0]
        async with at.held(*shops):
            for shop in shops:
                await at.says(shop, who, "oi")
            await at.phone.fault(Wrong.CUT_AFTER, phone=who, times=len(shops))
            await asyncio.sleep(_SOME_SECONDS)
            pid = at.site.supervisor.pid("ingest")
            os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(4 * _SOME_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def somebody_asks_who_can_work() -> None:
        await asyncio.gather(*map(at.ready, PROCESSES), return_exceptions=True)

    async def processes_are_ended() -> None:
        for name in PROCESSES:
            with suppress(Unavailable):
                at.site.supervisor.send(name, signal.SIGTERM)

    async def workers_are_ended_in_the_middle_of_a_turn() -> None:
        """Hold a lane for longer than a worker may take to end."""
        shop = chance.choice(tenants)
        async with at.held(shop):
            await at.says(shop, customers(1, shop=999)[0], "oi")
            await asyncio.sleep(_SOME_SECONDS)
            await processes_are_ended()
            await asyncio.sleep(2 * _SOME_SECONDS)

    async def ingest_is_ended_while_valkey_stands_still() -> None:
        pid = servers.valkey.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(_SOME_SECONDS / 3)
            with suppress(Unavailable):
                at.site.supervisor.send("ingest", signal.SIGTERM)
            await asyncio.sleep(2 * _SOME_SECONDS)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def clients_misbehave() -> None:
        body = b'{"event":"message.any","session":"de-ninguem"}'
        hook = at.site.webhooks_url
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(hook, content=body, headers={"X-Webhook-Hmac": sign(HOOK_SECRET, body)})
            await client.get(hook.removesuffix("/webhooks/waha") + "/healthz")
        await too_much()
        await too_much()

    async def too_much() -> None:
        """Send more than fits, in two pieces: the second after the answer."""
        shop = chance.choice(tenants)
        path = f"/webhooks/waha/{shop}/{session_of(shop)}"
        reader, writer = await asyncio.open_connection(at.site.settings.host, at.site.settings.port)
        try:
            writer.write(f"POST {path} HTTP/1.1\r\nHost: wsm\r\nContent-Length: 2000000\r\n\r\n".encode())
            writer.write(b"x" * 1000)
            await reader.readline()
            writer.write(b"x" * 1000)
            await asyncio.sleep(0.1)
            writer.write(b"x" * 1_998_000)
            await reader.read()
        finally:
            writer.close()

    def safe(trouble: Trouble) -> Trouble:
        async def done() -> None:
            with suppress(*_AWAY):
                await trouble()

        return done

    found = [redis_forgets, sends_go_wrong, waha_refuses, clients_misbehave, entries_break]
    found += [somebody_asks_who_can_work, valkey_dies, postgres_dies, processes_are_ended]
    found += [somebody_comes_back_in_the_turn_of_his_closing, nobody_hears_what_was_sent]
    found += [workers_are_ended_in_the_middle_of_a_turn, ingest_is_ended_while_valkey_stands_still]
    chance.shuffle(found)
    return [safe(trouble) for trouble in found]
