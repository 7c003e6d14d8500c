"""What the outside sees of a process: JSON logs, metrics, and /healthz, /readyz, /metrics.

A log line is a constant event word and values; ids, never objects, never a message text, a phone number or
a secret; a chat is named by nothing. Metrics are all defined here, once, with
unit and meaning; docs/METRICS.md is printed from this list and a test fails when it is stale.
"""

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TextIO, cast

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

_SHOWN = re.compile(r"[(<]")
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_AGE = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 512)

INGEST_REQUESTS = Counter(
    "wsm_ingest_requests", "Webhooks by result: accepted, quarantined, refused, unavailable.", ["result"]
)
INGEST_REFUSED = Counter(
    "wsm_ingest_refused", "Webhooks not answered 2xx, by reason; never rate-limited.", ["reason"]
)
INGEST_SECONDS = Histogram(
    "wsm_ingest_accept_seconds", "From a batch's first verified webhook to Redis' reply.", buckets=_FAST
)
INGEST_BATCH = Histogram("wsm_ingest_batch_entries", "Entries appended by one ACCEPT.", buckets=_SIZES)
INGEST_BODIES = Gauge("wsm_ingest_bodies_in_flight_bytes", "Bytes of request bodies held in memory.")
INGEST_CUT = Counter("wsm_ingest_connections_cut", "Connections that ingest cut off, by reason.", ["reason"])

RINGS = Counter("wsm_rings", "Bells made, by kind.", ["kind"])
BELLS = Counter("wsm_bells", "Bells finished, by kind and the word the run ended in.", ["kind", "outcome"])
BELL_SECONDS = Histogram("wsm_bell_seconds", "From claim to finish, by kind.", ["kind"], buckets=_SLOW)
BELLS_IN_FLIGHT = Gauge("wsm_bells_in_flight", "Bells this worker holds, by kind.", ["kind"])
JOBS = Counter("wsm_jobs", "Ordinary RQ jobs, by queue and the word the run ended in.", ["queue", "outcome"])
JOB_SECONDS = Histogram("wsm_job_seconds", "How long they ran, by queue.", ["queue"], buckets=_SLOW)
JOBS_IN_FLIGHT = Gauge("wsm_jobs_in_flight", "Ordinary RQ jobs that this worker runs.")
ENTRIES = Counter("wsm_entries", "Mailbox entries settled by turns, by what became of them.", ["outcome"])
EVENT_AGE = Histogram("wsm_event_age_seconds", "From WAHA's signed time to the commit.", buckets=_AGE)
TIMERS = Counter("wsm_timers", "Timers that fired, by kind and what came of it.", ["kind", "outcome"])
PEOPLE = Counter(
    "wsm_people",
    "Contacts that became another one (merged); ids said to be one person's that cannot be (conflict).",
    ["what"],
)
SENDS = Counter(
    "wsm_sends", "Outbox intents settled, by class, kind and outcome.", ["intent", "kind", "outcome"]
)
SENDS_REFUSED = Counter(
    "wsm_sends_refused",
    "Intents that never leave by a rule of wsm's own (opt-out, breakers), by why.",
    ["why"],
)
LOCKS_SEEN = Counter("wsm_locks", "Times that WhatsApp held a number back, by why.", ["why"])

GATEWAY_REQUESTS = Counter(
    "wsm_gateway_requests", "Calls to gateways, by operation and result.", ["op", "result"]
)
GATEWAY_SECONDS = Histogram(
    "wsm_gateway_seconds", "Duration of gateway calls, by operation.", ["op"], buckets=_SLOW
)
CAUGHT_UP = Counter(
    "wsm_caught_up_messages",
    "Messages fetched for sessions that came back, by what became of them: known, entered.",
    ["result"],
)
HIDDEN_IDS = Counter(
    "wsm_hidden_ids",
    "People whose missing id a gateway was asked for, by whether it knew it: learned, unknown.",
    ["result"],
)

SWEEPS = Counter("wsm_sweep_findings", "What SWEEP repaired, by finding.", ["finding"])
CLOCK_LEADER = Gauge("wsm_clock_leader", "1 in the clock that leads, 0 in those that stand by.")
BACKLOG_ENTRIES = Gauge("wsm_backlog_entries", "Entries in all mailboxes; from the clock's leader alone.")
BACKLOG_BYTES = Gauge("wsm_backlog_bytes", "Bytes in all mailboxes; from the clock's leader alone.")
BACKLOG_TENANTS = Gauge(
    "wsm_backlog_tenants", "Tenants with work, by where they wait; leader alone.", ["where"]
)
DEAD_LETTERS = Gauge("wsm_dead_letters", "Entries given up after five failures, all tenants; leader alone.")
DEAD_BYTES = Gauge("wsm_dead_letters_bytes", "Bytes of all dead letters; leader alone.")
PAUSED = Gauge(
    "wsm_tenants_paused",
    "Tenants whose bells rest, by who paused them: cli, dead_letters; leader alone.",
    ["by"],
)
QUARANTINED = Gauge("wsm_quarantined", "Authentic webhooks that belong to no session; leader alone.")
TIMERS_DUE = Gauge(
    "wsm_timers_due", "Timers whose time has come and that lie in no mailbox, up to 10,000; leader alone."
)
TIMERS_AGE = Gauge("wsm_timers_oldest_age_seconds", "How late the oldest of them is; leader alone.")
OUTBOX_DUE = Gauge("wsm_outbox_due", "Sessions whose time to send has come; leader alone.")
OUTBOX_AGE = Gauge(
    "wsm_outbox_oldest_age_seconds", "How long the time of the one that waits longest has come; leader alone."
)
OUTBOX_WAITING = Gauge(
    "wsm_outbox_waiting", "Sessions that wait to send, by why, once a minute; leader alone.", ["why"]
)
FROZEN = Gauge(
    "wsm_sessions_frozen", "Sessions that WhatsApp lets write to nobody new, by why; leader alone.", ["why"]
)
DIRECTORY_SESSIONS = Gauge("wsm_directory_sessions", "Sessions in the published directory; leader alone.")
SESSIONS = Gauge("wsm_sessions", "Sessions by the status that was last seen; leader alone.", ["status"])
SESSION_ALARMS = Gauge(
    "wsm_session_alarms", "Sessions that a person should look at, by why; leader alone.", ["alarm"]
)
SESSION_REPAIRS = Counter(
    "wsm_session_repairs", "Steps taken to bring sessions back to what they should be, by kind.", ["step"]
)

