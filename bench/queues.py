"""Queues: what 10,000 tenant queues cost over 10, and how long a worker takes to its first job among them.

    queues        wsm's bells per second with 10,000 tenants over those with 10
    queues.cpu    its CPU per bell, Valkey's included: where a price of many queues would show first
    queues.peer   wsm against SimpleWorker, both with 10,000 queues
    queues.start  from the start of the process to its first finished job, with 10,000 queues

A bell handles one entry and is rung again for the next, so that bells and jobs are the same number whatever
the queues are; and ten run at once in both cases, because ten tenants have no more than ten bells. Even so
ten tenants wait more: each has his next bell only when the last is finished.
"""

import statistics
from collections.abc import Sequence

from bench.harness import Contender, Row, by_cost, by_rate, interleaved, require, say, servers, table
from bench.workers import Bench, Work, fleet, mailboxes, rq, rq_jobs

FEW, MANY = 10, 10_000
MESSAGES = 20_000
JOBS = 400


def _wsm(tenants: int) -> Work:
    name = f"wsm worker, {tenants:,} queues"
    return Work(name, fleet("empty", slots=FEW, entries=1), mailboxes(tenants), MESSAGES)


def _simple(queues: int) -> Work:
    names = tuple(f"tenant-{number}" for number in range(queues))
    fill = rq_jobs("empty", queues=names[:: max(1, queues // JOBS)])
    return Work(f"rq SimpleWorker, {queues:,} queues", rq(*names, simple=True), fill, JOBS)


def run(rounds: int) -> Sequence[Row]:
    """Measure the family."""
    require("rq")
    works = [_wsm(FEW), _wsm(MANY), _simple(FEW), _simple(MANY)]
    few, many, simple_few, simple_many = (work.name for work in works)
    with servers() as embedded:
        bench = Bench(embedded)

        def contender(work: Work) -> Contender:
            return Contender(work.name, lambda: bench.measure(work, also=(embedded.valkey.pid,)))

        medians = interleaved([contender(work) for work in works], rounds)
        table("Ten jobs at once at most, one worker process; CPU with Valkey's", medians)
        starts = _starts(bench, (_wsm(MANY), _simple(MANY)), rounds)
    rate = {name: its.rate for name, its in medians.items()}
    cpu = {name: its.cpu_seconds_per_10k for name, its in medians.items()}
    say(
        f"SimpleWorker: {rate[simple_many] / rate[simple_few]:.2f} of its rate is left with {MANY:,} queues\n"
    )
    return [
        by_rate("queues", rate[many], rate[few], few, f"bells/s with {MANY:,} queues; ratio large / small"),
        by_cost("queues.cpu", cpu[many], cpu[few], few, "CPU s per 10,000 bells, Valkey's included"),
        by_rate("queues.peer", rate[many], rate[simple_many], simple_many, "jobs/s"),
        by_cost("queues.start", starts[many], starts[simple_many], simple_many, "s to the first job"),
    ]


def _starts(bench: Bench, works: Sequence[Work], rounds: int) -> dict[str, float]:
    """Take the median time from start to first job of each."""
    taken: dict[str, list[float]] = {work.name: [] for work in works}
    for _ in range(rounds):
        for work in works:
            bench.prepare(work)
            taken[work.name].append(bench.seconds_to_first(work))
            say(f"  start {work.name}: {taken[work.name][-1]:.2f} s")
    return {name: statistics.median(seconds) for name, seconds in taken.items()}
