"""Faults under load, drawn from one seed. Each lasts a moment and is mended by whoever caused it.

A fault that cannot happen just now (its process is between two lives) is passed over. Which fault came when
is noted in `diary`.
"""

import asyncio
import os
import random
import resource
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
from redis.asyncio import Redis

from chaos.cables import Cable, Mode
from chaos.deploys import migrate_in_two_steps, roll
from chaos.records import Pause
from chaos.stand import Stand
from wsm.core.errors import Unavailable
from wsm.sandbox.servers import Server
from wsm.sandbox.site import PROCESSES
from wsm.sandbox.waha.faults import Fault, Wrong

_MEMORY = "256mb"
_MOST_CONNECTIONS = 100
_UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
_SLOWS = {Wrong.RATE_OVERLIMIT, Wrong.TOO_MANY}
"""After these a session rests for minutes, and begins nothing new for a day: `chaos.crashes` has them."""
_WRONGS = [each for each in Wrong if each.passes and each not in _SLOWS]


class Faults:
    """What goes wrong at a stand.

    diary  the words of what was begun; ended: of what was seen through
    pauses  who was stopped when
    """

    def __init__(self, at: Stand, chance: random.Random, clocks: Path) -> None:
        self.diary: list[str] = []
        self.ended: list[str] = []
        self.pauses: list[Pause] = []
        self._at = at
        self._town = at.town
        self._servers = at.town.ground.servers
        self._chance = chance
        self._clocks = clocks
        self._migrations = 0

    @property
    def kinds(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Every fault by name."""
        return {
            "kill": self._kill,
            "freeze": self._freeze,
            "cut": self._cut,
            "reset": self._reset,
            "slow": self._slow,
            "deaf": self._deaf,
            "mute": self._mute,
            "shut": self._shut,
            "restart valkey": self._restart_valkey,
            "restart postgres": self._restart_postgres,
            "valkey out of memory": self._out_of_memory,
            "valkey's disk is full": self._disk_of_valkey,
            "postgres out of connections": self._out_of_connections,
            "postgres' disk is full": self._disk_of_postgres,
            "sends go wrong": self._wrong_sends,
            "waha refuses": self._waha_refuses,
            "clock steps": self._clock_steps,
            "rolling restart": lambda: roll(self._town),
            "migration in two steps": self._migration,
        }

    async def run(self, only: Sequence[str] | None = None) -> None:
        """Cause one fault after another, every kind before any comes again; ends by being cancelled.

        None: a seed has its own choice of kinds, so that in some runs much gets through and in others little.
        """
        every = sorted(self.kinds)
        kinds = (
            self._chance.sample(every, self._chance.randint(3, len(every))) if only is None else list(only)
        )
        while kinds:
            for name in self._chance.sample(kinds, len(kinds)):
                await asyncio.sleep(self._chance.uniform(0.2, 2))
                await self.cause(name)

    async def cause(self, name: str) -> None:
        """Cause one fault and see it through."""
        self.diary.append(name)
        with suppress(Unavailable):
            await self.kinds[name]()
            self.ended.append(name)

    async def mend(self) -> None:
        """Let everything work again, and wait until it does."""
        for cable in self._at.cables.values():
            cable.mend()
        self._town.waha.world.faults.clear()
        await asyncio.to_thread(self._servers.start)
        async with self._redis() as redis:
            await redis.config_set("maxmemory", _MEMORY)
        await self._town.site.supervisor.ready(timeout_seconds=60)

    def _process(self) -> str:
        return self._chance.choice(PROCESSES)

    async def _kill(self) -> None:
        self._town.site.supervisor.send(self._process(), signal.SIGKILL)

    async def _freeze(self) -> None:
        """Stop a process past its lease (4 s), then let it go on as if nothing had been."""
        name = self._process()
        pid = self._town.site.supervisor.pid(name)
        stopped_at = time.time()
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._chance.uniform(4.5, 9))
        finally:
            self.pauses.append(Pause(name, stopped_at, time.time()))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _cut(self) -> None:
        self._cable().cut()

    async def _reset(self) -> None:
        self._cable().cut(reset=True)

    async def _slow(self) -> None:
        cable = self._cable()
        cable.delay_seconds = self._chance.uniform(0.02, 0.6)
        await self._lasts(cable)

    async def _deaf(self) -> None:
        cable = self._cable()
        cable.mode = Mode.DEAF
        await self._lasts(cable)

    async def _mute(self) -> None:
        cable = self._cable()
        cable.mode = Mode.MUTE
        await self._lasts(cable)

    async def _shut(self) -> None:
        cable = self._cable()
        cable.mode = Mode.SHUT
        cable.cut()
        await self._lasts(cable)

    def _cable(self) -> Cable:
        return self._chance.choice(list(self._at.cables.values()))

    async def _lasts(self, cable: Cable) -> None:
        try:
            await asyncio.sleep(self._chance.uniform(0.3, 4))
        finally:
            cable.mend()

    async def _restart_valkey(self) -> None:
        await self._restart(self._servers.valkey)

    async def _restart_postgres(self) -> None:
        await self._restart(self._servers.postgres)

    async def _restart(self, server: Server) -> None:
        await asyncio.to_thread(server.kill if self._chance.random() < 0.7 else server.stop)
        await asyncio.sleep(self._chance.uniform(0, 1.5))
        await asyncio.to_thread(server.start)

    async def _out_of_memory(self) -> None:
        async with self._redis() as redis:
            await redis.config_set("maxmemory", "1mb")
            try:
                await asyncio.sleep(self._chance.uniform(0.5, 3))
            finally:
                await redis.config_set("maxmemory", _MEMORY)

    async def _disk_of_valkey(self) -> None:
        """Let the append-only file grow by a few bytes more and no further: an entry may be cut in two."""
        pid = self._servers.valkey.pid
        files = (self._town.ground.servers.home / "valkey" / "appendonlydir").glob("*.incr.aof")
        room = self._chance.randrange(1, 2000)
        size = max(path.stat().st_size for path in files) + room
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        for _ in range(30):
            await asyncio.sleep(0.1)
            if not self._servers.valkey.running:
                break
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, _UNLIMITED)
        await asyncio.to_thread(self._servers.valkey.start)

    async def _out_of_connections(self) -> None:
        """Take every connection of PostgreSQL, also those that wsm had."""
        ground = self._town.ground
        held: list[psycopg.AsyncConnection] = []
        async with await psycopg.AsyncConnection.connect(ground.database.owner_url, autocommit=True) as owner:
            await owner.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            try:
                with suppress(psycopg.OperationalError):
                    for _ in range(_MOST_CONNECTIONS):
                        url = ground.servers.database_url("wsm_app", "postgres")
                        held.append(await psycopg.AsyncConnection.connect(url))
                await asyncio.sleep(self._chance.uniform(0.5, 3))
            finally:
                for connection in held:
                    await connection.close()

    async def _disk_of_postgres(self) -> None:
        """Let no process of PostgreSQL write beyond the first pages of any file: the log of writes fails."""
        pid = self._servers.postgres.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        await self._limit_files(children, "65536:")
        await asyncio.sleep(self._chance.uniform(0.3, 1.5))
        await self._limit_files(children, "unlimited:")

    async def _limit_files(self, pids: Sequence[str], size: str) -> None:
        """Limit the size of files, as the user whom the processes belong to."""
        uid, gid = self._servers.postgres._user or (os.getuid(), os.getgid())
        command = "for pid; do prlimit --fsize=$0 --pid $pid; done"
        limiting = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            command,
            size,
            *pids,
            user=uid,
            group=gid,
            cwd="/",
            stderr=asyncio.subprocess.DEVNULL,
        )
        await limiting.wait()

    async def _wrong_sends(self) -> None:
        """Let some of the next sends go wrong, each in its own way."""
        for _ in range(self._chance.randint(1, 8)):
            kind = self._chance.choice(_WRONGS)
            self._town.waha.world.faults.add(Fault(kind, seconds=self._chance.uniform(0.5, 3)))

    async def _waha_refuses(self) -> None:
        seconds = self._chance.uniform(0.2, 1.5)
        self._town.waha.refuse(seconds)
        await asyncio.sleep(seconds + 0.2)

    async def _clock_steps(self) -> None:
        """Step the clock of one process back by up to a minute, or ahead by up to two seconds."""
        ahead = self._chance.choice((0, self._chance.uniform(0, 2), self._chance.uniform(-60, 0)))
        clock = self._clocks / self._process()
        await asyncio.to_thread(clock.write_text, f"{ahead:.3f}")

    async def _migration(self) -> None:
        folder = self._clocks.parent / "migrations"
        folder.mkdir(exist_ok=True)
        self._migrations += 1
        await migrate_in_two_steps(self._town, folder, 9000 + self._migrations)

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[Redis]:
        async with Redis.from_url(self._servers.redis_url) as redis:
            yield redis
