"""Growth: what a message costs as tenants and history grow.

    growth.tenants  CPU seconds per 10,000 messages of worker, PostgreSQL and Valkey, with 1,000 and 10,000
                    tenants, over the same with 10
    growth.history  the same with 10^6 and 10^7 rows of history, and as many dedupe rows, over the same with
                    10^4; of 1,000 tenants

Messages come at a steady rate, so that a turn handles no more of them in one case than in another, and as in
`bench.turns`. What being idle costs is taken beforehand, with everything running, and subtracted.
BENCH_HISTORY names other sizes (`BENCH_HISTORY=10000,1000000`): the largest takes most of the family's time.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from itertools import count

import psycopg
import uvloop

from bench import webhooks
from bench.harness import Measure, Meter, Row, percentile, say, servers, table
from bench.phones import Town
from bench.turns import drained
from bench.whole import Fleet, found, server_pids, wsm_fleet
from wsm.sandbox.embedded import Embedded
from wsm.store.migrate import migrate

TENANTS = (10, 1_000, 10_000)
HISTORY = tuple(map(int, os.environ.get("BENCH_HISTORY", "10000,1000000,10000000").split(",")))
OF_HISTORY = 1_000
RATE = 40.0
MESSAGES = 800
_WARM = 200
_IDLE_SECONDS = 4.0
_FIRST = webhooks.FIRST_TENANT
_SLICE = 1_000_000

_PEOPLE = """
insert into contacts (tenant_id, name)
select {first} + t, 'old' from generate_series(0, {tenants} - 1) t, generate_series(1, 10);
insert into conversations (tenant_id, session_id, contact_id, chat_id, kind, state)
select c.tenant_id, s.id, c.id, c.id || '@c.us', 'direct', 'closed'
from contacts c join sessions s using (tenant_id) where c.name = 'old' on conflict do nothing
"""
_ROWS = """
with people as (
    select tenant_id, session_id, id, row_number() over (order by tenant_id, id) - 1 as place
    from conversations where state = 'closed' and chat_id = contact_id || '@c.us'),
size as (select count(*) as people from people),
numbered as materialized (
    select p.tenant_id, p.session_id, p.id as conversation, n, 'OLD' || n as bare_id,
           '2026-10-01'::timestamptz + n * interval '0.2 seconds' as at
    from size, people p
    cross join lateral (
        select n from generate_series({since} + p.place, {until} - 1, size.people) n) numbers
    order by p.tenant_id, p.id, n),
seen as (
    insert into inbound_dedupe (tenant_id, session_id, key, seen_at)
    select tenant_id, session_id, 'm|0|' || bare_id, at from numbered)
insert into messages (tenant_id, sent_at, session_id, conversation_id, author, kind, from_me, bare_id, body,
                      stamped_at_ms, entry_ms, entry_n)
select tenant_id, at, session_id, conversation, 'customer', 'text', false, bare_id, repeat('x', 80), n, n, 0
from numbered
"""


def run(rounds: int) -> Sequence[Row]:  # noqa: ARG001 (a size is reached once)
    """Measure the family: each size once, the smallest first."""
    first = count()
    by_tenants, by_history = {}, {}
    for tenants in TENANTS:
        with servers() as embedded:
            asyncio.run(migrate(embedded.database_url()))
            found(embedded, tenants)
            by_tenants[tenants] = _measure(embedded, tenants, next(first))
    with servers() as embedded:
        asyncio.run(migrate(embedded.database_url()))
        found(embedded, OF_HISTORY)
        filled = 0
        for rows in HISTORY:
            _fill(embedded, filled, rows)
            filled = rows
            by_history[rows] = _measure(embedded, OF_HISTORY, next(first))
    table("A message by tenants", {f"{tenants:,} tenants": its for tenants, its in by_tenants.items()})
    table("A message by history", {f"{rows:,} rows": its for rows, its in by_history.items()})
    return [
        *_rows("growth.tenants", by_tenants, "tenants"),
        *_rows("growth.history", by_history, "rows of history"),
    ]


def _rows(id_: str, measures: dict[int, Measure], of: str) -> list[Row]:
    """Compare every size with the smallest."""
    (small, least), *larger = ((size, its.cpu_seconds_per_10k) for size, its in measures.items())
    unit = "CPU s per 10,000 messages"
    return [
        Row(id_, cost, least, f"{small:,} {of}, against {size:,}", cost / least, unit)
        for size, cost in larger
    ]


def _measure(embedded: Embedded, tenants: int, number: int) -> Measure:
    with wsm_fleet(embedded) as fleet:
        return uvloop.run(_driven(embedded, fleet, tenants, number))


async def _driven(embedded: Embedded, fleet: Fleet, tenants: int, number: int) -> Measure:
    sessions = [webhooks.address(its) for its in range(tenants)]
    town = Town(fleet.port, sessions, talks=True, first=number * 100_000)
    await town.open(fleet.gateway_port)
    try:
        await town.at_rate(_WARM, RATE)
        await drained(fleet)
        meter = Meter(*(child.pid for child in fleet.workers), *server_pids(embedded))
        await asyncio.sleep(_IDLE_SECONDS)
        idle = meter.cpu_seconds / _IDLE_SECONDS
        town.latencies.clear()
        meter.start()
        began = time.monotonic()
        if await town.at_rate(MESSAGES, RATE):
            raise SystemExit(f"{RATE:.0f} messages a second are too many for this machine now")
        await drained(fleet)
        seconds = time.monotonic() - began
        spent = meter.cpu_seconds - idle * seconds
    finally:
        town.close()
    p50, p99 = (1000 * percentile(town.latencies, share) for share in (0.5, 0.99))
    measure = Measure(MESSAGES / seconds, spent / MESSAGES * 10_000, meter.peak_bytes, p50, p99)
    say(f"  {tenants:,} tenants: {measure.cpu_seconds_per_10k:.3g} CPU s per 10,000, idle {idle:.3g} CPU s/s")
    return measure


def _fill(embedded: Embedded, since: int, until: int) -> None:
    """Let the history grow from `since` rows to `until`, evenly among the tenants, ten customers of each."""
    began = time.monotonic()
    with psycopg.connect(embedded.database_url(), autocommit=True) as owner:
        owner.execute("set search_path = wsm")
        owner.execute("set session_replication_role = replica")  # no foreign key is checked: they hold
        owner.execute("set work_mem = '256MB'")
        owner.execute("set synchronous_commit = off")
        owner.execute("select ensure_month('2026-10-01')")
        if since == 0:
            for statement in _PEOPLE.format(first=_FIRST, tenants=OF_HISTORY).split(";"):
                owner.execute(statement.encode())
        for start in range(since, until, _SLICE):
            end = min(start + _SLICE, until)
            owner.execute(_ROWS.format(since=start, until=end).encode())
        owner.execute("vacuum analyze")
        owner.execute("checkpoint")
    say(f"  {until:,} rows of history after {time.monotonic() - began:.0f} s")
