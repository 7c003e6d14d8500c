"""More than fits: the excess is refused at once, the accepted do not wait for it, and all of it drains."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest

from chaos.cables import Cable
from databases import Database as Urls
from e2e.town import YOUR_TURN, Ground, customers, town
from ingesting import KID, MASTER_KEYS, Reply, connected, event, listed, to
from scripted_gateway import Asked, Gateway, hangs, says
from waiting import wait_for
from working import child, offer
from wsm.bootstrap import fleet_writes, front_door, opened
from wsm.core.ids import DEFAULT_SERVER, ServerName, SessionAddress, SessionName, TenantId
from wsm.sandbox.embedded import Embedded
from wsm.sandbox.supervisor import free_ports
from wsm.store import fleet
from wsm.store.database import Database
from wsm.streams.client import connect
from wsm.streams.directory import PublishedDirectory
from wsm.wire import directory as published

SHOP = TenantId(1460561546)
SEATS = [SessionAddress(TenantId(number), SessionName(f"user_{number}")) for number in range(1, 101)]
ROOM = 32
CROWD = 150
MEBIBYTE = 1024 * 1024


class Front:
    """An ingest of its own process, with a hundred sessions, and what it answered."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, redis: Any) -> None:
        self.pid = process.pid
        self.port = port
        self.redis = redis
        self.answers: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.reasons: Counter[str] = Counter()

    async def clients(self, number: int, requests: int, *, size_bytes: int = 1000) -> None:
        """Let so many clients post so often each, one after another; who is refused pauses."""
        await asyncio.gather(*(self._client(seat, requests, size_bytes) for seat in range(number)))

    async def _client(self, number: int, requests: int, size_bytes: int) -> None:
        seat = SEATS[number % len(SEATS)]
        async with AsyncExitStack() as stack:
            connection = None
            for turn in range(requests):
                if connection is None:
                    connection = await stack.enter_async_context(connected(self.port))
                request = to(seat, event(seat.session, number=number * requests + turn, pad="x" * size_bytes))
                began = time.monotonic()
                try:
                    await connection.send(request)
                    reply = await connection.reply()
                except (OSError, asyncio.IncompleteReadError):
                    self.answers[0] += 1
                    connection = None
                    continue
                self._note(reply, time.monotonic() - began)
                if reply.headers.get("connection") == "close":
                    connection = None
                if reply.status != 200:
                    await asyncio.sleep(0.05)

    def _note(self, reply: Reply, seconds: float) -> None:
        self.answers[reply.status] += 1
        if reply.status == 200:
            self.seconds.append(seconds)
        else:
            assert (reply.status, reply.headers["retry-after"]) == (503, "7")
            self.reasons[reply.json["reason"]] += 1

    def memory(self, what: str = "VmRSS") -> int:
        """Bytes of memory that it takes now, or took at most (VmHWM)."""
        return memory(self.pid, what)


