"""Sessions that are looked after: brought back, told of, left alone; by one at a time."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from behind_exits import Behind, behind_exits, needs_exits
from databases import Database as Urls
from pasts import fill
from wahastage import FAST
from waiting import wait_for
from wsm.bootstrap import opened
from wsm.control.catchup import CatchUp
from wsm.control.hidden_ids import HiddenIds
from wsm.control.looks import Looks
from wsm.control.moves import Keys, Moves, Place, place_of
from wsm.control.ownership import owned
from wsm.control.reconciler import Reconciler
from wsm.control.sessions import Sessions
from wsm.control.watchdog import Watchdog
from wsm.core.errors import SessionBusy
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, TenantId
from wsm.sandbox.exits import Claims, Dead, Drifts, Fault
from wsm.sandbox.waha.control import Phone
from wsm.sandbox.waha.state import Status
from wsm.store import fleet, reads, watch
from wsm.store.database import Database
from wsm.streams.handover import Offer, Verdict

pytestmark = needs_exits

ANN, BOB = TenantId(77), TenantId(78)
KEYS = Keys({"k1": b"k" * 32}, "k1")
HOOKS = "http://127.0.0.1:9/webhooks/waha"


class Mailbox(msgspec.Struct):
    """Where what was fetched enters."""

    offers: list[Offer] = []

    async def take(self, offers: Sequence[Offer]) -> list[Verdict]:
        self.offers += offers
        return [Verdict.ACCEPTED] * len(offers)


class World(msgspec.Struct):
    """Sessions, who moves them, and who looks after them; time goes on by hand."""

    app: Database
    system: Database
    behind: Behind
    sessions: Sessions
    moves: Moves
    reconciler: Reconciler
    heard: Mailbox
    leads: bool = True
    late: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.late

    def monotonic(self) -> float:
        return time.monotonic() + self.late.total_seconds()

    async def rounds(self, count: int = 1, *, seconds: float = 100) -> None:
        """Look after everybody so many times, each so much later."""
        for _ in range(count):
            self.late += timedelta(seconds=seconds)
            await self.reconciler.round()
            await self.reconciler.idle()

    async def row(self, tenant: TenantId = ANN) -> Any:
        [row] = [row for row in await watch.every(self.system) if row.tenant_id == tenant]
        return row

    async def working(self, tenant: TenantId = ANN, *, exit_pool: str | None = "br") -> SessionAddress:
        """Make a session that works, and is known to."""
        address = await self.sessions.create(tenant, exit_pool=exit_pool)
        await self.sessions.start(address)
        await self.works(address)
        await self.rounds(2)
        row = await self.row(tenant)
        assert (row.observed, row.alarm, row.repairs) == ("WORKING", None, 0)
        return address

    async def desired(self, desired: str) -> bool:
        return str((await self.row()).desired) == desired

    async def leads_anew(self) -> None:
        """Let what is remembered of the sessions be forgotten."""
        self.leads = False
        await self.reconciler.round()
        self.leads = True

    async def works(self, address: SessionAddress) -> None:
        await wait_for(lambda: self.status(address) == "WORKING")

    def status(self, address: SessionAddress) -> str | None:
        session = self.behind.waha.world.sessions.get(address.session)
        return None if session is None else session.status

    def config(self, address: SessionAddress) -> dict[str, Any]:
        config = self.behind.waha.session(address.session).config
        assert config is not None
        return config


@asynccontextmanager
async def world(
    urls: Urls, *, route: str = "private", starts_per_second: float = 1000, **waha_has: Any
) -> AsyncIterator[World]:
    async with (
        behind_exits(route=route, tempo=FAST, **waha_has) as behind,
        opened(Database(urls.app_url, connections=4)) as app,
        opened(Database(urls.system_url, connections=2)) as system,
    ):
        for tenant in (ANN, BOB):
            await fleet.add_tenant(system, tenant, name="", locale="pt-BR", capacity=1)

        def moves(owner: str) -> Moves:
            return Moves(
                app,
                system,
                behind.gateways,
                pools={"br": behind.pool},
                capacities={DEFAULT_SERVER: 500},
                keys=KEYS,
                webhooks_url=HOOKS,
                owner=owner,
                now=lambda: at.now(),  # noqa: PLW0108 (it is made below)
                new_uuid=uuid4,
            )

        its, heard = moves("clock"), Mailbox()
        catch_up = CatchUp(app, heard.take, now=lambda: at.now())  # noqa: PLW0108
        looks = Looks(
            app,
            its,
            catch_up,
            Watchdog(app),
            HiddenIds(app, heard.take, now=lambda: at.now()),  # noqa: PLW0108
            now=lambda: at.now(),  # noqa: PLW0108
            settled_after=timedelta(seconds=30),
        )
        reconciler = Reconciler(
            app,
            system,
            its,
            looks,
            leads=lambda: at.leads,
            now=lambda: at.now(),  # noqa: PLW0108
            monotonic=lambda: at.monotonic(),  # noqa: PLW0108
            starts_per_second=starts_per_second,
        )
        at = World(
            app,
            system,
            behind,
            Sessions(app, system, moves("desk"), patience_seconds=0.0),
            its,
            reconciler,
            heard,
        )
        yield at
        await at.leads_anew()


async def test_what_works_is_left_alone_and_its_number_is_learned(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        assert (await at.row()).phone == at.behind.waha.world.accounts[address.session].phone
        before = list(at.behind.waha.session(address.session).statuses)
        await at.rounds(5, seconds=600)
        assert list(at.behind.waha.session(address.session).statuses) == before


async def test_a_session_that_works_is_asked_for_whom_it_knows_by_one_id_alone(database: Urls) -> None:
    async with world(database) as at:
        await at.working()
        async with at.app.transaction(ANN, at.now()) as transaction:
            chat = {"session": (await at.row()).id, "chat": "95511960000001@lid", "kind": "direct"}
            values = {"name": None, "aliases": [chat["chat"]], "chats": json.dumps([chat])}
            await transaction.rows("add_contact", **values)

        async def asked() -> bool:
            async with at.app.transaction(ANN, at.now()) as transaction:
                return not await transaction.rows("ids_to_ask", session=chat["session"], limit=1)

        assert not await asked()
        await at.rounds(2, seconds=600)

        await wait_for(asked)


@pytest.mark.parametrize("route", ["private", "public"])
async def test_a_gateway_that_forgot_its_sessions_gets_them_back_with_the_exits_that_they_had(
    database: Urls, route: str
) -> None:
    async with world(database, route=route) as at:
        both = [await at.working(ANN), await at.working(BOB)]
        before = [await at.sessions.leases(address) for address in both]
        await at.behind.waha.kill()
        await at.rounds()
        for address in both:
            await at.works(address)
        await at.rounds()
        assert [await at.sessions.leases(address) for address in both] != before, "looked at again"
        for address, leases in zip(both, before, strict=True):
            [lease], [had] = await at.sessions.leases(address), leases
            assert (lease.identifier, lease.address) == (had.identifier, had.address)
            assert at.behind.proxy.exit_of(at.config(address)["proxy"]["username"]) == had.address
        assert [(await at.row(tenant)).repairs for tenant in (ANN, BOB)] == [1, 1]


async def test_what_failed_is_started_again_and_forgotten_when_it_has_worked_for_a_while(
    database: Urls,
) -> None:
    async with world(database) as at:
        address = await at.working()
        session = at.behind.waha.session(address.session)
        session.status = Status.FAILED
        await at.rounds(2)
        await at.works(address)
        await at.rounds()
        assert (await at.row()).repairs == 1
        await at.rounds(8)
        assert (await at.row()).repairs == 0


async def test_a_session_without_its_proxy_is_put_right_at_once(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        wanted = at.config(address)
        at.behind.waha.session(address.session).config = {**wanted, "proxy": None}
        await at.rounds()
        assert at.config(address) == wanted
        await at.works(address)


async def test_who_should_be_stopped_is_stopped_and_his_exit_released(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        await fleet.desire(at.system, ANN, (await at.row()).id, "stopped")
        await at.rounds(2)
        assert at.status(address) == "STOPPED"
        [lease] = await at.sessions.leases(address)
        assert lease.released_at is not None


async def test_an_exit_that_a_stop_left_behind_is_released(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        row = await at.row()
        await fleet.desire(at.system, ANN, row.id, "stopped")
        place = place_of(ANN, row)
        async with at.moves.owned(place) as mine:  # who stopped it did not come to the release
            await at.moves.bound(place, await at.moves.lease(place), mine).stop()
        await at.rounds(2)
        [lease] = await at.sessions.leases(address)
        assert lease.released_at is not None


async def test_nobody_moves_a_session_that_another_moves(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        await at.behind.waha.kill()
        row = await at.row()
        async with at.moves.owned(place_of(ANN, row)):
            with pytest.raises(SessionBusy):
                await at.sessions.start(address)
            other = msgspec.structs.replace(at)
            await other.rounds()
        assert at.status(address) is None
        await at.rounds()
        await at.works(address)


async def test_who_has_patience_moves_it_when_the_other_has_done(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        patient = Sessions(at.app, at.system, at.moves)
        async with at.moves.owned(place_of(ANN, await at.row())):
            stopping = asyncio.create_task(patient.stop(address))
            await wait_for(lambda: at.desired("stopped"))
            assert at.status(address) == "WORKING"
        await stopping
        assert at.status(address) == "STOPPED"


async def test_a_lease_that_ran_out_moves_nothing_any_more(database: Urls) -> None:
    async with world(database) as at:
        await at.working()
        place = place_of(ANN, await at.row())
        seconds = 0.0
        async with owned(at.app, ANN, place.id, owner="slow", monotonic=lambda: seconds) as mine:
            seconds = 100.0
            with pytest.raises(SessionBusy):
                await at.moves.restart(place, mine)
            assert await counted(at, place, mine.epoch, repairs=0)
            assert not await counted(at, place, mine.epoch, repairs=0), "somebody took a step meanwhile"
        assert not await counted(at, place, mine.epoch, repairs=1), "it has ended"


async def counted(at: World, place: Place, epoch: int, *, repairs: int) -> bool:
    return await watch.note_repair(
        at.app, place.address, place.id, epoch=epoch, repairs=repairs, desired="running", now=at.now()
    )


async def test_another_number_waits_for_a_person_and_the_right_one_ends_that(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        account = at.behind.waha.world.accounts[address.session]
        phone, account.phone = account.phone, "5511955554444"
        await at.rounds(2)
        row = await at.row()
        assert (row.phone, row.other_phone, row.alarm) == (phone, "5511955554444", "other_number")
        account.phone = phone
        await at.rounds(2)
        row = await at.row()
        assert (row.phone, row.other_phone, row.alarm) == (phone, None, None)
        told = [line.what for line in await reads.audit(at.app, ANN)]
        assert told == ["session.other_number", "session.well"]


async def test_a_code_that_nobody_scans_is_not_shown_again_and_again(database: Urls) -> None:
    async with world(database, auto_scan=False) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        await wait_for(lambda: at.status(address) == "FAILED")
        await at.rounds(20, seconds=600)
        row = await at.row()
        assert (row.repairs, row.alarm) == (0, "pairing_expired")
        await at.sessions.start(address)
        assert at.status(address) in {"STARTING", "SCAN_QR_CODE"}, "who wants it starts it again"


async def test_a_gateway_that_is_away_is_waited_for(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        await at.behind.waha.stop()
        await at.rounds(3)
        assert ((await at.row()).repairs, (await at.row()).observed) == (0, "WORKING")
        await at.behind.waha.start()
        async with asyncio.timeout(20):  # until the circuit closes
            while at.status(address) != "WORKING":
                await at.rounds()


async def test_who_does_not_lead_does_nothing(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        await at.behind.waha.kill()
        at.leads = False
        await at.rounds(3)
        assert at.status(address) is None


async def test_many_are_started_one_after_the_other(database: Urls) -> None:
    async with world(database, starts_per_second=20) as at:
        both = [await at.working(ANN), await at.working(BOB)]
        await at.behind.waha.kill()
        started = time.monotonic()
        await at.rounds()
        assert time.monotonic() - started >= 1 / 20
        for address in both:
            await at.works(address)


async def test_what_was_missed_is_fetched_once_when_it_is_back(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        async with Phone(at.behind.waha.base_url) as phone:
            said = [await phone.say(address.session, "5511977776666", "oi", told=False) for _ in range(3)]
        await at.behind.waha.kill()
        await at.rounds()
        await at.works(address)
        await at.rounds(4)
        entered = [offer.body.decode() for offer in at.heard.offers]
        assert len(entered) == 3
        assert all(id_ in body for id_, body in zip(said, entered, strict=True))


async def test_one_that_says_working_and_is_mute_is_restarted_and_its_tenant_told(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        fill(database, address, at.now() - timedelta(hours=4))
        await at.leads_anew()
        async with Phone(at.behind.waha.base_url) as phone:
            await phone.mute(address.session)
        before = at.behind.waha.session(address.session).statuses
        await at.rounds(6)
        assert at.behind.waha.session(address.session).statuses != before
        told = [line.what for line in await reads.audit(at.app, ANN)]
        assert told[0] == "session.mute"
        assert (await at.row()).repairs == 1


async def test_an_exit_that_dies_while_its_session_runs_is_told_of_and_forgiven(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()

        async def seen(fault: Fault | None) -> tuple[str | None, str | None]:
            at.behind.proxy.mend()
            if fault is not None:
                at.behind.proxy.fault(fault)
            await at.rounds(2, seconds=301)
            [lease] = await at.sessions.leases(address)
            return lease.trouble, (await at.row()).alarm

        assert await seen(Dead()) == ("dead", "exit_in_trouble")
        assert await seen(None) == (None, None)
        assert await seen(Claims("US")) == ("wrong_country", "exit_in_trouble")
        assert await seen(None) == (None, None)
        assert await seen(Drifts()) == ("drift", "exit_in_trouble")
        assert (await at.row()).repairs == 0, "a restart would mend no exit"


async def test_an_exit_is_looked_at_before_its_provider_lets_it_go(database: Urls) -> None:
    async with world(database) as at:
        address = await at.working()
        looks = len(at.behind.whoami.peers)
        for _ in range(10):
            await at.rounds(seconds=70)
        assert 2 <= len(at.behind.whoami.peers) - looks <= 3, "700 s, a look every 300"
        [lease] = await at.sessions.leases(address)
        assert lease.trouble is None


async def test_an_exit_that_is_dropped_soon_is_looked_at_by_everybody_who_comes_by(
    database: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsm.control.reconciler._JITTER", (0.8, 0.8))
    async with world(database) as at:
        at.moves.pools = {"br": msgspec.structs.replace(at.behind.pool, sticky_minutes=1)}
        await at.working()
        looks = len(at.behind.whoami.peers)
        for _ in range(4):
            await at.rounds(seconds=24.5)  # a little sooner than the 30 s in which it must be looked at
        assert len(at.behind.whoami.peers) - looks == 4, "the next one to come would be late"
