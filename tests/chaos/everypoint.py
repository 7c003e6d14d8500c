"""Kill every process at every point of a message's way, under load, and look at the books.

    python -m chaos.everypoint [--seed N] [--engine WEBJS]

A site's ingest, clock and one of its workers each have a list of all points. A process dies at the first
point that it comes to and that is still on its list; its next life gets a little further. First the clock
and ingest die, then the worker; then what only an outage or an end brings about is brought about, until every
point has had its death or three rounds of trouble have brought no new one. A point at which no process died
must be in `chaos.unreached`, with its reason. In the end nothing accepted is lost, nothing was said twice,
and all is in order.

The last line is `points=… killed=… unreached=… deaths=… seconds=…`; the exit code is not 0 when a point was
not reached that should have been, or when the books are wrong.
"""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from chaos.crowd import Crowd
from chaos.deaths import COMMANDS, Deaths, check_books, deadly_town
from chaos.killpoints import all_points
from chaos.records import Told
from chaos.trouble import HOOK_SECRET, troubles
from chaos.unreached import reason
from databases import Database
from e2e.town import Ground, Town
from wsm.core.errors import Unavailable
from wsm.core.ids import TenantId
from wsm.sandbox.embedded import Embedded
from wsm.sandbox.site import WORKERS
from wsm.sandbox.waha import Engine
from wsm.store.migrate import migrate

TENANTS = [TenantId(number) for number in range(701, 749)]
"""So many, so that one that waits for a lease to run out does not keep everybody from the next point."""
SPARED = (WORKERS[1],)
"""One worker lives: a lone entry whose worker died five times is a dead letter, here by nobody's fault."""
TOGETHER = (("clock", "ingest"), ("worker",))
STEADY_SECONDS = 5.0
"""When all could work and nobody died for so long, what is left needs trouble."""
ROUNDS = 3


async def kill_everywhere(
    ground: Ground, names: Sequence[str], chance: random.Random, engine: Engine = Engine.GOWS
) -> Deaths:
    """Kill at every one of these points that can be reached, and check the books."""
    deaths = Deaths(ground.home / "points")
    own = {"WEBHOOK_HMAC_SECRET": HOOK_SECRET}
    async with deadly_town(ground, TENANTS, deaths, own, SPARED, engine=engine) as at:
        async with Crowd(at, TENANTS, chance) as crowd:
            for together in TOGETHER:
                for command in together:
                    deaths.arm(command, names)
                await steady(at, deaths.count_left, STEADY_SECONDS)
                print(f"{' and '.join(together)}: {deaths.count_left()} left", flush=True)  # noqa: T201
                for command in together:
                    deaths.disarm(command)
            for command in set(COMMANDS.values()):
                deaths.arm(command, deaths.pending[command])
            await bring_trouble(at, crowd, deaths, chance, engine)
            for command in set(COMMANDS.values()):
                deaths.disarm(command)
        await at_rest(at, TENANTS, deaths.told)
    return deaths


async def bring_trouble(
    at: Town, crowd: Crowd, deaths: Deaths, chance: random.Random, engine: Engine
) -> None:
    """Do everything that troubles a town, each again while it brings somebody to a new point."""
    in_vain = 0
    while in_vain < ROUNDS and any(reason(name, engine) is None for name in deaths.nowhere()):
        round_began = deaths.count_left()
        for trouble in troubles(at, crowd, TENANTS, chance, deaths.count_left):
            before = None
            while before != deaths.count_left():
                before = deaths.count_left()
                await trouble()
                await steady(at, deaths.count_left, 2)
        print(f"trouble: {len(deaths.nowhere())} points left", flush=True)  # noqa: T201
        in_vain = in_vain + 1 if deaths.count_left() == round_began else 0
    for name in sorted(name for name in deaths.nowhere() if reason(name, engine) is None):
        print(f"nobody died at {name}", flush=True)  # noqa: T201


async def steady(at: Town, count: Callable[[], int], seconds: float) -> None:
    """Wait until a count is 0, or has stayed as it is for a time in which every process could work."""
    while left := count():
        with suppress(Unavailable):  # they die faster than they become ready
            await at.site.supervisor.ready()
        since = time.monotonic()
        while count() == left:
            if time.monotonic() - since > seconds:
                return
            await asyncio.sleep(0.1)


async def at_rest(at: Town, tenants: Sequence[TenantId], told: Sequence[Told]) -> None:
    """Let everything come to its end, and check the books."""
    await at.site.supervisor.ready()
    await at.quiet(120)
    assert await check_books(at, tenants, told), "nothing had an order"


def main() -> None:
    """Run it on servers of its own."""
    parser = argparse.ArgumentParser(description="kill every process at every point")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    parser.add_argument("--engine", type=Engine, default=Engine.GOWS)
    asked = parser.parse_args()
    print(f"seed={asked.seed} engine={asked.engine}", flush=True)  # noqa: T201
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began, names = time.monotonic(), all_points()
    with tempfile.TemporaryDirectory(prefix="wsm-") as folder, Embedded(Path(folder) / "home") as servers:
        asyncio.run(migrate(servers.database_url()))
        urls = [servers.database_url(role) for role in ("postgres", "wsm_app", "wsm_system")]
        ground = Ground(servers, Database(*urls), Path(folder))
        deaths = asyncio.run(kill_everywhere(ground, names, random.Random(asked.seed), asked.engine)).died()
    sys.exit(tell(names, deaths, asked.engine, time.monotonic() - began))


def tell(names: Sequence[str], deaths: Collection[tuple[str, str]], engine: Engine, seconds: float) -> bool:
    """Print what was reached. Returns whether a point was not, and nobody knows why."""
    killed = {name for _, name in deaths}
    unreached = [name for name in names if name not in killed]
    for name in unreached:
        print(f"unreached {name}: {reason(name, engine) or 'NOBODY KNOWS WHY'}")  # noqa: T201
    for name in sorted(name for name in killed if reason(name, engine)):
        print(f"reached all the same: {name}")  # noqa: T201
    figures = f"points={len(names)} killed={len(killed)} unreached={len(unreached)} deaths={len(deaths)}"
    print(f"{figures} {seconds=:.0f}")  # noqa: T201
    return any(reason(name, engine) is None for name in unreached)


if __name__ == "__main__":
    main()
