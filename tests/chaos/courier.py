"""Workers for one deliver bell each, which die by SIGKILL at the place in it that they are told.

    python -m chaos.courier

Reads an order a line, and answers each with a line: whether its process died. Everything is loaded once, and
each bell runs in a forked process: its death is real, and costs no start of Python.
"""

import asyncio
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from chaos.killable import Death, Finder

CALLED = "called"
"""The point between a call and its answer: the request is on its way, and nothing of an answer was read."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One bell of a tenant, in its own process.

    points         it dies at any of these: `CALLED`, or points of `store.outbox` (`chaos.killpoints`)
    nth            when it has come to one of them so often
    ahead_seconds  of its clock, before the machine's
    """

    points: list[str]
    nth: int
    database_url: str
    waha_url: str
    api_key: str
    tenant: int
    bell: str
    ahead_seconds: float
    send_seconds: float


class Told(Death):
    """Where the next process is to die; told after the modules are loaded."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: Counter[str] = Counter()
        self.order: Order | None = None

    def at(self, name: str, value: Any) -> Any:
        """Pass a value on, or end the process here."""
        if self.order is not None and name in self.order.points:
            self._passed[name] += 1
            if self._passed[name] == self.order.nth:
                os.kill(os.getpid(), signal.SIGKILL)
        return value


class Couriers:
    """A few of these programs, for a test's loop: each has one bell delivered at a time."""

    def __init__(self, free: asyncio.Queue[asyncio.subprocess.Process]) -> None:
        self._free = free

    async def deliver(self, order: Order) -> bool:
        """Have a bell delivered. Returns whether its process died where it was told to."""
        process = await self._free.get()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        answer = await process.stdout.readline()
        self._free.put_nowait(process)
        died: bool = msgspec.json.decode(answer)
        return died


@asynccontextmanager
async def couriers(number: int = 2) -> AsyncIterator[Couriers]:
    """Start some; they end with their input."""
    free: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
    command = (sys.executable, "-X", "utf8", "-m", "chaos.courier")
    pipe = asyncio.subprocess.PIPE
    paths = os.pathsep.join(part for part in sys.path if part)
    started = [
        await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, env={**os.environ, "PYTHONPATH": paths}
        )
        for _ in range(number)
    ]
    for process in started:
        free.put_nowait(process)
    try:
        yield Couriers(free)
    finally:
        for process in started:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


def main() -> None:
    """Take orders until there are no more."""
    death = Told()
    sys.meta_path.insert(0, Finder(death, None, {"wsm.store.outbox"}))
    deliver = _loaded(death)
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        if (child := os.fork()) == 0:
            death.order = order
            try:
                asyncio.run(deliver(order))
                os._exit(0)
            except BaseException:  # noqa: BLE001 (it must not go on as a courier)
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.buffer.write(msgspec.json.encode(died) + b"\n")
        sys.stdout.buffer.flush()


def _loaded(death: Told) -> Callable[[Order], Coroutine[Any, Any, None]]:
    """Load what delivers, with the points live."""
    import logging  # noqa: PLC0415
    import time  # noqa: PLC0415
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    from unpaced import PACING, files  # noqa: PLC0415
    from wsm.config import WahaServer  # noqa: PLC0415
    from wsm.core.ids import DEFAULT_SERVER, TenantId  # noqa: PLC0415
    from wsm.gateway import client, server  # noqa: PLC0415
    from wsm.gateway.waha import Gateways  # noqa: PLC0415
    from wsm.store.database import Database  # noqa: PLC0415
    from wsm.streams.handover import Bell  # noqa: PLC0415
    from wsm.streams.keys import Kind  # noqa: PLC0415
    from wsm.worker.deliver import Deliveries  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    client.tls_context()  # once, and not in every process
    hear = server._Departure.trace

    async def trace(departure: Any, event: str, about: dict[str, Any]) -> None:
        await hear(departure, event, about)
        is_waiting = event == "http11.receive_response_headers.started"
        if is_waiting and about["request"].url.target.startswith(b"/api/send"):
            death.at(CALLED, None)

    server._Departure.trace = trace  # type: ignore[assignment, method-assign]

    async def deliver(order: Order) -> None:
        database = Database(order.database_url, connections=2)
        await database.open()
        at = WahaServer(url=order.waha_url, api_key=order.api_key)
        gateways = Gateways(
            {DEFAULT_SERVER: at}, send_timeout_seconds=order.send_seconds, look_timeout_seconds=2.0
        )
        ahead = timedelta(seconds=order.ahead_seconds)

        def clock() -> datetime:
            return datetime.now(UTC) + ahead

        deliveries = Deliveries(
            database,
            gateways,
            clock=clock,
            monotonic=time.monotonic,
            start_within=timedelta(seconds=4),
            evidence=timedelta(seconds=60),
            pacing=PACING,
            files=files(database, gateways, clock),
        )
        bell = Bell(Kind.DELIVER, TenantId(order.tenant), order.bell, (), frozenset(), alone=False)
        while await deliveries.run(bell, is_mine=lambda: True):
            pass

    return deliver


if __name__ == "__main__":
    main()
