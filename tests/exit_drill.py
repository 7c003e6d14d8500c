"""Tenants with numbers behind real exits, and the books of all who are called: who came, and from where.

    wsm ──private──► WAHA `private` ──exit──► WhatsApp
    wsm ──exit, TLS──► WAHA `public` ──exit──► WhatsApp
    wsm ──exit, TLS──► the service that tells who asks

An exit is a tunnel through one proxy, which gives each identity an address. A tenant who wants no exit has
his number at `private`, so that the books show that they would see what comes from nowhere.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import namedtuple_row

from behind_exits import PASSWORD
from certificates import Certificate
from databases import Database as Urls
from receiver import Receiver
from shop import Shop
from unpaced import PACING, files
from waiting import wait_for
from wsm.bootstrap import opened
from wsm.config import WahaServer
from wsm.control.moves import Keys, Moves, Place, place_of
from wsm.control.sessions import Sessions
from wsm.core.exits import Pool
from wsm.core.ids import ServerName, SessionAddress, TenantId
from wsm.gateway.waha import Gateways
from wsm.sandbox.exits import ExitProxy, Whoami, direct
from wsm.sandbox.exits.ends import End
from wsm.sandbox.exits.listener import Listener
from wsm.sandbox.exits.passages import Ending
from wsm.sandbox.waha import Engine, Tempo, WahaSandbox
from wsm.sandbox.waha.contents import Media
from wsm.sandbox.waha.handset import Said
from wsm.sandbox.waha.ids import phone_id
from wsm.sandbox.whatsapp import Visit, WhatsApp
from wsm.store import fleet, reads
from wsm.store.database import Database
from wsm.streams.handover import Bell
from wsm.streams.keys import Kind
from wsm.worker.deliver import Deliveries

EVIDENCE = timedelta(seconds=60)
HOME = "127.0.0.1"
PRIVATE, PUBLIC = ServerName("private"), ServerName("public")
_numbers = itertools.count(1)


class Front(Listener):
    """TLS in front of a WAHA; `peers` has everybody who connected to it."""

    def __init__(self, waha: WahaSandbox, certificate: Certificate) -> None:
        super().__init__(tls=certificate.shown())
        self._behind = int(waha.base_url.rpartition(":")[2])

    async def _serve(self, client: End) -> None:
        waha = End(*await asyncio.open_connection(HOME, self._behind), Ending.TARGET)
        there = asyncio.ensure_future(_pump(client, waha))
        try:
            await _pump(waha, client)
        finally:
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)
            await waha.aclose()


async def _pump(source: End, sink: End) -> None:
    while data := await source.read():
        await sink.write(data)


class Drill:
    """Everything that stands there."""

    def __init__(self, urls: Urls, engine: Engine) -> None:
        self.urls = urls
        self.engine = engine
        self.ahead = timedelta()
        self.direct: set[str] = set()
        self.shops: dict[TenantId, Shop] = {}
        self.proxy: ExitProxy
        self.whoami: Whoami
        self.whatsapp: WhatsApp
        self.front: Front
        self.wahas: dict[ServerName, WahaSandbox] = {}
        self.hook: Receiver
        self.pool: Pool
        self.app: Database
        self.system: Database
        self.moves: Moves
        self.sessions: Sessions
        self._deliveries: Deliveries

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def found(self, tenant: TenantId, server: ServerName, *, exit_pool: str | None) -> SessionAddress:
        """Make a tenant with a number, stopped."""
        await fleet.add_tenant(self.system, tenant, name="", locale="pt-BR", capacity=1000)
        self.shops[tenant] = Shop(self.app, self.system, tenant)
        address = await self.sessions.create(tenant, server=server, exit_pool=exit_pool)
        if exit_pool is None:
            self.direct.add(address.session)
        return address

    async def place(self, address: SessionAddress) -> Place:
        [row] = [row for row in await reads.sessions(self.app, address.tenant) if row.name == address.session]
        return place_of(address.tenant, row)

    async def look_at_exit(self, address: SessionAddress) -> str | None:
        """Look at the exit of a session as one does who looks after it; return its trouble."""
        place = await self.place(address)
        lease = await self.moves.lease(place)
        assert lease is not None
        return (await self.moves.look_at_exit(place, lease)).trouble

    def waha_of(self, address: SessionAddress) -> WahaSandbox:
        return next(waha for waha in self.wahas.values() if address.session in waha.world.sessions)

    def status(self, address: SessionAddress) -> str:
        return str(self.waha_of(address).session(address.session).status)

    async def code(self, address: SessionAddress) -> str:
        """Ask a session for the code that it shows."""
        return await (await self.sessions.bound(address)).login.qr_text()

    async def starts(self, address: SessionAddress) -> None:
        """Start a session, scan its code if it asks for one, and see it work."""
        await self.sessions.start(address)
        await wait_for(lambda: self.status(address) in {"SCAN_QR_CODE", "WORKING"})
        if self.status(address) == "SCAN_QR_CODE":
            assert (await self.code(address)).startswith("2@")
            waha = self.waha_of(address)
            waha.lifecycle.scan(waha.session(address.session))
        await self.works(address)

    async def works(self, address: SessionAddress) -> None:
        """Wait until a session works, and WhatsApp has it."""
        await wait_for(
            lambda: self.status(address) == "WORKING" and address.session in self.whatsapp.present()
        )

    def drop(self, address: SessionAddress) -> None:
        """Let a session's connection to WhatsApp drop."""
        waha = self.waha_of(address)
        waha.lifecycle.drop(waha.session(address.session), 0.0)

    async def cut(self) -> None:
        """Cut every passage, and wait until those who had one have noticed."""
        lost = [visit for visit in self.whatsapp.visits if not visit.is_over and visit.came_from[0] != HOME]
        self.proxy.cut()
        await wait_for(lambda: all(visit.is_over for visit in lost))

    def says(self, address: SessionAddress, phone: str, *, media: bool = False) -> str:
        """Let a customer write at WhatsApp; it comes in when the session is there. Returns the bare id."""
        said = Said(who=phone, text="oi", id=phone_id(), media=Media() if media else None)
        waha = next(waha for waha in self.wahas.values() if address.session in waha.world.accounts)
        waha.lifecycle._handset.hear(address.session, said)
        return said.id

    async def hears(self, address: SessionAddress, id: str) -> None:  # noqa: A002
        """Wait until a customer's message has come in through WAHA's webhook, and take it in a turn."""

        def came() -> bytes | None:
            bodies = (got.body for got in self.hook.got if got.path.endswith(f"/{address.session}"))
            return next((body for body in bodies if b'"message.any"' in body and id.encode() in body), None)

        body = await wait_for(came)
        assert body is not None
        shop = self.shops[address.tenant]
        shop.now = self.now()
        await shop.turn(body)

    async def deliver(self, tenant: TenantId) -> None:
        """Ring one bell of a tenant's deliveries, to its end."""
        bell = Bell(Kind.DELIVER, tenant, f"deliver-{next(_numbers)}", (), frozenset(), alone=False)
        await self._deliveries.run(bell, is_mine=lambda: True)

    async def deliver_until(self, tenant: TenantId, done: Callable[[], bool]) -> None:
        """Ring bells, with time passing between them."""
        for _ in range(12):
            await self.deliver(tenant)
            if done():
                return
            self.ahead += timedelta(seconds=31)
        raise AssertionError("it does not arrive")

    def inbox(self, address: SessionAddress, phone: str) -> list[str]:
        """The ids of the messages that a customer has from a session."""
        received = self.waha_of(address).world.phone(phone).inbox
        return [message.id for message in received if message.session == address.session]

    async def talks(self, address: SessionAddress, *, media: bool = False) -> None:
        """Let a new customer write, and be answered once."""
        phone = f"55119{next(_numbers):08d}"
        await self.hears(address, self.says(address, phone, media=media))
        await self.deliver_until(address.tenant, lambda: bool(self.inbox(address, phone)))
        assert len(self.inbox(address, phone)) == 1

    def leases(self) -> list[Any]:
        """Every lease there ever was, over all tenants."""
        with psycopg.connect(self.urls.owner_url, row_factory=namedtuple_row) as owner:
            return owner.execute(
                "select s.name as session, l.identifier, l.identity, host(l.exit_ip) as address, l.leased_at,"
                " l.released_at, l.trouble from wsm.proxy_leases l"
                " join wsm.sessions s on s.tenant_id = l.tenant_id and s.id = l.session_id"
                " order by l.leased_at"
            ).fetchall()

    def username(self, identity: str) -> str:
        """An identity of the pool, as its provider is told of it."""
        return f"acme-country-br-session-{identity}"

    def check_books(self) -> None:
        """Nobody came directly who had an exit; each session from its own; nothing was ever shared."""
        assert direct(self.whoami.peers, self.proxy) == []
        assert direct(self.front.peers, self.proxy) == []
        leases = self.leases()
        _check_sharing(leases)
        owned: dict[str, set[str]] = {}
        for lease in leases:
            owned.setdefault(lease.session, set()).add(self.username(lease.identity))
        for visit in self.whatsapp.visits:
            who = self.proxy.identity_at(visit.came_from[0])
            if visit.session in self.direct or self._goes_around(visit):
                assert visit.came_from[0] == HOME
            else:
                assert who in owned[visit.session], f"{visit.session} came from {visit.came_from[0]}"
        known = {visit.came_from for visit in self.whatsapp.visits}
        silent = [peer for peer in self.whatsapp.peers if peer not in known]  # and gave up at once
        assert direct(silent, self.proxy) == []
        self._check_messages()

    def _goes_around(self, visit: Visit) -> bool:
        """NOWEB fetches media files directly: WAHA's doing, and nobody's choice."""
        return visit.kind == "media" and self.engine is Engine.NOWEB

    def _check_messages(self) -> None:
        """Every message that a customer has left once, through a connection of its own session's."""
        left: dict[tuple[str, str], int] = {}
        for visit in self.whatsapp.visits:
            for id_ in visit.sent:
                left[visit.session, id_] = left.get((visit.session, id_), 0) + 1
        got: dict[tuple[str, str], int] = {}
        for waha in self.wahas.values():
            for phone in waha.world.phones.values():
                for message in phone.inbox:
                    key = (message.session, message.id)
                    got[key] = got.get(key, 0) + 1
        assert got == left
        assert set(got.values()) <= {1}


