"""Clients: what a process pays for an HTTP client of each session's own, 5,000 of them, each behind its exit.

    clients.memory  resident KB of a client that was built, and has asked nothing
    clients.build   milliseconds to build one
    clients.called  resident KB of a client that has made one call through its exit and kept its connection
    clients.call    CPU milliseconds of a first call: connection, request, answer
    clients.crowd   clients closed while they were in use, when 6,000 are used and 5,000 kept

In service one that is idle for five seconds is closed; here all are kept, to be weighed together.

wsm's are those of `wsm.gateway`: one TLS context for all, and the keeping of them. The peer is httpx as it is
found, a client with a proxy, and so with TLS contexts of its own; 250 of those, their cost told for one. Each
measure is a process of its own. The exits are a real proxy (`wsm.sandbox.exits`), in another process with the
server that answers; each client leaves it from an address of its own.
"""

import asyncio
import gc
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bench.harness import PYTHON, ROOT, Row, by_cost, require, running, say, wait_until
from wsm.core.exits import Exit
from wsm.gateway import client
from wsm.gateway.clients import Clients
from wsm.sandbox.exits import ExitProxy

KEPT, CROWD, HELD = 5_000, 6_000, 500
PEERS = 250
_AT_ONCE = 32
_PASSWORD = "bench"
_PAGE = resource.getpagesize()
_ANSWER = b'{"name":"main","status":"WORKING"}'


class Far(msgspec.Struct, frozen=True):
    """Where the proxy and the server listen."""

    proxy: int
    url: str


class Cost(msgspec.Struct, frozen=True):
    """What one process found; bytes and seconds are of one client.

    sockets        open after all calls, for each client
    closed_in_use  of those that were held in the crowd
    left           open clients after the crowd
    """

    built_bytes: float
    built_seconds: float
    called_bytes: float
    called_seconds: float
    sockets: float
    closed_in_use: int = 0
    left: int = 0


Use = Callable[[int], Any]


def run(rounds: int) -> Sequence[Row]:
    """Measure the family."""
    require("httpx")
    taken: dict[str, list[Cost]] = {"wsm": [], "httpx": []}
    with running("clients-far", "-m", "bench.clients", "far") as far:
        wait_until(lambda: far.log.read_bytes().endswith(b"\n"), "the exits", beside=far.check)
        ends = far.log.read_text().strip()
        for number in range(1, rounds + 1):
            for name, count in (("wsm", KEPT), ("httpx", PEERS)):
                its = measured(name, count, ends, crowd=CROWD, held=HELD)
                taken[name].append(its)
                say(f"  round {number} {count:,} × {name}: {_line(its)}; load {os.getloadavg()[0]:.1f}")
    wsm, peer = (median(costs) for costs in taken.values())
    against = "httpx, a TLS context each"
    crowd = f"closed in use, of {HELD} held while {CROWD:,} are used; {wsm.left:,} left open"
    return [
        by_cost("clients.memory", wsm.built_bytes / 1e3, peer.built_bytes / 1e3, against, "kB each"),
        by_cost("clients.build", wsm.built_seconds * 1e3, peer.built_seconds * 1e3, against, "ms each"),
        by_cost(
            "clients.called", wsm.called_bytes / 1e3, peer.called_bytes / 1e3, against, "kB each, connected"
        ),
        by_cost("clients.call", wsm.called_seconds * 1e3, peer.called_seconds * 1e3, against, "ms CPU each"),
        Row("clients.crowd", wsm.closed_in_use, 0, "none allowed", 1, crowd),
    ]


