"""Business hours: weeks, holidays, and days on which the clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsm.core.errors import BadInput
from wsm.core.hours import (
    DAYS,
    Hours,
    check,
    days_said,
    in_words,
    is_open,
    next_change,
    next_opening,
    open_span,
)

SAO_PAULO = "America/Sao_Paulo"
OFFICE = Hours(
    week=dict.fromkeys(DAYS[:5], ("09:00-12:00", "13:00-18:00")) | {"sat": ("09:00-13:00",)},
    holidays={"2026-12-25": (), "2026-12-24": ("09:00-12:00",)},
)


def at(text: str, zone: str = SAO_PAULO) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("now", "is_it"),
    [
        ("2026-11-23T08:59:59", False),
        ("2026-11-23T09:00:00", True),
        ("2026-11-23T12:00:00", False),
        ("2026-11-23T13:00:00", True),
        ("2026-11-23T17:59:59", True),
        ("2026-11-23T18:00:00", False),
        ("2026-11-28T12:59:00", True),
        ("2026-11-29T10:00:00", False),
        ("2026-12-24T13:30:00", False),
        ("2026-12-25T10:00:00", False),
    ],
)
def test_it_is_open_from_the_first_minute_to_the_last(now: str, is_it: bool) -> None:
    assert is_open(OFFICE, SAO_PAULO, at(now)) is is_it


def test_without_hours_it_is_always_open() -> None:
    assert is_open(None, SAO_PAULO, at("2026-12-25T03:00:00"))


@pytest.mark.parametrize(
    ("now", "says", "in_english"),
    [
        ("2026-11-23T07:00:00", "hoje às 9h", "today at 9 am"),
        ("2026-11-23T12:30:00", "hoje às 13h", "today at 1 pm"),
        ("2026-11-23T19:00:00", "amanhã às 9h", "tomorrow at 9 am"),
        ("2026-11-28T19:00:00", "na segunda-feira às 9h", "on Monday at 9 am"),
        ("2026-12-24T12:00:00", "no sábado às 9h", "on Saturday at 9 am"),
    ],
)
def test_the_next_opening_is_told_in_the_customers_words(now: str, says: str, in_english: str) -> None:
    opening = next_opening(OFFICE, SAO_PAULO, at(now))
    assert in_words(opening, at(now), "pt-BR") == says
    assert in_words(opening, at(now), "en") == in_english


def test_an_opening_far_away_has_its_date_and_none_has_no_words() -> None:
    closed_for_now = Hours(week={}, holidays={"2027-01-04": ("08:30-12:00",)})
    now = at("2026-12-20T10:00:00")
    opening = next_opening(closed_for_now, SAO_PAULO, now)
    assert in_words(opening, now, "pt-BR") == "em 04/01 às 8h30"
    assert in_words(opening, now, "en") == "on Jan 4 at 8:30 am"
    assert next_opening(Hours(), SAO_PAULO, now) is None
    assert in_words(None, now, "en") is None


def test_a_night_is_open_past_midnight_and_touching_spans_are_one() -> None:
    bar = Hours(week={"fri": ("18:00-24:00",), "sat": ("00:00-03:00", "22:00-02:00")})
    assert is_open(bar, SAO_PAULO, at("2026-11-28T00:00:00"))
    assert next_change(bar, SAO_PAULO, at("2026-11-27T19:00:00")) == at("2026-11-28T03:00:00")
    assert is_open(bar, SAO_PAULO, at("2026-11-29T01:59:00"))
    assert not is_open(bar, SAO_PAULO, at("2026-11-29T02:00:00"))


def test_a_day_whose_clocks_jump_opens_by_the_wall() -> None:
    new_york = "America/New_York"  # on 8 March 2026 two o'clock is three o'clock
    early = Hours(week={"sun": ("02:30-05:00",)})
    assert not is_open(early, new_york, datetime(2026, 3, 8, 7, 29, tzinfo=UTC))
    assert is_open(early, new_york, datetime(2026, 3, 8, 7, 30, tzinfo=UTC))  # half past three
    assert not is_open(early, new_york, datetime(2026, 3, 8, 9, 0, tzinfo=UTC))
    before = datetime(2026, 3, 7, 20, 0, tzinfo=UTC)
    assert in_words(next_opening(early, new_york, before), before, "en") == "tomorrow at 3:30 am"


def test_of_an_hour_that_comes_twice_the_first_opens_and_the_second_closes() -> None:
    new_york = "America/New_York"  # on 1 November 2026 one o'clock comes twice: 05:00 and 06:00 UTC
    opens = Hours(week={"sun": ("01:00-03:00",)})
    closes = Hours(week={"sun": ("00:00-01:30",)})
    assert is_open(opens, new_york, datetime(2026, 11, 1, 5, 0, tzinfo=UTC))
    assert is_open(closes, new_york, datetime(2026, 11, 1, 6, 29, tzinfo=UTC))
    assert not is_open(closes, new_york, datetime(2026, 11, 1, 6, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("hours", "zone", "field"),
    [
        (Hours(week={"monday": ("09:00-18:00",)}), SAO_PAULO, "week"),
        (Hours(week={"mon": ("9-18h",)}), SAO_PAULO, r"week\.mon"),
        (Hours(week={"mon": ("09:00-09:00",)}), SAO_PAULO, r"week\.mon"),
        (Hours(week={"mon": ("09:00-25:00",)}), SAO_PAULO, r"week\.mon"),
        (Hours(holidays={"25/12": ()}), SAO_PAULO, "holidays"),
        (Hours(), "America/Atlantis", "time_zone"),
        (Hours(), "../../etc/passwd", "time_zone"),
    ],
)
def test_hours_that_cannot_be_kept_are_refused(hours: Hours, zone: str, field: str) -> None:
    with pytest.raises(BadInput, match=field):
        check(hours, zone)
    check(OFFICE, SAO_PAULO)


@pytest.mark.parametrize("text", ["", "  ", "fri-mon 09:00-18:00", "monday 09:00-18:00", "mon 9h", "mon-"])
def test_hours_that_nobody_would_understand_are_refused(text: str) -> None:
    with pytest.raises(BadInput):
        days_said(text)
    assert days_said("mon-tue 09:00-12:00 13:00-18:00") == dict.fromkeys(
        ("mon", "tue"), ("09:00-12:00", "13:00-18:00")
    )


@given(
    zone=st.sampled_from([SAO_PAULO, "America/New_York", "Europe/Lisbon", "Australia/Lord_Howe"]),
    minutes=st.integers(0, 2 * 366 * 24 * 60),
    spans=st.lists(
        st.tuples(st.integers(0, 1439), st.integers(0, 1440)).filter(lambda span: span[0] != span[1]),
        max_size=3,
    ),
)
def test_between_two_changes_it_is_either_open_or_closed(
    zone: str, minutes: int, spans: list[tuple[int, int]]
) -> None:
    said = tuple(f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in spans)
    hours = Hours(week=dict.fromkeys(DAYS, said))
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    change = next_change(hours, zone, now)
    was = is_open(hours, zone, now)
    if change is None:
        assert was is bool(spans), "all day long, or never"
        return
    assert change > now
    assert is_open(hours, zone, change - timedelta(seconds=1)) is was
    assert is_open(hours, zone, change) is not was
    opening = next_opening(hours, zone, now)
    assert opening is not None
    assert is_open(hours, zone, opening)


@pytest.mark.parametrize(
    ("now", "hours"), [("2026-03-28T23:00:00", 7), ("2026-10-24T23:00:00", 9), ("2026-11-24T23:00:00", 8)]
)
def test_a_night_on_which_the_clocks_change_ends_by_the_wall(now: str, hours: int) -> None:
    night = Hours(week=dict.fromkeys(DAYS, ("22:00-06:00",)))
    span = open_span(night, "Europe/Lisbon", at(now, "Europe/Lisbon"))
    assert span is not None
    assert span[1] - span[0] == timedelta(hours=hours)
    assert open_span(night, "Europe/Lisbon", span[1]) is None
