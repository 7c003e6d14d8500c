"""A whole ingest on a real port and a real Valkey, and a client that says exactly what it is told to.

`site` runs it in the test's own loop; `python ingesting.py <redis url>` runs it as a process of its own and
prints its port. The directory has one session per entry of `SESSIONS`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from wsm import telemetry
from wsm.core.ids import ServerName, SessionAddress, SessionName, TenantId
from wsm.ingest.app import Ingest
from wsm.ingest.batch import Batcher
from wsm.ingest.directory import LiveDirectory
from wsm.ingest.doors import Doors
from wsm.ingest.exchange import BodyBudget, Bounds
from wsm.ingest.ops import Ops
from wsm.ingest.security import RefusalLog
from wsm.ingest.server import listen, run, serve
from wsm.streams import client, keys
from wsm.streams.directory import PublishedDirectory
from wsm.streams.handover import Handover, Limits
from wsm.telemetry import ops_pages
from wsm.wire import directory as published
from wsm.wire.directory import Directory, Listed
from wsm.wire.signature import session_secret, sign

KID = "k1"
MASTER_KEYS = {KID: bytes(range(32))}
HOOK_SECRETS = {"default": ("hook-old", "hook-new"), "other": ("hook-other",), "mute": ()}
ANN = SessionAddress(TenantId(1460561546), SessionName("user_1460561546"))
BOB = SessionAddress(TenantId(77), SessionName("user_77"))
HOOK = "/webhooks/waha"
ANNS_NUMBER = "5511999990000"
NOW_MS = 1_790_000_000_000
BODY_LIMIT = 64 * 1024


def listed(address: SessionAddress, *, server: str = "default", generations: Sequence[int] = (1,)) -> Listed:
    return Listed(
        tenant=address.tenant,
        session=address.session,
        server=ServerName(server),
        kid=KID,
        generations=tuple(generations),
        me=ANNS_NUMBER if address == ANN else None,
    )


SESSIONS = (listed(ANN), listed(BOB))


def secret_of(address: SessionAddress, generation: int = 1) -> str:
    return session_secret(MASTER_KEYS[KID], address, generation)


def path_of(address: SessionAddress) -> str:
    return f"/webhooks/waha/{address.tenant}/{address.session}"


def event(session: str, *, number: int = 0, **more: Any) -> bytes:
    """A webhook's body; `number` tells one from another."""
    return msgspec.json.encode({"event": "message.any", "session": session, "id": f"evt_{number}", **more})


class Reply(msgspec.Struct):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, str]:
        assert self.headers["content-type"] == "application/json"
        return msgspec.json.decode(self.body, type=dict[str, str])


def refused(reply: Reply, reason: str, status: int = 403) -> bool:
    """Whether an answer is this refusal."""
    return (reply.status, reply.json["reason"]) == (status, reason)


class Connection:
    """A client's connection, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> Reply:
        """Read one answer. Raises asyncio.IncompleteReadError or ConnectionError if there is none."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        fields = {name.lower(): value for name, value in pairs}
        body = await self.reader.readexactly(int(fields.get("content-length", "0")))
        return Reply(int(head[0].split()[1]), fields, body)

    async def ended(self) -> bytes:
        """Wait until the server ends the connection; return what it still said."""
        with suppress(ConnectionError):
            return await self.reader.read()
        return b""


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def request(
    path: str,
    body: bytes = b"",
    *,
    secret: str | None = None,
    method: str = "POST",
    headers: Sequence[tuple[str, str | bytes]] = (),
    length: int | None = None,
) -> bytes:
    """Write a request, signed if `secret` is given; `length` lies about the body's."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"host: ingest"]
    lines.append(f"content-length: {len(body) if length is None else length}".encode())
    if secret is not None:
        lines.append(f"x-webhook-hmac: {sign(secret, body)}".encode())
    for name, value in headers:
        lines.append(f"{name}: ".encode() + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join([*lines, b"", body])


def to(
    address: SessionAddress,
    body: bytes,
    *,
    secret: str | None = None,
    headers: Sequence[tuple[str, str | bytes]] = (),
) -> bytes:
    """Write a webhook to a session's own path, signed rightly unless `secret` says otherwise."""
    return request(path_of(address), body, secret=secret or secret_of(address), headers=headers)


