"""What becomes of an intent, decided from values."""

from datetime import UTC, datetime, timedelta

import pytest

from wsm.core.errors import GatewayRefused, GatewayUnavailable, OutcomeUnknown, WsmError
from wsm.core.ids import DEFAULT_SERVER, BareId, ChatId, SessionAddress, SessionName, TenantId
from wsm.core.outbox import (
    Doubtful,
    IntentState,
    Lock,
    after_error,
    after_look_up,
    after_refused_look_up,
    delay,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
EVIDENCE = timedelta(seconds=180)
DOUBT = Doubtful(
    id=1,
    address=SessionAddress(TenantId(1), SessionName("user_1")),
    session_id=1,
    server=DEFAULT_SERVER,
    chat=ChatId("5511900000001@c.us"),
    intent="turn",
    text="Chegou a sua vez!",
    reserved_id=BareId("3EB0"),
    claimed_at=NOW,
    attempt=1,
)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OutcomeUnknown("no answer in time"), IntentState.INDETERMINATE),
        (GatewayUnavailable("not reached"), IntentState.PENDING),
        *[(GatewayRefused(status, "x"), IntentState.PENDING) for status in (401, 403, 404, 422, 425, 429)],
        *[(GatewayRefused(status, "x"), IntentState.FAILED) for status in (400, 413, 463, 500, 501)],
    ],
)
def test_an_error_says_whether_it_left(error: WsmError, state: IntentState) -> None:
    outcome = after_error(error, attempt=1, now=NOW)
    assert outcome.state is state
    assert outcome.reason == str(error)
    assert outcome.bare_id is None
    if state is IntentState.FAILED:
        assert outcome.not_before is None
    else:
        assert outcome.not_before is not None
        assert outcome.not_before > NOW


def test_what_was_too_fast_waits_ever_longer_and_as_long_as_it_is_asked_to() -> None:
    def waits(attempt: int, asked: float | None = None) -> float:
        error = GatewayRefused(429, "rate_limited", retry_after_seconds=asked)
        outcome = after_error(error, attempt=attempt, now=NOW)
        assert (outcome.state, outcome.away) == (IntentState.PENDING, False)
        assert outcome.not_before is not None
        return (outcome.not_before - NOW) / timedelta(minutes=1)

    assert [waits(attempt) for attempt in (1, 2, 3, 6, 7, 10_000)] == [1, 2, 4, 32, 60, 60]
    assert [waits(1, asked) for asked in (1.0, 600.0, 7 * 86_400.0)] == [1, 10, 60]


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (GatewayUnavailable("gateway answered 422: session_not_working"), True),
        (GatewayRefused(401, "unauthorized"), True),
        (GatewayRefused(400, "bad_request"), False),
        (GatewayRefused(422, "unprocessable"), False),
        (OutcomeUnknown("no answer in time"), False),
    ],
)
def test_who_was_not_there_heard_nothing(error: WsmError, away: bool) -> None:
    assert after_error(error, attempt=1, now=NOW).away is away


@pytest.mark.parametrize("reason", ["message_not_found", "no_such_call", "store_disabled", "already_exists"])
@pytest.mark.parametrize("status", [400, 403, 404, 422, 501])
def test_what_no_time_changes_is_not_tried_again(reason: str, status: int) -> None:
    assert after_error(GatewayRefused(status, reason), attempt=1, now=NOW).state is IntentState.FAILED


def test_what_may_be_wrong_with_one_message_takes_few_places_in_a_days_budget() -> None:
    at, attempts = NOW, 0
    while at < NOW + timedelta(days=1):
        attempts += 1
        outcome = after_error(GatewayRefused(422, "unprocessable"), attempt=attempts, now=at)
        assert outcome.not_before is not None
        at = outcome.not_before
    assert attempts < 170


@pytest.mark.parametrize(("reason", "why"), [("reachout_timelock", 463), ("rate_limited", 429)])
@pytest.mark.parametrize("cold", [True, False])
def test_what_whatsapp_forbids_is_repeated_only_to_who_wrote_and_when_it_was_too_fast(
    reason: str, why: int, cold: bool
) -> None:
    outcome = after_error(GatewayRefused(500, reason), attempt=1, now=NOW, cold=cold)
    assert outcome.lock is not None
    repeats = why == 429 and not cold
    assert outcome.state is (IntentState.PENDING if repeats else IntentState.FAILED)


def test_a_lock_ends_when_the_gateway_says() -> None:
    until = NOW + timedelta(days=6)
    told = after_error(GatewayRefused(500, "reachout_timelock", until=until), attempt=1, now=NOW)
    assert told.lock == Lock("reachout_timelock", until)
    asked = after_error(GatewayRefused(429, "rate_limited", retry_after_seconds=90), attempt=1, now=NOW)
    assert asked.lock == Lock("rate_limited", NOW + timedelta(seconds=90))
    nothing = after_error(GatewayRefused(429, "rate_limited", retry_after_seconds=0), attempt=1, now=NOW)
    assert nothing.lock == Lock("rate_limited")


def test_delays_grow_to_an_end() -> None:
    seconds = [delay(attempt).total_seconds() for attempt in (1, 2, 3, 4, 5, 6, 7, 1000)]
    assert seconds == [1, 2, 5, 10, 20, 30, 30, 30]


@pytest.mark.parametrize("working", [True, False])
@pytest.mark.parametrize("seconds", [0, 10_000])
def test_what_was_found_has_left(working: bool, seconds: int) -> None:
    now = NOW + timedelta(seconds=seconds)
    outcome = after_look_up(BareId("3EB0"), DOUBT, working=working, evidence=EVIDENCE, now=now)
    assert (outcome.state, outcome.bare_id) == (IntentState.SENT, "3EB0")


@pytest.mark.parametrize(
    ("seconds", "working", "state"),
    [
        (179.999, True, IntentState.INDETERMINATE),
        (180, True, IntentState.PENDING),
        (180, False, IntentState.INDETERMINATE),
        (86400, False, IntentState.INDETERMINATE),
    ],
)
def test_nothing_found_is_evidence_only_late_and_of_a_session_that_works(
    seconds: float, working: bool, state: IntentState
) -> None:
    now = NOW + timedelta(seconds=seconds)
    outcome = after_look_up(None, DOUBT, working=working, evidence=EVIDENCE, now=now)
    assert outcome.state is state
    assert outcome.not_before is not None
    assert outcome.not_before >= now


@pytest.mark.parametrize(
    "error",
    [GatewayRefused(400, "store_disabled"), GatewayRefused(404, "no_such_call"), GatewayRefused(501, "x")],
)
def test_who_cannot_look_never_sends_again(error: GatewayRefused) -> None:
    early, late = (
        after_refused_look_up(error, DOUBT, evidence=EVIDENCE, now=NOW + timedelta(seconds=seconds))
        for seconds in (179, 180)
    )
    assert (early.state, late.state) == (IntentState.INDETERMINATE, IntentState.FAILED)


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429])
def test_a_look_up_that_somebody_can_mend_is_waited_for(status: int) -> None:
    now = NOW + timedelta(hours=1)
    outcome = after_refused_look_up(GatewayRefused(status, "x"), DOUBT, evidence=EVIDENCE, now=now)
    assert outcome.state is IntentState.INDETERMINATE
    assert outcome.not_before is not None
    assert outcome.not_before > now
