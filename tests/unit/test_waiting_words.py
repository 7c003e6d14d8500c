"""What `wsm outbox show` says: until when, why in plain words, and nothing of what is said or to whom."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from wsm.core.pacing import Wait
from wsm.core.reasons import REASONS, Why, in_words
from wsm.counter.waiting import intent_line, pace_line

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
SENT = "7 replies, 0 new people, 2 of campaigns"


class Intent(msgspec.Struct, kw_only=True):
    """A row of `store.reads.outbox`."""

    created_at: datetime = NOW
    session: str = "user_1"
    chat_id: str = "5511900001234@c.us"
    intent: str = "campaign"
    kind: str = "text"
    state: str = "pending"
    reason: str | None = None
    not_before: datetime = NOW
    due_at: datetime | None = NOW
    waits: str | None = None


class Pace(msgspec.Struct, kw_only=True):
    """A row of the paces."""

    session: str = "user_1"
    due_at: datetime | None = None
    waits: str | None = None
    frozen_until: datetime | None = None
    frozen_why: str | None = None
    slowed_until: datetime | None = None
    replies: int = 7
    firsts: int = 0
    campaigns: int = 2


@pytest.mark.parametrize(
    ("row", "fate"),
    [
        (Intent(), "is next, or waits for what is before it"),
        (Intent(due_at=LATER, waits="gap"), "is next, or waits for what is before it"),
        (
            Intent(due_at=LATER, waits="away", reason="gateway answered 401: unauthorized"),
            f"waits until 20 Nov 12:05:00 UTC: {REASONS[Why.AWAY]} (gateway answered 401: unauthorized)",
        ),
        (
            Intent(not_before=LATER, reason="contact_gap"),
            f"waits until 20 Nov 12:05:00 UTC: {REASONS[Why.CONTACT_GAP]}",
        ),
        (Intent(not_before=LATER), "waits until 20 Nov 12:05:00 UTC: it was asked for then"),
        (Intent(state="failed", reason="opted_out"), f"failed: {REASONS[Why.OPTED_OUT]}"),
        (Intent(state="failed", reason="gateway answered 500: reachout_timelock"),
         "failed: gateway answered 500: reachout_timelock"),
        (Intent(state="sending"), "is being sent"),
        (Intent(state="indeterminate", reason="no answer in time"),
         "may have left, which is found out: no answer in time"),
    ],
)  # fmt: skip
def test_each_says_what_becomes_of_it(row: Intent, fate: str) -> None:
    line = intent_line(row, None, NOW)
    assert line == f"20 Nov 12:00:00  user_1  …1234  campaign text  {fate}"


@pytest.mark.parametrize("why", [*Why])
def test_each_waits_for_its_own_reason_and_not_for_its_sessions_next_step(why: Why) -> None:
    tomorrow = NOW + timedelta(days=1)
    row = Intent(due_at=LATER, waits="gap", not_before=LATER, reason="contact_gap")
    assert intent_line(row, Wait(tomorrow, why), NOW).endswith(
        f"waits until 21 Nov 12:00:00 UTC: {REASONS[why]}"
    )


@pytest.mark.parametrize("why", [Why.EXIT, Why.NUMBER, Why.AWAY])
def test_what_holds_the_whole_session_is_said_of_each(why: Why) -> None:
    row = Intent(due_at=LATER, waits=why)
    line = intent_line(row, Wait(NOW + timedelta(days=1), Why.HOURS), NOW)
    assert line.endswith(f"waits until 20 Nov 12:05:00 UTC: {REASONS[why]}")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Pace(), f"nothing waits; {SENT}"),
        (Pace(due_at=NOW), f"at work; {SENT}"),
        (
            Pace(due_at=LATER, waits="frozen", frozen_until=LATER, frozen_why="429", slowed_until=LATER),
            (
                f"waits until 20 Nov 12:05:00 UTC: {REASONS[Why.FROZEN]}; writes to nobody new until "
                f"20 Nov 12:05:00 UTC (429); answers slowly until 20 Nov 12:05:00 UTC; {SENT}"
            ),
        ),
    ],
)  # fmt: skip
def test_a_sessions_pace_is_told(row: Pace, said: str) -> None:
    assert pace_line(row, NOW) == said


def test_what_is_no_word_of_the_list_is_said_as_it_is() -> None:
    assert in_words("not reached") == "not reached"
    assert in_words(None) == ""
