"""A short run of `make chaos`: some load, some faults, and the checker's verdict."""

import random

import pytest

from chaos.run import run_seed
from e2e.town import Ground

QUICK_FAULTS = ("kill", "cut", "mute", "sends go wrong", "restart valkey", "valkey out of memory")
MESSAGES = 1000


@pytest.mark.deadline(120)
async def test_nothing_is_lost_doubled_or_out_of_order(ground: Ground) -> None:
    seed = random.getrandbits(32)
    print(f"seed {seed}")  # noqa: T201 (shown when it fails)
    ran = await run_seed(seed, ground, messages=MESSAGES, tenants=3, only=QUICK_FAULTS)
    assert ran.report.clean, f"seed {seed}, {ran.diary}: {ran.report.findings}"
    assert ran.report.acked >= MESSAGES
    assert ran.report.sent
    assert ran.diary
