"""Bad input, as much as is asked for: `make fuzz INPUTS=… SEED=…`.

First the app itself (`chaos.fuzz_app`), with a sample of what it accepted turned on a real PostgreSQL; then
a real ingest process over its sockets (`chaos.fuzz_sockets`). The last line is

    inputs=… crashes=… fivexx=… rss_growth=…MiB …

and the exit is not zero unless crashes and fivexx are 0 and memory stayed within its bound. An input whose
answer is wrong is said with the one command that repeats it.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psycopg
import structlog

from chaos.fuzz_app import BLOCK, Bench, Fault, Tally
from chaos.fuzz_inputs import make
from chaos.fuzz_sockets import Strain, strain
from chaos.fuzz_wire import talk
from databases import Database as Urls
from shop import Shop, shop
from wsm.sandbox.embedded import Embedded
from wsm.store.migrate import migrate
from wsm.streams.client import connect
from wsm.streams.handover import Offer

INPUTS = 1_000_000
GROWTH_BYTES = 64 * 1024 * 1024
"""Of memory, in either process, that is no fault."""
_SAMPLE_EVERY = 20
_TURN_ENTRIES = 100
_PAGE_BYTES = 4096
_DATABASE = "fuzz"


class Result(msgspec.Struct):
    """What the in-process part came to. turned: entries that went through a turn."""

    tally: Tally
    turned: int = 0
    growth_bytes: int = 0
    faults: list[Fault] = []


def rss_bytes(pid: int | str = "self") -> int:
    """The memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


async def fuzz_app(
    redis_url: str, urls: Urls, *, seed: int, inputs: int, first: int = 0, most_faults: int = 20
) -> Result:
    """Give the app `inputs` inputs from `first` on; go on after a fault, up to a number of them."""
    redis = connect(redis_url, timeout_seconds=30)
    sampled: list[tuple[int, Offer]] = []

    def sample(number: int, offer: Offer) -> None:
        if number % _SAMPLE_EVERY == 0 or number < first + BLOCK:
            sampled.append((number, offer))

    bench = Bench(seed, redis, sample)
    result = Result(bench.tally)
    settled_at, at_rest = first + max(inputs // 5, BLOCK), 0
    try:
        async with shop(urls) as at:
            for start in range(first, first + inputs, BLOCK):
                try:
                    await bench.block(start, min(BLOCK, first + inputs - start))
                    while len(sampled) >= _TURN_ENTRIES or (sampled and start + BLOCK >= first + inputs):
                        turning, sampled[:_TURN_ENTRIES] = sampled[:_TURN_ENTRIES], []
                        result.turned += len(turning)
                        await _turn(at, turning)
                except Fault as fault:
                    result.faults.append(fault)
                    _say(f"{fault}\n    make fuzz SEED={seed} REPEAT={fault.number}")
                    if len(result.faults) >= most_faults:
                        break
                if start <= settled_at:
                    at_rest = rss_bytes()
                if start // BLOCK % 250 == 249:
                    _say(f"{start + BLOCK:,} inputs, {rss_bytes() >> 20} MiB")
    finally:
        await redis.aclose()
    result.growth_bytes = rss_bytes() - at_rest
    return result


async def _turn(at: Shop, sampled: Sequence[tuple[int, Offer]]) -> None:
    """Turn accepted bodies. Raises Fault for what is parked, and for a turn that fails."""
    try:
        settled = await at.turn(*(offer.body for _, offer in sampled))
    except Exception as exc:
        raise Fault(sampled[0][0], f"from it to {sampled[-1][0]}: the turn raised {exc!r}") from exc
    for parking in settled.parked:
        number = next(number for number, offer in sampled if offer.body == parking.entries[0].body)
        raise Fault(number, f"parked: {parking.reason}")


async def _all(servers: Embedded, asked: argparse.Namespace) -> bool:
    began = time.monotonic()
    with psycopg.connect(servers.database_url(database="postgres"), autocommit=True) as admin:
        admin.execute(f"create database {_DATABASE}")
    urls = Urls(*(servers.database_url(role, _DATABASE) for role in ("postgres", "wsm_app", "wsm_system")))
    await migrate(urls.owner_url)
    inputs, first, talks = asked.inputs, 0, range(asked.connections)
    if asked.talk is not None:
        inputs, talks = 0, range(asked.talk, asked.talk + 1)
        _say(repr(talk(asked.seed, asked.talk)))
    if asked.repeat is not None:
        inputs, first, talks = BLOCK, asked.repeat // BLOCK * BLOCK, range(0)
        _say(repr(make(asked.seed, asked.repeat)))
    result = await fuzz_app(servers.redis_url, urls, seed=asked.seed, inputs=inputs, first=first)
    sockets = Strain()
    if talks:
        await strain(servers.redis_url, sockets, seed=asked.seed, talks=talks)
    for line in (*_figures(result), *sockets.lines(), *sockets.faults):
        _say(line)
    return verdict(result, sockets, seconds=time.monotonic() - began)


def _figures(result: Result) -> list[str]:
    tally = result.tally
    return [
        f"statuses of the app: {dict(sorted(tally.statuses.items()))} (0: the client left)",
        f"accepted {tally.accepted:,}, read back from Valkey {tally.kept:,}, turned {result.turned:,}",
        f"read as {dict(tally.events.most_common())}",
    ]


def verdict(result: Result, sockets: Strain, *, seconds: float) -> bool:
    """Print the last line; say whether all is well."""
    growth = max(result.growth_bytes, sockets.growth_bytes)
    crashes = len(result.faults) + len(sockets.faults)
    unstated = sockets.fivexx + sum("escaped" in str(fault) for fault in result.faults)
    _say(
        f"inputs={result.tally.inputs + sockets.connections} crashes={crashes} fivexx={unstated} "
        f"rss_growth={growth / 2**20:.1f}MiB turned={result.turned} connections={sockets.connections} "
        f"seconds={seconds:.0f}"
    )
    return not crashes and not unstated and growth < GROWTH_BYTES


def quiet() -> None:
    """Log nothing below critical: millions of refusals are meant."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (a command line prints)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--connections", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", type=int, help="only the block of this input")
    parser.add_argument("--talk", type=int, help="only this connection")
    asked = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        servers = Embedded(Path(folder) / "home", fresh=True, maxmemory="512mb", fsync=False)
        try:
            servers.start()
            with asyncio.Runner() as runner:
                well = runner.run(_all(servers, asked))
        finally:
            servers.discard()
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
