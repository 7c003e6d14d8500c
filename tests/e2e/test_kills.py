"""Every process of wsm is killed and both servers are restarted while customers write and tickets are closed.

In the end nothing is lost, nothing was said twice, everyone was served, and nothing lies about.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import pytest

from e2e.town import Ground, Town, customers, town
from waiting import wait_for
from wsm.core.ids import TenantId
from wsm.sandbox.site import PROCESSES

SHOPS = {TenantId(number): customers(4, shop=number) for number in (501, 502, 503)}
SPREAD_SECONDS = 1.5


class Day:
    """A busy day in town."""

    def __init__(self, at: Town, chance: random.Random) -> None:
        self._at = at
        self._chance = chance
        self._number = 0

    async def everyone_writes(self) -> None:
        """Let every customer write one to three times within a moment.

        Some webhooks come twice, some under the customer's hidden id, some under both ids.
        """
        for shop, crowd in SHOPS.items():
            for who in crowd:
                for _ in range(self._chance.randint(1, 3)):
                    self._number += 1
                    await self._at.says(
                        shop,
                        who,
                        f"mensagem {self._number}",
                        delay_seconds=self._chance.uniform(0, SPREAD_SECONDS),
                        duplicates=self._chance.choice((1, 1, 1, 2)),
                        as_lid=self._chance.random() < 0.2,
                        twin=self._chance.random() < 0.2,
                    )

    async def some_are_closed(self) -> None:
        """Close the ticket of whoever is served, in each shop, by command or from the phone."""
        for shop in SHOPS:
            if line := await self._at.line(shop):
                await self._chance.choice((self._at.closes, self._at.types_end))(shop, line[0][0])

    async def in_the_middle(self) -> None:
        """Wait until a good part of what was written has been accepted, and the rest not yet."""
        before = self._accepted()
        await wait_for(lambda: self._accepted() >= before + 6, 30)

    def _accepted(self) -> int:
        log = self._at.waha.courier.log
        return sum(each.state == "delivered" and each.event == "message.any" for each in log)

    async def everyone_leaves(self) -> None:
        """Close every ticket, one after another, until nobody is in line."""
        for shop in SHOPS:
            while line := await self._at.line(shop):
                closed = "select count(*) > %s from tickets where closed_at is not null"
                before = await self._at.value("select count(*) from tickets where closed_at is not null")
                await self._at.closes(shop, line[0][0])
                await self._at.until(closed, before)


def blows(at: Town) -> Mapping[str, Callable[[], Awaitable[object]]]:
    """What is done to each process and server, by name."""
    servers = at.ground.servers

    async def killed(name: str) -> None:
        await at.site.supervisor.kill(name)
        await at.site.supervisor.ready(name)

    async def restarted(server: str) -> None:
        await asyncio.to_thread(getattr(servers, server).kill)
        await asyncio.to_thread(getattr(servers, server).start)

    return {name: partial(killed, name) for name in PROCESSES} | {
        name: partial(restarted, name) for name in ("valkey", "postgres")
    }


@pytest.mark.deadline(90)
async def test_a_day_on_which_everything_is_killed_once(ground: Ground) -> None:
    seed = random.getrandbits(32)  # the run's own seed makes it
    print(f"seed {seed}")  # noqa: T201 (shown when it fails)
    chance = random.Random(seed)
    async with town(ground, SHOPS) as at:
        day = Day(at, chance)
        todo = blows(at)
        for name in chance.sample(sorted(todo), len(todo)):
            print(name)  # noqa: T201
            await day.everyone_writes()
            await day.some_are_closed()
            await day.in_the_middle()
            await todo[name]()
        await at.quiet()
        await day.everyone_leaves()
        await at.quiet()

        await at.check_nothing_lost()
        await at.check_sent_once()
        for shop, crowd in SHOPS.items():
            ledger = await at.replayed(shop)
            assert len(ledger.ever_served) == len(crowd)
            assert not ledger.served
            assert not ledger.waiting
        assert await at.left_over() == set()
        faults = [line for line in at.log_lines(*PROCESSES) if line["level"] in {"error", "critical"}]
        assert {line["event"] for line in faults} <= {"directory_not_confirmed"}, faults
