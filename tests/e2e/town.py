"""A whole wsm with a WAHA that the test holds in its hands.

The site's processes are real children on the run's servers, each test with a database of its own. WAHA runs
in the test's loop and speaks HTTP like any: its tempo and faults, and what every customer received, are at
hand. What the test reads of the database it reads as the owner, by its own queries.
"""

import asyncio
import json
import secrets
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
from psycopg.rows import namedtuple_row
from redis.asyncio import Redis

from databases import Database
from e2e.ledger import Ledger
from waiting import wait_for
from wsm.bootstrap import front_door, tenant_reads
from wsm.core.content import Content, SendClass
from wsm.core.errors import Unavailable
from wsm.core.events import Origin
from wsm.core.ids import ChatAddress, ChatId, SessionAddress, SessionName, TenantId
from wsm.core.templates import DEFAULT_LOCALE, render
from wsm.sandbox.embedded import Embedded
from wsm.sandbox.site import UNPACED, Site, site
from wsm.sandbox.supervisor import Child
from wsm.sandbox.waha import Engine, Tempo, WahaSandbox
from wsm.sandbox.waha.control import Phone
from wsm.sandbox.waha.ids import owner
from wsm.store import media
from wsm.streams.handover import Offer, Verdict
from wsm.wire.waha import close_command, send_command

QUICK = {
    "WSM_PACE": UNPACED,
    "WSM_RETRY_AFTER_SECONDS": "1",
    "WSM_EVIDENCE_SECONDS": "3",
    "WSM_SEND_TIMEOUT_SECONDS": "10",
}
TEMPO = Tempo(waits=0.05, retries=0.1)
_UNSETTLED = "select count(*) from outbox where state in ('pending', 'sending', 'indeterminate')"

YOUR_TURN = "Chegou a sua vez! Você está sendo atendido agora."


def entered(place: int) -> str:
    return render("entry_next" if place == 1 else "entry", DEFAULT_LOCALE, {}, place=place)


def moved(place: int) -> str:
    if place == 1:
        return "A fila andou: você é o próximo (nº 1). Fique por perto, por favor."
    return f"A fila andou: agora você é o nº {place}."


class Ground(msgspec.Struct, frozen=True):
    """What a town stands on."""

    servers: Embedded
    database: Database
    home: Path


class Said(msgspec.Struct, frozen=True):
    """A message that a customer sent."""

    tenant: TenantId
    who: str
    id: str
    text: str


