"""Deliveries of a shop to a WAHA sandbox over real HTTP, and the phones that receive them.

The clock is the machine's plus what a test adds, so that evidence need not be waited for.
"""

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from databases import Database as Urls
from outboxes import Outbox
from receiver import Receiver
from shop import Shop, shop
from unpaced import PACING, files
from wsm.config import WahaServer
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName
from wsm.gateway.waha import Gateways, webhook_config
from wsm.sandbox.waha import Engine, Tempo, WahaSandbox
from wsm.sandbox.waha.faults import Fault, Wrong
from wsm.store import fleet
from wsm.store.database import Database
from wsm.store.paces import Pacing
from wsm.streams.handover import Bell
from wsm.streams.keys import Kind
from wsm.worker.deliver import Deliveries

EVIDENCE = timedelta(seconds=60)
SEND_SECONDS = 0.3
_numbers = itertools.count(1)


class PostOffice(Outbox):
    """A shop, its WAHA, and bells to deliver with."""

    def __init__(
        self, at: Shop, waha: WahaSandbox, hook: Receiver, gateways: Gateways, pacing: Pacing = PACING
    ) -> None:
        super().__init__(at)
        self.waha = waha
        self.hook = hook
        self.gateways = gateways
        self.ahead = timedelta()
        self.monotonic: Callable[[], float] = time.monotonic
        self.deliveries = Deliveries(
            at.database,
            gateways,
            clock=self.clock,
            monotonic=lambda: self.monotonic(),  # noqa: PLW0108 (a test replaces it)
            start_within=timedelta(seconds=4),
            evidence=EVIDENCE,
            pacing=pacing,
            files=files(at.database, gateways, self.clock),
        )

    def clock(self) -> datetime:
        """Now, as the shop and its bells see it."""
        self.at.now = datetime.now(UTC) + self.ahead
        return self.at.now

    async def open(self, session: SessionName) -> None:
        """Create and start a session at WAHA, and wait until it works."""
        address = SessionAddress(self.at.tenant, session)
        gateway = self.gateways.session(DEFAULT_SERVER, address, None)
        await gateway.create(webhook_config(self.hook.url, "s" * 64), start=True)
        assert await self.waha.idle()

    async def second_session(self) -> SessionName:
        """Give the shop another number."""
        name = SessionName(f"{self.at.address.session}_two")
        address = SessionAddress(self.at.tenant, name)
        await fleet.add_session(self.at.system, address, server=DEFAULT_SERVER, alias="two", kid="k1")
        await self.open(name)
        return name

    async def write(self, *phones: str, session: SessionName | None = None) -> None:
        """Let customers write, one after the other."""
        self.clock()
        await self.at.turn(*(self.at.says(phone, "oi") for phone in phones), session=session)

    async def deliver(self, *, is_mine: Callable[[], bool] = lambda: True) -> bool:
        """Ring one bell to its end."""
        bell = Bell(Kind.DELIVER, self.at.tenant, f"deliver-{next(_numbers)}", (), frozenset(), alone=False)
        return await self.deliveries.run(bell, is_mine=is_mine)

    async def deliver_all(self, rounds: int = 12) -> None:
        """Ring bells, with time passing between them, until every intent is settled."""
        for _ in range(rounds):
            await self.deliver()
            if not {state for _, state in await self.states()} & {"pending", "sending", "indeterminate"}:
                return
            self.ahead += timedelta(seconds=3)
            await self.deliver()  # looks for what may still be on its way
            assert await self.waha.idle()
            self.ahead += timedelta(seconds=31)
        raise AssertionError(f"not settled: {await self.intents()}")

    def fault(self, kind: Wrong, phone: str | None = None, **more: Any) -> None:
        """Let a send go wrong."""
        self.waha.world.faults.add(Fault(kind=kind, phone=phone, **more))

    def inbox(self, phone: str) -> list[str]:
        """What a customer has received."""
        return [message.text for message in self.waha.world.phone(phone).inbox]


@asynccontextmanager
async def post_office(
    urls: Urls, *, engine: Engine = Engine.GOWS, send_seconds: float = SEND_SECONDS, capacity: int = 10
) -> AsyncIterator[PostOffice]:
    """Open a shop with one session that works."""
    tempo = Tempo(waits=0.002, retries=0.001)
    async with (
        shop(urls, capacity=capacity) as at,
        Receiver() as hook,
        WahaSandbox(engine=engine, tempo=tempo) as waha,
    ):
        server = WahaServer(url=waha.base_url, api_key=waha.api_key)
        gateways = Gateways(
            {DEFAULT_SERVER: server}, send_timeout_seconds=send_seconds, look_timeout_seconds=2.0
        )
        try:
            office = PostOffice(at, waha, hook, gateways)
            await office.open(at.address.session)
            yield office
        finally:
            await gateways.aclose()
            await waha.idle()


@asynccontextmanager
async def opened_again(urls: Urls) -> AsyncIterator[Shop]:
    """The same shop in another process, as it were: with connections of its own."""
    app, system = Database(urls.app_url, connections=2), Database(urls.system_url, connections=1)
    await app.open()
    await system.open()
    try:
        yield Shop(app, system)
    finally:
        await app.close()
        await system.close()
