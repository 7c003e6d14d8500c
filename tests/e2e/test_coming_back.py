"""What wsm needs is cut off, or hangs: /readyz tells who cannot work, and all goes on by itself."""

import asyncio
from collections.abc import Mapping

import pytest

from chaos.cables import Mode
from chaos.stand import Stand, stand
from e2e.town import YOUR_TURN, Ground, customers, entered
from waiting import wait_for
from wsm.core.ids import TenantId
from wsm.sandbox.site import PROCESSES, WORKERS

SHOP = TenantId(1460561546)
CANNOT_WORK: Mapping[str, Mapping[str, str]] = {
    "redis": dict.fromkeys(PROCESSES, "redis"),
    "postgres": dict.fromkeys(("clock", *WORKERS), "database"),
    "gateway": {},
}
"""Who says so, and by which check. A gateway is no reason: turns go on, and so do other servers' sessions."""


@pytest.mark.deadline(150)
@pytest.mark.parametrize("mode", [Mode.SHUT, Mode.DEAF])
@pytest.mark.parametrize("what", CANNOT_WORK)
async def test_an_outage_is_told_and_ends_without_anybodys_help(
    ground: Ground, what: str, mode: Mode
) -> None:
    async with stand(ground, [SHOP], capacity=1) as at:
        a, b = customers(2)
        await at.town.says(SHOP, a, "oi")
        await at.town.hears(a, YOUR_TURN)
        pids = {name: at.town.site.supervisor.pid(name) for name in PROCESSES}
        cable = at.cables[what]
        cable.mode = mode
        if mode is Mode.SHUT:
            cable.cut()
        await at.town.says(SHOP, b, "oi")
        await wait_for(lambda: _is_told(at, CANNOT_WORK[what]), 30)
        cable.mend()

        await at.town.hears(b, entered(1), timeout=60)
        await at.town.site.supervisor.ready()
        assert {name: at.town.site.supervisor.pid(name) for name in PROCESSES} == pids, "nobody was restarted"
        await at.town.quiet()
        await at.town.check_nothing_lost()
        await at.town.check_sent_once()


async def _is_told(at: Stand, wanted: Mapping[str, str]) -> bool:
    """Whether exactly those say so who cannot work, each by its check, and the others can."""
    answers = dict(zip(PROCESSES, await asyncio.gather(*map(at.town.ready, PROCESSES)), strict=True))
    told = {
        name: [check for check, said in checks.items() if said != "ok"]
        for name, (status, checks) in answers.items()
        if status != 200
    }
    return told.keys() == wanted.keys() and all(check in told[name] for name, check in wanted.items())
