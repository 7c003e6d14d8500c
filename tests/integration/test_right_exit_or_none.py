"""A session whose exit is a proxy acts through that proxy or waits: on both sides of its gateway.

Whatever happens to an exit, the books of all who are called are read afterwards (`drill.Drill.check_books`):
of WhatsApp's connections, of those to a gateway with a public route, and of the check service's, none came
directly; each session came from its own exit, and no identifier, identity or address was two sessions'.
"""

import asyncio
import json
import sys
from contextlib import suppress

import pytest

from behind_exits import needs_exits
from certificates import Certificate
from databases import Database as Urls
from exit_drill import HOME, PRIVATE, PUBLIC, Drill, drill
from waiting import wait_for
from wsm.core.errors import GatewayUnavailable, WsmError
from wsm.core.ids import ChatId, SessionAddress, TenantId
from wsm.sandbox.exits import Answers502, Claims, Dead, Dies, Drifts, Fault, Hangs, Refuses
from wsm.store import exits

pytestmark = needs_exits

ANN, BOB, CLEO, DAN = (TenantId(number) for number in (77, 78, 79, 80))
CUSTOMER = "5511977776666"


class Away(Fault, frozen=True):
    """The proxy itself is not there."""


NOTHING_PASSES = [Dead(), Refuses(), Hangs(), Answers502(), Dies(), Away()]
WRONG = {Claims("US"): "wrong_country", Drifts(): "drift"}


class Breaking:
    """Breaks exits and mends them. Who hangs is given up sooner as long as they are broken."""

    def __init__(self, patience: pytest.MonkeyPatch) -> None:
        self._patience = patience

    async def start(self, at: Drill, fault: Fault) -> None:
        if isinstance(fault, Hangs):
            self._patience.setattr("wsm.gateway.exits._LOOK_SECONDS", 0.2)
            self._patience.setattr("wsm.gateway.server.CONNECT_SECONDS", 0.2)
        if isinstance(fault, Away):
            await at.proxy.down()
        else:
            at.proxy.fault(fault)
            at.proxy.cut()

    async def stop(self, at: Drill) -> None:
        self._patience.undo()
        await at.proxy.up()
        at.proxy.mend()


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Breaking:
    return Breaking(monkeypatch)


async def both(at: Drill) -> tuple[SessionAddress, SessionAddress]:
    """A tenant at each of the two gateways, and a third one whose way out is direct."""
    ann = await at.found(ANN, PUBLIC, exit_pool="br")
    bob = await at.found(BOB, PRIVATE, exit_pool="br")
    await at.starts(await at.found(DAN, PRIVATE, exit_pool=None))
    return ann, bob


def name_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("fault", [*NOTHING_PASSES, Claims("US")], ids=name_of)
async def test_with_an_exit_that_is_no_good_at_the_start_nothing_begins(
    database: Urls, certificate: Certificate, breaking: Breaking, fault: Fault
) -> None:
    async with drill(database, certificate) as at:
        ann, bob = await both(at)
        await breaking.start(at, fault)
        for address in (ann, bob):
            with pytest.raises(GatewayUnavailable, match="exit"):
                await at.sessions.start(address)
            with pytest.raises(GatewayUnavailable, match="exit"):
                await at.sessions.restart(address)
        assert [visit.session for visit in at.whatsapp.visits] == [f"user_{DAN}"]
        assert at.wahas[PRIVATE].world.sessions.keys() == {f"user_{DAN}"}
        assert at.wahas[PUBLIC].world.sessions == {}
        assert {lease.trouble for lease in at.leases()} == {WRONG.get(fault, "dead")}
        await breaking.stop(at)
        for address in (ann, bob):
            await at.starts(address)
            await at.talks(address)
        assert len(at.leases()) == 2, "they kept what they had taken"
        at.check_books()


async def an_exit_fails_in_mid_session(at: Drill, breaking: Breaking, fault: Fault) -> None:
    """Tell the story of one fault, from two sessions that work to the same two, and read the books."""
    ann, bob = await both(at)
    for address in (ann, bob):
        await at.starts(address)
        await at.talks(address)
    written = {address: at.says(address, CUSTOMER) for address in (ann, bob)}
    for address, id_ in written.items():
        await at.hears(address, id_)  # the answer is due, and its exit breaks
    await breaking.start(at, fault)
    if fault in NOTHING_PASSES:
        await wait_for(lambda: at.whatsapp.present() == {f"user_{DAN}": [HOME]})
        for address in (ann, bob):
            await at.deliver(address.tenant)  # before anybody has looked
    for address in (ann, bob):
        with suppress(GatewayUnavailable):
            await at.look_at_exit(address)
        with pytest.raises(GatewayUnavailable, match="exit"):
            await at.sessions.restart(address)
        asks = (ask(address) for ask in (at.sessions.look, at.code))
        for answer in await asyncio.gather(*asks, return_exceptions=True):
            assert not isinstance(answer, BaseException) or isinstance(answer, WsmError)
        await at.deliver(address.tenant)
        assert at.inbox(address, CUSTOMER) == []
    assert {lease.trouble for lease in at.leases()} == {WRONG.get(fault, "dead")}
    await breaking.stop(at)
    for address in (ann, bob):
        if isinstance(fault, Drifts):  # where it was, nobody leads any more
            await at.sessions.stop(address)
        await at.starts(address)
        await at.deliver_until(address.tenant, lambda: bool(at.inbox(address, CUSTOMER)))  # noqa: B023
        assert len(at.inbox(address, CUSTOMER)) == 1
        await at.talks(address)
    at.check_books()


