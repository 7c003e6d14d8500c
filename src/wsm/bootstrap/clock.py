"""`wsm clock`, and what looks after the sessions beside it: what they are made of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from wsm import telemetry
from wsm.bootstrap import openings, parts, watched
from wsm.config import Settings

if TYPE_CHECKING:
    from wsm.clock.clock import Clock
    from wsm.control.reconciler import Reconciler
    from wsm.store.database import Database
    from wsm.streams.handover import Handover

_RECONCILER_CONNECTIONS = 4


def run_clock(settings: Settings) -> None:
    """Lead or stand by until SIGTERM. Raises BadInput when a setting is missing."""
    from wsm.clock.clock import Clock  # noqa: PLC0415
    from wsm.ingest.server import run  # noqa: PLC0415
    from wsm.store.database import Database  # noqa: PLC0415
    from wsm.store.leadership import Leadership  # noqa: PLC0415
    from wsm.streams.client import connect  # noqa: PLC0415
    from wsm.streams.directory import PublishedDirectory  # noqa: PLC0415

    telemetry.configure_logging("clock", settings.log_level)
    parts.require(settings, "redis_url", "system_database_url")

    async def main(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            redis = connect(settings.redis_url, timeout_seconds=parts.REDIS_SECONDS)
            stack.push_async_callback(redis.aclose)
            database = Database(settings.system_database_url, connections=2)
            await database.open()
            stack.push_async_callback(database.close)
            mailboxes = parts.handover(settings, redis)
            clock = Clock(
                database,
                Leadership(settings.system_database_url),
                mailboxes,
                PublishedDirectory(redis),
                now=parts.utc_now,
                keep_dedupe=timedelta(days=settings.stale_days),
                keep_media=timedelta(days=settings.media_days),
            )
            checks = {"redis": watched.durable(settings, redis), "database": database.ping}
            await stack.enter_async_context(watched.observed(settings, checks))
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

    parts.require(settings, "database_url")
    app = Database(settings.database_url, connections=_RECONCILER_CONNECTIONS)
    async with parts.opened(app), openings.moves(settings, app, system) as moves:
        reach = timedelta(hours=settings.catch_up_hours)
        catch_up = CatchUp(app, mailboxes.accept, now=parts.utc_now, reach=reach)
        yield Reconciler(
            app,
            system,
            moves,
            Looks(
                app,
                moves,
                catch_up,
                Watchdog(app),
                HiddenIds(app, mailboxes.accept, now=parts.utc_now),
                now=parts.utc_now,
                settled_after=timedelta(seconds=settings.catch_up_after_seconds),
            ),
            leads=lambda: clock.leads,
            now=parts.utc_now,
            starts_per_second=settings.starts_per_second,
        )
