"""The only place that names concrete classes and wires them: plain constructor calls, nothing else.

    ingest, worker, clock  one process each
    openings  what a command opens
    parts     what more than one of them is made of
    watched   how a process is seen from outside

Each process' parts are imported inside that process' own function, so that ingest never loads psycopg or RQ
and nothing connects on import.
"""

from wsm.bootstrap.clock import run_clock
from wsm.bootstrap.ingest import run_ingest
from wsm.bootstrap.openings import fleet_writes, front_door, mailroom, sessions, tenant_reads
from wsm.bootstrap.parts import capacities, handover, opened, utc_now
from wsm.bootstrap.worker import run_worker

__all__ = [
    "capacities",
    "fleet_writes",
    "front_door",
    "handover",
    "mailroom",
    "opened",
    "run_clock",
    "run_ingest",
    "run_worker",
    "sessions",
    "tenant_reads",
    "utc_now",
]
