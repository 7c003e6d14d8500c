"""Live through a day, judge it, and say what held. `make day` calls it.

    python -m day [--seed 1] [--customers 2000] [--hours 8]

Exits with 1 unless all of it held: the zeros of the last line, and nothing else was found.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import uvloop

from databases import Database
from day.judge import judge
from day.plan import Plan
from day.report import report
from day.run import run
from wsm.sandbox.embedded import Embedded
from wsm.store.migrate import migrate


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="day", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1, help="of everybody's luck")
    parser.add_argument("--customers", type=int, default=2_000)
    parser.add_argument("--hours", type=float, default=8.0, help="how long the shops are open")
    asked = parser.parse_args()
    plan = Plan(seed=asked.seed, customers=asked.customers, hours=asked.hours)
    began, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="wsm-day-") as folder:
        Path(folder).chmod(0o711)  # root's PostgreSQL runs as `nobody`
        servers = Embedded(Path(folder) / "home", fresh=True, maxmemory="512mb", fsync=False)
        try:
            servers.start()
            books = uvloop.run(run(plan, servers.redis_url, _database(servers), say=_say))
        finally:
            servers.discard()
    verdict = judge(books)
    seconds, own = time.monotonic() - began, time.process_time() - cpu
    _say(f"lived through in {seconds:.0f} s, {own:.0f} s of CPU of its own")
    for line in report(books, verdict):
        _say(line)
    return 0 if verdict.clean else 1


def _database(servers: Embedded) -> Database:
    """Make a migrated database."""
    with psycopg.connect(servers.database_url(database="postgres"), autocommit=True) as admin:
        admin.execute("create database day")
    owner = servers.database_url(database="day")
    asyncio.run(migrate(owner))
    app, system = (servers.database_url(role, "day") for role in ("wsm_app", "wsm_system"))
    return Database(owner_url=owner, app_url=app, system_url=system)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
