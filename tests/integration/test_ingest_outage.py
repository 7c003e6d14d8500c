"""Redis, the directory or the process goes away in the middle: 503, never a lie, and back by itself."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

import ingesting
from ingesting import (
    ANN,
    BOB,
    HOOK,
    SESSIONS,
    Connection,
    Reply,
    Site,
    connected,
    event,
    path_of,
    request,
    site,
    to,
)
from waiting import wait_for
from wsm.sandbox.embedded import Embedded
from wsm.streams import keys

BODY = event(ANN.session)
GOOD = to(ANN, BODY)


def unavailable(reply: Reply, *reasons: str) -> bool:
    return reply.status == 503 and reply.json["reason"] in reasons and reply.headers["retry-after"] == "20"


async def until_accepted(ingest: Site) -> int:
    """Send one webhook again and again, as WAHA does; return how often it was not taken."""
    for refused in range(1000):
        reply = await ingest.say(GOOD)
        if reply.status == 200:
            return refused
        assert unavailable(reply, "streams_away", "directory_stale", "directory_away")
        await asyncio.sleep(0.01)
    raise AssertionError("never taken again")


async def test_redis_killed_is_503_and_back_with_everything_that_was_accepted(
    redis_url: str, embedded: Embedded
) -> None:
    async with site(redis_url) as ingest:
        accepted = 0
        for number in range(20):
            accepted += (await ingest.say(to(ANN, event(ANN.session, number=number)))).status == 200
        embedded.valkey.kill()
        for _ in range(3):
            assert unavailable(await ingest.say(GOOD), "streams_away")
        await asyncio.to_thread(embedded.valkey.start)
        await until_accepted(ingest)
        assert accepted == 20
        assert len(await ingest.entries(ANN)) == 21


async def test_redis_restarted_is_given_the_script_again(redis_url: str, embedded: Embedded) -> None:
    async with site(redis_url) as ingest:
        assert (await ingest.say(GOOD)).status == 200
        await asyncio.to_thread(embedded.valkey.restart)
        await until_accepted(ingest)
        await ingest.redis.script_flush()
        assert (await ingest.say(GOOD)).status == 200
        assert len(await ingest.entries(ANN)) == 3


async def test_a_hung_redis_is_503_within_the_time_and_twins_are_all_it_can_cost(redis_url: str) -> None:
    async with site(redis_url, accept_seconds=0.3) as ingest:
        await ingest.redis.client_pause(1000, all=False)
        replies = await asyncio.gather(
            *(ingest.say(to(ANN, event(ANN.session, number=number))) for number in range(20))
        )
        assert all(unavailable(reply, "streams_away") for reply in replies)
        await until_accepted(ingest)
        bodies = [entry[b"body"] for entry in await ingest.entries(ANN)]
        assert BODY in bodies


async def test_who_waits_when_the_drain_is_over_is_told_to_come_again(redis_url: str) -> None:
    stop = asyncio.Event()
    async with (
        site(redis_url, accept_seconds=20, drain_seconds=1, stop=stop) as ingest,
        connected(ingest.port) as client,
    ):
        await ingest.redis.client_pause(30_000, all=False)
        await client.send(GOOD)
        await wait_for(lambda: ingest.bodies.held_bytes == len(BODY))
        stop.set()
        reply = await client.reply()
        await ingest.redis.client_unpause()
        assert unavailable(reply, "stopping")


async def test_a_full_memory_is_503_and_back(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        before = (await ingest.redis.config_get("maxmemory"))["maxmemory"]
        await ingest.redis.config_set("maxmemory", 1)
        assert unavailable(await ingest.say(GOOD), "streams_away")
        await ingest.redis.config_set("maxmemory", before)
        assert (await ingest.say(GOOD)).status == 200
        assert len(await ingest.entries(ANN)) == 1


async def test_without_a_directory_nobody_is_told_no(redis_url: str) -> None:
    async with site(redis_url, sessions=None) as ingest:
        for sent in (GOOD, to(ANN, BODY, secret="wrong"), request(path_of(ANN), BODY)):
            assert unavailable(await ingest.say(sent), "directory_away")
        assert unavailable(await ingest.say(request(HOOK, BODY, secret="hook-old")), "directory_away")
        assert (await ingest.say(request(HOOK, BODY, secret="wrong"))).status == 403
        assert await ingest.nothing_written()
        await ingest.publish(SESSIONS, "1")
        assert (await ingest.say(GOOD)).status == 200


async def test_a_directory_that_vanishes_or_breaks_is_soon_no_directory(redis_url: str) -> None:
    async with site(redis_url, max_age_seconds=0.3) as ingest:
        await ingest.redis.set(keys.DIRECTORY, b"no json")
        await ingest.redis.set(keys.DIRECTORY_VERSION, b"2")
        assert (await ingest.say(GOOD)).status == 200
        assert unavailable(await until_not_accepted(ingest), "directory_stale")
        await ingest.publish(SESSIONS, "3")
        assert (await ingest.say(GOOD)).status == 200
        await ingest.redis.delete(keys.DIRECTORY, keys.DIRECTORY_VERSION)
        assert unavailable(await until_not_accepted(ingest), "directory_stale")


async def until_not_accepted(ingest: Site) -> Reply:
    for _ in range(1000):
        reply = await ingest.say(GOOD)
        if reply.status != 200:
            return reply
        await asyncio.sleep(0.01)
    raise AssertionError("still taken")


async def test_a_new_directory_is_read_by_itself(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        await ingest.board.publish("2", b'{"version":"2","sessions":[]}')
        assert (await until_not_accepted(ingest)).status == 403


class Child:
    """An ingest that is a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def holds(self, size_bytes: int) -> bool:
        """Whether it holds that many bytes of bodies in flight, as /metrics says."""
        async with connected(self.port) as client:
            await client.send(request("/metrics", method="GET"))
            page = (await client.reply()).body.decode()
        (gauge,) = (
            family
            for family in text_string_to_metric_families(page)
            if family.name == "wsm_ingest_bodies_in_flight_bytes"
        )
        return bool(gauge.samples[0].value == size_bytes)

    async def refuses_connections(self) -> bool:
        try:
            async with connected(self.port):
                return False
        except ConnectionError:  # refused, or reset while it was closed
            return True

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 15)


