"""Connections to Redis, and what their errors mean.

Retries are off: redis-py sends a command again after a lost reply, which only the hand-over may decide.
Its sends run under a time-out of ours: its own uses `asyncio.wait_for`, which on Python 3.11 swallows a
cancellation that comes as the send ends (3,574 of 6,000 in a tight loop; with ours none), and a task that
was told to stop would go on.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from wsm.core.errors import StreamsUnavailable
from wsm.streams.sentinels import ASK_SECONDS, MasterPool, Sentinels, watched

CONNECTIONS = 100

_PACKER = HiredisRespSerializer()
_STATES = (MasterDownError, NoPermissionError, NoScriptError, OutOfMemoryError, ReadOnlyError, TryAgainError)
_STATE_WORDS = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "UNKILLABLE"})


def connect(url: str, *, timeout_seconds: float) -> Redis:
    """Build a client for `url`; nothing is sent yet.

    url              as redis-py takes it, or one of sentinels (see `sentinels`): then of the master alone
    timeout_seconds  for the connection, for every reply, and for a free connection when all are in use

    Raises BadInput for a malformed URL of sentinels.
    """
    if (found := watched(url)) is not None:
        asked = [
            Redis.from_pool(
                BlockingConnectionPool(connection_class=_Tcp, host=host, port=port, **_settings(ASK_SECONDS))
            )
            for host, port in found.sentinels
        ]
        settings = _settings(timeout_seconds) | found.credentials
        return Redis.from_pool(MasterPool(Sentinels(found.service, asked), connection_class=_Tcp, **settings))
    pool = BlockingConnectionPool.from_url(url, **_settings(timeout_seconds))
    pool.connection_class = _CANCELLABLE[pool.connection_class]
    return Redis.from_pool(pool)


def _settings(timeout_seconds: float) -> dict[str, Any]:
    return {
        "max_connections": CONNECTIONS,
        "timeout": timeout_seconds,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }


class _Cancellable:
    """Sends so that a cancellation is never lost, and packs with hiredis.

    redis-py's asyncio client packs in Python, piece by piece, even where hiredis is there: a batch of 64
    webhooks takes it 262 µs, and hiredis 80.
    """

    socket_timeout: float | None

    def pack_command(self, *args: Any) -> list[bytes]:
        """Write a command as it goes over the wire. Raises DataError for what is no text, bytes or number."""
        packed: list[bytes] = _PACKER.pack(*args)
        return packed

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send, and break the connection when that takes longer than the time-out."""
        limit, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit):
                await super().send_packed_command(command, check_health)  # type: ignore[misc]
        except TimeoutError:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise RedisTimeoutError("time-out while writing") from None
        finally:
            self.socket_timeout = limit


class _Tcp(_Cancellable, Connection):
    pass


class _Tls(_Cancellable, SSLConnection):
    pass


class _Unix(_Cancellable, UnixDomainSocketConnection):
    pass


_CANCELLABLE: dict[type, Any] = {Connection: _Tcp, SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into StreamsUnavailable.

    What Redis cannot do now (away, full, read-only, short of replicas) is unavailable; a command or script
    that it calls wrong is a bug and passes as it is.
    """
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, *_STATES) as exc:
        raise StreamsUnavailable(f"{type(exc).__name__}: {exc}") from exc
    except ResponseError as exc:
        if str(exc).split(" ", 1)[0] not in _STATE_WORDS:
            raise
        raise StreamsUnavailable(str(exc)) from exc


async def durability(redis: Redis) -> list[str]:
    """Name what stands against "accepted is kept" in the server's configuration; empty if nothing does.

    A server that hides its configuration is named too. Raises StreamsUnavailable.
    """
    wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    with translated():
        try:
            found = await redis.config_get(*wanted)
        except ResponseError as exc:
            if not isinstance(exc, NoPermissionError) and "unknown command" not in str(exc).lower():
                raise
            return ["the server does not let its configuration be read"]
    return [
        f"{name} is {found.get(name, 'unknown')}, not {value}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]


async def ping(redis: Redis) -> None:
    """Raise StreamsUnavailable unless the server answers."""
    with translated():
        await redis.echo("wsm")
