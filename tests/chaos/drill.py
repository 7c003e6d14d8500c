"""The restart drill: WAHA and all of wsm are killed at once, and every session works again by itself.

    python -m chaos.drill [--sessions 200]

Each session has a login, an exit through a real proxy, and a customer. Then a message reaches every phone
whose webhook is lost; WAHA and every process of wsm get SIGKILL in the same moment; and as soon as WAHA
answers again the customers write once more. In the end every session works with the exit that it had, was
started once, nobody was asked for a code, and the history has every message once.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
from psycopg.rows import namedtuple_row

from databases import Database
from e2e.town import Ground
from waiting import wait_for
from wsm.bootstrap import fleet_writes, sessions
from wsm.core.ids import SessionAddress, TenantId
from wsm.sandbox.embedded import Embedded
from wsm.sandbox.exits import ExitProxy, Whoami
from wsm.sandbox.site import PROCESSES, UNPACED, Site, phone_at, site
from wsm.sandbox.waha.control import Phone
from wsm.store import fleet

_PASSWORD = "drill"
_PER_TENANT = 10
_AT_ONCE = 8
_PATIENCE_SECONDS = 240.0
_POOL = """
[exits.br]
provider = "generic"
endpoint = "127.0.0.1:{port}"
username = "acme"
password = "{password}"
check_url = "{check_url}"
"""
_ONCE = Counter({"STARTING": 1, "WORKING": 1})


class Report(msgspec.Struct):
    """What became of the sessions. seconds: from the blow until everything said was in the history."""

    sessions: int
    working: int
    starts: Counter[str]
    codes: int
    moved: int
    lost: int
    doubled: int
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether each works, was started once, kept its exit, and nothing is missing or there twice."""
        once = self.starts == Counter({"once": self.sessions})
        return (
            once
            and self.working == self.sessions
            and not (self.codes + self.moved + self.lost + self.doubled)
        )

    def __str__(self) -> str:
        starts = " ".join(f"started_{word}={count}" for word, count in sorted(self.starts.items()))
        return (
            f"sessions={self.sessions} working={self.working} {starts} codes={self.codes}"
            f" moved_exits={self.moved} lost={self.lost} doubled={self.doubled} seconds={self.seconds:.0f}"
        )


async def drill(ground: Ground, *, count: int) -> Report:
    """Run it with so many sessions, on a database in which nobody is."""
    addresses = [_address(number) for number in range(count)]
    async with _site(ground) as at, phone_at(at.waha_url) as phone:
        await _founded(ground, at, addresses)
        await _each(addresses, lambda address: phone.say(address.session, _customer(address), "antes"))
        await _until(ground, "select count(*) = %s from messages where author = 'customer'", count)
        before = await _leases(ground)
        await _each(
            addresses,
            lambda address: phone.say(address.session, _customer(address), "perdida", told=False),
        )
        blow = time.monotonic()
        await asyncio.gather(*(at.supervisor.kill(name) for name in ("waha", *PROCESSES)))
        await at.supervisor.ready("waha")
        await _each(addresses, lambda address: phone.say(address.session, _customer(address), "depois"))
        await at.supervisor.ready()
        everything = "select count(distinct (session_id, body)) = %s from messages where author = 'customer'"
        await _until(ground, everything, 3 * count)
        seconds = time.monotonic() - blow
        return await _report(ground, phone, addresses, before, seconds)


@asynccontextmanager
async def _site(ground: Ground) -> AsyncIterator[Site]:
    async with ExitProxy(password=_PASSWORD) as proxy, Whoami(proxy.country_of) as whoami:
        pool = ground.home / "exits.toml"
        pool.write_text(_POOL.format(port=proxy.port, password=_PASSWORD, check_url=whoami.url))
        changed = {
            "DATABASE_URL": ground.database.app_url,
            "WSM_SYSTEM_DATABASE_URL": ground.database.system_url,
            "WSM_PACE": UNPACED,
            "WSM_CONFIG": str(pool),
            "WSM_STARTS_PER_SECOND": "100",
            "WSM_CATCH_UP_AFTER_SECONDS": "1",
        }
        async with site(ground.servers, ground.home, changed=changed) as running:
            yield running


