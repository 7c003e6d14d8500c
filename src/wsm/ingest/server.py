"""The loop, the sockets and the signals of a process that serves, and how it ends."""

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Awaitable, Callable

import msgspec
import uvloop

from wsm.core.errors import BadInput
from wsm.ingest.connection import Connection
from wsm.ingest.exchange import BodyBudget, Bounds, Crowd, Service

_BACKLOG = 2048
_DOORS = 32
"""How many clients are let in at each turn of the loop. libuv lets one in for each descriptor that listens;
with one alone, a crowd at a busy loop waits for as many turns, and its last for seconds."""
_OTHER_FILES = 100 + _DOORS
_LAST_SECONDS = 1.0
"""For those who were told to come again, to read it."""


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen, on a free port if `port` is 0. Raises BadInput with the reason."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, number)
    except OSError as exc:
        raise BadInput("host", f"{host}: {exc.strerror}") from exc
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise BadInput("port", f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    sock.setblocking(False)
    return sock


async def serve(
    service: Service,
    sock: socket.socket,
    *,
    stop: asyncio.Event,
    bounds: Bounds,
    bodies: BodyBudget,
    drain_seconds: float = 20.0,
) -> None:
    """Serve on a listening socket until `stop` is set; then accept no more, answer what is in flight, return.

    bounds         fewer connections where the system allows fewer open files
    drain_seconds  after `stop`, when who is still unanswered is told to come again
    """
    files = _allow_files(bounds.connections + _OTHER_FILES)
    bounds = msgspec.structs.replace(bounds, connections=min(bounds.connections, files - _OTHER_FILES))
    crowd = Crowd(service, bounds, bodies)
    loop = asyncio.get_running_loop()
    doors = [
        await loop.create_server(lambda: Connection(crowd), sock=each, backlog=_BACKLOG)
        for each in (sock, *(sock.dup() for _ in range(_DOORS - 1)))
    ]
    watching = loop.create_task(_watch(crowd))
    try:
        await stop.wait()
    finally:
        for door in doors:
            door.close()
        await _drain(crowd, drain_seconds)
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(crowd: Crowd) -> None:
    """Look at every connection's deadlines, again and again, until cancelled.

    One timer for all instead of two per request; a deadline is kept to within a tenth of the shortest.
    """
    its = crowd.bounds
    shortest = min(its.header_seconds, its.body_seconds, its.keep_alive_seconds, its.linger_seconds)
    while True:
        await asyncio.sleep(min(max(shortest / 10, 0.01), 1.0))
        crowd.tell_date()
        now = asyncio.get_running_loop().time()
        for connection in tuple(crowd.connections):
            connection.check(now)


async def _drain(crowd: Crowd, seconds: float) -> None:
    """Let everybody have his answer, then tell the rest to come again, then end."""
    crowd.is_closing = True
    for connection in tuple(crowd.connections):
        connection.stop()
    await _emptied(crowd, seconds)
    for connection in tuple(crowd.connections):
        connection.give_up()
    await _emptied(crowd, _LAST_SECONDS)
    for connection in tuple(crowd.connections):
        connection.abort()


async def _emptied(crowd: Crowd, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while crowd.connections:
                await crowd.is_empty.wait()


def run(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main` on a uvloop of its own; its event is set by SIGTERM and SIGINT. Returns when `main` does."""

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await main(stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signalled())


def _allow_files(wanted: int) -> int:
    """Let the process open `wanted` files, or as many as the hard limit allows; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
