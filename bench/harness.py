"""What every family of benchmarks shares: measures, rounds, rows, tables, processes and their cost.

Peers run in the same run, one after the other, round after round (A B C A B C …), on the same servers:
Valkey with `appendfsync always` and PostgreSQL with fsync, as in production. What is told is the median of
the rounds, figure by figure. Cost is read from /proc (Linux): CPU of a whole process tree, ended children
included, and the peak of its resident memory, in which forked children count what they share twice.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import msgspec

from wsm.sandbox.embedded import Embedded
from wsm.sandbox.leash import leashed

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "bench" / "out"
PYTHON = (sys.executable, "-X", "utf8")
_TICKS = os.sysconf("SC_CLK_TCK")
_POLL_SECONDS = 0.02


class Measure(msgspec.Struct, frozen=True):
    """One round of one contender.

    rate                 per second
    cpu_seconds_per_10k  of the contender's own processes, servers and load generators not among them
    peak_bytes           of their resident memory
    p50_ms, p99_ms       where latencies were taken
    """

    rate: float
    cpu_seconds_per_10k: float
    peak_bytes: float
    p50_ms: float | None = None
    p99_ms: float | None = None


class Contender(msgspec.Struct, frozen=True):
    """A name, and what takes one measure of it."""

    name: str
    measure: Callable[[], Measure]


class Row(msgspec.Struct, frozen=True):
    """A line of the result.

    wsm, peer  in `unit`
    ratio      how many times better wsm is; for `queues` and `growth`, large over small
    """

    id: str
    wsm: float
    peer: float
    peer_name: str
    ratio: float
    unit: str


class Rows(msgspec.Struct):
    """What bench/out/latest.json holds."""

    rows: list[Row]


def by_rate(id_: str, wsm: float, peer: float, peer_name: str, unit: str) -> Row:
    """Make the row of a figure that should be high."""
    return Row(id_, wsm, peer, peer_name, wsm / peer, unit)


def by_cost(id_: str, wsm: float, peer: float, peer_name: str, unit: str) -> Row:
    """Make the row of a figure that should be low."""
    return Row(id_, wsm, peer, peer_name, peer / wsm, unit)


def interleaved(contenders: Sequence[Contender], rounds: int) -> dict[str, Measure]:
    """Measure each contender once per round, in turn; return the medians by name, and print both."""
    taken: dict[str, list[Measure]] = {contender.name: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender in contenders:
            measure = contender.measure()
            taken[contender.name].append(measure)
            say(f"  round {number} {contender.name}: {line(measure)}; load {os.getloadavg()[0]:.1f}")
    return {name: median(measures) for name, measures in taken.items()}


def median(measures: Sequence[Measure]) -> Measure:
    """Take the median of every figure on its own."""

    def middle(name: str) -> float | None:
        values = [value for measure in measures if (value := getattr(measure, name)) is not None]
        return statistics.median(values) if values else None

    return Measure(**{name: middle(name) for name in Measure.__struct_fields__})  # type: ignore[arg-type]


def table(title: str, medians: Mapping[str, Measure]) -> None:
    """Print medians as a Markdown table: it goes into bench/README.md as it is."""
    say(f"\n{title}\n\n| contender | per s | CPU s per 10,000 | peak MB | p50 ms | p99 ms |")
    say("|---|--:|--:|--:|--:|--:|")
    for name, its in medians.items():
        cost = f"{its.rate:,.4g} | {its.cpu_seconds_per_10k:.3g} | {its.peak_bytes / 1e6:.0f}"
        latencies = " | ".join("" if value is None else f"{value:.1f}" for value in (its.p50_ms, its.p99_ms))
        say(f"| {name} | {cost} | {latencies} |")
    say("")


def line(its: Measure) -> str:
    """Write a measure in one line."""
    text = f"{its.rate:,.4g}/s, {its.cpu_seconds_per_10k:.3g} CPU s per 10,000, {its.peak_bytes / 1e6:.0f} MB"
    return text if its.p99_ms is None else f"{text}, p50 {its.p50_ms:.2f} ms, p99 {its.p99_ms:.2f} ms"


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def require(*modules: str) -> None:
    """Stop the run unless every peer's module is there: a row without its peer says nothing."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not found in {sys.prefix}: run it by `make bench`")


