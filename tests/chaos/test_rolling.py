"""Deployments under load, judged by the checker: nothing lost, doubled or out of order, every end clean."""

import random

import pytest

from chaos.run import run_seed
from e2e.town import Ground

MESSAGES = 1000


@pytest.mark.deadline(180)
@pytest.mark.parametrize("deploy", ["rolling restart", "migration in two steps"])
async def test_a_deployment_under_load_costs_nothing(ground: Ground, deploy: str) -> None:
    seed = random.getrandbits(32)
    print(f"seed {seed}")  # noqa: T201 (shown when it fails)
    ran = await run_seed(seed, ground, messages=MESSAGES, tenants=3, only=[deploy])
    assert ran.report.clean, f"seed {seed}, {ran.diary}: {ran.report.findings}"
    assert ran.report.acked >= MESSAGES
    assert ran.report.sent
    assert ran.diary.count(deploy) >= 1
