"""The loop, the socket and the signals of the ingest process.

uvicorn serves; everything it would decide by itself is decided here: its signal handling is off, since it
raises SIGTERM again after its shut-down and the process would die by it; so are the access log, the server
header and, unless asked for, the belief in X-Forwarded-For.
"""

import asyncio
import contextlib
import math
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec
import uvicorn
import uvloop

from wsm.core.errors import BadInput
from wsm.ingest.guard import Bounds, guarded, watch
from wsm.telemetry import AsgiApp

_BACKLOG = 2048
_DOORS = 32
"""How many clients are let in at each turn of the loop. libuv lets one in for each descriptor that listens;
with one alone, a crowd at a busy loop waits for as many turns, and its last for seconds."""
_OTHER_FILES = 100 + _DOORS


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `run`."""
        yield


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
    app: AsgiApp,
    sock: socket.socket,
    *,
    stop: asyncio.Event,
    bounds: Bounds,
    keep_alive_seconds: int = 30,
    drain_seconds: float = 20.0,
    trusted_proxies: Sequence[str] = (),
) -> None:
    """Serve on a listening socket until `stop` is set; then accept no more, answer what is in flight, return.

    bounds              fewer connections where the system allows fewer open files
    keep_alive_seconds  idle connections are kept; WAHA keeps its own for 4 s, so it must be well above
    drain_seconds       after `stop`, when who is still unanswered is cut off
    trusted_proxies     addresses whose X-Forwarded-For is the client's address in the log; none by default
    """
    files = _allow_files(bounds.connections + _OTHER_FILES)
    bounds = msgspec.structs.replace(bounds, connections=min(bounds.connections, files - _OTHER_FILES))
    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=guarded(bounds),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=max(1, math.ceil(drain_seconds)),
        backlog=_BACKLOG,
    )
    server = _Server(config)
    beside = [
        asyncio.create_task(watch(server.server_state.connections, bounds)),
        asyncio.create_task(_end(server, stop)),
    ]
    try:
        await server.serve(sockets=[sock, *(sock.dup() for _ in range(_DOORS - 1))])
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)


def run(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main` on a uvloop of its own; its event is set by SIGTERM and SIGINT. Returns when `main` does."""

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await main(stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signalled())


async def _end(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


def _allow_files(wanted: int) -> int:
    """Let the process open `wanted` files, or as many as the hard limit allows; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
