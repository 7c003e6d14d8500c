"""wsm's own parts on real servers, a WAHA over real HTTP, and one clock for all of them.

The parts are those that `bootstrap` wires: workers with their turns and deliveries, the hand-over, and the
clock that sweeps, rings timers and rings for deliveries. Only what turns their loops differs: the day lets
them work until nothing is left to do in this moment, and moves on to the next one in which something is.
"""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg
from psycopg.rows import namedtuple_row

from databases import Database as Urls
from day import journal
from day.hours import BETWEEN_ACTIONS, Agenda, Clock, whole_second
from day.plan import OPENS, Plan, Shop
from day.wire import Wire
from wsm.clock.clock import Clock as Ticking
from wsm.config import WahaServer
from wsm.core.asks import What
from wsm.core.content import Content, SendClass
from wsm.core.events import Origin
from wsm.core.ids import DEFAULT_SERVER, ChatAddress, ChatId, SessionAddress, SessionName, TenantId
from wsm.core.pacing import Pace
from wsm.gateway.fetch import Fetching
from wsm.gateway.waha import Gateways, webhook_config
from wsm.sandbox.waha import Engine, Tempo, WahaSandbox
from wsm.sandbox.waha.handset import Handset
from wsm.sandbox.waha.phones import Received
from wsm.sandbox.waha.state import Arrived, Fact
from wsm.store import fleet, rules
from wsm.store.database import Database
from wsm.store.leadership import Leadership
from wsm.store.paces import Pacing
from wsm.streams.client import connect
from wsm.streams.directory import PublishedDirectory
from wsm.streams.handover import Handover, Limits
from wsm.streams.keys import Kind
from wsm.wire.asks import ask_command
from wsm.wire.waha import close_command, send_command
from wsm.worker.deliver import Deliveries
from wsm.worker.media import Files
from wsm.worker.turn import Turns
from wsm.worker.worker import Worker

EVIDENCE = timedelta(seconds=180)
SEND_SECONDS = 0.4
"""How long a call of the gateway may take, in earnest: a hanging one takes longer."""
_WORKERS = 2
_ROOM = Limits(tenant_entries=100_000, tenant_bytes=1 << 28, all_bytes=1 << 29, quarantine_entries=100)
_NEXT = """
select (select min(due_at) from wsm.pace) as deliveries,
       (select min(due_at) from wsm.timers where rung_at is null) as timers
"""


Seen = tuple[str, Received]
"""Whose phone it is, and what reached it."""


class Hands(Worker):
    """A worker whose loop the day turns."""

    async def claim(self) -> int:
        """Ring and claim once, as its loop does; what was claimed runs."""
        return await self._hand_over(claiming=True)

    @property
    def at_work(self) -> list[asyncio.Task[None]]:
        """The bells that run."""
        return self._tasks()


class Asked(msgspec.Struct, frozen=True):
    """Something that a person asked wsm for: the log of asks. said: the text of a reply, None of others."""

    at: datetime
    tenant: TenantId
    session: SessionName
    chat: str | None
    by: str
    what: str
    id: str
    said: str | None = None