def memory(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(what)


@asynccontextmanager
async def front(redis_url: str, through: str, database: Urls, **settings: str) -> AsyncIterator[Front]:
    """Run an ingest that reaches Redis `through` an address of its own."""
    redis = connect(redis_url, timeout_seconds=5)
    listing = published.directory([listed(seat) for seat in SEATS])
    await PublishedDirectory(redis).publish(listing.version, published.write(listing))
    [port] = free_ports(1)
    own = {
        "WSM_PORT": str(port),
        "WSM_MASTER_KEYS": f"{KID}:{MASTER_KEYS[KID].hex()}",
        "WSM_MASTER_KEY_ID": KID,
        "WSM_REDIS_DURABILITY": "trust",
        "WSM_RETRY_AFTER_SECONDS": "7",
        "WSM_LOG_LEVEL": "error",
    }
    try:
        async with child(through, database, command="ingest", **own, **settings) as process:
            found = Front(process, port, redis)

            async def takes() -> bool:
                with suppress(OSError):
                    async with connected(port) as connection:
                        await connection.send(to(SEATS[0], event(SEATS[0].session)))
                        return (await connection.reply()).status == 200
                return False

            await wait_for(takes, 20)
            yield found
    finally:
        await redis.aclose()


async def test_the_excess_is_refused_at_once_and_the_accepted_wait_no_longer_for_it(
    redis_url: str, database: Urls, embedded: Embedded, tmp_path: Path
) -> None:
    """Redis takes ROOM webhooks per round trip; CROWD come in one, again and again."""
    cable = Cable(tmp_path / "slow", Path(embedded.services.redis_socket))
    await cable.open()
    try:
        room = {"WSM_ACCEPT_QUEUE_ENTRIES": str(ROOM)}
        async with front(redis_url, f"unix://{tmp_path / 'slow'}", database, **room) as ingest:
            cable.delay_seconds = 0.06
            await ingest.clients(10, 4)
            assert ingest.answers == {200: 40}
            alone, ingest.seconds = quantiles(ingest.seconds), []
            before = ingest.memory()

            await ingest.clients(CROWD, 8)
            assert set(ingest.answers) == {200, 503}
            assert set(ingest.reasons) == {"queue_full"}
            crowded = quantiles(ingest.seconds)
            assert crowded[1] < 4 * alone[1], "two round trips, and what the machine takes"
            assert ingest.memory("VmHWM") - before < 32 * MEBIBYTE

            cable.mend()
            ingest.answers.clear()
            await ingest.clients(10, 10)
            assert ingest.answers == {200: 100}
    finally:
        await cable.aclose()


async def test_bodies_take_no_more_memory_than_they_may(redis_url: str, database: Urls) -> None:
    budget = {"WSM_BODIES_IN_FLIGHT_BYTES": str(4 * MEBIBYTE), "WSM_ACCEPT_QUEUE_BYTES": str(4 * MEBIBYTE)}
    async with front(redis_url, redis_url, database, **budget) as ingest:
        await ingest.clients(20, 1)
        before = ingest.memory()
        await ingest.clients(200, 2, size_bytes=900_000)
        offered = 200 * 900_000
        assert ingest.answers[200] > 0
        assert ingest.answers[503] > 0
        assert ingest.memory("VmHWM") - before < 48 * MEBIBYTE < offered / 3


@pytest.mark.deadline(150)
async def test_redis_takes_what_it_may_and_the_backlog_drains_by_itself(ground: Ground) -> None:
    """Nobody works while the mailboxes fill to the mark of all; then workers come, and nobody helps them."""
    marks = {"WSM_ALL_MAILBOXES_BYTES": str(8 * MEBIBYTE), "WSM_MAILBOX_BYTES": str(4 * MEBIBYTE)}
    redis_url = ground.servers.redis_url
    async with front(redis_url, redis_url, ground.database, **marks) as ingest:
        before = (await ingest.redis.info("memory"))["used_memory"]
        await ingest.clients(100, 120, size_bytes=1000)
        assert set(ingest.reasons) == {"mailbox_full_all"}
        load = {name.decode(): int(value) for name, value in (await ingest.redis.hgetall("wsm:load")).items()}
        assert load["bytes"] <= 8 * MEBIBYTE
        assert load["entries"] == ingest.answers[200] + 1
        assert (await ingest.redis.info("memory"))["used_memory"] - before < 2 * 8 * MEBIBYTE

        async with opened(Database(ground.database.system_url, connections=1)) as system:
            for seat in SEATS:
                await fleet.add_tenant(system, seat.tenant, name="", locale="en", capacity=1)
                await fleet.add_session(system, seat, server=DEFAULT_SERVER, alias="", kid=KID)
        trusting = {"WSM_REDIS_DURABILITY": "trust"}
        async with child(redis_url, ground.database, WSM_LOG_LEVEL="error", **trusting) as worker:

            async def drained() -> bool:
                return not int((await ingest.redis.hget("wsm:load", "entries")) or 0)

            await wait_for(drained, 100)
            assert memory(worker.pid, "VmHWM") < 400 * MEBIBYTE
            ingest.answers.clear()
            await ingest.clients(10, 2)
            assert ingest.answers == {200: 20}
            await wait_for(drained)
            worker.terminate()
            assert await worker.wait() == 0


async def test_a_gateway_that_hangs_slows_its_own_sessions_alone(ground: Ground) -> None:
    """One of two servers answers no send at all, and has more sessions than workers have slots."""
    deaf = Gateway()

    async def deaf_to_sends(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await (hangs if asked.method == "POST" else says(501, {}))(asked, writer)

    deaf.reply = deaf_to_sends
    listener = await asyncio.start_server(deaf.serve, "127.0.0.1", 0)
    config = ground.home / "servers.toml"
    address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    config.write_text(f'[waha.deaf]\nurl = "{address}"\napi_key = "none"\n')
    slots = {"WSM_CONFIG": str(config), "WSM_DELIVER_SLOTS": "8", "WSM_SEND_TIMEOUT_SECONDS": "600"}
    try:
        async with town(ground, [SHOP], changed=slots) as at:
            unheard = [TenantId(number) for number in range(500, 540)]
            async with fleet_writes(at.site.settings) as system:
                for tenant in unheard:
                    await fleet.add_tenant(system, tenant, name="", locale="pt-BR", capacity=1)
                    seat = SessionAddress(tenant, SessionName(f"user_{tenant}"))
                    await fleet.add_session(system, seat, server=ServerName("deaf"), alias="", kid="k1")
            async with front_door(at.site.settings) as handover:
                await handover.accept([offer(tenant, "oi") for tenant in unheard])
            await at.until("select count(*) = %s from tickets", len(unheard))
            await wait_for(lambda: len(deaf.asked) > 8)
            [who] = customers(1)
            await at.says(SHOP, who, "oi")
            await at.hears(who, YOUR_TURN)
            assert await at.value("select count(*) from outbox where state = 'sending'") > 0
            await at.until("select count(*) = 1 from outbox where state = 'sent'")
            for name in ("worker-1", "worker-2"):
                assert (await at.ready(name))[0] == 200
            await deaf.stop()
    finally:
        listener.close()
        await deaf.stop()
