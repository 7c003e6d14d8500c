"""The only place that names concrete classes and wires them: plain constructor calls, nothing else.

Each process' parts are imported inside that process' own function, so that ingest never loads psycopg or RQ
and nothing connects on import.
"""

import asyncio
import os
import random
import secrets
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from wsm import telemetry
from wsm.config import Settings, WahaServer
from wsm.core.errors import BadInput, WsmError
from wsm.core.ids import DEFAULT_SERVER, ServerName

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from wsm.clock.clock import Clock
    from wsm.control.moves import Moves
    from wsm.control.reconciler import Reconciler
    from wsm.control.sessions import Sessions
    from wsm.store.database import Database
    from wsm.streams.handover import Handover

_REDIS_SECONDS = 5.0
_OPS_CONNECTIONS = 64
_DIRECTORY_AGE_SECONDS = 2.0
_RECONCILER_CONNECTIONS = 4
_CALLS_PER_SERVER = 64
"""Of one worker at once, or half of its slots for deliveries: a server that hangs leaves the rest."""


def utc_now() -> datetime:
    """The wall clock that every process decides by."""
    return datetime.now(UTC)


def handover(settings: Settings, redis: "Redis") -> "Handover":
    """The hand-over of this process on `redis`."""
    from wsm.streams.handover import Handover, Limits  # noqa: PLC0415 (see the module's docstring)

    return Handover(
        redis,
        limits=Limits(
            tenant_entries=settings.mailbox_entries,
            tenant_bytes=settings.mailbox_bytes,
            all_bytes=settings.all_mailboxes_bytes,
            quarantine_entries=settings.quarantine_entries,
            quarantine_bytes=settings.quarantine_bytes,
            dead_letters=settings.dead_letters,
        ),
        lease_seconds=settings.lease_seconds,
        turn_entries=settings.turn_entries,
        wait_replicas=settings.wait_replicas,
    )