class City:
    """Everything that runs. arrivals: what reached phones and was not looked at yet."""

    def __init__(self, plan: Plan, clock: Clock, agenda: Agenda, urls: Urls) -> None:
        self.plan = plan
        self.clock = clock
        self.agenda = agenda
        self.urls = urls
        self.asked: list[Asked] = []
        self.arrivals: list[Seen] = []
        self.hands: list[Hands] = []
        self.moments = 0
        self._ticked_at = clock.now

    waha: WahaSandbox
    handset: Handset
    gateways: Gateways
    handover: Handover
    wire: Wire
    ticking: Ticking
    owner: psycopg.AsyncConnection[Any]

    # What people ask

    async def ask(
        self, shop: Shop, what: What, *, by: str, session: SessionName | None = None, chat: str | None = None
    ) -> None:
        """Ask something of the line, as the commands do."""
        address = SessionAddress(shop.tenant, session or shop.sessions[0])
        id_ = uuid.uuid4().hex
        body = ask_command(address, what, id=id_, by=by, chat=ChatId(chat) if chat else None)
        said = msgspec.json.encode(what).decode()
        self.asked.append(Asked(self.clock(), shop.tenant, address.session, chat, by, said, id_))
        await self.wire.offer(shop.tenant, address.session, Origin.CLI, body)

    async def close(self, shop: Shop, session: SessionName, chat: str, *, by: str) -> None:
        """Ask to close a chat's ticket."""
        id_ = uuid.uuid4().hex
        body = close_command(ChatAddress(shop.tenant, session, ChatId(chat)), id=id_, by=by)
        self.asked.append(Asked(self.clock(), shop.tenant, session, chat, by, "close", id_))
        await self.wire.offer(shop.tenant, session, Origin.CLI, body)

    async def reply(
        self, shop: Shop, session: SessionName, chat: str, content: Content, *, by: str, said: str
    ) -> None:
        """Ask to send an agent's words."""
        id_ = uuid.uuid4().hex
        address = ChatAddress(shop.tenant, session, ChatId(chat))
        body = send_command(address, content, id=id_, by=by, send_class=SendClass.AGENT)
        self.asked.append(Asked(self.clock(), shop.tenant, session, chat, by, "reply", id_, said))
        await self.wire.offer(shop.tenant, session, Origin.CLI, body)

    # How time passes

    async def live(self, until: datetime, look: Callable[[], Any]) -> None:
        """Go from moment to moment until then, or until nothing is left that would ever happen.

        look  is awaited whenever everything has come to rest
        """
        while True:
            due = await self.row(_NEXT)
            moments = [at for at in (self.agenda.next_at, *due) if at is not None]
            if not moments or min(moments) > until:
                return
            self.moments += 1
            self.clock.now = max(whole_second(min(moments)), whole_second(self.clock.now + BETWEEN_ACTIONS))
            await self._tick(*due)
            await self.agenda.happen()
            await self.settle()
            await look()

    async def _tick(self, deliveries: datetime | None, timers: datetime | None) -> None:
        """Let wsm's clock ring for what is due; the rest of its duties find nothing here: once a minute."""
        now = self.clock.now
        if now - self._ticked_at >= timedelta(minutes=1):
            self._ticked_at = now
            await self.ticking.tick()
            return
        if timers is not None and timers <= now:
            await self.ticking._ring_timers()
        if deliveries is not None and deliveries <= now:
            await self.ticking._ring_deliveries()

    async def settle(self) -> None:
        """Let everybody work until nothing is left to do now."""
        for hands in itertools.cycle(self.hands):
            running, seen = self._running(), self.wire.accepted
            if running:
                await asyncio.wait(running, timeout=1, return_when=asyncio.FIRST_COMPLETED)
            elif self.waha.world.chores.unfinished:
                assert await self.waha.idle()
            claimed = await hands.claim()
            if not (claimed or running or self._is_busy(seen)):
                return

    def _is_busy(self, seen: int) -> bool:
        """Whether something has come since, or is still to come."""
        return bool(self._running() or self.waha.world.chores.unfinished or self.wire.accepted != seen)

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for hands in self.hands for task in hands.at_work]

    # What is there to be read

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """Ask the database as its owner."""
        return await (await self.owner.execute(query.encode(), values)).fetchall()

    async def row(self, query: str, *values: Any) -> Any:
        """Ask for one row."""
        [row] = await self.rows(query, *values)
        return row

    def heard(self, fact: Fact) -> None:
        """Remember what reached a phone."""
        if isinstance(fact, Arrived):
            self.arrivals.append((fact.phone, fact.received))