@pytest.mark.parametrize("fault", [*NOTHING_PASSES, *WRONG], ids=name_of)
async def test_an_exit_fails_in_mid_session(
    database: Urls, certificate: Certificate, breaking: Breaking, fault: Fault
) -> None:
    async with drill(database, certificate) as at:
        await an_exit_fails_in_mid_session(at, breaking, fault)


@pytest.mark.parametrize("engine", ["NOWEB", "WEBJS"])
async def test_an_exit_fails_in_mid_session_with_another_engine(
    database: Urls, certificate: Certificate, breaking: Breaking, engine: str
) -> None:
    async with drill(database, certificate, engine=engine) as at:
        await an_exit_fails_in_mid_session(at, breaking, Refuses())


@pytest.mark.parametrize("engine", ["GOWS", "NOWEB", "WEBJS", "WPP"])
async def test_every_call_of_a_sessions_life_leaves_through_its_exit(
    database: Urls, certificate: Certificate, engine: str
) -> None:
    """But the files that NOWEB fetches: see `drill.Drill._goes_around`."""
    async with drill(database, certificate, engine=engine) as at:
        for address in await both(at):
            await at.starts(address)
            await at.talks(address, media=True)
            assert (await at.sessions.look(address)).status == "WORKING"
            await at.sessions.restart(address)
            await at.works(address)
            at.drop(address)
            await at.works(address)
            await at.cut()
            await at.works(address)
            await at.talks(address)
            await at.sessions.logout(address)
            await at.starts(address)
            await at.sessions.stop(address)
            await at.sessions.delete(address)
        assert [visit.kind for visit in at.whatsapp.visits].count("media") == 2
        await wait_for(lambda: at.whatsapp.present() == {f"user_{DAN}": [HOME]})
        at.check_books()


async def test_the_second_third_and_tenth_start_work_each_with_another_exit(
    database: Urls, certificate: Certificate
) -> None:
    async with drill(database, certificate) as at:
        ends = (at.sessions.stop, at.sessions.logout, at.sessions.delete)
        for address in await both(at):
            for start in range(10):
                await at.starts(address)
                await at.talks(address)
                await ends[start % 3](address)
            mine = [lease for lease in at.leases() if lease.session == address.session]
            assert len({lease.identifier for lease in mine}) >= 10
            assert len({lease.address for lease in mine}) >= 10
            assert all(lease.released_at is not None for lease in mine)
        at.check_books()


@pytest.mark.parametrize("fault", [Dead(), Refuses(), Hangs(), Answers502(), Dies()], ids=name_of)
async def test_what_an_exit_swallows_was_certainly_not_sent_and_stops_nobody_else(
    database: Urls, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    async with drill(database, certificate) as at:
        ann = await at.found(ANN, PUBLIC, exit_pool="br")
        cleo = await at.found(CLEO, PUBLIC, exit_pool="br")
        await at.starts(ann)
        await at.starts(cleo)
        lease = await at.moves.lease(await at.place(ann))
        assert lease is not None
        at.proxy.fault(fault, of=at.username(lease.identity))
        await at.cut()
        bound = at.moves.bound(await at.place(ann), lease)
        if isinstance(fault, Hangs):
            monkeypatch.setattr("wsm.gateway.server.CONNECT_SECONDS", 0.1)
        for _ in range(6):
            with pytest.raises(GatewayUnavailable, match="not reached"):
                await bound.send_text(ChatId(f"{CUSTOMER}@c.us"), "oi")
        monkeypatch.undo()
        await at.talks(cleo)
        at.proxy.mend()
        at.check_books()


async def test_what_comes_out_where_another_session_is_does_not_start(
    database: Urls, certificate: Certificate
) -> None:
    async with drill(database, certificate) as at:
        ann, bob = await both(at)
        await at.starts(ann)
        [lease] = at.leases()
        at.proxy.fault(Drifts(onto=at.username(lease.identity)))
        with pytest.raises(GatewayUnavailable, match="shared"):
            await at.sessions.start(bob)
        at.proxy.mend()
        await at.sessions.stop(bob)
        await at.starts(bob)
        at.check_books()


LEASING = """
import asyncio, json, sys
from datetime import UTC, datetime
from uuid import uuid4
from wsm.bootstrap import opened
from wsm.core.exits import Pool
from wsm.store import exits
from wsm.store.database import Database

async def main(url, asked):
    pool = Pool(provider="generic", endpoint="127.0.0.1:1", username="a", password="b")
    async with opened(Database(url, connections=8)) as database:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        taken = await asyncio.gather(*(
            exits.take(database, tenant, session, {"br": pool}, uuid4(), datetime.now(UTC))
            for tenant, session in asked
        ))
        print(json.dumps([[lease.session, lease.identifier, lease.identity] for lease in taken]))

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""


async def test_two_workers_at_once_never_lease_the_same(database: Urls, certificate: Certificate) -> None:
    """Two processes, fifty sessions, each session by both: they must agree about every one of them."""
    async with drill(database, certificate) as at:
        asked = []
        for number in range(50):
            address = await at.found(TenantId(1000 + number), PRIVATE, exit_pool="br")
            asked.append((address.tenant, (await at.place(address)).id))
        workers = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", LEASING, database.app_url, json.dumps(asked[::way])),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for way in (1, -1)
        ]
        for worker in workers:
            assert worker.stdout
            assert await worker.stdout.readline() == b"ready\n"
        said = await asyncio.gather(*(worker.communicate(b"go\n") for worker in workers))
        one, other = (sorted(json.loads(out)) for out, _ in said)
        assert one == other
        assert (
            len(one) == len({identifier for _, identifier, _ in one}) == len({who for *_, who in one}) == 50
        )
        assert len(await exits.history(at.app, *asked[0])) == 1
        at.check_books()
