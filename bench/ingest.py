"""Ingest: signed webhooks per second and process, their cost in CPU, and the latency at half of saturation.

    ingest.rate, ingest.cpu  `wsm ingest`, where 200 means fsynced in a stream, against Django (sync view) on
                             gunicorn (sync, one worker), where 200 means that PUBLISH was called
    ingest.p99               `wsm ingest` at half of its saturation, fsync included, against a constant answer
                             of the same server at the same rate

Each contender is one process (gunicorn's arbiter beside its worker is counted too). The load comes from a
process of its own over 256 connections; what the servers and the load cost is not counted, but they share
the machine. After every round what wsm answered with 200 is counted in Redis.
"""

import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import msgspec
import redis

from bench import webhooks
from bench.harness import (
    PYTHON,
    ROOT,
    Child,
    Contender,
    Measure,
    Meter,
    Row,
    by_cost,
    by_rate,
    interleaved,
    require,
    running,
    servers,
    table,
    wait_until,
)
from bench.load import Result
from wsm.sandbox.supervisor import free_ports
from wsm.streams import keys
from wsm.wire import directory

TENANTS = 500
SECONDS = 4.0
WARM_SECONDS = 1.0
WSM = "wsm ingest"
DJANGO = "Django sync + gunicorn"
STATIC = "constant answer, same server"
_GIB = 1024**3


def run(rounds: int) -> Sequence[Row]:
    """Measure the family."""
    require("django", "gunicorn")
    ports = dict(zip((WSM, DJANGO, STATIC), free_ports(3), strict=True))
    with ExitStack() as stack:
        embedded = stack.enter_context(servers())
        connection = stack.enter_context(redis.Redis.from_url(embedded.redis_url))
        _empty(connection)
        children = {
            name: stack.enter_context(_started(name, port, embedded.redis_url))
            for name, port in ports.items()
        }

        def contender(name: str, rate: float | None = None) -> Contender:
            return Contender(name, lambda: _measure(children[name], ports[name], connection, rate))

        for name, port in ports.items():
            wait_until(partial(_answers, port), name, beside=children[name].check)
        saturated = interleaved([contender(name) for name in ports], rounds)
        table("At saturation (closed loop, 256 connections)", saturated)
        half = saturated[WSM].rate / 2
        calm = interleaved([contender(WSM, half), contender(STATIC, half)], rounds + 2)
        table(f"At half of wsm's saturation ({half:,.0f}/s, open loop)", calm)
    wsm, peer = saturated[WSM], saturated[DJANGO]
    cpu = "CPU s per 10,000 webhooks"
    return [
        by_rate("ingest.rate", wsm.rate, peer.rate, DJANGO, "webhooks/s per process"),
        by_cost("ingest.cpu", wsm.cpu_seconds_per_10k, peer.cpu_seconds_per_10k, DJANGO, cpu),
        by_cost("ingest.p99", calm[WSM].p99_ms or 0, calm[STATIC].p99_ms or 0, STATIC, "ms"),
    ]


def _started(name: str, port: int, redis_url: str) -> AbstractContextManager[Child]:
    """Start a contender on a port."""
    match name:
        case "wsm ingest":
            environ = {
                **webhooks.ENVIRON,
                "REDIS_URL": redis_url,
                "WSM_PORT": str(port),
                "WSM_MAILBOX_ENTRIES": "1000000",
                "WSM_MAILBOX_BYTES": str(_GIB),
                "WSM_ALL_MAILBOXES_BYTES": str(2 * _GIB),
            }
            return running("ingest-wsm", "-m", "wsm", "ingest", environ=environ)
        case "Django sync + gunicorn":
            arguments = (
                "--bind",
                f"127.0.0.1:{port}",
                "--workers",
                "1",
                "--worker-class",
                "sync",
                "--no-control-socket",
            )
            application = "bench.peers.django_hook:application"
            return running(
                "ingest-django", "-m", "gunicorn", *arguments, application, environ={"REDIS_URL": redis_url}
            )
        case _:
            return running("ingest-static", "-m", "bench.peers.static_answer", str(port))


def _measure(child: Child, port: int, connection: redis.Redis, rate: float | None) -> Measure:
    """Load one contender: warm it, then take its rate, cost and latencies."""
    child.check()
    _load(port, WARM_SECONDS, rate)
    _empty(connection)
    meter = Meter(child.pid)
    result = _load(port, SECONDS, rate)
    kept = int(connection.hget(keys.LOAD, "entries") or 0)
    if result.others or (kept and kept != result.accepted):
        raise SystemExit(
            f"{child.log.name}: {result.others} not 200, {kept} kept of {result.accepted}\n{child.tail()}"
        )
    measure = meter.measure(result.accepted, result.seconds)
    return msgspec.structs.replace(measure, p50_ms=result.p50_ms, p99_ms=result.p99_ms)


def _load(port: int, seconds: float, rate: float | None) -> Result:
    command = [*PYTHON, "-m", "bench.load", str(port), "--seconds", str(seconds), "--tenants", str(TENANTS)]
    asked = [] if rate is None else ["--rate", str(rate)]
    return msgspec.json.decode(subprocess.check_output([*command, *asked], cwd=ROOT), type=Result)


def _empty(connection: redis.Redis) -> None:
    """Remove all entries; the directory is never away, or webhooks would be answered with 503."""
    known = webhooks.known(TENANTS)
    with connection.pipeline(transaction=True) as pipe:
        pipe.flushall()
        pipe.mset({keys.DIRECTORY: directory.write(known), keys.DIRECTORY_VERSION: known.version})
        pipe.execute()


def _answers(port: int) -> bool:
    """Whether a signed webhook is answered with 200 by now."""
    command = [
        *PYTHON,
        "-m",
        "bench.load",
        str(port),
        "--seconds",
        "0.1",
        "--tenants",
        "1",
        "--connections",
        "1",
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0 and msgspec.json.decode(done.stdout, type=Result).accepted > 0