@contextmanager
def servers(maxmemory: str = "3gb") -> Iterator[Embedded]:
    """Run fresh servers in a temporary folder, removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="wsm-bench-"))
    embedded = Embedded(home, fresh=True, maxmemory=maxmemory)
    try:
        with embedded:
            yield embedded
    finally:
        embedded.discard()
        shutil.rmtree(home, ignore_errors=True)


class Child:
    """A process of a contender, with what it and its children cost.

    log  where it writes
    """

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def check(self) -> None:
        """Stop the run, with the end of its log, when the process has ended with an error."""
        if self._popen.poll():
            raise SystemExit(f"{self.log.name} ended with {self._popen.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])

    def end(self, seconds: float = 10) -> int:
        """Ask it to end by SIGTERM, wait, then kill it; return its exit code."""
        with suppress(ProcessLookupError):
            self._popen.terminate()
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(self.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return self._popen.wait()


@contextmanager
def running(
    name: str, *arguments: str, environ: Mapping[str, str] | None = None, program: Sequence[str] = PYTHON
) -> Iterator[Child]:
    """Run `program arguments…` beside the caller and end it on leaving; its log is bench/out/log/<name>.log.

    environ  is added to this process' environment
    program  this Python unless another is named
    """
    log = OUT / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        popen = subprocess.Popen(
            leashed([*program, *arguments], on_orphaned=signal.SIGKILL),
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    child = Child(popen, log)
    try:
        yield child
    finally:
        child.end()


class Meter:
    """What process trees cost from `start` on: CPU seconds, and their peak memory so far.

    The peak is of their whole life. Short-lived children are seen when `peek` is called while they live.
    """

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self.peak_bytes = 0
        self.start()

    def start(self) -> None:
        """Count from here; what comes before is warming up."""
        self._cpu_before = cpu_seconds(self._pids)
        self._since = time.monotonic()
        self.peek()

    def peek(self) -> None:
        """Look at the memory now."""
        self.peak_bytes = max(self.peak_bytes, peak_bytes(self._pids))

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds since `start`."""
        return cpu_seconds(self._pids) - self._cpu_before

    def measure(self, done: int, seconds: float | None = None) -> Measure:
        """Make the measure of `done` things, in `seconds` or in the time since `start`."""
        elapsed = time.monotonic() - self._since if seconds is None else seconds
        self.peek()
        return Measure(done / elapsed, self.cpu_seconds / done * 10_000, self.peak_bytes)


def wait_until(
    holds: Callable[[], bool], what: str, *, seconds: float = 60, beside: Callable[[], None] | None = None
) -> None:
    """Ask every 20 ms until it holds; stop the run when it does not in time.

    beside  is called between two questions: `Child.check`, `Meter.peek`
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:.0f} s in vain for {what}")
        if beside:
            beside()
        pause.wait(_POLL_SECONDS)


def tree(pid: int) -> list[int]:
    """Name a process and everything below it; what ends meanwhile is left out."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for listed in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, listed.read_text().split())
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Add up user and system time of process trees, with that of children that ended."""
    return sum(_ticks(one) for pid in pids for one in tree(pid)) / _TICKS


def peak_bytes(pids: Iterable[int]) -> int:
    """Add up the highest resident memory of every process that is alive in these trees."""
    return sum(_highest(one) for pid in pids for one in tree(pid))


def _ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0
    return sum(map(int, text.rpartition(")")[2].split()[11:15]))  # utime stime cutime cstime


def _highest(pid: int) -> int:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if entry.startswith("VmHWM:"):
                return int(entry.split()[1]) * 1024
    return 0
