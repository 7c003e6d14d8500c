"""A site that is always full, judged by the checker: what is refused comes again, and all is well."""

import random

import pytest

from chaos.run import run_seed
from e2e.town import Ground

MESSAGES = 500
NARROW = {
    "WSM_REQUESTS_IN_FLIGHT": "4",
    "WSM_ACCEPT_QUEUE_ENTRIES": "2",
    "WSM_MAILBOX_ENTRIES": "12",
    "WSM_TURN_ENTRIES": "3",
    "WSM_TURN_SLOTS": "1",
    "WSM_DELIVER_SLOTS": "2",
}
"""Marks so low that an ordinary load goes over each of them all the time."""


@pytest.mark.deadline(240)
async def test_more_than_fits_is_refused_and_nothing_is_lost_doubled_or_out_of_order(ground: Ground) -> None:
    seed = random.getrandbits(32)
    print(f"seed {seed}")  # noqa: T201 (shown when it fails)
    ran = await run_seed(
        seed, ground, messages=MESSAGES, tenants=3, only=["slow", "kill", "sends go wrong"], changed=NARROW
    )
    assert ran.report.clean, f"seed {seed}, {ran.diary}: {ran.report.findings}"
    assert ran.report.acked >= MESSAGES
    refused = sum(told.accepted_at is None for told in ran.records.told)
    assert refused > MESSAGES / 10, "too little of an overload"
