"""Sessions by request: exits taken, looked at and given back, and nothing started that is not in order."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from behind_exits import PASSWORD, behind_exits, needs_exits
from databases import Database as Urls
from shop import START, shop
from waiting import wait_for
from wsm.bootstrap import opened
from wsm.control.moves import Keys, Moves
from wsm.control.sessions import Sessions
from wsm.control.trial import Trial
from wsm.core.errors import BadInput, ExitFailed, GatewayUnavailable, NotFound
from wsm.core.ids import DEFAULT_SERVER, ServerName, SessionAddress, SessionName, TenantId
from wsm.sandbox.exits import Claims, Dead, Drifts, ExitProxy, Fault, Hangs, Refuses, Whoami, direct
from wsm.sandbox.waha import faults
from wsm.sandbox.waha.server import WahaSandbox
from wsm.store import exits, fleet, watch
from wsm.store.database import Database
from wsm.wire.signature import session_secret

pytestmark = needs_exits

ANN, BOB = TenantId(77), TenantId(78)
CUSTOMER = "5511977776666"
KEY = b"k" * 32
HOOKS = "http://127.0.0.1:9/webhooks/waha"


class Desk(msgspec.Struct):
    """Two tenants, and a gateway that is reached through exits alone."""

    sessions: Sessions
    proxy: ExitProxy
    whoami: Whoami
    waha: WahaSandbox

    async def now_at(self, tenant: TenantId) -> Any:
        [row] = await self.sessions.of(tenant)
        return row


@asynccontextmanager
async def desk(urls: Urls, *, route: str = "public") -> AsyncIterator[Desk]:
    seconds = itertools.count(1)
    async with (
        behind_exits(route=route) as behind,
        opened(Database(urls.app_url, connections=4)) as app,
        opened(Database(urls.system_url, connections=2)) as system,
    ):
        for tenant in (ANN, BOB):
            await fleet.add_tenant(system, tenant, name="", locale="pt-BR", capacity=1)
        moves = Moves(
            app,
            system,
            behind.gateways,
            pools={"br": behind.pool},
            capacities={DEFAULT_SERVER: 500},
            keys=Keys({"k1": KEY}, "k1"),
            webhooks_url=HOOKS,
            owner="desk",
            now=lambda: START + timedelta(seconds=next(seconds)),
            new_uuid=uuid4,
        )
        yield Desk(Sessions(app, system, moves), behind.proxy, behind.whoami, behind.waha)


async def test_a_session_is_made_stopped_and_started_through_its_own_exit(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        assert address.session == "user_77"
        assert (await at.now_at(ANN)).desired == "stopped"
        assert list(at.proxy.seen) == [], "nobody was called yet"
        await at.sessions.start(address)
        assert (await at.now_at(ANN)).desired == "running"
        await wait_for(lambda: at.waha.session(address.session).status == "WORKING")
        assert (await at.sessions.look(address)).status == "WORKING"

        [lease] = await at.sessions.leases(address)
        assert lease.identifier.startswith("chip-")
        used = {passage.identity for passage in at.proxy.seen}
        assert len(used) == 1
        assert lease.address == at.proxy.exit_of(str(used.pop()))
        assert direct(at.whoami.peers, at.proxy) == []


async def test_the_gateway_is_given_the_exit_and_the_sessions_own_secret(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        config = at.waha.session(address.session).config
        assert config is not None
        [lease] = await at.sessions.leases(address)
        assert config["proxy"]["server"] == f"127.0.0.1:{at.proxy.port}"
        assert config["proxy"]["password"] == PASSWORD
        assert at.proxy.exit_of(config["proxy"]["username"]) == lease.address
        [hook] = config["webhooks"]
        assert hook["url"] == f"{HOOKS}/77/user_77"
        assert hook["hmac"]["key"] == session_secret(KEY, address, 1)


async def test_a_second_start_changes_nothing_and_a_lost_proxy_is_put_back(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        await wait_for(lambda: at.waha.session(address.session).status == "WORKING")
        session = at.waha.session(address.session)
        config, statuses = session.config, list(session.statuses)
        assert config is not None
        await at.sessions.start(address)
        assert (session.config, list(session.statuses)) == (config, statuses)
        session.config = {name: value for name, value in config.items() if name != "proxy"}
        await at.sessions.start(address)
        assert session.config["proxy"] == config["proxy"]


async def test_the_second_third_and_tenth_start_work_each_through_another_exit(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        for _ in range(10):
            await at.sessions.start(address)
            await at.sessions.stop(address)
        leases = await at.sessions.leases(address)
        assert len({lease.address for lease in leases}) == 10
        assert all(lease.released_at is not None for lease in leases)
        assert direct(at.whoami.peers, at.proxy) == []


async def test_what_is_wrong_with_an_exit_ends_the_start_before_the_gateway_hears(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        at.proxy.fault(Claims("US"))
        with pytest.raises(GatewayUnavailable, match="wrong_country"):
            await at.sessions.start(address)
        at.proxy.mend()
        at.proxy.fault(Dead())
        with pytest.raises(GatewayUnavailable, match="exit"):
            await at.sessions.start(address)
        at.proxy.mend()
        with pytest.raises(NotFound):
            await at.sessions.start(msgspec.structs.replace(address, tenant=BOB))
        assert address.session not in at.waha.world.sessions
        await at.sessions.start(address)
        at.proxy.fault(Drifts())
        with pytest.raises(GatewayUnavailable, match="drift"):
            await at.sessions.start(address)


async def test_one_tenants_exit_is_never_anothers(database: Urls) -> None:
    async with desk(database) as at:
        ann = await at.sessions.create(ANN, exit_pool="br")
        bob = await at.sessions.create(BOB, exit_pool="br")
        await at.sessions.start(ann)
        at.proxy.fault(Drifts(onto=next(iter(at.proxy.seen)).identity))
        with pytest.raises(GatewayUnavailable, match="shared"):
            await at.sessions.start(bob)
        at.proxy.mend()


async def test_a_direct_session_has_no_exit_and_keeps_none(database: Urls) -> None:
    async with desk(database, route="private") as at:
        address = await at.sessions.create(ANN, alias="loja")
        assert address.session == "user_77_loja"
        await at.sessions.start(address)
        config = at.waha.session(address.session).config
        assert config is not None
        assert "proxy" not in config
        assert await at.sessions.leases(address) == []
        await at.sessions.stop(address)
        assert list(at.proxy.seen) == []


async def test_logging_out_and_deleting_release_the_exit(database: Urls) -> None:
    async with desk(database, route="private") as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        for end in (at.sessions.logout, at.sessions.delete):
            await at.sessions.start(address)
            await end(address)
        leases = await at.sessions.leases(address)
        assert [lease.released_at is not None for lease in leases] == [True, True]
        assert (await at.now_at(ANN)).desired == "stopped"


async def test_a_restart_puts_a_lost_proxy_back_before_anything_starts(database: Urls) -> None:
    async with desk(database, route="private") as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        session = at.waha.session(address.session)
        assert session.config is not None
        proxy = session.config["proxy"]
        session.config = {name: value for name, value in session.config.items() if name != "proxy"}
        await at.sessions.restart(address)
        assert session.config["proxy"] == proxy
        assert session.proxy == proxy, "it runs with it"


async def test_a_stopped_session_is_restarted_with_an_exit_of_its_own(database: Urls) -> None:
    async with desk(database, route="private") as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        before = at.waha.session(address.session).proxy
        await at.sessions.stop(address)
        await at.sessions.restart(address)
        lease = (await at.sessions.leases(address))[-1]
        running = at.waha.session(address.session).proxy
        assert lease.released_at is None
        assert at.proxy.exit_of(running["username"]) == lease.address
        assert running["username"] != before["username"], "who has that one now?"


async def test_a_restart_through_an_exit_that_is_wrong_leaves_the_session_as_it_is(database: Urls) -> None:
    async with desk(database, route="private") as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        await wait_for(lambda: at.waha.session(address.session).status == "WORKING")
        statuses = list(at.waha.session(address.session).statuses)
        at.proxy.fault(Drifts())
        with pytest.raises(GatewayUnavailable, match="drift"):
            await at.sessions.restart(address)
        assert at.waha.session(address.session).statuses == statuses


@pytest.mark.parametrize("fault", [Dead(), Refuses(), Hangs()], ids=lambda fault: type(fault).__name__)
async def test_an_exit_that_fails_is_written_down_as_dead_until_it_is_seen_to_live(
    database: Urls, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsm.gateway.exits._LOOK_SECONDS", 0.3)
    async with desk(database, route="private") as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        at.proxy.fault(fault)
        with pytest.raises(ExitFailed):
            await at.sessions.start(address)
        [lease] = await at.sessions.leases(address)
        assert (lease.trouble, lease.released_at) == ("dead", None)
        assert lease.address is not None, "it is still held to where it was"
        at.proxy.mend()
        await at.sessions.start(address)
        [lease] = await at.sessions.leases(address)
        assert lease.trouble is None


async def test_a_check_that_answers_nonsense_says_nothing_of_the_exit(database: Urls) -> None:
    async with desk(database, route="private") as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        pool = at.sessions._moves._gateways._pools["br"]
        elsewhere = msgspec.structs.replace(pool, check_url=at.waha.base_url + "/ping")
        at.sessions._moves._gateways._pools["br"] = elsewhere
        with pytest.raises(GatewayUnavailable, match="names no address"):
            await at.sessions.start(address)
        [lease] = await at.sessions.leases(address)
        assert lease.trouble is None


async def test_a_session_that_was_never_made_there_can_be_logged_out_and_gives_its_exit_back(
    database: Urls,
) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        at.proxy.fault(Claims("US"))
        with pytest.raises(GatewayUnavailable):
            await at.sessions.start(address)
        await at.sessions.logout(address)
        [lease] = await at.sessions.leases(address)
        assert lease.released_at is not None


async def test_a_stopped_session_behind_a_public_route_is_deleted_through_an_exit(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        await at.sessions.stop(address)
        await at.sessions.stop(address)
        await at.sessions.delete(address)
        assert address.session not in at.waha.world.sessions
        assert all(lease.released_at is not None for lease in await at.sessions.leases(address))
        assert "127.0.0.1" not in at.waha.callers


async def test_a_session_whose_exit_died_for_good_is_stopped_through_another_one(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        identity = at.proxy.seen[-1].identity
        at.proxy.fault(Dead(), of=identity)
        await at.sessions.stop(address)
        assert at.waha.session(address.session).status == "STOPPED"
        first, last = await at.sessions.leases(address)
        assert first.trouble == "quarantined", "nobody gets that address as long as it may be in use"
        assert first.address != at.waha.callers[-1]
        assert None not in {first.released_at, last.released_at}
        assert "127.0.0.1" not in at.waha.callers
        await at.sessions.start(address)


async def test_while_the_whole_provider_is_away_a_session_keeps_its_exit(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        await at.proxy.down()
        with pytest.raises(ExitFailed):
            await at.sessions.stop(address)
        [lease] = await at.sessions.leases(address)
        assert (lease.trouble, lease.released_at) == ("dead", None)
        assert (await at.now_at(ANN)).desired == "stopped"
        await at.proxy.up()
        await at.sessions.stop(address)
        assert at.waha.session(address.session).status == "STOPPED"


async def test_a_banned_address_is_left_and_nobody_gets_it_for_its_time(database: Urls) -> None:
    async with desk(database) as at:
        ann = await at.sessions.create(ANN, exit_pool="br")
        bob = await at.sessions.create(BOB, exit_pool="br")
        await at.sessions.start(ann)
        [banned] = await at.sessions.leases(ann)
        assert await at.sessions.banned(ann, START + timedelta(days=30)) == banned.address
        assert at.waha.session(ann.session).status == "STOPPED"
        identity = at.proxy.identity_at(banned.address)
        at.proxy.fault(Drifts(onto=identity), times=1)
        with pytest.raises(GatewayUnavailable, match="quarantined"):
            await at.sessions.start(bob)
        await at.sessions.start(ann)
        [_, lease] = await at.sessions.leases(ann)
        assert lease.address not in {None, banned.address}


async def test_an_address_that_is_found_to_be_banned_after_the_stop_is_kept_too(database: Urls) -> None:
    async with desk(database, route="private") as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        assert await at.sessions.banned(address, START + timedelta(days=30)) is None, "it had none"
        await at.sessions.start(address)
        await at.sessions.stop(address)
        [lease] = await at.sessions.leases(address)
        assert await at.sessions.banned(address, START + timedelta(days=30)) == lease.address
        at.proxy.fault(Drifts(onto=at.proxy.identity_at(lease.address)), times=1)
        with pytest.raises(GatewayUnavailable, match="quarantined"):
            await at.sessions.start(address)


async def test_an_unknown_pool_is_refused(database: Urls) -> None:
    async with desk(database) as at:
        with pytest.raises(BadInput, match="no pool named 'us'"):
            await at.sessions.create(ANN, exit_pool="us")


# Placement


async def test_sessions_made_at_once_fill_the_servers_and_put_none_above_its_capacity(database: Urls) -> None:
    a, b = ServerName("a"), ServerName("b")
    async with shop(database) as at, opened(Database(database.system_url, connections=8)) as system:

        async def place(alias: str) -> ServerName | None:
            address = SessionAddress(at.tenant, SessionName(f"user_{at.tenant}_{alias}"))
            with suppress(BadInput):
                return await fleet.place_session(
                    system, address, server=None, capacities={a: 4, b: 8}, alias=alias, kid="k1"
                )
            return None

        placed = await asyncio.gather(*(place(str(number)) for number in range(15)))
        assert Counter(placed) == {a: 4, b: 8, None: 3}


async def test_a_deleted_session_leaves_its_room_and_a_stopped_one_does_not(database: Urls) -> None:
    async with (
        desk(database, route="private") as at,
        opened(Database(database.system_url, connections=1)) as system,
    ):

        async def place(alias: str) -> None:
            address = SessionAddress(BOB, SessionName(f"user_{BOB}_{alias}"))
            await fleet.place_session(
                system, address, server=None, capacities={DEFAULT_SERVER: 1}, alias=alias, kid="k1"
            )

        ann = await at.sessions.create(ANN)
        await at.sessions.start(ann)
        await at.sessions.stop(ann)
        with pytest.raises(BadInput, match="no room"):
            await place("a")
        await at.sessions.delete(ann)
        await place("a")


async def test_a_session_is_made_where_it_was_said_if_that_server_is_there(database: Urls) -> None:
    async with desk(database, route="private") as at:
        await at.sessions.create(ANN, server=DEFAULT_SERVER)
        assert (await at.now_at(ANN)).server == DEFAULT_SERVER
        with pytest.raises(BadInput, match="named 'nowhere'"):
            await at.sessions.create(BOB, server=ServerName("nowhere"))
        with pytest.raises(BadInput, match="user_77 exists"):
            await at.sessions.create(ANN)


# A number is tried out


@asynccontextmanager
async def working(urls: Urls, *, route: str = "public") -> AsyncIterator[tuple[Desk, SessionAddress]]:
    """A session that works, through an exit."""
    async with desk(urls, route=route) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        await wait_for(lambda: at.waha.session(address.session).status == "WORKING")
        yield at, address


async def tried(at: Desk, address: SessionAddress, seconds: float = 0.2) -> Trial:
    return await at.sessions.test_send(address, CUSTOMER, "oi", patience_seconds=seconds)


def got(at: Desk) -> list[str]:
    return [each.text for each in at.waha.world.phone(CUSTOMER).inbox]


@pytest.mark.parametrize(("acks", "level"), [([1, 2], 2), ([1], 1)])
async def test_a_text_that_is_tried_leaves_once_through_the_exit_and_its_way_is_told(
    database: Urls, acks: list[int], level: int
) -> None:
    async with working(database) as (at, address):
        at.waha.world.acks = tuple(acks)
        assert await tried(at, address, 1) == Trial(certain=True, level=level), "no webhook came to anybody"
        assert got(at) == ["oi"]
        assert len({passage.identity for passage in at.proxy.seen}) == 1
        assert direct(at.whoami.peers, at.proxy) == []


async def test_a_text_that_whatsapp_refuses_afterwards_is_told(database: Urls) -> None:
    async with working(database) as (at, address):
        at.waha.world.acks = (-1,)
        assert (await tried(at, address, 5)).refused


@pytest.mark.parametrize("route", ["public", "private"])
@pytest.mark.parametrize(
    ("fault", "why"), [(Drifts(), "drift"), (Claims("US"), "wrong_country"), (Dead(), "exit")]
)
async def test_nothing_is_tried_through_an_exit_in_trouble(
    database: Urls, route: str, fault: Any, why: str
) -> None:
    async with working(database, route=route) as (at, address):
        at.proxy.fault(fault)
        with pytest.raises(GatewayUnavailable, match=why):
            await tried(at, address)
        at.proxy.mend()
        assert got(at) == []


async def test_nothing_is_tried_without_an_exit_that_should_be_there(database: Urls) -> None:
    async with working(database, route="private") as (at, address):
        async with opened(Database(database.app_url, connections=1)) as app:
            await exits.release(app, ANN, (await at.now_at(ANN)).id, START)
        with pytest.raises(GatewayUnavailable, match="no exit"):
            await tried(at, address)
        await at.sessions.stop(address)
        at.waha.lifecycle.start(at.waha.session(address.session))
        await wait_for(lambda: at.waha.session(address.session).status == "WORKING")
        with pytest.raises(GatewayUnavailable, match="should be stopped"):
            await tried(at, address)
        assert got(at) == []


async def test_nothing_is_tried_while_the_session_does_not_work(database: Urls) -> None:
    async with desk(database, route="private") as at:
        address = await at.sessions.create(ANN)
        at.waha.world.auto_scan = False
        await at.sessions.start(address)
        with pytest.raises(GatewayUnavailable, match="does not work"):
            await tried(at, address)


async def test_an_unknown_outcome_is_looked_for_and_never_repeated(database: Urls) -> None:
    async with working(database) as (at, address):
        for kind, certain, there in (
            (faults.Wrong.FAIL_BEFORE, False, []),
            (faults.Wrong.FAIL_AFTER, True, ["oi"]),
            (faults.Wrong.CUT_AFTER, True, ["oi", "oi"]),
        ):
            at.waha.world.faults.add(faults.Fault(kind=kind))
            assert (await tried(at, address)).certain is certain
            assert got(at) == there


# Another number


async def test_another_number_waits_until_it_is_confirmed_and_then_is_the_sessions_own(
    database: Urls,
) -> None:
    async with working(database) as (at, address):
        with pytest.raises(BadInput, match="no other number"):
            await at.sessions.confirm(address)
        row = await at.now_at(ANN)
        async with opened(Database(database.app_url, connections=1)) as app:
            for phone in ("5511960001234", "5511970005678"):
                await watch.learn_phone(app, address, row.id, phone)
        with pytest.raises(GatewayUnavailable, match="nobody confirmed"):
            await tried(at, address)
        assert got(at) == []
        async with opened(Database(database.system_url, connections=1)) as system:
            with pytest.raises(BadInput, match="look again"):
                await fleet.confirm_phone(system, ANN, row.id, "5511980009999")
            with pytest.raises(BadInput, match="look again"):
                await fleet.confirm_phone(system, BOB, row.id, "5511970005678")
        assert await at.sessions.confirm(address) == "5511970005678"
        row = await at.now_at(ANN)
        assert (row.phone, row.other_phone) == ("5511970005678", None)
        assert (await tried(at, address)).certain