@asynccontextmanager
async def child(redis_url: str) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, Path(ingesting.__file__), redis_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield Child(process, int(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_process_answers_what_is_in_flight_and_exits_0(
    redis_url: str, clean_redis: redis.Redis, number: signal.Signals
) -> None:
    async with child(redis_url) as ingest, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(ingest.port)) for _ in range(12)]
        *waiting, half, idle = clients
        await idle.send(GOOD)
        assert (await idle.reply()).status == 200
        clean_redis.client_pause(30_000, all=False)
        stack.callback(clean_redis.client_unpause)
        for client in waiting:
            await client.send(GOOD)
        await half.send(GOOD[:-1])
        async with asyncio.timeout(15):
            while not await ingest.holds(10 * len(BODY) + len(BODY) - 1):
                continue
        ingest.process.send_signal(number)
        while not await ingest.refuses_connections():
            continue
        assert await idle.ended() == b""
        await half.send(GOOD[-1:])
        clean_redis.client_unpause()
        for client in (*waiting, half):
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert await ingest.exit_code() == 0
    assert clean_redis.xlen(keys.mailbox(ANN.tenant)) == 12


async def test_a_killed_process_has_lost_nothing_that_it_accepted(
    redis_url: str, clean_redis: redis.Redis
) -> None:
    accepted: set[bytes] = set()

    async def send_until_it_dies(client: Connection, first: int) -> None:
        for number in range(first, first + 10_000):
            body = event(BOB.session, number=number)
            await client.send(to(BOB, body))
            assert (await client.reply()).status == 200
            accepted.add(body)

    async with child(redis_url) as ingest, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(ingest.port)) for _ in range(10)]
        sending = [
            asyncio.create_task(send_until_it_dies(client, first * 10_000))
            for first, client in enumerate(clients)
        ]
        await wait_for(lambda: len(accepted) > 100)
        ingest.process.kill()
        ended = await asyncio.gather(*sending, return_exceptions=True)
        assert all(isinstance(end, ConnectionError | asyncio.IncompleteReadError) for end in ended)
    kept: Any = clean_redis.xrange(keys.mailbox(BOB.tenant))
    assert accepted <= {fields[b"body"] for _, fields in kept}
