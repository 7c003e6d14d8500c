"""Which of several servers is the master, asked of the sentinels that watch them.

    redis+sentinel://user:password@host:port,host:port/service

The sentinels stand in the URL; user and password, which may be missing, are the servers'. Of several answers
the one of the last election counts (the highest `config-epoch`), not the first that comes: a sentinel that
is cut off with the old master still names that one.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from wsm.config import SENTINEL_URL
from wsm.core.errors import BadInput

ASK_SECONDS = 0.5
"""How long a sentinel may take. When half of them are away, whoever asks waits so long."""

ASK_AGAIN_SECONDS = 1.0
"""How old a master's address may be when a connection to it is used: what an old master, cut off from the
others, may still be given after a new one was elected."""

Address = tuple[str, int]


class Watched(msgspec.Struct, frozen=True):
    """What the URL says."""

    sentinels: tuple[Address, ...]
    service: str
    credentials: dict[str, str]
    """`username` and `password`, as far as they are given."""

    def __repr__(self) -> str:
        return f"Watched(service={self.service!r})"


def watched(url: str) -> Watched | None:
    """Read a URL of sentinels; None for one of any other scheme. Raises BadInput when it is malformed."""
    if not url.startswith("redis+sentinel://"):
        return None
    found = SENTINEL_URL.fullmatch(url)
    if found is None:
        raise BadInput("redis_url", "is written redis+sentinel://host:port,host:port/service")
    hosts = (address.rpartition(":") for address in found["hosts"].split(","))
    given = {name: unquote(found[name]) for name in ("username", "password") if found[name]}
    return Watched(tuple((host.strip("[]"), int(port)) for host, _, port in hosts), found["service"], given)


class Sentinels:
    """The sentinels of one service.

    clients  one for each, with time-outs of about ASK_SECONDS
    """

    def __init__(self, service: str, clients: Sequence[Redis]) -> None:
        self._service = service
        self._clients = clients
        self._asking: dict[Redis, asyncio.Task[tuple[int, Address] | str]] = {}

    async def master(self) -> Address:
        """Return the master's host and port, as soon as more than half of the sentinels have answered.

        Raises redis' ConnectionError when none knows the service. A sentinel that still owes an answer is not
        asked again.
        """
        for client in self._clients:
            if client not in self._asking:
                self._asking[client] = asyncio.create_task(self._ask(client))
        asked = set(self._asking.values())
        named: list[tuple[int, Address]] = []
        said: list[str] = []
        while asked and 2 * len(named) <= len(self._clients):
            done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for answer in (task.result() for task in done):
                if isinstance(answer, str):
                    said.append(answer)
                else:
                    named.append(answer)
        if not named:
            raise RedisConnectionError(f"no sentinel knows the master of {self._service}: {'; '.join(said)}")
        return max(named)[1]

    async def _ask(self, client: Redis) -> tuple[int, Address] | str:
        try:
            found: Any = await client.sentinel_master(self._service)
        except RedisError as exc:
            return f"{type(exc).__name__}: {exc}"
        else:
            return found["config-epoch"], (found["ip"], found["port"])
        finally:
            del self._asking[client]

    async def aclose(self) -> None:
        """Close the connections; what still waits for an answer is let go."""
        for task in (tasks := list(self._asking.values())):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for client in self._clients:
            await client.aclose()


class MasterPool(BlockingConnectionPool):
    """Connections to the master, whoever that is: who is handed one that leads elsewhere gets a new one.

    Sentinels that do not answer change nothing: the address that was true remains.
    """

    def __init__(self, sentinels: Sentinels, **settings: Any) -> None:
        super().__init__(**settings)
        self._sentinels = sentinels
        self._master: Address | None = None
        self._asked_at = 0.0
        self._turn = asyncio.Lock()

    async def ensure_connection(self, connection: Any) -> None:
        """Connect, or connect anew when the master is another one."""
        master = await self._address()
        if (connection.host, connection.port) != master:
            await connection.disconnect()
            connection.host, connection.port = master
        await super().ensure_connection(connection)

    async def _address(self) -> Address:
        async with self._turn:
            if self._master is None or time.monotonic() > self._asked_at + ASK_AGAIN_SECONDS:
                try:
                    self._master = await self._sentinels.master()
                except RedisConnectionError:
                    if self._master is None:
                        raise
                self._asked_at = time.monotonic()
            return self._master

    async def aclose(self) -> None:
        """Close every connection, those to the sentinels too."""
        await self._sentinels.aclose()
        await super().aclose()