def measured(name: str, count: int, ends: str, *, crowd: int, held: int) -> Cost:
    """Measure `count` clients in a process of their own.

    name  `wsm` or `httpx`
    ends  the JSON of a `Far`
    """
    arguments = ("-m", "bench.clients", name, str(count), ends, str(crowd), str(held))
    done = subprocess.run([*PYTHON, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Cost)


def median(costs: Sequence[Cost]) -> Cost:
    """Take the median of every figure on its own; of what must not happen, the most."""
    middle = {
        name: statistics.median(getattr(cost, name) for cost in costs) for name in Cost.__struct_fields__
    }
    middle["closed_in_use"] = max(cost.closed_in_use for cost in costs)
    return Cost(**middle)


def _line(its: Cost) -> str:
    return (
        f"{its.built_bytes / 1e3:.1f} kB and {its.built_seconds * 1e3:.2f} ms to build, "
        f"{its.called_bytes / 1e3:.1f} kB and {its.called_seconds * 1e3:.2f} ms CPU after a call, "
        f"{its.sockets:.2f} sockets; {its.closed_in_use} closed in use, {its.left} left"
    )


# The process that is measured.


async def cost(name: str, count: int, far: Far, crowd: int, held: int) -> Cost:
    """Build clients, let each make one call, and for wsm's own let a crowd pass by those that are held."""
    _as_many_sockets_as_can_be()
    async with (_of_wsm if name == "wsm" else _of_httpx)(count, far) as (use, is_open):
        async with use(-1) as http:  # what all of them share is there from now on
            await _call(http)
        before = _resident()
        seconds = await _each(count, use, _nothing)
        built = (_resident() - before) / count
        cpu, sockets = time.process_time(), _open_files()
        await _each(count, use, _call)
        cpu = time.process_time() - cpu
        called = (_resident() - before) / count
        sockets = _open_files() - sockets
        closed = left = 0
        if name == "wsm":
            closed, left = await _crowd(use, is_open, count, crowd, held)
    return Cost(built, seconds / count, called, cpu / count, sockets / count, closed, left)


@asynccontextmanager
async def _of_wsm(count: int, far: Far) -> AsyncIterator[tuple[Use, Callable[[], int]]]:
    tls, kept = client.tls_context(), Clients(count, idle_seconds=math.inf)
    made: list[httpx.AsyncClient] = []

    def build(number: int) -> httpx.AsyncClient:
        way = Exit(host="127.0.0.1", port=far.proxy, username=f"s{number}", password=_PASSWORD)
        made.append(client.build(far.url, api_key="key", way=way, tls=tls))
        return made[-1]

    try:
        yield (
            lambda number: kept.use(number, lambda: build(number)),
            lambda: sum(not http.is_closed for http in made),
        )
    finally:
        await kept.aclose()


@asynccontextmanager
async def _of_httpx(_count: int, far: Far) -> AsyncIterator[tuple[Use, Callable[[], int]]]:
    made: dict[int, httpx.AsyncClient] = {}

    @asynccontextmanager
    async def use(number: int) -> AsyncIterator[httpx.AsyncClient]:
        if number not in made:
            proxy = f"http://s{number}:{_PASSWORD}@127.0.0.1:{far.proxy}"
            made[number] = httpx.AsyncClient(base_url=far.url, proxy=proxy)
        yield made[number]

    try:
        yield use, lambda: len(made)
    finally:
        for http in made.values():
            await http.aclose()


async def _each(count: int, use: Use, do: Callable[[httpx.AsyncClient], Awaitable[None]]) -> float:
    """Use every client once, some at a time; return how many seconds it took."""
    began, left = time.perf_counter(), iter(range(count))

    async def some() -> None:
        for number in left:
            async with use(number) as http:
                await do(http)

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    return time.perf_counter() - began


async def _nothing(_http: httpx.AsyncClient) -> None:
    """Ask nothing."""


async def _call(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/sessions/main")
    if answer.content != _ANSWER:
        raise SystemExit(f"answered {answer.status_code}")


async def _crowd(use: Use, is_open: Callable[[], int], count: int, crowd: int, held: int) -> tuple[int, int]:
    """Hold some clients while more than may be kept are used; return how many of them were closed, and how
    many are open in the end."""
    async with AsyncExitStack() as stack:
        holding = [await stack.enter_async_context(use(number)) for number in range(held)]
        left = iter(range(held, crowd))

        async def some() -> None:
            for number in left:
                async with use(number) as http:
                    await _call(http)

        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
        closed = sum(http.is_closed for http in holding)
        await asyncio.gather(*(_call(http) for http in holding[:: max(1, held // 100)] if not http.is_closed))
    async with use(count):
        return closed, is_open()


def _resident() -> int:
    """Bytes of this process that are in memory, without what nothing refers to any more."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _as_many_sockets_as_can_be() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# The other end.


class _Answering(asyncio.Protocol):
    """Answers everything that ends like a request without a body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self._transport.write(head % len(_ANSWER) + _ANSWER)  # type: ignore[attr-defined]


@asynccontextmanager
async def far_end() -> AsyncIterator[Far]:
    """Run the exits and the server."""
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0, backlog=2048)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, ExitProxy(password=_PASSWORD, connections=CROWD * 2) as proxy:
        yield Far(proxy.port, url)


async def _serve_far() -> None:
    """Run them until the process is ended, and print where they are."""
    _as_many_sockets_as_can_be()
    async with far_end() as far:
        say(msgspec.json.encode(far).decode())
        await asyncio.Event().wait()


def main(name: str, *arguments: str) -> None:
    """Be one of the two processes."""
    if name == "far":
        asyncio.run(_serve_far())
        return
    count, ends, crowd, held = arguments
    far = msgspec.json.decode(ends, type=Far)
    found = asyncio.run(cost(name, int(count), far, int(crowd), int(held)))
    say(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
