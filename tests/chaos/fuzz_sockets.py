"""Raw bytes into a real `wsm ingest`: requests that are almost right, framings that are not, odd clients.

`strain` opens connection after connection, each with a few requests that `chaos.fuzz_wire` wrote and broke,
and then sits still with hundreds of slow clients and pours with hundreds of fast ones, while a good client
goes on being served. What is asked of the process: it stays up, says nothing 5xx, keeps what it
confirmed, gives its files back, and does not grow.
"""

import asyncio
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from chaos.fuzz_inputs import SESSIONS
from chaos.fuzz_wire import Talk, talk
from ingesting import (
    ANN,
    HOOK_SECRETS,
    KID,
    MASTER_KEYS,
    Connection,
    connected,
    event,
    listed,
    path_of,
    request,
    to,
)
from waiting import wait_for
from wsm.sandbox.supervisor import free_ports
from wsm.streams import keys
from wsm.streams.client import connect
from wsm.streams.directory import PublishedDirectory
from wsm.wire import directory as published

_AT_ONCE = 48
_PATIENCE_SECONDS = 20.0
_DEADLINE_SECONDS = 4
_MANY = 1_000_000


class Strain(msgspec.Struct):
    """What the sockets saw. growth_bytes: of the process' memory after the first crowds."""

    connections: int = 0
    statuses: Counter[int] = msgspec.field(default_factory=Counter)
    confirmed: int = 0
    fivexx: int = 0
    growth_bytes: int = 0
    good: list[float] = []
    faults: list[str] = []

    def lines(self) -> list[str]:
        """Say it for people."""
        if not self.connections:
            return []
        slowest = max(self.good, default=0.0) * 1000
        return [
            f"statuses on {self.connections:,} connections: {dict(sorted(self.statuses.items()))}",
            f"confirmed and kept {self.confirmed:,}",
            f"a good client beside slow ones and floods: {len(self.good)} served, slowest {slowest:.0f} ms",
        ]