@asynccontextmanager
async def city(plan: Plan, redis_url: str, urls: Urls) -> AsyncIterator[City]:
    """Open everything on an empty Redis and a migrated database, and found the shops."""
    clock = Clock(OPENS - timedelta(minutes=5))
    at = City(plan, clock, Agenda(clock), urls)
    async with AsyncExitStack() as stack:
        redis = connect(redis_url, timeout_seconds=5.0)
        stack.push_async_callback(redis.aclose)
        app, system = Database(urls.app_url, connections=8), Database(urls.system_url, connections=2)
        for database in (app, system):
            await database.open()
            stack.push_async_callback(database.close)
        await journal.install(urls.owner_url)
        at.owner = await psycopg.AsyncConnection.connect(
            urls.owner_url, autocommit=True, row_factory=namedtuple_row
        )
        stack.push_async_callback(at.owner.close)
        at.handover = Handover(redis, limits=_ROOM, lease_seconds=10, turn_entries=200)
        at.wire = Wire(at.handover, clock, at.agenda, plan.chance("wire"), troubles=plan.troubles)
        await at.wire.open()
        stack.push_async_callback(at.wire.close)
        tempo = Tempo(waits=0.001, retries=0.001)
        at.waha = await stack.enter_async_context(
            WahaSandbox(engine=Engine.GOWS, tempo=tempo, now_ms=clock.ms)
        )
        at.waha.world.journal, at.waha.world.acks = at.heard, (2,)
        at.handset = at.waha.lifecycle._handset
        at.gateways = _gateways(at.waha, clock)
        stack.push_async_callback(at.gateways.aclose)
        at.hands = [_hands(at, app, f"hands-{number}") for number in range(_WORKERS)]
        lead = Leadership(urls.system_url, stalled_seconds=600)
        stack.push_async_callback(lead.resign)
        keep = timedelta(days=60)
        at.ticking = Ticking(
            system,
            lead,
            at.handover,
            PublishedDirectory(redis),
            now=clock,
            keep_dedupe=keep,
            keep_media=keep,
        )
        await at.ticking.tick()
        for shop in plan.shops:
            await _found(at, shop, app, system)
        await at.settle()
        yield at
        assert await at.waha.idle()


def _gateways(waha: WahaSandbox, clock: Clock) -> Gateways:
    server = WahaServer(url=waha.base_url, api_key=waha.api_key)
    return Gateways(
        {DEFAULT_SERVER: server},
        send_timeout_seconds=SEND_SECONDS,
        look_timeout_seconds=5.0,
        clock=clock.seconds,
    )


def _hands(at: City, app: Database, name: str) -> Hands:
    """A worker as `bootstrap` makes it, with the pace that it has by default."""
    pace, clock = Pace(), at.clock
    fetching = Fetching(limit_bytes=2_000_000)
    return Hands(
        name,
        at.handover,
        app,
        Turns(app, clock=clock, stale_after=timedelta(days=60), pace=pace),
        Deliveries(
            app,
            at.gateways,
            clock=clock,
            monotonic=asyncio.get_running_loop().time,
            start_within=timedelta(seconds=10),
            evidence=EVIDENCE,
            pacing=Pacing(pace, at.plan.chance("pace", name).random),
            files=Files(app, at.gateways, fetching, clock=clock, in_flight_bytes=8_000_000),
        ),
        slots={Kind.TURN: 4, Kind.DELIVER: 4},
        drain_seconds=1,
    )


async def _found(at: City, shop: Shop, app: Database, system: Database) -> None:
    """Make a shop, its queues with their rules, and two numbers that work."""
    await fleet.add_tenant(system, shop.tenant, name=shop.name, locale=shop.locale, capacity=1)
    await fleet.set_bot(system, shop.tenant, shop.bot)
    at.wire.know(shop.tenant, shop.sessions)
    for alias, session, queue in zip(("", "two"), shop.sessions, shop.queues, strict=True):
        address = SessionAddress(shop.tenant, session)
        await fleet.add_session(system, address, server=DEFAULT_SERVER, alias=alias, kid="k1")
        await fleet.set_queue(system, shop.tenant, queue.name, [session], **queue.values)
        await rules.change(app, shop.tenant, queue.name, at.plan.open_hours(queue), at.clock())
        await rules.change(app, shop.tenant, queue.name, queue.manners, at.clock())
        gateway = at.gateways.session(DEFAULT_SERVER, address, None)
        await gateway.create(webhook_config(at.wire.url, "s" * 64), start=True)
    assert await at.waha.idle()
