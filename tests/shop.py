"""A tenant with a number, for tests of turns and deliveries on the real database.

Bodies are WAHA's (GOWS); time is a value that the test moves.
"""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from databases import Database as Urls
from wsm.core.asks import What
from wsm.core.content import Content, SendClass
from wsm.core.events import Origin
from wsm.core.ids import DEFAULT_SERVER, ChatAddress, ChatId, EntryId, SessionAddress, SessionName, TenantId
from wsm.store import fleet, reads
from wsm.store.database import Database
from wsm.streams.handover import Bell, Entry
from wsm.streams.keys import Kind
from wsm.wire.asks import ask_command
from wsm.wire.waha import close_command, send_command
from wsm.worker.turn import Settled, Turns

TENANT = TenantId(1460561546)
SESSION = SessionName("user_1460561546")
START = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)

_numbers = itertools.count(1)


class Shop:
    """One tenant with one session, his database and his clock."""

    def __init__(self, app: Database, system: Database, tenant: TenantId = TENANT) -> None:
        self.database = app
        self.system = system
        self.tenant = tenant
        self.address = SessionAddress(tenant, SessionName(f"user_{tenant}"))
        self.now = START
        self.turns = Turns(app, clock=lambda: self.now, stale_after=timedelta(days=60))

    async def founded(self, *, capacity: int = 1, locale: str = "pt-BR") -> "Shop":
        """Provision the tenant and his session."""
        await fleet.add_tenant(self.system, self.tenant, name="Loja", locale=locale, capacity=capacity)
        await fleet.add_session(self.system, self.address, server=DEFAULT_SERVER, alias="", kid="k1")
        return self

    def later(self, seconds: float) -> None:
        """Move the clock."""
        self.now += timedelta(seconds=seconds)

    def entry(self, body: bytes, origin: Origin = Origin.WAHA, session: SessionName | None = None) -> Entry:
        """An entry of the mailbox as CLAIM hands it out; of the shop's session if no other is named."""
        milliseconds = int(self.now.timestamp() * 1000)
        return Entry(
            EntryId(f"{milliseconds}-{next(_numbers)}"),
            session or self.address.session,
            origin,
            milliseconds,
            body,
            None,
        )

    async def turn(
        self,
        *bodies: bytes,
        origin: Origin = Origin.WAHA,
        parked: frozenset[ChatId] = frozenset(),
        session: SessionName | None = None,
    ) -> Settled:
        """Run one turn over bodies that have just arrived."""
        entries = tuple(self.entry(body, origin, session) for body in bodies)
        return await self.turns.run(
            Bell(Kind.TURN, self.tenant, f"turn-{next(_numbers)}", entries, parked, alone=False)
        )

    def says(self, phone: str, text: str, **more: Any) -> bytes:
        """A customer's message, written now."""
        return self.message(f"{phone}@c.us", text, **more)

    def message(
        self,
        chat: str,
        text: str,
        *,
        id: str | None = None,  # noqa: A002 (WAHA's word)
        from_me: bool = False,
        source: str = "app",
        ago: float = 0,
        phone_ahead: float = 0,
        alt: str = "",
        event: str = "message.any",
    ) -> bytes:
        """A body of `message.any`, `ago` seconds old."""
        stamped = int((self.now.timestamp() - ago) * 1000)
        bare = id or f"3EB0{next(_numbers):016X}"
        prefix = "true" if from_me else "false"
        payload = {
            "id": f"{prefix}_{chat}_{bare}", "timestamp": stamped // 1000 + int(phone_ahead),
            "from": chat, "fromMe": from_me,
            "source": source, "body": text, "hasMedia": False,
            "_data": {"Info": {"Chat": chat, "Sender": chat, "SenderAlt": alt}},
        }  # fmt: skip
        return self.body(event, payload, stamped)

    def ack(self, chat: str, bare: str, level: int) -> bytes:
        """A body of `message.ack` for an own message."""
        payload = {"id": f"true_{chat}_{bare}", "from": chat, "fromMe": True, "ack": level}
        return self.body("message.ack", payload, int(self.now.timestamp() * 1000))

    def body(self, event: str, payload: dict[str, Any], stamped_ms: int | None = None) -> bytes:
        """A webhook's body."""
        whole = {
            "id": f"evt_{next(_numbers):026d}", "timestamp": stamped_ms or int(self.now.timestamp() * 1000),
            "event": event, "session": self.address.session, "payload": payload, "engine": "GOWS",
        }  # fmt: skip
        return json.dumps(whole, ensure_ascii=False).encode()

    async def close(self, phone: str) -> Settled:
        """Ask to close a chat's ticket, as the command line does."""
        address = ChatAddress(self.tenant, self.address.session, ChatId(f"{phone}@c.us"))
        body = close_command(address, id=f"{next(_numbers):032x}", by="cli")
        return await self.turn(body, origin=Origin.CLI)

    async def asks_to_send(
        self,
        chat: str,
        content: Content,
        *,
        id: str = "",  # noqa: A002
        send_class: SendClass = SendClass.AGENT,
        **times: int,
    ) -> Settled:
        """Ask to send something, as the command line does."""
        address = ChatAddress(self.tenant, self.address.session, ChatId(chat))
        name = id or f"{next(_numbers):032x}"
        body = send_command(address, content, id=name, by="cli", send_class=send_class, **times)
        return await self.turn(body, origin=Origin.CLI)

    async def asks(self, what: What, chat: str | None = None, *, by: str = "cli") -> Settled:
        """Ask for something of the line, as the command line does; of a phone's ticket, if one is named."""
        return await self.turn(self.ask(what, chat, by=by), origin=Origin.CLI)

    def ask(self, what: What, chat: str | None = None, *, by: str = "cli") -> bytes:
        """The body of such an ask."""
        its = ChatId(f"{chat}@c.us") if chat else None
        return ask_command(self.address, what, id=f"{next(_numbers):032x}", by=by, chat=its)

    async def line(self) -> list[tuple[str, int | None]]:
        """The line: (chat, place), place None for who is served."""
        return [
            (row.chat_id.partition("@")[0], row.place) for row in await reads.line(self.database, self.tenant)
        ]

    async def history(self, phone: str) -> list[Any]:
        """The messages of a chat, in their order."""
        rows = await reads.conversations(self.database, self.tenant, [f"{phone}@c.us"], None)
        messages, _ = await reads.history(self.database, self.tenant, rows[0].id)
        return messages

    async def audit(self) -> list[tuple[str, int]]:
        """What happened to the line, as (what, conversation)."""
        return [(row.what, row.conversation_id) for row in await reads.audit(self.database, self.tenant)]

    async def count(self, table: str) -> int:
        """How many rows of this tenant a table has."""
        async with self.database.transaction(self.tenant) as transaction:
            connection = transaction._connection
            row = await (await connection.execute(f"select count(*) from {table}".encode())).fetchone()
        return int(row[0]) if row else 0


@asynccontextmanager
async def shop(urls: Urls, **founding: Any) -> AsyncIterator[Shop]:
    """Open a shop on a database of the test's own."""
    app, system = Database(urls.app_url, connections=4), Database(urls.system_url, connections=2)
    await app.open()
    await system.open()
    try:
        yield await Shop(app, system).founded(**founding)
    finally:
        await app.close()
        await system.close()