class Process(msgspec.Struct, frozen=True):
    """A running `wsm ingest`."""

    pid: int
    port: int
    log: Path

    @property
    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * 4096

    @property
    def connections(self) -> int:
        """How many TCP connections it has. The one socket that is left listens."""
        inodes = set()
        for name in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                inodes.add(str(name.readlink()).removeprefix("socket:[").rstrip("]"))
        rows = [line.split() for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]]
        return sum(row[9] in inodes for row in rows) - 1

    @property
    def files(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 (only their number)


async def strain(redis_url: str, seen: Strain, *, seed: int, talks: range, crowd: int = 300) -> None:
    """Strain a process of its own; what went wrong is in `seen.faults`."""
    redis = connect(redis_url, timeout_seconds=30)
    try:
        await redis.flushdb()
        await _publish(redis)
        with TemporaryDirectory() as folder:
            async with _ingest(redis_url, Path(folder)) as process:
                await _beside(process, seen, lambda: _slow_ones(process, crowd))
                await _beside(process, seen, lambda: _flood(process, crowd))
                files = await _at_rest(process, seen)
                seen.growth_bytes = -process.rss_bytes
                await _talks(process, seen, seed=seed, talks=talks)
                await _check_kept(redis, seen)
                await _beside(process, seen, lambda: _flood(process, crowd))
                if (after := await _at_rest(process, seen)) > files:
                    seen.faults.append(f"{after} files are open, and {files} were before")
                seen.growth_bytes += process.rss_bytes
            seen.faults += _complaints(process.log)
    finally:
        await redis.aclose()


async def _talks(process: Process, seen: Strain, *, seed: int, talks: range) -> None:
    """Have every talk once, some at a time."""
    numbers = iter(talks)

    async def some() -> None:
        for number in numbers:
            said = talk(seed, number)
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    answer = await _have(process.port, said)
            except TimeoutError:
                answer = b""
                seen.faults.append(f"connection {number}: neither answered nor cut")
            if wrong := _judge(said, answer, seen):
                seen.faults.append(f"connection {number}: {wrong}\n    make fuzz SEED={seed} TALK={number}")
            seen.connections += 1

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


async def _have(port: int, said: Talk) -> bytes:
    """Say the pieces of a talk, end it as it says, and return everything that came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(Connection(reader, writer).ended())
    try:
        with suppress(ConnectionError, OSError):
            for piece in said.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if said.ending == "half":
                writer.write_eof()
            elif said.ending == "reset":
                writer.transport.abort()
            elif said.ending == "close":
                writer.close()
        return await reading
    finally:
        reading.cancel()
        writer.transport.abort()


def _judge(said: Talk, answer: bytes, seen: Strain) -> str | None:
    statuses, is_clean = replies(answer)
    seen.statuses.update(status for status, _ in statuses)
    seen.confirmed += sum(
        body in (b'{"status":"accepted"}', b'{"status":"quarantined"}') for _, body in statuses
    )
    if bad := [status for status, _ in statuses if status >= 500 or 300 <= status < 400]:
        seen.fivexx += sum(status >= 500 for status in bad)
        return f"answered {bad}"
    if said.whole is not None and said.ending == "half":
        found = [status for status, _ in statuses if status >= 200]
        if found != list(said.whole) or not is_clean:
            return f"answered {found}, expected {list(said.whole)}"
    return None


def replies(data: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """Split what a server said into (status, body); say whether nothing was left over."""
    found = []
    while data.startswith(b"HTTP/1."):
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
        length = lengths[0] if lengths else 0
        found.append((int(head[9:12]), data[:length]))
        if not lengths and int(head[9:12]) >= 200:
            data = b""
        data = data[length:]
    return found, not data


async def _check_kept(redis: Any, seen: Strain) -> None:
    """Hold the number of confirmed webhooks against what Valkey has: more may be there, never less."""
    names = [keys.QUARANTINE, *(keys.mailbox(address.tenant) for address in SESSIONS)]
    kept = sum([await redis.xlen(name) for name in names])
    if kept < seen.confirmed:
        seen.faults.append(f"{seen.confirmed} were confirmed and {kept} are kept")


async def _post(process: Process, number: int) -> float:
    """Post a good webhook on a connection of its own; return the seconds that it took."""
    began = time.monotonic()
    async with connected(process.port) as client:
        await client.send(to(ANN, event(ANN.session, number=number)))
        reply = await client.reply()
        assert reply.status == 200, reply
    return time.monotonic() - began


async def _beside(process: Process, seen: Strain, crowd: Callable[[], Awaitable[None]]) -> None:
    """Post good webhooks, one after the other, for as long as a crowd is there, and 20 at least."""
    crowding = asyncio.ensure_future(crowd())
    number = 0
    while not crowding.done() or number < 20:
        number += 1
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                seen.good.append(await _post(process, number))
        except (AssertionError, ConnectionError, TimeoutError, asyncio.IncompleteReadError) as exc:
            seen.faults.append(f"a good client beside a crowd: {exc!r}")
            break
        await asyncio.sleep(0.01)
    await crowding


async def _at_rest(process: Process, seen: Strain) -> int:
    """Wait until every connection is gone; return how many files are open then."""
    try:
        await wait_for(lambda: process.connections == 0, _PATIENCE_SECONDS)
    except AssertionError:
        seen.faults.append(f"{process.connections} connections are still open")
    return process.files


async def _slow_ones(process: Process, crowd: int) -> None:
    """Sit there: silent, half a header, half a body, byte by byte, never reading; wait to be cut off."""
    head = f"POST {path_of(ANN)} HTTP/1.1\r\nhost: x\r\n".encode()
    begins = (
        b"", b"P", head, head + b"x-a: ", request(path_of(ANN), b"{", length=9_000), b"\r\n" * 9,
        head + b"transfer-encoding: chunked\r\n\r\n5\r\nab", request("/nowhere", b"x", length=60_000),
    )  # fmt: skip

    async def one(number: int) -> None:
        async with connected(process.port) as client:
            with suppress(ConnectionError, OSError):
                await client.send(begins[number % len(begins)])
                while number % 3 == 0 and not client.reader.at_eof():
                    await client.send(b"x")
                    with suppress(TimeoutError):
                        await asyncio.wait_for(client.reader.read(1), 0.2)
            await client.ended()

    async def deaf(_number: int) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with sock, suppress(ConnectionError):
            await loop.sock_connect(sock, ("127.0.0.1", process.port))
            while True:
                await loop.sock_sendall(sock, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
                await asyncio.sleep(0.01)

    async with asyncio.timeout(4 * _PATIENCE_SECONDS):
        await asyncio.gather(*map(one, range(crowd)), *map(deaf, range(crowd // 30)))


async def _flood(process: Process, crowd: int) -> None:
    """Pour requests, signed wrongly and rightly, on many connections at once; read what comes."""
    wrong = to(ANN, event(ANN.session), secret="wrong")
    large = to(ANN, event(ANN.session, pad="x" * 200_000), secret="wrong")

    async def one(number: int) -> None:
        for _ in range(3):
            with suppress(ConnectionError, OSError):
                async with connected(process.port) as client:
                    await client.send((wrong, large)[number % 5 == 0] * 10)
                    client.writer.write_eof()
                    await client.ended()

    async with asyncio.timeout(4 * _PATIENCE_SECONDS):
        await asyncio.gather(*map(one, range(crowd)))


def _complaints(log: Path) -> list[str]:
    """Find what a process must not say, whatever it is sent."""
    said = log.read_text(errors="replace")
    return [f"the log has {word!r}:\n{said[-3_000:]}" for word in ("Traceback", "exception") if word in said][
        :1
    ]


async def _publish(redis: Any) -> None:
    sessions = [listed(address, generations=generations) for address, generations in SESSIONS.items()]
    board = published.directory(sessions)
    await PublishedDirectory(redis).publish(board.version, published.write(board))


@asynccontextmanager
async def _ingest(redis_url: str, folder: Path) -> AsyncIterator[Process]:
    """Run `wsm ingest` with short deadlines and wide mailboxes until the block ends."""
    config = folder / "wsm.toml"
    secrets = [
        f"[waha.{name}]\nurl='http://x'\napi_key='x'\nhook_secrets={[*values]}"
        for name, values in HOOK_SECRETS.items()
    ]
    config.write_text("\n".join(secrets))
    port = free_ports(1)[0]
    settings = {
        "WSM_CONFIG": str(config),
        "REDIS_URL": redis_url,
        "WSM_MASTER_KEYS": ",".join(f"{kid}:{key.hex()}" for kid, key in MASTER_KEYS.items()),
        "WSM_MASTER_KEY_ID": KID,
        "WSM_PORT": str(port),
        "WSM_BODY_LIMIT_BYTES": str(64 * 1024),
        "WSM_HEADER_DEADLINE_SECONDS": str(_DEADLINE_SECONDS),
        "WSM_BODY_DEADLINE_SECONDS": str(_DEADLINE_SECONDS),
        "WSM_KEEP_ALIVE_SECONDS": "5",
        "WSM_ACCEPT_TIMEOUT_SECONDS": "20",
        "WSM_MAILBOX_ENTRIES": str(_MANY),
        "WSM_QUARANTINE_ENTRIES": str(_MANY),
        "WSM_REDIS_DURABILITY": "trust",
        "WSM_DRAIN_SECONDS": "1",
        "PATH": os.environ["PATH"],
    }
    log = folder / "ingest.log"
    with log.open("wb") as out:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-X", "utf8", "-m", "wsm", "ingest", env=settings, stdout=out, stderr=out
        )
    try:
        process = Process(child.pid, port, log)
        while not await _is_up(process):
            assert child.returncode is None, log.read_text(errors="replace")
            await asyncio.sleep(0.05)
        yield process
        assert child.returncode is None, log.read_text(errors="replace")[-2_000:]
        child.terminate()
        await asyncio.wait_for(child.wait(), 20)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def _is_up(process: Process) -> bool:
    with suppress(AssertionError, OSError, asyncio.IncompleteReadError):
        return await _post(process, 0) > 0
    return False
