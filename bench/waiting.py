"""Waiting: what 5,000 sessions cost that have one message each to send, and must not yet.

    waiting.worker  CPU milliseconds of the worker in a second
    waiting.clock   CPU milliseconds of the clock in a second, which is a tick
    waiting.store   CPU milliseconds of PostgreSQL in a second
    waiting.memory  resident MB of worker and clock together

The peer is the same fleet with the same sessions, none of which has anything to say. Whoever waits has his
time an hour from now, in the column that the clock's index is on; nothing of the fleet is told that it is a
benchmark.
"""

import asyncio
import statistics
import threading
from collections.abc import Sequence

import psycopg

from bench.harness import Meter, Row, by_cost, say, servers
from bench.whole import Fleet, found, server_pids, wsm_fleet
from wsm.sandbox.embedded import Embedded
from wsm.store.migrate import migrate

SESSIONS = 5_000
SECONDS = 20.0
_SETTLED_SECONDS = 8.0
_WRITTEN = """
with people as (insert into contacts (tenant_id) select tenant_id from sessions returning tenant_id, id),
talks as (
    insert into conversations (tenant_id, session_id, contact_id, chat_id, kind, heard_at)
    select s.tenant_id, s.id, p.id, '5511900000001@c.us', 'direct', now()
    from sessions s join people p on p.tenant_id = s.tenant_id
    returning tenant_id, session_id, id),
paced as (
    insert into pace (tenant_id, session_id, due_at, waits)
    select tenant_id, session_id, now() + interval '1 hour', 'hours' from talks)
insert into outbox (tenant_id, session_id, conversation_id, class, args, body, intent_key, not_before,
                    expires_at, created_at)
select tenant_id, session_id, id, 'campaign', '{"kind": "text", "text": "a"}', 'a', 'bench', now(),
       now() + interval '7 days', now() from talks
"""
_FORGOTTEN = ("outbox", "pace", "conversations", "contacts")

Cost = tuple[float, float, float, float]
"""Of worker, clock and PostgreSQL in a second, in milliseconds of CPU; megabytes of worker and clock."""


def run(rounds: int) -> Sequence[Row]:
    """Measure the family."""
    waiting: list[Cost] = []
    idle: list[Cost] = []
    with servers() as embedded:
        asyncio.run(migrate(embedded.database_url()))
        found(embedded, SESSIONS)
        for number in range(1, rounds + 1):
            for name, into, wait in (("nobody waits", idle, False), ("all of them wait", waiting, True)):
                _write(embedded, waits=wait)
                with wsm_fleet(embedded) as fleet:
                    into.append(_measured(embedded, fleet))
                figures = "  ".join(f"{figure:.1f}" for figure in into[-1])
                say(f"round {number}, {name}: {figures}")
        if _left(embedded):
            raise SystemExit("something was sent before its time")
    names = ("worker", "clock", "store", "memory")
    units = ("CPU ms/s", "CPU ms/s", "CPU ms/s", "MB")
    return [
        by_cost(f"waiting.{name}", _median(waiting, at), _median(idle, at), "nobody waits", unit)
        for at, (name, unit) in enumerate(zip(names, units, strict=True))
    ]


def _measured(embedded: Embedded, fleet: Fleet) -> Cost:
    """Let a fleet stand for a while, and then see what it costs."""
    threading.Event().wait(_SETTLED_SECONDS)  # nothing says when its beginnings are over
    [worker], clock = fleet.workers, fleet.front[1]
    meters = [Meter(worker.pid), Meter(clock.pid), Meter(*server_pids(embedded))]
    threading.Event().wait(SECONDS)
    fleet.check()
    costs = [meter.measure(1, SECONDS) for meter in meters]
    worker_ms, clock_ms, store_ms = (each.cpu_seconds_per_10k / 10_000 * 1000 / SECONDS for each in costs)
    return worker_ms, clock_ms, store_ms, (costs[0].peak_bytes + costs[1].peak_bytes) / 2**20


def _write(embedded: Embedded, *, waits: bool) -> None:
    """Let every session have one message to send in an hour, or none at all."""
    with psycopg.connect(embedded.database_url(), autocommit=True) as owner:
        owner.execute("set search_path = wsm")
        owner.execute(f"truncate {', '.join(_FORGOTTEN)} cascade".encode())
        if waits:
            owner.execute(_WRITTEN)
        owner.execute("analyze")


def _left(embedded: Embedded) -> int:
    with psycopg.connect(embedded.database_url()) as owner:
        row = owner.execute("select count(*) from wsm.outbox where state <> 'pending'").fetchone()
    return int(row[0]) if row else 0


def _median(costs: Sequence[Cost], at: int) -> float:
    return statistics.median(cost[at] for cost in costs)