class Site(msgspec.Struct):
    """A running ingest."""

    port: int
    redis: Any
    board: PublishedDirectory
    directory: LiveDirectory
    batcher: Batcher
    bodies: BodyBudget
    refusals: RefusalLog

    async def say(self, data: bytes) -> Reply:
        """Send a request on a connection of its own."""
        async with connected(self.port) as connection:
            await connection.send(data)
            return await connection.reply()

    async def publish(self, sessions: Sequence[Listed], version: str) -> None:
        """Publish a directory and have it read."""
        await self.board.publish(version, published.write(Directory(version, tuple(sessions))))
        await self.directory.refresh()

    async def entries(self, address: SessionAddress) -> list[dict[bytes, bytes]]:
        found = await self.redis.xrange(keys.mailbox(address.tenant))
        return [fields for _, fields in found]

    async def misfits(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in await self.redis.xrange(keys.QUARANTINE)]

    async def nothing_written(self) -> bool:
        kept = {keys.DIRECTORY.encode(), keys.DIRECTORY_VERSION.encode()}
        return {key async for key in self.redis.scan_iter()} <= kept


@asynccontextmanager
async def site(
    redis_url: str,
    *,
    sessions: Sequence[Listed] | None = SESSIONS,
    hook_secrets: Mapping[str, Sequence[str]] = HOOK_SECRETS,
    bounds: Bounds | None = None,
    limits: Limits | None = None,
    bodies_bytes: int = 64 * 1024 * 1024,
    accept_seconds: float = 2.0,
    max_age_seconds: float = 60.0,
    drain_seconds: float = 5,
    stop: asyncio.Event | None = None,
    started: Callable[[int], None] = lambda _port: None,
) -> AsyncIterator[Site]:
    """Run an ingest. `sessions` None publishes no directory.

    The directory may be older than in earnest: a busy machine is not to make it stale in other tests.
    """
    stop = stop or asyncio.Event()
    redis = client.connect(redis_url, timeout_seconds=accept_seconds)
    board = PublishedDirectory(redis)
    if sessions is not None:
        await board.publish("1", published.write(Directory("1", tuple(sessions))))
    limits = limits or Limits(1000, 1 << 26, 1 << 27, 100)
    handover = Handover(redis, limits=limits, lease_seconds=4, turn_entries=200)
    directory = LiveDirectory(
        version=board.version,
        read=board.read,
        master_keys=MASTER_KEYS,
        max_age_seconds=max_age_seconds,
        poll_seconds=0.05,
    )
    if sessions is not None:
        await directory.refresh()
    batcher = Batcher(handover.accept, timeout_seconds=accept_seconds)
    bodies = BodyBudget(bodies_bytes)
    telemetry.INGEST_BODIES.set_function(lambda: bodies.held_bytes)
    refusals = RefusalLog()
    secrets = {ServerName(name): values for name, values in hook_secrets.items()}
    ingest = Ingest(
        doors=Doors(directory, secrets),
        submit=batcher.submit,
        refusals=refusals,
        ops=Ops(ops_pages(_checks)),
        clock=lambda: NOW_MS,
    )
    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    watching = asyncio.create_task(directory.watch())
    serving = asyncio.create_task(
        serve(
            ingest,
            sock,
            stop=stop,
            bounds=msgspec.structs.replace(bounds or Bounds(), body_bytes=BODY_LIMIT, linger_seconds=0.5),
            bodies=bodies,
            drain_seconds=drain_seconds,
        )
    )
    started(port)
    try:
        yield Site(port, redis, board, directory, batcher, bodies, refusals)
    finally:
        stop.set()
        await serving
        await batcher.aclose()
        watching.cancel()
        await asyncio.wait([watching])
        await redis.aclose()


async def _checks() -> dict[str, str]:
    return {"loop": "ok"}


def say_port(port: int) -> None:
    print(port, flush=True)  # noqa: T201 (the parent reads it)


def main(redis_url: str) -> None:
    """Run an ingest until SIGTERM."""

    async def until(stop: asyncio.Event) -> None:
        async with site(redis_url, stop=stop, started=say_port, accept_seconds=20):
            await stop.wait()

    run(until)


if __name__ == "__main__":
    telemetry.configure_logging("ingest", "info")
    main(sys.argv[1])