class Town:
    """A running site, its WAHA, everybody's phones, and a view of the database."""

    def __init__(self, ground: Ground, running: Site, waha: WahaSandbox, phone: Phone) -> None:
        self.ground = ground
        self.site = running
        self.waha = waha
        self.phone = phone
        self.said: list[Said] = []

    async def found(self, tenant: TenantId, *, capacity: int = 1) -> None:
        """Make a tenant whose session works."""
        name = await self.site.found(tenant, f"Loja {tenant}", capacity=capacity)
        await wait_for(lambda: self.waha.session(name).status == "WORKING")

    async def links_again(self, tenant: TenantId) -> None:
        """Make the session anew at a WAHA that forgot it."""
        name = session_of(tenant)
        await self.site.link(SessionAddress(tenant, name))
        await wait_for(lambda: self.waha.session(name).status == "WORKING")

    @asynccontextmanager
    async def held(self, *tenants: TenantId) -> AsyncIterator[None]:
        """Hold the lanes of tenants: their turns and deliveries wait."""
        async with await psycopg.AsyncConnection.connect(self.ground.database.owner_url) as connection:
            for tenant in tenants:
                await connection.execute("select pg_advisory_xact_lock(%s)", [tenant])
            yield

    async def says(self, tenant: TenantId, who: str, text: str, **more: Any) -> None:
        """Let a customer write."""
        id_ = await self.phone.say(session_of(tenant), who, text, **more)
        self.said.append(Said(tenant, who, id_, text))

    async def closes(self, tenant: TenantId, who: str) -> None:
        """Ask to close a chat's ticket at the front door, as `wsm line close` does."""
        address = ChatAddress(tenant, session_of(tenant), ChatId(f"{who}@c.us"))
        body = close_command(address, id=uuid.uuid4().hex, by="cli")
        offer = Offer(tenant, address.session, Origin.CLI, time.time_ns() // 1_000_000, body)
        async with front_door(self.site.settings) as handover:
            assert await handover.accept([offer]) == [Verdict.ACCEPTED]

    async def keeps(self, tenant: TenantId, file: bytes) -> int:
        """Put a file into a tenant's media store, and return its number."""
        now = datetime.now(UTC)
        async with tenant_reads(self.site.settings) as database:
            return await media.put(
                database, tenant, file, mimetype="application/octet-stream", filename=None, now=now
            )

    async def asks(
        self,
        tenant: TenantId,
        who: str,
        content: Content,
        *,
        key: str | None = None,
        send_class: SendClass = SendClass.AGENT,
        **times: int,
    ) -> None:
        """Ask at the front door to send something, as `wsm send` does. Raises Unavailable."""
        address = ChatAddress(tenant, session_of(tenant), ChatId(f"{who}@c.us"))
        name = key or uuid.uuid4().hex
        body = send_command(address, content, id=name, by="cli", send_class=send_class, **times)
        offer = Offer(tenant, address.session, Origin.CLI, time.time_ns() // 1_000_000, body)
        async with front_door(self.site.settings) as handover:
            if await handover.accept([offer]) != [Verdict.ACCEPTED]:
                raise Unavailable("not accepted")

    async def types_end(self, tenant: TenantId, who: str) -> None:
        """Let the agent close a chat's ticket from the phone."""
        await self.phone.type_as_agent(session_of(tenant), f"{who}@c.us", "#fim")

    def inbox(self, who: str) -> list[str]:
        """What wsm has told a customer, in the order in which it came."""
        return [each.text for each in self.waha.world.phone(who).inbox if each.source == "api"]

    async def hears(self, who: str, *texts: str, timeout: float = 20) -> None:  # noqa: ASYNC109
        """Wait until a customer has been told exactly this."""
        try:
            await wait_for(lambda: self.inbox(who) == list(texts), timeout)
        except AssertionError:
            raise AssertionError(f"{who} was told {self.inbox(who)}, not {list(texts)}") from None

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """Ask the database as its owner."""
        async with self._owner() as connection:
            return await (await connection.execute(query.encode(), values)).fetchall()

    async def execute(self, statement: str) -> None:
        """Change the database as its owner."""
        async with self._owner() as connection:
            await connection.execute(statement.encode())

    @asynccontextmanager
    async def _owner(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with await psycopg.AsyncConnection.connect(
            self.ground.database.owner_url,
            autocommit=True,
            row_factory=namedtuple_row,
            options="-c search_path=wsm -c statement_timeout=5000",
        ) as connection:
            yield connection

    async def value(self, query: str, *values: Any) -> Any:
        """Ask for one value."""
        [row] = await self.rows(query, *values)
        return row[0]

    async def until(self, query: str, *values: Any, timeout: float = 20) -> None:  # noqa: ASYNC109
        """Wait until a query answers something true."""

        async with self._owner() as connection:

            async def holds() -> Any:
                [row] = await (await connection.execute(query.encode(), values)).fetchall()
                return row[0]

            try:
                await wait_for(holds, timeout)
            except AssertionError:
                raise AssertionError(f"after {timeout} s still not: {query} {values}") from None

    async def line(self, tenant: TenantId) -> list[tuple[str, str]]:
        """The open tickets of a tenant in order of entry: (customer, state), who is served first."""
        rows = await self.rows(
            "select c.chat_id, t.state from tickets t"
            " join conversations c on c.id = t.conversation_id"
            " where t.tenant_id = %s and t.state <> 'closed'"
            " order by t.state = 'waiting', t.entered_at, t.seq",
            tenant,
        )
        return [(owner(row.chat_id), row.state) for row in rows]

    async def quiet(self, timeout: float = 30) -> None:  # noqa: ASYNC109
        """Wait until WAHA has told everything, no mailbox holds anything and every intent is settled."""
        redis = Redis.from_url(self.ground.servers.redis_url)
        busy: dict[str, Any] = {}

        async def look() -> None:
            held = [key.decode() async for key in redis.scan_iter("wsm:[0-9]*")]
            busy["webhooks"] = self.waha.world.chores.unfinished
            busy["mailboxes"] = [key for key in held if not key.endswith(":dead")]
            busy["intents"] = await self.value(_UNSETTLED)

        async def at_rest() -> Any:
            await look()
            if not any(busy.values()):
                await look()  # what was on its way from one to the other has come up by now
            return not any(busy.values())

        try:
            await wait_for(at_rest, timeout)
        except AssertionError:
            raise AssertionError(f"not quiet after {timeout} s: {busy}") from None
        finally:
            await redis.aclose()

    async def left_over(self) -> set[str]:
        """The keys in Redis that belong to nobody who is still at work, and counts that are not 0.

        The bytes of a quarantine that is there are no such count.
        """
        async with Redis.from_url(self.ground.servers.redis_url) as redis:
            load: Any = await redis.hgetall("wsm:load")
            found = {key.decode() async for key in redis.scan_iter()}
            workers = {key.decode() async for key in redis.scan_iter("rq:worker*")}
        if "wsm:quarantine" in found:
            load.pop(b"quarantine_bytes", None)
        counted = {f"{name.decode()}={int(value)}" for name, value in load.items() if int(value)}
        return found - ALWAYS_THERE - workers | counted

    def log_lines(self, *names: str) -> list[dict[str, Any]]:
        """What the processes logged, by name or all of them."""
        lines = []
        for path in sorted((self.ground.home / "log").glob("*.log")):
            if not names or path.stem in names:
                lines += [json.loads(line) for line in path.read_text().splitlines()]
        return lines

    async def replayed(self, tenant: TenantId, *, capacity: int = 1) -> Ledger:
        """Replay a tenant's line from its audit."""
        rows = await self.rows(
            "select what, conversation_id, ticket_id, detail from audit where tenant_id = %s order by id",
            tenant,
        )
        return Ledger(capacity).replay(rows)

    async def ready(self, name: str) -> tuple[int, dict[str, str]]:
        """Ask one of the site's processes whether it can work."""
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=15) as client:
            answer = await client.get(f"{self.site.ops_urls[name]}/readyz")
        return answer.status_code, answer.json()

    async def check_nothing_lost(self) -> None:
        """Every message that a customer sent is in his history once, and no other is."""
        rows = await self.rows(
            "select m.tenant_id, c.chat_id, m.bare_id, m.body from messages m"
            " join conversations c on c.id = m.conversation_id where m.author = 'customer'"
        )
        kept = Counter(Said(row.tenant_id, owner(row.chat_id), row.bare_id, row.body) for row in rows)
        assert kept == Counter(self.said), f"lost or doubled: {differences(kept, Counter(self.said))}"
        undelivered = [each for each in self.waha.courier.log if each.state != "delivered"]
        assert not undelivered, f"not accepted: {undelivered}"

    async def check_sent_once(self) -> None:
        """What customers were told is what intents say was sent, each once, and so says the history."""
        sent = await self.rows(
            "select chat_id, reserved_id as bare_id, body from outbox where state = 'sent'"
        )
        told = await self.rows(
            "select c.chat_id, m.bare_id, m.body from messages m"
            " join conversations c on c.id = m.conversation_id"
            " left join outbox o on m.from_me and o.session_id = m.session_id and o.reserved_id = m.bare_id"
            " where m.author = 'bot' or o.id is not null"
        )
        arrived = Counter(
            (who, each.id, each.text)
            for who, phone in self.waha.world.phones.items()
            for each in phone.inbox
            if each.source == "api"
        )
        assert set(arrived.values()) <= {1}, f"sent twice: {[what for what in arrived if arrived[what] > 1]}"
        for rows in (sent, told):
            known = Counter((owner(row.chat_id), row.bare_id, row.body) for row in rows)
            assert arrived == known, differences(arrived, known)


ALWAYS_THERE = {
    "wsm:directory",
    "wsm:directory:version",
    "wsm:turn",
    "wsm:load",
    "wsm:wake:turn",
    "wsm:wake:deliver",
    "wsm:keeper",
    "rq:scheduler-lock:jobs",
}
"""The keys of a Redis in which nothing waits."""


def session_of(tenant: TenantId) -> SessionName:
    """The name of a tenant's first session."""
    return SessionName(f"user_{tenant}")


def differences(found: Counter[Any], wanted: Counter[Any]) -> str:
    """Say what is too much and what is missing."""
    return f"too much {found - wanted}, missing {wanted - found}"


def customers(number: int, *, shop: int = 0) -> list[str]:
    """Phone numbers of customers; those of two shops differ."""
    return [f"55119{shop:03d}{index:05d}" for index in range(1, number + 1)]


@asynccontextmanager
async def town(
    ground: Ground,
    tenants: Iterable[TenantId] = (),
    *,
    engine: Engine = Engine.GOWS,
    changed: Mapping[str, str] | None = None,
    dressed: Callable[[Child], Child] | None = None,
) -> AsyncIterator[Town]:
    """Run a site and found some tenants; `changed` are settings as `WSM_…` variables.

    dressed  makes of each of wsm's processes what is run in its place
    """
    own = {
        "DATABASE_URL": ground.database.app_url,
        "WSM_SYSTEM_DATABASE_URL": ground.database.system_url,
        "WSM_PACE": UNPACED,
        **QUICK,
        **(changed or {}),
    }
    sandbox = WahaSandbox(engine=engine, tempo=TEMPO, api_key=secrets.token_urlsafe(24))
    async with sandbox as waha, Phone(waha.base_url) as phone:
        real = {"WAHA_URL": waha.base_url, "WAHA_API_KEY": waha.api_key}
        async with site(ground.servers, ground.home, real_waha=real, changed=own, dressed=dressed) as running:
            found = Town(ground, running, waha, phone)
            await asyncio.gather(*map(found.found, tenants))
            yield found
