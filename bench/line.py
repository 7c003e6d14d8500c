"""The line: what moving it costs as it grows, where nobody is to be told his place.

    line.enter, line.next, line.transfer, line.close
                    milliseconds of a whole turn with 1,000 and 100,000 people waiting, over the same with 10;
                    growth within log n is at most 3 and 5

Turns of one process on one PostgreSQL with fsync: a customer writes and waits, an agent asks for the next
one, gives him to another queue, asks again and closes. The lines take turns, operation by operation, and
what is told is the median. COMMIT's fsync is in every figure: the growth is that of a turn as it is paid.
"""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

import psycopg

from bench import webhooks
from bench.harness import Row, say, servers
from bench.whole import found
from wsm.core.asks import Ask, SetAgent, Verb, What
from wsm.core.events import Origin
from wsm.core.ids import ChatAddress, ChatId, EntryId, SessionAddress
from wsm.sandbox.embedded import Embedded
from wsm.store.database import Database
from wsm.store.migrate import migrate
from wsm.streams.handover import Bell, Entry
from wsm.streams.keys import Kind
from wsm.telemetry import configure_logging
from wsm.wire.asks import ask_command
from wsm.wire.waha import close_command
from wsm.worker.turn import Turns

WAITING = (10, 1_000, 100_000)
OPERATIONS = ("enter", "next", "transfer", "close")
_CYCLES = 150
_WARM = 20

_CROWD = """
with people as (
    insert into contacts (tenant_id, name)
    select {tenant}, 'crowd' from generate_series(1, {people}) returning id),
talks as (
    insert into conversations (tenant_id, session_id, contact_id, chat_id, kind, state)
    select {tenant}, s.id, p.id, p.id || '@c.us', 'direct', 'waiting'
    from people p, sessions s where s.tenant_id = {tenant} order by p.id returning id, contact_id),
named as (
    insert into contact_aliases (tenant_id, alias, contact_id)
    select {tenant}, contact_id || '@c.us', contact_id from talks)
insert into tickets (tenant_id, queue_id, conversation_id, state, entered_at, rank_at)
select {tenant}, q.id, t.id, 'waiting', at, at
from talks t, queues q, lateral (select '2026-09-01'::timestamptz + t.id * interval '1 ms' as at) a
where q.tenant_id = {tenant} order by t.id
"""


def run(rounds: int) -> Sequence[Row]:
    """Measure the family, all lines in one database."""
    configure_logging("bench", "WARNING")
    with servers() as embedded:
        asyncio.run(migrate(embedded.database_url()))
        found(embedded, len(WAITING))
        _fill(embedded)
        taken = asyncio.run(_driven(embedded, rounds))
    rows = []
    for name in OPERATIONS:
        small, *larger = (1000 * statistics.median(taken[name, people]) for people in WAITING)
        for people, cost in zip(WAITING[1:], larger, strict=True):
            of = f"{WAITING[0]} waiting, against {people:,}"
            rows.append(Row(f"line.{name}", cost, small, of, cost / small, "ms per turn"))
    return rows


def _fill(embedded: Embedded) -> None:
    """Let people wait, one tenant's line for each size, and let tenants have a second queue."""
    with psycopg.connect(embedded.database_url(), autocommit=True) as owner:
        owner.execute("set search_path = wsm")
        owner.execute("update queues set pull = true")
        for number, people in enumerate(WAITING):
            tenant = webhooks.address(number).tenant
            owner.execute(_CROWD.format(tenant=tenant, people=people).encode())
            owner.execute("insert into queues (tenant_id, name, pull) values (%s, 'two', true)", [tenant])
        owner.execute("vacuum analyze")
        owner.execute("checkpoint")


class _Tenant:
    """A tenant whose line is moved, and what each move took."""

    def __init__(self, database: Database, its: SessionAddress, people: int) -> None:
        self.people = people
        self.taken: dict[str, list[float]] = defaultdict(list)
        self._database = database
        self._its = its
        self._numbers = count(1)
        self._now = datetime(2026, 10, 1, tzinfo=UTC)
        self._turns = Turns(database, clock=lambda: self._now, stale_after=timedelta(days=600))

    async def hire(self) -> None:
        await self._turn(self._ask(SetAgent(agent="ana", capacity=1, queues=("default",))))
        await self._turn(self._ask(Ask(verb=Verb.ONLINE, agent="ana")))

    async def cycle(self, operation: str) -> None:
        """Make one move of a cycle: who is served then, if anybody, is found beforehand."""
        if operation == "enter":
            number = next(self._numbers)
            at = int(self._now.timestamp())
            body, origin = webhooks.message(self._its, number, chat=number, at=at), Origin.WAHA
        elif operation == "next":
            body, origin = self._ask(Ask(verb=Verb.NEXT, agent="ana")), Origin.CLI
        elif operation == "transfer":
            body = self._ask(Ask(verb=Verb.MOVE, queue="two"), await self._served())
            origin = Origin.CLI
        else:
            body, origin = self._close(await self._served()), Origin.CLI
        began = time.perf_counter()
        await self._turn(body, origin)
        self.taken[operation].append(time.perf_counter() - began)

    async def _served(self) -> ChatId:
        async with self._database.transaction(self._its.tenant) as transaction:
            [row] = await transaction.rows("tickets_of_agent", agent="ana")
        return ChatId(row.chat_id)

    def _ask(self, what: What, chat: ChatId | None = None) -> bytes:
        return ask_command(self._its, what, id=str(next(self._numbers)), by="ana", chat=chat)

    def _close(self, chat: ChatId) -> bytes:
        address = ChatAddress(self._its.tenant, self._its.session, chat)
        return close_command(address, id=str(next(self._numbers)), by="ana")

    async def _turn(self, body: bytes, origin: Origin = Origin.CLI) -> None:
        self._now += timedelta(seconds=1)
        at_ms = int(self._now.timestamp() * 1000)
        number = next(self._numbers)
        entry = Entry(EntryId(f"{at_ms}-{number}"), self._its.session, origin, at_ms, body, None)
        bell = Bell(Kind.TURN, self._its.tenant, f"turn-{number}", (entry,), frozenset(), alone=False)
        if (await self._turns.run(bell)).handled != [entry]:
            raise SystemExit("a turn did not handle its entry")


async def _driven(embedded: Embedded, rounds: int) -> dict[tuple[str, int], list[float]]:
    database = Database(embedded.database_url("wsm_app"), connections=1)
    await database.open()
    try:
        tenants = [
            _Tenant(database, webhooks.address(number), people) for number, people in enumerate(WAITING)
        ]
        for tenant in tenants:
            await tenant.hire()
        for number in range(_WARM + _CYCLES * rounds):
            if number == _WARM:
                for tenant in tenants:
                    tenant.taken.clear()
            for operation in ("enter", "enter", "next", "transfer", "next", "close"):
                for tenant in tenants:
                    await tenant.cycle(operation)
    finally:
        await database.close()
    for tenant in tenants:
        told = ", ".join(f"{name} {1000 * statistics.median(tenant.taken[name]):.2f}" for name in OPERATIONS)
        say(f"  {tenant.people:,} waiting: {told} ms")
    return {(name, each.people): each.taken[name] for each in tenants for name in OPERATIONS}
