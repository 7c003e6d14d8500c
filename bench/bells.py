"""Bells: what a worker process does in a second: jobs that do nothing, that wait, of many tenants.

    bells.empty    bells of empty mailboxes, rung beforehand: claim, an empty turn, finish
    bells.wait200  a turn that waits 200 ms on the loop, 500 at once where the worker can
    bells.sparse   5,000 tenants with one message of 1 KB each, from the mailbox on: ring, claim with the
                   message, an empty turn, finish; against a job per message, the message as its argument

Peers are filled beforehand and run as their documents say, quiet, without results where they let one choose.
huey has no event loop: one process for empty jobs, 500 threads for those that wait.
"""

from collections.abc import Mapping, Sequence

from bench.harness import Contender, Measure, Row, by_cost, by_rate, interleaved, require, servers, table
from bench.workers import Bench, Work, bells, by_app, fleet, huey, mailboxes, rq, rq_jobs, taskiq

WSM, SIMPLE, FORKING = "wsm worker", "rq SimpleWorker", "rq worker (forks)"
AT_ONCE = 500
TENANTS = 5000
_TASKIQ, _HUEY = "bench.peers.taskiq_app", "bench.peers.huey_app"

EMPTY = (
    Work(WSM, fleet("empty", slots=AT_ONCE), bells, 30_000),
    Work(SIMPLE, rq("bench", simple=True), rq_jobs("empty"), 1500),
    Work(FORKING, rq("bench", simple=False), rq_jobs("empty"), 300),
    Work("taskiq list", taskiq("list", at_once=AT_ONCE), by_app(_TASKIQ, "list", "empty"), 12_000),
    Work("taskiq stream", taskiq("stream", at_once=AT_ONCE), by_app(_TASKIQ, "stream", "empty"), 12_000),
    Work("huey process", huey("process", workers=1), by_app(_HUEY, "empty"), 12_000),
)
WAIT = (
    Work(WSM, fleet("wait", slots=AT_ONCE), bells, 6000),
    Work(SIMPLE, rq("bench", simple=True), rq_jobs("wait"), 20),
    Work(FORKING, rq("bench", simple=False), rq_jobs("wait"), 20),
    Work("taskiq list", taskiq("list", at_once=AT_ONCE), by_app(_TASKIQ, "list", "wait"), 6000),
    Work("taskiq stream", taskiq("stream", at_once=AT_ONCE), by_app(_TASKIQ, "stream", "wait"), 6000),
    Work("huey threads", huey("thread", workers=AT_ONCE), by_app(_HUEY, "wait"), 3000),
)
SPARSE = (
    Work(WSM, fleet("empty", slots=100), mailboxes(TENANTS), TENANTS),
    Work(SIMPLE, rq("bench", simple=True), rq_jobs("take", messages=True), 1500),
)


def run(rounds: int) -> Sequence[Row]:
    """Measure the family."""
    require("rq", "taskiq", "taskiq_redis", "huey")
    with servers() as embedded:
        bench = Bench(embedded)

        def medians(title: str, works: Sequence[Work]) -> dict[str, Measure]:
            taken = interleaved([_contender(bench, work) for work in works], rounds)
            table(title, taken)
            return taken

        empty = medians("Empty jobs, one worker process", EMPTY)
        wait = medians("Jobs that wait 200 ms, 500 at once, one worker process", WAIT)
        sparse = medians("5,000 tenants with one message each", SPARSE)
    return [
        *_rates("bells.empty", empty, "empty jobs/s per process"),
        *_rates("bells.wait200", wait, "jobs of 200 ms per s and process"),
        *_costs(wait),
        *_rates("bells.sparse", sparse, "messages/s per process"),
    ]


def _contender(bench: Bench, work: Work) -> Contender:
    return Contender(work.name, lambda: bench.measure(work))


def _rates(id_: str, medians: Mapping[str, Measure], unit: str) -> list[Row]:
    wsm = medians[WSM].rate
    return [by_rate(id_, wsm, its.rate, name, unit) for name, its in medians.items() if name != WSM]


def _costs(medians: Mapping[str, Measure]) -> list[Row]:
    """Compare what a job costs with those that run as many at once."""
    wsm, rows = medians[WSM], []
    for name, its in medians.items():
        if name not in {WSM, SIMPLE, FORKING}:
            cpu, memory = wsm.cpu_seconds_per_10k, wsm.peak_bytes / AT_ONCE / 1000
            rows.append(
                by_cost("bells.wait200.cpu", cpu, its.cpu_seconds_per_10k, name, "CPU s per 10,000 jobs")
            )
            peer = its.peak_bytes / AT_ONCE / 1000
            rows.append(
                by_cost("bells.wait200.memory", memory, peer, name, "kB per job in flight, all of it")
            )
    return rows