async def _founded(ground: Ground, at: Site, addresses: Sequence[SessionAddress]) -> None:
    """Make the tenants and start their sessions, once ingest knows them."""
    async with fleet_writes(at.settings) as system, sessions(at.settings) as control:
        for tenant in {address.tenant for address in addresses}:
            await fleet.add_tenant(system, tenant, name="", locale="pt-BR", capacity=_PER_TENANT)
        for address in addresses:
            alias = address.session.removeprefix(f"user_{address.tenant}_")
            await control.create(address.tenant, alias=alias, exit_pool="br")
        await at.known(addresses[-1])
        await _each(addresses, control.start)
    await _until(ground, "select bool_and(phone is not null and heard_ms > 0) from sessions")


async def _report(
    ground: Ground, phone: Phone, addresses: list[SessionAddress], before: dict[str, Any], seconds: float
) -> Report:
    told: dict[str, int] = Counter(each["session"] for each in await phone.deliveries(event="session.status"))
    shown = (await phone.status())["sessions"]
    statuses = {name: Counter(point["status"] for point in its["statuses"]) for name, its in shown.items()}
    once = [
        told[address.session] == _ONCE.total() and statuses.get(address.session) == _ONCE
        for address in addresses
    ]
    rows = await _rows(
        ground,
        "select session_id, body, count(*) as times from messages where author = 'customer' group by 1, 2",
    )
    after = await _leases(ground)
    return Report(
        sessions=len(addresses),
        working=sum(its["status"] == "WORKING" for its in shown.values()),
        starts=Counter("once" if each else "otherwise" for each in once),
        codes=sum(counted["SCAN_QR_CODE"] for counted in statuses.values()),
        moved=sum(after.get(session) != lease for session, lease in before.items()),
        lost=3 * len(addresses) - len(rows),
        doubled=sum(row.times > 1 for row in rows),
        seconds=seconds,
    )


async def _leases(ground: Ground) -> dict[str, Any]:
    """Which exit each session has."""
    rows = await _rows(
        ground,
        "select s.name, l.identifier, host(l.exit_ip) as address from proxy_leases l"
        " join sessions s on s.tenant_id = l.tenant_id and s.id = l.session_id where released_at is null",
    )
    return {row.name: (row.identifier, row.address) for row in rows}


async def _until(ground: Ground, query: str, *values: object) -> None:
    async def holds() -> Any:
        [row] = await _rows(ground, query, *values)
        return row[0]

    await wait_for(holds, _PATIENCE_SECONDS)


async def _rows(ground: Ground, query: str, *values: object) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(
        ground.database.owner_url, options="-c search_path=wsm", row_factory=namedtuple_row
    ) as connection:
        return await (await connection.execute(query.encode(), values)).fetchall()


async def _each(addresses: Iterable[SessionAddress], act: Callable[[SessionAddress], Awaitable[Any]]) -> None:
    """Do something for every session, a few at a time; what is refused at first is done again."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(address: SessionAddress) -> None:
        async with slots:
            await wait_for(lambda: _done(act(address)), _PATIENCE_SECONDS)

    await asyncio.gather(*map(one, addresses))


async def _done(act: Awaitable[object]) -> bool:
    """Whether it could be done: WAHA may be only just there."""
    try:
        await act
    except httpx.HTTPError:
        return False
    return True


def _address(number: int) -> SessionAddress:
    tenant = TenantId(1_000 + number // _PER_TENANT)
    return SessionAddress(tenant, f"user_{tenant}_{number % _PER_TENANT}")  # type: ignore[arg-type]


def _customer(address: SessionAddress) -> str:
    return f"5511{address.tenant:05d}{int(address.session[-1]):04d}"


def main() -> int:
    """Read the arguments, run the drill and say what became of it."""
    parser = argparse.ArgumentParser(
        prog="chaos.drill", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--sessions", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wsm-drill-") as folder:
        home = Path(folder)
        with Embedded(home / "home", fresh=True, fsync=False) as servers:
            app, system = (servers.database_url(role) for role in ("wsm_app", "wsm_system"))
            database = Database(owner_url=servers.database_url(), app_url=app, system_url=system)
            report = asyncio.run(drill(Ground(servers, database, home), count=asked.sessions))
    sys.stdout.write(f"{report}\n")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
