"""A fail-over under load: what was answered 2xx is still there. `python -m chaos.failover` has the table."""

import sys
from pathlib import Path

import pytest

from chaos.failover import CUT_WITH, PAIR, THREE, Case, measure, parted_with_ingest, replica_away

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="127.0.1.1 is no loopback address here"),
    pytest.mark.deadline(120),
]
PATIENT_MS = 2500
"""What a busy machine may take to answer a sentinel."""


async def test_a_pair_refuses_while_one_is_away(tmp_path: Path) -> None:
    row = await measure(Case(PAIR, "wait 1", "", 2, 1, replica_away, {}), tmp_path)
    assert row.lost == 0
    assert row.refused > 0
    assert row.without_seconds >= 2
    assert row.unanswered == 0


async def test_with_wait_nothing_is_lost_when_the_master_is_cut_off_with_ingest(tmp_path: Path) -> None:
    """The hardest partition: ingest goes on talking to the old master, which nobody follows any more."""
    case = Case(THREE, "wait 1", CUT_WITH, 3, 1, parted_with_ingest, {}, PATIENT_MS)
    row = await measure(case, tmp_path)
    assert row.lost == 0
    assert row.refused > 0
    assert row.unanswered == 0
