"""Three tenants, one pool of few addresses, and whatever they do: nobody meets another's exit."""

import itertools
import zlib
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from behind_exits import needs_exits
from certificates import Certificate
from databases import Database as Urls
from exit_drill import PRIVATE, PUBLIC, Drill, drill
from waiting import wait_for
from wsm.core.errors import Unavailable
from wsm.core.ids import SessionAddress, TenantId
from wsm.sandbox.exits import Dead, direct
from wsm.sandbox.exits.identities import Exits

pytestmark = needs_exits

ADDRESSES = [f"127.9.9.{number}" for number in range(1, 5)]
MOVES = ("start", "start", "start", "stop", "restart", "logout", "delete", "break", "mend", "cut")
HISTORY = st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 2)), min_size=4, max_size=9)
STARTS = [("start", 0), ("start", 1), ("start", 2)]
_tenants = itertools.count(2000)


class Few(Exits):
    """A provider that gives out four addresses, whoever else has them."""

    def of(self, identity: str) -> str:
        return ADDRESSES[zlib.crc32(identity.encode()) % len(ADDRESSES)]

    def owner(self, address: str) -> str | None:
        return "somebody" if address in ADDRESSES else None


class World:
    """The drill with three numbers in it."""

    def __init__(self, at: Drill, sessions: list[SessionAddress]) -> None:
        self._at = at
        self._sessions = sessions

    async def do(self, move: str, which: int) -> None:
        """Make a move; what an exit or a gateway does not let happen, does not happen."""
        match move:
            case "break":
                self._at.proxy.fault(Dead())
                await self._at.cut()
            case "mend":
                self._at.proxy.mend()
            case "cut":
                await self._at.cut()
            case _:
                with suppress(Unavailable):
                    await getattr(self._at.sessions, move)(self._sessions[which])
        await wait_for(lambda: self._lines() == self._present())

    def _lines(self) -> list[str]:
        return sorted(
            session.name
            for waha in self._at.wahas.values()
            for session in waha.world.sessions.values()
            if session.line is not None
        )

    def _present(self) -> list[str]:
        present = self._at.whatsapp.present()
        return sorted(session for session, addresses in present.items() for _ in addresses)

    def check(self) -> None:
        """Who is at WhatsApp is there from the exit that he has now, and from nobody else's."""
        at = self._at
        assert direct([*at.whatsapp.peers, *at.front.peers, *at.whoami.peers], at.proxy) == []
        leases = at.leases()
        assert len({lease.identifier for lease in leases}) == len(leases)
        assert len({lease.identity for lease in leases}) == len(leases)
        live = {lease.session: lease.address for lease in leases if lease.released_at is None}
        known = [address for address in live.values() if address is not None]
        assert len(set(known)) == len(known)
        for session, addresses in at.whatsapp.present().items():
            assert addresses == [live.get(session)]

    async def end(self) -> None:
        """Give everything back, for the next history on the same database."""
        self._at.proxy.mend()
        for address in self._sessions:
            await self._at.sessions.delete(address)
        await wait_for(lambda: self._at.whatsapp.present() == {})
        assert all(lease.released_at is not None for lease in self._at.leases())


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.deadline(240)
@given(history=HISTORY)
@example(history=[("break", 0), ("stop", 0), ("restart", 0), ("mend", 0), ("start", 1), ("restart", 0)])
@example(history=[("logout", 2), ("restart", 2), ("break", 0), ("delete", 2), ("mend", 0), ("start", 2)])
async def test_whatever_tenants_do_nobody_meets_anothers_exit(
    database: Urls, certificate: Certificate, history: list[tuple[str, int]]
) -> None:
    async with drill(database, certificate) as at:
        at.proxy._exits = Few("provider")
        sessions = []
        for server in (PRIVATE, PRIVATE, PUBLIC):
            at.wahas[server].world.auto_scan = True
            sessions.append(await at.found(TenantId(next(_tenants)), server, exit_pool="br"))
        world = World(at, sessions)
        for move, which in (*STARTS, *history):
            await world.do(move, which)
            world.check()
        await world.end()
