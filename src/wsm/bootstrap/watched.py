"""How a process is seen from outside: its checks, its ops port, and what runs beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from wsm import telemetry
from wsm.bootstrap import parts
from wsm.config import Settings
from wsm.core.errors import WsmError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_OPS_CONNECTIONS = 64


Check = Callable[[], Awaitable[None]]


async def ask(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run every check; each says ok or why not."""
    found = {}
    for name, check in checks.items():
        try:
            async with asyncio.timeout(parts.REDIS_SECONDS):
                await check()
            found[name] = "ok"
        except (WsmError, TimeoutError) as exc:
            found[name] = str(exc) or type(exc).__name__
        except Exception as exc:  # noqa: BLE001 (a bug is no reason to say nothing of the other checks)
            telemetry.logger("process").exception("check_failed", check=name)
            found[name] = type(exc).__name__
    return found


def durable(settings: Settings, redis: "Redis") -> Check:
    """Check that Redis answers and keeps what it confirms; `redis_durability = trust` asks only the first."""
    from wsm.core.errors import StreamsUnavailable  # noqa: PLC0415
    from wsm.streams.client import durability, ping  # noqa: PLC0415

    async def check() -> None:
        await ping(redis)
        if settings.redis_durability == "check" and (faults := await durability(redis)):
            raise StreamsUnavailable("; ".join(faults))

    return check


@asynccontextmanager
async def observed(settings: Settings, checks: Mapping[str, Check]) -> AsyncIterator[None]:
    """Serve /healthz, /readyz and /metrics at the ops port, if there is one, until the process ends."""
    if not settings.ops_port:
        yield
        return
    from wsm.ingest.exchange import BodyBudget, Bounds  # noqa: PLC0415
    from wsm.ingest.ops import Ops  # noqa: PLC0415
    from wsm.ingest.server import listen, serve  # noqa: PLC0415

    ended = asyncio.Event()
    sock = listen(settings.host, settings.ops_port)
    service = Ops(telemetry.ops_pages(lambda: ask(checks)))
    bounds, bodies = Bounds(connections=_OPS_CONNECTIONS, body_bytes=0), BodyBudget(0)
    serving = asyncio.create_task(
        serve(service, sock, stop=ended, bounds=bounds, bodies=bodies, drain_seconds=1)
    )
    try:
        yield
    finally:
        ended.set()
        await serving


@asynccontextmanager
async def beside(*works: Awaitable[None]) -> AsyncIterator[None]:
    """Run something beside the rest of the process, until that ends. What fails is told at once."""
    tasks = [asyncio.ensure_future(work) for work in works]
    for task in tasks:
        task.add_done_callback(_tell)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell(task: "asyncio.Future[None]") -> None:
    if not task.cancelled() and (exc := task.exception()) is not None:
        telemetry.logger("process").critical("beside_failed", exc_info=exc)