def _check_sharing(leases: list[Any]) -> None:
    """No identifier, identity or address was two leases' at a time, and none of the first two ever."""
    assert len({lease.identifier for lease in leases}) == len(leases)
    assert len({lease.identity for lease in leases}) == len(leases)
    for one, other in itertools.combinations(leases, 2):
        apart = one.released_at is not None and one.released_at <= other.leased_at
        assert apart or one.address is None or one.address != other.address
        assert apart or one.session != other.session


@asynccontextmanager
async def drill(
    urls: Urls, certificate: Certificate, *, engine: str = "GOWS", waits: float = 0.01
) -> AsyncIterator[Drill]:
    """Set it up. waits: the tempo of the WAHAs."""
    at = Drill(urls, Engine(engine))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        at.proxy = await enter(ExitProxy(password=PASSWORD))
        at.whoami = await enter(Whoami(at.proxy.country_of, tls=certificate.shown()))
        at.whatsapp = await enter(WhatsApp())
        at.hook = await enter(Receiver())
        for server in (PRIVATE, PUBLIC):
            waha = WahaSandbox(
                engine=engine,
                tempo=Tempo(waits=waits, retries=0.01),
                auto_scan=False,
                whatsapp=at.whatsapp.address,
            )
            at.wahas[server] = await enter(waha)
        at.front = await enter(Front(at.wahas[PUBLIC], certificate))
        at.app = await enter(opened(Database(urls.app_url, connections=4)))
        at.system = await enter(opened(Database(urls.system_url, connections=2)))
        at.pool = Pool(
            provider="generic",
            endpoint=f"{HOME}:{at.proxy.port}",
            username="acme",
            password=PASSWORD,
            check_url=at.whoami.url,
        )
        gateways = Gateways(
            {
                PRIVATE: WahaServer(url=at.wahas[PRIVATE].base_url, api_key="sandbox-key"),
                PUBLIC: WahaServer(url=at.front.url, api_key="sandbox-key", route="public"),
            },
            {"br": at.pool},
            send_timeout_seconds=5,
            look_timeout_seconds=5,
        )
        gateways._tls = certificate.trusted()
        stack.push_async_callback(gateways.aclose)
        at.moves = Moves(
            at.app,
            at.system,
            gateways,
            pools={"br": at.pool},
            capacities={PRIVATE: 500, PUBLIC: 500},
            keys=Keys({"k1": b"k" * 32}, "k1"),
            webhooks_url=at.hook.url,
            owner="drill",
            now=at.now,
            new_uuid=uuid4,
        )
        at.sessions = Sessions(at.app, at.system, at.moves)
        at._deliveries = Deliveries(
            at.app,
            gateways,
            clock=at.now,
            monotonic=time.monotonic,
            start_within=timedelta(seconds=4),
            evidence=EVIDENCE,
            pacing=PACING,
            files=files(at.app, gateways, at.now),
        )
        yield at
