"""The log of refusals: a few lines per source, bounded in all, and the rest is counted."""

import asyncio
from collections.abc import Iterator

import pytest
import structlog
from structlog.typing import EventDict

from waiting import wait_for
from wsm.core.ids import SessionAddress, SessionName, TenantId
from wsm.ingest.security import RefusalLog

ANN = SessionAddress(TenantId(1460561546), SessionName("user_1460561546"))


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as found:
        yield found


def refuse(refusals: RefusalLog, address: str, times: int = 1) -> None:
    for _ in range(times):
        refusals.note(status=403, reason="signature_mismatch", address=address)


def test_a_line_says_who_what_and_whose_and_nothing_else(lines: list[EventDict]) -> None:
    refusals = RefusalLog()
    refusals.note(status=403, reason="signature_mismatch", address="10.0.0.1", known=ANN)
    refusals.note(status=503, reason="streams_away", address="10.0.0.1", detail="refused")
    first, second = lines
    assert first == {
        "event": "webhook_refused",
        "log_level": "warning",
        "room": "ingest",
        "status": 403,
        "reason": "signature_mismatch",
        "address": "10.0.0.1",
        "tenant": ANN.tenant,
        "session": ANN.session,
    }
    assert second["detail"] == "refused"
    assert "tenant" not in second


def test_each_source_has_its_few_lines_and_the_rest_is_counted(lines: list[EventDict]) -> None:
    refusals = RefusalLog(lines_per_address=3)
    refuse(refusals, "10.0.0.1", 100)
    refuse(refusals, "10.0.0.2", 2)
    assert [line["address"] for line in lines] == ["10.0.0.1"] * 3 + ["10.0.0.2"] * 2
    refusals.turn_window()
    assert lines[-1]["event"] == "refusals_suppressed"
    assert (lines[-1]["count"], lines[-1]["addresses"]) == (97, 1)
    assert lines[-1]["busiest"] == {"10.0.0.1": 97}


def test_a_new_window_begins_anew_and_a_quiet_one_says_nothing(lines: list[EventDict]) -> None:
    refusals = RefusalLog(lines_per_address=1)
    refuse(refusals, "10.0.0.1")
    refusals.turn_window()
    refusals.turn_window()
    refuse(refusals, "10.0.0.1")
    assert [line["event"] for line in lines] == ["webhook_refused"] * 2


def test_many_sources_together_are_bounded_in_lines_and_in_memory(lines: list[EventDict]) -> None:
    refusals = RefusalLog(lines=10, addresses=20)
    for number in range(1000):
        refuse(refusals, f"10.0.{number // 256}.{number % 256}")
    assert len(lines) == 10
    assert len(refusals._seen) <= 21
    refusals.turn_window()
    assert lines[-1]["count"] == 990
    assert "others" in lines[-1]["busiest"]


async def test_what_was_suppressed_is_said_by_itself_and_at_the_end(lines: list[EventDict]) -> None:
    refusals = RefusalLog(window_seconds=0.01, lines_per_address=1)
    watching = asyncio.create_task(refusals.watch())
    refuse(refusals, "10.0.0.1", 3)
    await wait_for(lambda: len(lines) == 2)
    refuse(refusals, "10.0.0.1", 4)
    watching.cancel()
    await asyncio.wait([watching])
    assert sum(line["count"] for line in lines if line["event"] == "refusals_suppressed") == 5
