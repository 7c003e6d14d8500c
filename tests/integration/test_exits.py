"""Leases of exits on the real database: one identity and one address for one session, whoever asks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from databases import Database as Urls
from shop import START
from wsm.bootstrap import opened
from wsm.core.errors import BadInput
from wsm.core.exits import Pool, Seen
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName, TenantId
from wsm.store import exits, fleet, reads
from wsm.store.database import Database
from wsm.store.exits import Lease

ANN, BOB = TenantId(77), TenantId(78)
POOL = Pool(provider="generic", endpoint="127.0.0.1:1", username="acme", password="s3cr3t")
HERE, ELSEWHERE = Seen("203.0.113.7", "br"), Seen("203.0.113.8", "br")


class Fleet(msgspec.Struct):
    """Two tenants with two sessions each, whose way out is a proxy, and one with a direct one."""

    app: Database
    system: Database
    sessions: dict[TenantId, list[int]]

    async def take(self, tenant: TenantId, which: int = 0, uuid: UUID | None = None) -> Lease:
        session = self.sessions[tenant][which]
        return await exits.take(self.app, tenant, session, {"br": POOL}, uuid or uuid4(), START)

    async def judge(self, tenant: TenantId, lease: Lease, seen: Seen, *, days: float = 0) -> Lease:
        now = START + timedelta(days=days)
        return await exits.judge(self.app, self.system, tenant, lease, country="br", seen=seen, now=now)

    async def release(self, tenant: TenantId, which: int = 0) -> bool:
        return await exits.release(self.app, tenant, self.sessions[tenant][which], START)


@asynccontextmanager
async def fleet_of(urls: Urls) -> AsyncIterator[Fleet]:
    sessions: dict[TenantId, list[int]] = {}
    async with (
        opened(Database(urls.app_url, connections=4)) as app,
        opened(Database(urls.system_url, connections=2)) as system,
    ):
        for tenant in (ANN, BOB):
            await fleet.add_tenant(system, tenant, name="", locale="pt-BR", capacity=1)
            for alias, pool in (("", "br"), ("b", "br"), ("c", None), ("d", "us")):
                address = SessionAddress(tenant, SessionName(f"user_{tenant}{alias and '_'}{alias}"))
                await fleet.add_session(
                    system, address, server=DEFAULT_SERVER, alias=alias, kid="k1", exit_pool=pool
                )
            sessions[tenant] = [row.id for row in await reads.sessions(app, tenant)]
        yield Fleet(app, system, sessions)


async def test_a_session_keeps_its_lease_until_it_is_released(database: Urls) -> None:
    async with fleet_of(database) as at:
        first = await at.take(ANN)
        assert await at.take(ANN) == first
        assert await exits.current(at.app, ANN, first.session) == first
        assert not first.is_usable, "nobody has looked where it comes out"


async def test_the_second_third_and_tenth_lease_are_new_ones_and_all_rows_stay(database: Urls) -> None:
    async with fleet_of(database) as at:
        leases = []
        for _ in range(10):
            leases.append(await at.take(ANN))
            assert await at.release(ANN)
        assert not await at.release(ANN)
        assert len({lease.identifier for lease in leases}) == len({lease.identity for lease in leases}) == 10
        kept = await exits.history(at.app, ANN, at.sessions[ANN][0])
        assert [row.identifier for row in kept] == [lease.identifier for lease in leases]
        assert all(row.released_at == START for row in kept)


async def test_all_who_ask_at_once_for_one_session_get_the_same_lease(database: Urls) -> None:
    async with fleet_of(database) as at:
        found = await asyncio.gather(*(at.take(ANN) for _ in range(20)))
        assert len(set(map(str, found))) == 1
        assert len(await exits.history(at.app, ANN, at.sessions[ANN][0])) == 1


async def test_one_identity_is_never_two_sessions(database: Urls) -> None:
    """By the database: the same uuid in the same millisecond, of different tenants."""
    uuid = uuid4()
    async with fleet_of(database) as at:
        places = [(ANN, 0), (ANN, 1), (BOB, 0), (BOB, 1)]
        found = await asyncio.gather(
            *(at.take(tenant, which, uuid) for tenant, which in places), return_exceptions=True
        )
        assert sorted(type(each).__name__ for each in found) == ["BadInput"] * 3 + ["Lease"]
        assert "take another one" in str(next(each for each in found if isinstance(each, BadInput)))


async def test_a_direct_session_gets_no_lease_and_nobody_gets_one_for_another_tenants(database: Urls) -> None:
    async with fleet_of(database) as at:
        with pytest.raises(BadInput, match="direct"):
            await at.take(ANN, 2)
        theirs = at.sessions[BOB][0]
        with pytest.raises(BadInput, match="there is none"):
            await exits.take(at.app, ANN, theirs, {"br": POOL}, uuid4(), START)


async def test_a_pool_that_the_settings_do_not_have_is_named(database: Urls) -> None:
    async with fleet_of(database) as at:
        with pytest.raises(BadInput, match="no pool named 'us'"):
            await at.take(ANN, 3)


async def test_an_exit_is_usable_where_it_was_first_right(database: Urls) -> None:
    async with fleet_of(database) as at:
        lease = await at.judge(ANN, await at.take(ANN), HERE)
        assert (lease.is_usable, lease.address) == (True, HERE.address)
        drifted = await at.judge(ANN, lease, ELSEWHERE)
        assert (drifted.is_usable, drifted.trouble, drifted.address) == (False, "drift", HERE.address)
        assert (await at.judge(ANN, drifted, HERE)).is_usable
        assert await exits.current(at.app, ANN, lease.session) == await at.judge(ANN, drifted, HERE)


async def test_a_wrong_country_is_trouble_and_no_address_to_be_held_to(database: Urls) -> None:
    async with fleet_of(database) as at:
        lease = await at.judge(ANN, await at.take(ANN), Seen(HERE.address, "us"))
        assert (lease.trouble, lease.address) == ("wrong_country", None)
        assert (await at.judge(ANN, lease, ELSEWHERE)).is_usable


async def test_two_live_sessions_never_share_an_address(database: Urls) -> None:
    async with fleet_of(database) as at:
        mine = await at.judge(ANN, await at.take(ANN), HERE)
        theirs = await at.judge(BOB, await at.take(BOB), HERE)
        assert (mine.is_usable, theirs.trouble, theirs.address) == (True, "shared", None)
        await at.release(ANN)
        assert (await at.judge(BOB, theirs, HERE)).is_usable


async def test_what_was_banned_keeps_everybody_away_for_its_time(database: Urls) -> None:
    async with fleet_of(database) as at:
        lease = await at.judge(ANN, await at.take(ANN), HERE)
        assert await exits.quarantine(at.app, ANN, lease.session, START + timedelta(days=7), START)
        current = await exits.current(at.app, ANN, lease.session)
        assert current is not None
        assert not current.is_usable
        await at.release(ANN)
        theirs = await at.take(BOB)
        assert (await at.judge(BOB, theirs, HERE, days=6)).trouble == "quarantined"
        assert (await at.judge(BOB, theirs, HERE, days=8)).is_usable


async def test_an_ended_lease_is_judged_no_more(database: Urls) -> None:
    async with fleet_of(database) as at:
        lease = await at.take(ANN)
        await at.release(ANN)
        with pytest.raises(BadInput, match="ended"):
            await at.judge(ANN, lease, HERE)
        assert await exits.current(at.app, ANN, lease.session) is None
