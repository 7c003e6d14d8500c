"""What people tell a worker through RQ's tools: `send_stop_job_command`, `send_shutdown_command`.

RQ publishes a command to the worker's channel and keeps nothing: one that is sent while Redis is away, or to
a worker that has gone, is lost, as with RQ's own workers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from rq.command import PUBSUB_CHANNEL_TEMPLATE, parse_payload

from wsm.core.errors import StreamsUnavailable
from wsm.streams.client import translated
from wsm.telemetry import logger

log = logger("commands")

_LISTEN_SECONDS = 1.0
_PAUSE_SECONDS = 0.5


async def obeyed(
    client: Redis, name: str, stop_job: Callable[[str], Awaitable[bool]], shut_down: Callable[[], None]
) -> None:
    """Do what the worker `name` is told, until cancelled.

    stop_job   ends the job or bell of that id; False when it does not run here
    shut_down  begins the worker's end, as SIGTERM does
    """
    while True:
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as channel:
                with translated():
                    await channel.subscribe(PUBSUB_CHANNEL_TEMPLATE % name)
                while True:
                    with translated():
                        message = await channel.get_message(timeout=_LISTEN_SECONDS)
                    if message is not None:
                        await _obey(message, stop_job, shut_down)
        except StreamsUnavailable as exc:
            log.warning("commands_unheard", reason=str(exc))
            await asyncio.sleep(_PAUSE_SECONDS)


async def _obey(
    message: dict[str, Any], stop_job: Callable[[str], Awaitable[bool]], shut_down: Callable[[], None]
) -> None:
    try:
        payload = parse_payload(message)
        command, job_id = str(payload["command"]), str(payload.get("job_id", ""))
    except (AttributeError, KeyError, TypeError, ValueError):
        log.warning("command_refused", reason="no command of RQ")
        return
    if command == "shutdown":
        log.info("told_to_shut_down")
        shut_down()
    elif command == "stop-job":
        log.info("told_to_stop", job=job_id, found=await stop_job(job_id))
    else:  # kill-horse: there is no process to kill
        log.info("command_ignored")
