"""A WAHA with a session, a worker with its mailboxes, and a catch-up between them.

Webhooks reach the mailbox when the test lets them: before the catch-up, after it, or never.
"""

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from databases import Database as Urls
from wahastage import Stage, stage
from working import Plant, now, plant
from wsm.config import WahaServer
from wsm.control.catchup import Accept, CatchUp, Caught
from wsm.core.events import Origin
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName, TenantId
from wsm.gateway.history import History
from wsm.gateway.waha import Gateways, WahaSession
from wsm.sandbox.waha import Engine
from wsm.streams.handover import Offer

TENANT, OTHER = 7, 8
SESSION = "user_7"
ANA, BIA, CAIO = "5511900000001", "5511900000002", "5511900000003"
STORE = {"noweb": {"store": {"enabled": True, "fullSync": False}}}

EVERY_ENGINE = pytest.mark.parametrize("engine", Engine)

_ticks = itertools.count(1)


class Scene:
    """All of it, for one test."""

    def __init__(self, on: Stage, at: Plant, gateways: Gateways) -> None:
        self.on = on
        self.at = at
        self.address = SessionAddress(TenantId(TENANT), SessionName(SESSION))
        self.gateways = gateways
        self.start_ms = int(time.time()) * 1000 - 600_000
        """Ten minutes ago, a whole second."""
        self.history = History
        """How the gateway's lists are read."""

    @property
    def gateway(self) -> WahaSession:
        """The calls of the session."""
        session = self.gateways.session(DEFAULT_SERVER, self.address, None)
        session.history.__class__ = self.history
        return session

    async def say(self, phone: str, text: str, *, ago: float | None = None, **more: Any) -> str:
        """Let a customer write, each a second after the one before, or so long ago; nobody is told."""
        at_ms = self.start_ms + next(_ticks) * 1000 if ago is None else int((time.time() - ago) * 1000)
        said = {"told": False, "timestamp_ms": at_ms, **more}
        bare = await self.on.phone.say(SESSION, phone, text, **said)
        assert await self.on.phone.wait_idle()
        return bare

    async def webhooks(self) -> None:
        """Let what WAHA has told so far into the mailbox, and wait until it is handled."""
        bodies = [got.body for got in self.on.hook.got if b'"message.any"' in got.body]
        self.on.hook.got.clear()
        offers = [
            Offer(self.address.tenant, self.address.session, Origin.WAHA, int(time.time() * 1000), body)
            for body in bodies
        ]
        await self.at.handover.accept(offers)
        await self.at.drained()

    async def heard(self, ago: float = 600) -> None:
        """Set the mark of what was heard last."""
        await self.run(f"update sessions set heard_ms = {int((time.time() - ago) * 1000)}")

    async def mark(self) -> int:
        """Return that mark."""
        [row] = await self.at.rows(TENANT, "select heard_ms from sessions")
        return int(row.heard_ms)

    async def run(self, statement: str) -> None:
        """Change something of the tenant's."""
        async with self.at.database.transaction(self.address.tenant) as transaction:
            await transaction._connection.execute(statement.encode())

    async def fetch(self, accept: Accept | None = None, **limits: Any) -> Caught:
        """Catch up, and wait until everything is handled."""
        [row] = await self.at.rows(TENANT, "select id from sessions")
        catch_up = CatchUp(self.at.database, accept or self.at.handover.accept, now=now, **limits)
        try:
            return await catch_up.fetch(self.address, row.id, self.gateway)
        finally:
            await self.at.drained()

    async def texts(self) -> list[str]:
        """The history of all chats, in the order of the messages."""
        rows = await self.at.rows(
            TENANT, "select body from messages order by sent_at, stamped_at_ms, entry_ms, id"
        )
        return [row.body for row in rows]

    async def count(self, table: str) -> int:
        """How many rows of the tenant a table has."""
        [row] = await self.at.rows(TENANT, f"select count(*) as n from {table}")
        return int(row.n)


@asynccontextmanager
async def scene(
    redis_url: str, database: Urls, engine: Engine = Engine.GOWS, config: Any = STORE
) -> AsyncIterator[Scene]:
    """Set it, with a session that works and has heard something ten minutes ago."""
    async with stage(engine=engine) as on, plant(redis_url, database) as at:
        server = WahaServer(url=on.waha.base_url, api_key=on.waha.api_key)
        gateways = Gateways({DEFAULT_SERVER: server}, send_timeout_seconds=5, look_timeout_seconds=5)
        try:
            await at.found(TENANT, OTHER)
            await on.session(SESSION, config=config)
            at.start()
            here = Scene(on, at, gateways)
            await here.run(f"update sessions set engine = '{engine}'")
            await here.heard()
            yield here
        finally:
            await gateways.aclose()
