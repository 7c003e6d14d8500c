"""Run the benchmarks: `python -m bench [--only NAME] [--rounds N]`, from the root of the checkout.

Each family is a module of this package with `run(rounds) -> Sequence[Row]`. Rows are printed and written to
bench/out/latest.json; those of families that did not run stay there as they were.
"""

import argparse
import importlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.harness import OUT, Row, Rows, say

FAMILIES = ("ingest", "bells", "queues", "turns", "latency", "growth", "line", "clients", "waiting")
_FSYNCS = 200
LATEST = OUT / "latest.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--only", choices=FAMILIES, help="one family instead of all")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender runs")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("the benchmarks read /proc: Linux only")
    OUT.mkdir(parents=True, exist_ok=True)
    say(f"{machine()}; {datetime.now(UTC):%Y-%m-%d}")
    say(f"before the run: load {os.getloadavg()[0]:.1f}, fsync {fsync_ms():.2f} ms")
    if not arguments.only:
        LATEST.unlink(missing_ok=True)
    for name in [arguments.only] if arguments.only else FAMILIES:
        began = time.monotonic()
        say(f"\n== {name}")
        rows = importlib.import_module(f"bench.{name}").run(arguments.rounds)
        keep(rows, LATEST)
        show(rows)
        say(f"({name} took {time.monotonic() - began:.0f} s)")


def machine() -> str:
    """Describe what the figures were taken on."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(
        (entry.partition(": ")[2] for entry in cpus if entry.startswith("model name")), "unknown CPU"
    )
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}, Python {platform.python_version()}"


def fsync_ms() -> float:
    """Take the median time of an fsync where the servers' data will lie: it bounds all that is durable."""
    taken = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_FSYNCS):
            file.write(b"x" * 2048)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


def keep(rows: Sequence[Row], latest: Path) -> None:
    """Put rows into the file, in the place of earlier ones of the same id and peer."""
    found = msgspec.json.decode(latest.read_bytes(), type=Rows).rows if latest.exists() else []
    new = {(row.id, row.peer_name) for row in rows}
    merged = [row for row in found if (row.id, row.peer_name) not in new] + list(rows)
    part = latest.with_suffix(".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(Rows(merged))) + b"\n")
    part.replace(latest)


def show(rows: Sequence[Row]) -> None:
    """Print rows as a Markdown table."""
    say("| id | wsm | peer | | ratio | unit |\n|---|--:|--:|---|--:|---|")
    for row in rows:
        figures = f"{row.wsm:,.4g} | {row.peer:,.4g} | {row.peer_name} | {row.ratio:.3g}"
        say(f"| {row.id} | {figures} | {row.unit} |")


if __name__ == "__main__":
    main()