METRICS = (
    INGEST_REQUESTS, INGEST_REFUSED, INGEST_SECONDS, INGEST_BATCH, INGEST_BODIES, INGEST_CUT,
    RINGS, BELLS, BELL_SECONDS, BELLS_IN_FLIGHT, JOBS, JOB_SECONDS, JOBS_IN_FLIGHT, ENTRIES, EVENT_AGE,
    TIMERS, PEOPLE, SENDS, SENDS_REFUSED, LOCKS_SEEN, GATEWAY_REQUESTS, GATEWAY_SECONDS, CAUGHT_UP,
    HIDDEN_IDS,
    SWEEPS, CLOCK_LEADER, BACKLOG_ENTRIES, BACKLOG_BYTES, BACKLOG_TENANTS,
    DEAD_LETTERS, DEAD_BYTES, PAUSED, QUARANTINED, TIMERS_DUE, TIMERS_AGE,
    OUTBOX_DUE, OUTBOX_AGE, OUTBOX_WAITING, FROZEN, DIRECTORY_SESSIONS, SESSIONS,
    SESSION_ALARMS, SESSION_REPAIRS,
)  # fmt: skip
"""Every metric of wsm, in the order of the page."""


def configure_logging(process: str, level: str) -> None:
    """Write JSON lines to stderr, one event each; the libraries' own loggers go the same way from WARNING up,
    and so does what ends the process.

    Raises ValueError for an unknown level. Call once per process.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"no such level: {level}")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _fault,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Lossy(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler()
    handler.setLevel(max(number, logging.WARNING))  # RQ gives its logger a level of its own
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
            foreign_pre_chain=[_foreign, *shared],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    sys.excepthook = _crashed


class _Lossy:
    """Writes what can be written: a full disk or a reader that left must not end the work of who logs."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()


def _crashed(_kind: type[BaseException], exc: BaseException, _trace: object) -> None:
    """Write what ends the process as every other fault."""
    logger("process").critical("crashed", exc_info=exc)


def _foreign(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Keep of a library's message what it says, not what it shows: asyncio's end in the repr of anything."""
    name = line["_record"].name
    said = str(line["event"]).partition("\n")[0]
    line["event"] = _SHOWN.split(said, 1)[0].strip() if name == "asyncio" else said
    line["room"] = name
    return line


def _fault(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Write an exception as its types and the places it came through, without its text.

    A driver's text quotes what it was given, and that is what a customer wrote.
    """
    given = line.pop("exc_info", None)
    exc = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    types: list[str] = []
    frames: list[traceback.FrameSummary] = []
    while isinstance(exc, BaseException) and type(exc).__name__ not in types:
        types.append(type(exc).__name__)
        frames += traceback.extract_tb(exc.__traceback__)
        exc = exc.__cause__ if exc.__suppress_context__ else exc.__context__
    if types:
        line["fault"] = types
        line["at_lines"] = [f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in frames]
    return line


def _dumps(value: Any, **_: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def logger(room: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a room; its name stands in every line as `room`."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger(room=room)
    return log


OPS_PAGES = ("/healthz", "/readyz", "/metrics")


class Page(msgspec.Struct, frozen=True):
    """A page as it is answered."""

    status: int
    content_type: str
    body: bytes


Pages = Callable[[str], Awaitable[Page]]
"""Writes a page of `OPS_PAGES` by its path."""
Checks = Callable[[], Awaitable[dict[str, str]]]
"""Asks what a process needs and returns name -> `ok` or the reason why not. Must answer within seconds."""


def ops_pages(checks: Checks) -> Pages:
    """Return what writes the pages of `OPS_PAGES`.

    /healthz says that the loop turns. /readyz answers 200 when every check says `ok`, else 503, with the
    checks as JSON. /metrics is Prometheus' text format.
    """

    async def write(path: str) -> Page:
        if path == "/metrics":
            return Page(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
        found = await checks() if path == "/readyz" else {"status": "ok"}
        is_well = all(value == "ok" for value in found.values())
        return Page(200 if is_well else 503, "application/json", msgspec.json.encode(found))

    return write


def metrics_page() -> str:
    """Print docs/METRICS.md from the list above."""
    lines = [
        "# Metrics",
        "",
        "Printed from `wsm.telemetry.METRICS` by `wsm metrics`; a test fails when this page is stale.",
        "Units stand in the names. No label is a tenant, a session or a chat.",
        "",
        "| name | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for metric in METRICS:
        described = next(iter(metric.describe()))
        suffix = "_total" if described.type == "counter" else ""
        labels = ", ".join(metric._labelnames) or "–"  # noqa: SLF001 (the library has no public way)
        lines.append(
            f"| `{described.name}{suffix}` | {described.type} | {labels} | {described.documentation} |"
        )
    return "\n".join(lines) + "\n"
