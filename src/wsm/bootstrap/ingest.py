"""`wsm ingest`: what it is made of."""

import asyncio
from contextlib import AsyncExitStack

from wsm import telemetry
from wsm.bootstrap import parts, watched
from wsm.config import Settings
from wsm.core.ids import ServerName

_DIRECTORY_AGE_SECONDS = 2.0


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
    parts.require(settings, "redis_url", "master_keys")
    keys = parts.master_keys(settings)
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
                parts.handover(settings, redis).accept,
                queue_entries=settings.accept_queue_entries,
                queue_bytes=settings.accept_queue_bytes,
                timeout_seconds=settings.accept_timeout_seconds,
            )
            refusals = RefusalLog()

            async def directory_check() -> None:
                directory.require()

            checks = {"redis": watched.durable(settings, redis), "directory": directory_check}
            service = Ingest(
                doors=Doors(directory, hooks),
                submit=batcher.submit,
                refusals=refusals,
                ops=Ops(telemetry.ops_pages(lambda: watched.ask(checks))),
                proxies=proxies,
                retry_after_seconds=settings.retry_after_seconds,
            )
            await stack.enter_async_context(watched.beside(directory.watch(), refusals.watch()))
            await stack.enter_async_context(watched.observed(settings, checks))
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
