"""What the hand-over's model runs on: real Valkey, real PostgreSQL, turns held open before COMMIT."""

import asyncio
import json
from collections.abc import Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import psycopg

from databases import Database
from wsm.core.ids import ChatId, TenantId
from wsm.store.database import Database as Store
from wsm.store.database import listed
from wsm.store.lane import locked
from wsm.streams import keys
from wsm.streams.client import connect
from wsm.streams.handover import Entry, Handover, Limits
from wsm.streams.keys import Kind
from wsm.streams.letters import DeadLetters
from wsm.streams.pauses import Pauses

T = TypeVar("T")

TENANTS = (TenantId(11), TenantId(22))
LIMITS = Limits(tenant_entries=12, tenant_bytes=600, all_bytes=900, quarantine_entries=10, dead_letters=2)
LEASE_MS = 4000
TURN_ENTRIES = 4
TURN_BYTES = 160
NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)

_TABLE = """
create table turn_log (tenant bigint, place int, key text);
grant select, insert on turn_log to wsm_app;
insert into tenants (tenant_id) values (11), (22);
insert into waha_servers (name) values ('default');
insert into sessions (tenant_id, server, name, kid, exit_policy)
values (11, 'default', 'user_11', 'k', 'direct'), (22, 'default', 'user_22', 'k', 'direct');
"""


class Letter(msgspec.Struct, frozen=True, order=True):
    """What an entry's body says in the model: `key` is what counts once."""

    chat: str
    key: int

    @property
    def body(self) -> bytes:
        """Bodies differ in length, so that bytes are told from entries."""
        return json.dumps([self.chat, self.key, "x" * (self.key % 40)]).encode()


def letter(body: bytes) -> Letter:
    """Read an entry's body."""
    chat, key, _ = json.loads(body)
    return Letter(chat, key)


class Held(msgspec.Struct, frozen=True):
    """Everything that Redis holds of one tenant. aside: parked chats that are not due."""

    mailbox: list[Letter]
    parked: dict[str, list[Letter]]
    dead: list[tuple[str, Letter]]
    load: tuple[int, int]
    pointers: dict[Kind, dict[str, str]]
    queue: list[str]
    started: list[str]
    aside: set[str]
    ids: set[str]
    attempts: set[str]

    @property
    def waiting(self) -> list[Letter]:
        """Everything not handled, in no particular order."""
        return [*self.mailbox, *(each for chat in self.parked.values() for each in chat)]


class Shared(msgspec.Struct, frozen=True):
    """What Redis holds of all of them."""

    load: tuple[int, int]
    dead: tuple[int, int]
    paused: set[int]
    active: set[int]
    mail: dict[Kind, set[int]]
    ready: dict[Kind, set[int]]
    jobs: set[str]
    keys: set[str]


class Lane:
    """The committing half of a turn. Mutants override what must be missed when it is left out."""

    locks = True
    dedupes = True


class OpenTurn:
    """One turn's transaction: begun in a task of its own, written, held before its COMMIT until let go."""

    def __init__(self, world: "World", tenant: TenantId, letters: Iterable[Letter]) -> None:
        self.tenant = tenant
        self.written = asyncio.Event()
        self._go = asyncio.Event()
        self._world = world
        self._letters = list(letters)
        self._task = world.runner.get_loop().create_task(self._run())

    async def _run(self) -> None:
        world, lane = self._world, self._world.lane
        opened = (
            locked(world.store, self.tenant, NOW) if lane.locks else world.store.transaction(self.tenant, NOW)
        )
        async with opened as transaction:
            await transaction.begin()  # with the lock, as the first query of a turn would
            connection = transaction._connection
            found = await connection.execute("select place from turn_log where tenant = %s", [self.tenant])
            place = len(await found.fetchall())
            fresh = {str(each.key) for each in self._letters}
            if lane.dedupes:
                session = f"user_{self.tenant}"
                seen = [{"session": session, "key": str(each.key)} for each in self._letters]
                rows = await transaction.rows("first_seen", events=listed(seen))
                fresh = {row.key for row in rows}
            for each in self._letters:
                if str(each.key) in fresh:
                    place += 1
                    await connection.execute(
                        "insert into turn_log values (%s, %s, %s)", [self.tenant, place, each.body.decode()]
                    )
                    if lane.dedupes:
                        fresh.discard(str(each.key))
            self.written.set()
            await self._go.wait()

    @property
    def stands_in_line(self) -> bool:
        """Whether it waits for another's lock, or got through already."""
        waiting = self._world.admin.execute("select 1 from pg_locks where not granted").fetchone()
        return self.written.is_set() or self._task.done() or waiting is not None

    async def reach(self) -> None:
        """Return when everything is written; raise what it raised."""
        written = asyncio.ensure_future(self.written.wait())
        await asyncio.wait([written, self._task], return_when=asyncio.FIRST_COMPLETED)
        written.cancel()
        if self._task.done():
            self._task.result()

    async def commit(self) -> None:
        """Let it go; the lock must be its own by now."""
        await self.reach()
        self._go.set()
        await self._task

    async def abort(self) -> None:
        """Kill it in the middle: the server rolls back."""
        self._task.cancel()
        await asyncio.wait([self._task])


