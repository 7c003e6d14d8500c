"""Run seeds, judge each, and say what held. `make chaos` calls it.

    python -m chaos [--seeds 50] [--messages 4000] [--first 1] [--home FOLDER]

Exits with 1 unless nothing was lost, duplicated or reordered, and every intent was settled.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import psycopg
import redis

from chaos.checker import Report
from chaos.run import Ran, run_seed
from databases import Database
from e2e.town import Ground
from wsm.sandbox.embedded import Embedded
from wsm.store.migrate import migrate

_WORDS = ("lost", "duplicated", "reordered", "indeterminate")
_SHOWN = 12


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=50, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--messages", type=int, default=4000, help="accepted deliveries per seed, at least")
    parser.add_argument("--home", type=Path, help="a folder that keeps the logs")
    asked = parser.parse_args()
    with (
        nullcontext(asked.home) if asked.home else tempfile.TemporaryDirectory(prefix="wsm-chaos-") as folder
    ):
        servers = Embedded(Path(folder) / "home", fresh=True, maxmemory="256mb", fsync=False)
        try:
            servers.start()
            reports = [
                _one(seed, servers, Path(folder), asked.messages)
                for seed in range(asked.first, asked.first + asked.seeds)
            ]
        finally:
            servers.discard()
    _say(f"sent twice by the exclusion that P4 names: {sum(len(each.excluded) for each in reports)}")
    line, code = verdict(reports)
    _say(line)
    return code


def verdict(reports: Sequence[Report]) -> tuple[str, int]:
    """Return the last line of a run and its exit code."""
    total = " ".join(f"{word}={sum(len(getattr(each, word)) for each in reports)}" for word in _WORDS)
    sends = sum(each.asked for each in reports)
    line = f"acked={sum(each.acked for each in reports)} {sends=} {total} seeds={len(reports)}"
    return line, 0 if all(each.clean for each in reports) else 1


def _one(seed: int, servers: Embedded, folder: Path, messages: int) -> Report:
    """Run a seed on its own database, and say how it went."""
    began = time.monotonic()
    ground = _ground(seed, servers, folder)
    ran = asyncio.run(run_seed(seed, ground, messages=messages))
    _say(_line(ran, time.monotonic() - began))
    for finding in ran.report.findings[:_SHOWN]:
        _say(f"  {finding}")
    if not ran.report.clean:
        _say(f"  repeat it with: make chaos SEEDS=1 FIRST={seed} MESSAGES={messages}")
        _say(f"  faults: {', '.join(ran.diary)}")
    return ran.report


def _ground(seed: int, servers: Embedded, folder: Path) -> Ground:
    """Empty Redis; make a migrated database and a home."""
    servers.start()
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushall()
    name = f"seed_{seed}"
    with psycopg.connect(servers.database_url(database="postgres"), autocommit=True) as admin:
        admin.execute(f"create database {name}".encode())
    owner = servers.database_url(database=name)
    asyncio.run(migrate(owner))
    home = folder / name
    home.mkdir(parents=True)
    app, system = (servers.database_url(role, name) for role in ("wsm_app", "wsm_system"))
    return Ground(servers, Database(owner_url=owner, app_url=app, system_url=system), home)


def _line(ran: Ran, seconds: float) -> str:
    report = ran.report
    figures = " ".join(f"{word}={len(getattr(report, word))}" for word in _WORDS)
    return (
        f"seed {ran.seed}: acked={report.acked} facts={report.facts}"
        f" sent={report.sent} sends={report.asked} pairs={report.pairs}"
        f" {figures} excluded={len(report.excluded)} faults={len(ran.diary)} in {seconds:.0f} s"
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
