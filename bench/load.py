"""A cheap load generator: `python -m bench.load PORT …`, a process whose `Result` goes to stdout as JSON.

Requests are signed before the first is sent and repeated from the first when all were sent. Without --rate
the loop is closed: each connection sends when its answer has come. With --rate it is open: every millisecond
what is due is sent, on an idle connection or as soon as one is idle, and a latency begins when the request
was due; only the generator's own lateness is not counted. Who closes after an answer is connected to again.
"""

import argparse
import asyncio
import sys
import time
from collections import deque
from itertools import cycle
from typing import cast

import msgspec
import uvloop

from bench.harness import percentile
from bench.webhooks import requests

_TICK_SECONDS = 0.001
_DRAIN_SECONDS = 5.0


class Result(msgspec.Struct, frozen=True):
    """What came of it: answers of 200 and others, and how long they took."""

    accepted: int
    others: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Accepted per second."""
        return self.accepted / self.seconds


class _Load:
    """Requests out, answers counted."""

    def __init__(self, port: int, each: list[bytes], *, closed: bool) -> None:
        self._port = port
        self._requests = cycle(each)
        self._closed = closed
        self.is_over = False
        self.latencies: list[float] = []
        self.others = 0
        self.due: deque[float] = deque()
        self.idle: deque[_Connection] = deque()
        self.in_flight = 0
        self.known: dict[bytes, bool] = {}
        """Whole answers that left their connection open, and whether they were 200: they recur."""

    def answered(self, *, ok: bool, since: float) -> None:
        """Count an answer."""
        self.in_flight -= 1
        self.others += not ok
        if ok:
            self.latencies.append(time.perf_counter() - since)

    def free(self, connection: "_Connection") -> None:
        """Give an idle connection its next request, if there is one."""
        if self.is_over:
            return
        if self._closed:
            self._send(connection, time.perf_counter())
        elif self.due:
            self._send(connection, self.due.popleft())
        else:
            self.idle.append(connection)

    def ask(self, now: float) -> None:
        """Send one request that is due now; without an idle connection it waits for one."""
        while self.idle:
            connection = self.idle.popleft()
            if connection.is_open:
                self._send(connection, now)
                return
        self.due.append(now)

    def _send(self, connection: "_Connection", since: float) -> None:
        self.in_flight += 1
        connection.send(next(self._requests), since)

    def again(self) -> None:
        """Connect anew after the server closed."""
        if not self.is_over:
            self._connecting = asyncio.get_running_loop().create_task(self.connect())

    async def connect(self) -> None:
        """Open one more connection."""
        await asyncio.get_running_loop().create_connection(lambda: _Connection(self), "127.0.0.1", self._port)


class _Connection(asyncio.Protocol):
    """One connection with one request in flight at most."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._received = b""
        self._since: float | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.is_open = True
        self._load.free(self)

    def send(self, request: bytes, since: float) -> None:
        """Send a request; its latency counts from `since`."""
        self._since = since
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        ok = None if self._received else self._load.known.get(data)
        if ok is not None and self._since is not None:
            self._answered(self._since, ok=ok)
            self._load.free(self)
            return
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        fields = head.lower()
        length = int(fields.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length or self._since is None:
            return
        whole, self._received = self._received, b""
        ok = head.startswith(b"HTTP/1.1 200")
        self._answered(self._since, ok=ok)
        if b"connection: close" in fields:
            self.is_open = False
            self._transport.close()
        else:
            self._load.known[whole] = ok
            self._load.free(self)

    def _answered(self, since: float, *, ok: bool) -> None:
        self._since = None
        self._load.answered(ok=ok, since=since)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self.is_open = False
        if self._since is not None:
            self._load.answered(ok=False, since=self._since)
        self._load.again()


async def run(
    port: int, each: list[bytes], *, connections: int, seconds: float, rate: float | None
) -> Result:
    """Load a server for so many seconds, then wait for the answers that are still out."""
    load = _Load(port, each, closed=rate is None)
    began = time.perf_counter()
    await asyncio.gather(*(load.connect() for _ in range(connections)))
    asked = 0
    while (now := time.perf_counter()) - began < seconds:
        if rate is not None:
            behind = int((now - began) * rate) - asked
            for _ in range(behind):
                load.ask(now)
            asked += behind
        await asyncio.sleep(_TICK_SECONDS if rate is not None else seconds - (now - began))
    load.is_over = load.is_over or rate is None
    elapsed = time.perf_counter() - began
    deadline = time.perf_counter() + _DRAIN_SECONDS
    while (load.in_flight or load.due) and time.perf_counter() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_TICK_SECONDS)
    load.is_over = True
    return Result(
        accepted=len(load.latencies),
        others=load.others + load.in_flight + len(load.due),
        seconds=elapsed,
        p50_ms=1000 * percentile(load.latencies or [seconds], 0.5),
        p99_ms=1000 * percentile(load.latencies or [seconds], 0.99),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.load")
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rate", type=float, help="per second; without it as fast as the answers come")
    parser.add_argument("--tenants", type=int, default=500)
    parser.add_argument("--each", type=int, default=40, help="messages of every tenant before they repeat")
    its = parser.parse_args()
    each = list(requests(its.tenants, its.each))
    result = uvloop.run(run(its.port, each, connections=its.connections, seconds=its.seconds, rate=its.rate))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