class World:
    """One event loop, one Valkey and one PostgreSQL for all histories of a test; `reset` empties them."""

    def __init__(self, redis_url: str, database: Database) -> None:
        self.lane = Lane()
        self.runner = asyncio.Runner()
        self.admin = psycopg.connect(database.owner_url, autocommit=True, options="-c search_path=wsm")
        self.admin.execute(_TABLE)
        self.redis = self.run(self._connect(redis_url))
        self.pauses = Pauses(self.redis)
        self.letters = DeadLetters(self.redis)
        self.store = self.run(self._open(database.app_url))
        self.handover = Handover(
            self.redis,
            limits=LIMITS,
            lease_seconds=LEASE_MS / 1000,
            turn_entries=TURN_ENTRIES,
            turn_bytes=TURN_BYTES,
        )

    async def _connect(self, url: str) -> Any:
        return connect(url, timeout_seconds=5)

    async def _open(self, url: str) -> Store:
        store = Store(url, connections=8)
        await store.open()
        return store

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run one step; tasks of open turns go on meanwhile and stop with it."""
        return self.runner.run(coroutine)

    def reset(self) -> None:
        """Empty both servers."""
        self.run(self.redis.flushall())
        self.admin.execute("delete from inbound_dedupe; delete from turn_log")

    def close(self) -> None:
        """Close every connection and the loop."""
        self.run(self.store.close())
        self.run(self.redis.aclose())
        self.runner.close()
        self.admin.close()

    def log(self) -> dict[TenantId, list[Letter]]:
        """What is committed, by tenant, in the order of commits; places must count 1, 2, 3, …"""
        rows = self.admin.execute("select tenant, place, key from turn_log order by tenant, place").fetchall()
        found: dict[TenantId, list[Letter]] = {tenant: [] for tenant in TENANTS}
        for tenant, place, body in rows:
            found[tenant].append(letter(body.encode()))
            assert place == len(found[tenant]), "two turns gave the same place: no lane kept them apart"
        return found

    async def look(self) -> tuple[dict[int, Held], Shared]:
        """Read everything that Redis holds."""
        names = sorted(name.decode() for name in await self.redis.keys("*"))
        pipe = self.redis.pipeline(transaction=True)
        for name in names:
            pipe.type(name)
        types = [kind.decode() for kind in await pipe.execute()]
        for name, kind in zip(names, types, strict=True):
            _READ[kind](pipe, name)
        held = dict(zip(names, await pipe.execute(), strict=True))
        shared = Shared(
            load=_load(held.get(keys.LOAD, {})),
            dead=_load(held.get(keys.LOAD, {}), b"dead", b"dead_bytes"),
            paused={int(tenant) for tenant in held.get(keys.PAUSED, ())},
            active={int(tenant) for tenant in held.get(keys.ACTIVE, ())},
            mail={kind: {int(t) for t, _ in held.get(keys.mail(kind), ())} for kind in Kind},
            ready={kind: {int(t) for t, _ in held.get(keys.ready(kind), ())} for kind in Kind},
            jobs={name.removeprefix("rq:job:") for name in names if name.startswith("rq:job:")},
            keys=set(names),
        )
        return {tenant: _held(tenant, held) for tenant in TENANTS}, shared


_READ: dict[str, Any] = {
    "stream": lambda pipe, name: pipe.xrange(name),
    "hash": lambda pipe, name: pipe.hgetall(name),
    "zset": lambda pipe, name: pipe.zrange(name, 0, -1, withscores=True),
    "set": lambda pipe, name: pipe.smembers(name),
    "list": lambda pipe, name: pipe.lrange(name, 0, -1),
    "string": lambda pipe, name: pipe.get(name),
}


def _held(tenant: TenantId, held: Mapping[str, Any]) -> Held:
    chats = held.get(keys.parked(tenant), ())
    streams = [keys.mailbox(tenant), *(keys.parked_chat(tenant, ChatId(chat.decode())) for chat, _ in chats)]
    return Held(
        mailbox=_letters(held.get(keys.mailbox(tenant), ())),
        parked={
            chat.decode(): _letters(held[keys.parked_chat(tenant, ChatId(chat.decode()))])
            for chat, _ in chats
        },
        dead=[
            (fields[b"entry"].decode(), letter(fields[b"body"]))
            for _, fields in held.get(keys.dead(tenant), ())
        ],
        load=_load(held.get(keys.load(tenant), {})),
        pointers={
            kind: {k.decode(): v.decode() for k, v in held.get(keys.pointer(tenant, kind), {}).items()}
            for kind in Kind
        },
        queue=[id_.decode() for id_ in held.get(keys.rq_queue(tenant), ())],
        aside={chat.decode() for chat, due in chats if due > 0},
        ids={id_.decode() for name in streams for id_, _ in held.get(name, ())},
        attempts={id_.decode() for id_ in held.get(keys.attempts(tenant), ())},
        started=[member.decode().split(":")[0] for member, _ in held.get(keys.rq_started(tenant), ())],
    )


def _letters(entries: Iterable[Any]) -> list[Letter]:
    return [letter(fields[b"body"]) for _, fields in entries]


def _load(
    found: Mapping[bytes, bytes], entries: bytes = b"entries", size: bytes = b"bytes"
) -> tuple[int, int]:
    return int(found.get(entries, 0)), int(found.get(size, 0))


def of_chat(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Group a bell's entries by their chat, in order."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(letter(entry.body).chat, []).append(entry)
    return groups