def run_ingest(settings: Settings) -> None:
    """Serve webhooks until SIGTERM. Raises BadInput when a setting is missing or the port is taken."""
    from wsm.ingest.app import Ingest  # noqa: PLC0415
    from wsm.ingest.batch import Batcher  # noqa: PLC0415
    from wsm.ingest.directory import LiveDirectory  # noqa: PLC0415
    from wsm.ingest.doors import Doors  # noqa: PLC0415
    from wsm.ingest.exchange import BodyBudget, Bounds  # noqa: PLC0415
    from wsm.ingest.ops import Ops  # noqa: PLC0415
    from wsm.ingest.security import RefusalLog, TrustedProxies  # noqa: PLC0415
    from wsm.ingest.server import listen, run, serve  # noqa: PLC0415
    from wsm.streams.client import connect  # noqa: PLC0415
    from wsm.streams.directory import PublishedDirectory  # noqa: PLC0415

    telemetry.configure_logging("ingest", settings.log_level)
    _require(settings, "redis_url", "master_keys")
    keys = _master_keys(settings)
    hooks = {ServerName(name): server.hook_secrets for name, server in settings.waha.items()}
    proxies = TrustedProxies(settings.trusted_proxies)
    sock = listen(settings.host, settings.port)

    async def main(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            redis = connect(settings.redis_url, timeout_seconds=settings.accept_timeout_seconds)
            stack.push_async_callback(redis.aclose)
            published = PublishedDirectory(redis)
            directory = LiveDirectory(
                version=published.version,
                read=published.read,
                master_keys=keys,
                max_age_seconds=_DIRECTORY_AGE_SECONDS,
            )
            batcher = Batcher(
                handover(settings, redis).accept,
                queue_entries=settings.accept_queue_entries,
                queue_bytes=settings.accept_queue_bytes,
                timeout_seconds=settings.accept_timeout_seconds,
            )
            refusals = RefusalLog()

            async def directory_check() -> None:
                directory.require()

            checks = {"redis": _durable(settings, redis), "directory": directory_check}
            service = Ingest(
                doors=Doors(directory, hooks),
                submit=batcher.submit,
                refusals=refusals,
                ops=Ops(telemetry.ops_pages(lambda: _ask(checks))),
                proxies=proxies,
                retry_after_seconds=settings.retry_after_seconds,
            )
            await stack.enter_async_context(_beside(directory.watch(), refusals.watch()))
            await stack.enter_async_context(_observed(settings, checks))
            bounds = Bounds(
                header_seconds=settings.header_deadline_seconds,
                body_seconds=settings.body_deadline_seconds,
                keep_alive_seconds=settings.keep_alive_seconds,
                body_bytes=settings.body_limit_bytes,
                request_bytes=8 * settings.body_limit_bytes,
                connections=settings.connections,
                requests=settings.requests_in_flight,
            )
            bodies = BodyBudget(settings.bodies_in_flight_bytes)
            telemetry.INGEST_BODIES.set_function(lambda: bodies.held_bytes)
            await serve(
                service,
                sock,
                stop=stop,
                bounds=bounds,
                bodies=bodies,
                drain_seconds=settings.drain_seconds,
            )
            await batcher.aclose()

    run(main)


def run_worker(settings: Settings) -> None:
    """Ring, run bells and ordinary jobs until SIGTERM. Raises BadInput when a setting is missing."""
    from wsm.gateway.fetch import Fetching  # noqa: PLC0415
    from wsm.gateway.waha import Gateways  # noqa: PLC0415
    from wsm.ingest.server import run  # noqa: PLC0415
    from wsm.store.database import Database  # noqa: PLC0415
    from wsm.store.paces import Pacing  # noqa: PLC0415
    from wsm.streams.client import connect  # noqa: PLC0415
    from wsm.streams.keys import Kind  # noqa: PLC0415
    from wsm.worker import registration  # noqa: PLC0415
    from wsm.worker.commands import obeyed  # noqa: PLC0415
    from wsm.worker.deliver import Deliveries  # noqa: PLC0415
    from wsm.worker.jobs import Jobs  # noqa: PLC0415
    from wsm.worker.media import Files  # noqa: PLC0415
    from wsm.worker.turn import Turns  # noqa: PLC0415
    from wsm.worker.worker import Worker  # noqa: PLC0415

    telemetry.configure_logging("worker", settings.log_level)
    _require(settings, "redis_url", "database_url", "waha")
    name = _process_name()

    async def main(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            redis = connect(settings.redis_url, timeout_seconds=_REDIS_SECONDS)
            stack.push_async_callback(redis.aclose)
            database = Database(settings.database_url, connections=settings.database_connections)
            await database.open()
            stack.push_async_callback(database.close)
            gateways = Gateways(
                _waha_servers(settings),
                settings.exits,
                send_timeout_seconds=settings.send_timeout_seconds,
                concurrent_calls=max(1, min(_CALLS_PER_SERVER, settings.deliver_slots // 2)),
            )
            stack.push_async_callback(gateways.aclose)
            worker = Worker(
                name,
                handover(settings, redis),
                database,
                Turns(
                    database,
                    clock=utc_now,
                    stale_after=timedelta(days=settings.stale_days),
                    answer_backfilled_within=timedelta(minutes=settings.answer_backfilled_minutes),
                    pace=settings.pace,
                ),
                Deliveries(
                    database,
                    gateways,
                    clock=utc_now,
                    monotonic=time.monotonic,
                    start_within=timedelta(seconds=settings.lease_seconds),
                    evidence=timedelta(seconds=settings.evidence_seconds),
                    pacing=Pacing(settings.pace, random.random),
                    files=Files(
                        database,
                        gateways,
                        Fetching(limit_bytes=settings.media_limit_bytes, hosts=settings.media_hosts),
                        clock=utc_now,
                        in_flight_bytes=settings.media_in_flight_bytes,
                        types=settings.media_types,
                    ),
                ),
                slots={Kind.TURN: settings.turn_slots, Kind.DELIVER: settings.deliver_slots},
                drain_seconds=settings.drain_seconds,
            )
            connection = registration.connect(settings.redis_url, connections=2 * settings.job_slots + 10)
            stack.callback(connection.close)
            jobs = Jobs(
                name,
                redis,
                connection,
                queues=settings.job_queues,
                slots=settings.job_slots,
                drain_seconds=settings.drain_seconds,
            )

            async def stop_job(job_id: str) -> bool:
                return jobs.stop(job_id) or await worker.hand_back(job_id)

            checks = {"redis": _durable(settings, redis), "database": database.ping}
            await stack.enter_async_context(_observed(settings, checks))
            shown = registration.registered(
                connection, name, settings.job_queues, lambda: worker.busy or jobs.busy
            )
            told = obeyed(redis, name, stop_job, stop.set)
            await stack.enter_async_context(_beside(shown, told))
            async with asyncio.TaskGroup() as both:
                both.create_task(jobs.run(stop))
                both.create_task(worker.run(stop))

    run(main)


def run_clock(settings: Settings) -> None:
    """Lead or stand by until SIGTERM. Raises BadInput when a setting is missing."""
    from wsm.clock.clock import Clock  # noqa: PLC0415
    from wsm.ingest.server import run  # noqa: PLC0415
    from wsm.store.database import Database  # noqa: PLC0415
    from wsm.store.leadership import Leadership  # noqa: PLC0415
    from wsm.streams.client import connect  # noqa: PLC0415
    from wsm.streams.directory import PublishedDirectory  # noqa: PLC0415

    telemetry.configure_logging("clock", settings.log_level)
    _require(settings, "redis_url", "system_database_url")

    async def main(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            redis = connect(settings.redis_url, timeout_seconds=_REDIS_SECONDS)
            stack.push_async_callback(redis.aclose)
            database = Database(settings.system_database_url, connections=2)
            await database.open()
            stack.push_async_callback(database.close)
            mailboxes = handover(settings, redis)
            clock = Clock(
                database,
                Leadership(settings.system_database_url),
                mailboxes,
                PublishedDirectory(redis),
                now=utc_now,
                keep_dedupe=timedelta(days=settings.stale_days),
                keep_media=timedelta(days=settings.media_days),
            )
            checks = {"redis": _durable(settings, redis), "database": database.ping}
            await stack.enter_async_context(_observed(settings, checks))
            duties = [clock.run]
            if settings.webhooks_url:
                reconciler = await stack.enter_async_context(
                    _reconciler(settings, clock, database, mailboxes)
                )
                duties.append(reconciler.run)
            else:
                telemetry.logger("clock").warning("sessions_unwatched", reason="webhooks_url is not set")
            async with asyncio.TaskGroup() as both:
                for duty in duties:
                    both.create_task(duty(stop))

    run(main)


@asynccontextmanager
async def _reconciler(
    settings: Settings, clock: "Clock", system: "Database", mailboxes: "Handover"
) -> AsyncIterator["Reconciler"]:
    """Open what looks after sessions, beside a clock."""
    from wsm.control.catchup import CatchUp  # noqa: PLC0415
    from wsm.control.hidden_ids import HiddenIds  # noqa: PLC0415
    from wsm.control.looks import Looks  # noqa: PLC0415
    from wsm.control.reconciler import Reconciler  # noqa: PLC0415
    from wsm.control.watchdog import Watchdog  # noqa: PLC0415
    from wsm.store.database import Database  # noqa: PLC0415

    _require(settings, "database_url")
    app = Database(settings.database_url, connections=_RECONCILER_CONNECTIONS)
    async with opened(app), _moves(settings, app, system) as moves:
        reach = timedelta(hours=settings.catch_up_hours)
        catch_up = CatchUp(app, mailboxes.accept, now=utc_now, reach=reach)
        yield Reconciler(
            app,
            system,
            moves,
            Looks(
                app,
                moves,
                catch_up,
                Watchdog(app),
                HiddenIds(app, mailboxes.accept, now=utc_now),
                now=utc_now,
                settled_after=timedelta(seconds=settings.catch_up_after_seconds),
            ),
            leads=lambda: clock.leads,
            now=utc_now,
            starts_per_second=settings.starts_per_second,
        )


@asynccontextmanager
async def tenant_reads(settings: Settings) -> AsyncIterator["Database"]:
    """Open the database as the application's role, for a command that reads."""
    from wsm.store.database import Database  # noqa: PLC0415

    _require(settings, "database_url")
    async with opened(Database(settings.database_url, connections=1)) as database:
        yield database


@asynccontextmanager
async def fleet_writes(settings: Settings) -> AsyncIterator["Database"]:
    """Open the database as the system's role, for a command that provisions."""
    from wsm.store.database import Database  # noqa: PLC0415

    _require(settings, "system_database_url")
    async with opened(Database(settings.system_database_url, connections=1)) as database:
        yield database


@asynccontextmanager
async def sessions(settings: Settings) -> AsyncIterator["Sessions"]:
    """Open what makes and moves sessions, for a command."""
    from wsm.control.sessions import Sessions  # noqa: PLC0415

    async with (
        tenant_reads(settings) as app,
        fleet_writes(settings) as system,
        _moves(settings, app, system) as moves,
    ):
        yield Sessions(app, system, moves)


@asynccontextmanager
async def _moves(settings: Settings, app: "Database", system: "Database") -> AsyncIterator["Moves"]:
    """Open what moves sessions at their gateways."""
    from wsm.control.moves import Keys, Moves  # noqa: PLC0415
    from wsm.gateway.waha import Gateways  # noqa: PLC0415

    _require(settings, "master_keys", "master_key_id", "webhooks_url", "waha")
    gateways = Gateways(
        _waha_servers(settings), settings.exits, send_timeout_seconds=settings.send_timeout_seconds
    )
    try:
        yield Moves(
            app,
            system,
            gateways,
            pools=settings.exits,
            capacities=capacities(settings),
            keys=Keys(_master_keys(settings), settings.master_key_id),
            webhooks_url=settings.webhooks_url,
            owner=_process_name(),
            now=utc_now,
            new_uuid=uuid.uuid4,
        )
    finally:
        await gateways.aclose()


@asynccontextmanager
async def mailroom(settings: Settings) -> AsyncIterator["Redis"]:
    """Open Redis, for a command that looks after mailboxes."""
    from wsm.streams.client import connect  # noqa: PLC0415

    _require(settings, "redis_url")
    redis = connect(settings.redis_url, timeout_seconds=_REDIS_SECONDS)
    try:
        yield redis
    finally:
        await redis.aclose()


@asynccontextmanager
async def front_door(settings: Settings) -> AsyncIterator["Handover"]:
    """Open the mailboxes, for a command that enters at the front door."""
    async with mailroom(settings) as redis:
        yield handover(settings, redis)


@asynccontextmanager
async def opened(database: "Database") -> AsyncIterator["Database"]:
    """Open a pool, and close it at the end."""
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def capacities(settings: Settings) -> dict[ServerName, int]:
    """How many sessions each server may have; where the settings name none, there is the default one."""
    servers = settings.waha or {DEFAULT_SERVER: WahaServer()}
    return {ServerName(name): server.capacity for name, server in servers.items()}


def _master_keys(settings: Settings) -> dict[str, bytes]:
    return {kid: bytes.fromhex(key) for kid, key in settings.master_keys.items()}


def _waha_servers(settings: Settings) -> dict[ServerName, WahaServer]:
    return {ServerName(name): server for name, server in settings.waha.items()}


def _process_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def _require(settings: Settings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name):
            raise BadInput(name, "is needed here and not set")


Check = Callable[[], Awaitable[None]]


async def _ask(checks: Mapping[str, Check]) -> dict[str, str]:
    """Run every check; each says ok or why not."""
    found = {}
    for name, check in checks.items():
        try:
            async with asyncio.timeout(_REDIS_SECONDS):
                await check()
            found[name] = "ok"
        except (WsmError, TimeoutError) as exc:
            found[name] = str(exc) or type(exc).__name__
        except Exception as exc:  # noqa: BLE001 (a bug is no reason to say nothing of the other checks)
            telemetry.logger("process").exception("check_failed", check=name)
            found[name] = type(exc).__name__
    return found


def _durable(settings: Settings, redis: "Redis") -> Check:
    """Check that Redis answers and keeps what it confirms; `redis_durability = trust` asks only the first."""
    from wsm.core.errors import StreamsUnavailable  # noqa: PLC0415
    from wsm.streams.client import durability, ping  # noqa: PLC0415

    async def check() -> None:
        await ping(redis)
        if settings.redis_durability == "check" and (faults := await durability(redis)):
            raise StreamsUnavailable("; ".join(faults))

    return check


@asynccontextmanager
async def _observed(settings: Settings, checks: Mapping[str, Check]) -> AsyncIterator[None]:
    """Serve /healthz, /readyz and /metrics at the ops port, if there is one, until the process ends."""
    if not settings.ops_port:
        yield
        return
    from wsm.ingest.exchange import BodyBudget, Bounds  # noqa: PLC0415
    from wsm.ingest.ops import Ops  # noqa: PLC0415
    from wsm.ingest.server import listen, serve  # noqa: PLC0415

    ended = asyncio.Event()
    sock = listen(settings.host, settings.ops_port)
    service = Ops(telemetry.ops_pages(lambda: _ask(checks)))
    bounds, bodies = Bounds(connections=_OPS_CONNECTIONS, body_bytes=0), BodyBudget(0)
    serving = asyncio.create_task(
        serve(service, sock, stop=ended, bounds=bounds, bodies=bodies, drain_seconds=1)
    )
    try:
        yield
    finally:
        ended.set()
        await serving


@asynccontextmanager
async def _beside(*works: Awaitable[None]) -> AsyncIterator[None]:
    """Run something beside the rest of the process, until that ends. What fails is told at once."""
    tasks = [asyncio.ensure_future(work) for work in works]
    for task in tasks:
        task.add_done_callback(_tell)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell(task: "asyncio.Future[None]") -> None:
    if not task.cancelled() and (exc := task.exception()) is not None:
        telemetry.logger("process").critical("beside_failed", exc_info=exc)
