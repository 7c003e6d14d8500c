"""When a silence is beyond a session's own norm: single cases, and weeks of traffic of many kinds."""

import random
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median

import pytest

from wsm.core.mute import QUARTER, Past, is_silent, past, quarter, start_of, usual

MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
DAY, WEEK = 86_400, 7 * 86_400
HOURS = 3600


def heard(*weeks: int, hours: Iterable[int] = range(9, 18), before: datetime = MONDAY) -> Past:
    """The past of a shop that hears something in every quarter of its hours, every day of some past weeks."""
    since = quarter(before - timedelta(weeks=5))
    quarters = [
        quarter(before - timedelta(weeks=week) + timedelta(days=day, hours=hour, minutes=minute)) - since
        for week in weeks
        for day in range(7)
        for hour in hours
        for minute in (0, 15, 30, 45)
    ]
    return past(since, quarters)


def at(hour: int, minute: int = 0, *, day: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


def test_a_quarter_is_counted_from_1970_on() -> None:
    assert quarter(at(0, 14)) + 1 == quarter(at(0, 15))
    assert start_of(quarter(at(9, 44))) == at(9, 30)
    assert timedelta(weeks=1) % QUARTER == timedelta()


def test_a_session_is_silent_when_something_usually_comes_in_at_this_hour() -> None:
    its = heard(1, 2, 3, 4)
    assert usual(its, at(10), at(12)) == 7
    assert not is_silent(its, at(10, 14), at(11, 14))
    assert is_silent(its, at(10, 14), at(11, 15))
    assert not is_silent(its, at(17, 59), at(9, day=1))
    assert is_silent(its, at(17, 59), at(10, day=1))


def test_a_short_silence_means_nothing_however_busy_the_session_is() -> None:
    assert not is_silent(heard(1, 2, 3, 4), at(10), at(10, 59))


def test_one_odd_week_of_the_last_ones_does_not_change_the_norm_and_two_do() -> None:
    for odd in (1, 2, 3, 4):
        assert is_silent(heard(*({1, 2, 3, 4} - {odd})), at(10), at(12))
    # The second week with nothing in these hours; that it was known before is seen by what came in elsewhen.
    its = heard(1, 2, 3, 4, hours=[20])
    both = Past(its.since, its.heard | heard(3, 4).heard)
    assert not is_silent(both, at(10), at(12))


@pytest.mark.parametrize(("weeks", "silent"), [((), False), ((1,), False), ((1, 2), True)])
def test_who_is_not_known_for_two_weeks_is_never_suspected(weeks: tuple[int, ...], silent: bool) -> None:
    its = heard(*weeks)
    assert is_silent(its, at(10), at(12)) is silent
    assert is_silent(its, at(10), at(12, day=3)) is silent


def test_every_answered_probe_doubles_the_silence_that_the_next_one_needs() -> None:
    its = heard(1, 2, 3, 4)

    def shortest(answered: int) -> int:
        return next(
            minutes
            for minutes in range(0, 24 * 60, 15)
            if is_silent(its, at(9), at(9) + timedelta(minutes=minutes), answered=answered)
        )

    assert [shortest(answered) for answered in range(4)] == [75, 135, 255, 495]
    assert not is_silent(its, at(9), at(9, day=30), answered=10**6)


def test_what_is_newer_in_the_past_than_the_last_sign_counts_as_the_last_sign() -> None:
    its = heard(1, 2, 3, 4)
    today = Past(its.since, its.heard | 1 << quarter(at(11, 30)) - its.since)
    assert not is_silent(today, datetime.fromtimestamp(0, UTC), at(12, 30))
    assert is_silent(today, datetime.fromtimestamp(0, UTC), at(12, 45))


Rate = Callable[[float], float]
"""Conversations that begin in an hour, by seconds since the first Monday."""


def open_hours(days: Iterable[int], hours: tuple[float, float], rate: float, rest: float) -> Rate:
    """So many in these hours of these days (which may last past midnight), so few at all other times."""
    begin, end = hours

    def of(second: float) -> float:
        day, hour = int(second % WEEK // DAY), second % DAY / HOURS
        now = day in days and begin <= hour < end
        return rate if now or ((day - 1) % 7 in days and hour + 24 < end) else rest

    return of


def season(weekly: float, most: float = 1) -> Rate:
    """A shop whose business grows, or dwindles, by a factor from week to week."""
    usual_rate = open_hours(range(6), (8, 19), 30, 0.3)
    start = 0.02 if weekly > 1 else 1
    return lambda second: usual_rate(second) * min(most, start * weekly ** (second / WEEK))


def traffic(rate: Rate, *, most: float, messages: float, closed: Sequence[int], seed: int) -> list[float]:
    """When messages come in, over `WEEKS`: conversations of some messages, on days busier and quieter.

    most      conversations in an hour; messages: in a conversation, on average, a minute and a half apart
    closed    days on which nothing comes in at all
    """
    chance = random.Random(seed)
    found: list[float] = []
    second, day, mood = 0.0, -1, 1.0
    while (second := second + chance.expovariate(most * 3 / HOURS)) < WEEKS * WEEK:
        if int(second // DAY) != day:
            day, mood = int(second // DAY), min(3, chance.gammavariate(4, 0.25))
        if day in closed or chance.random() * most * 3 > rate(second) * mood:
            continue
        written = second
        for _ in range(1 + int(chance.expovariate(1 / messages))):
            found.append(written)
            written += chance.expovariate(1 / 90)
    return sorted(found)


def asked(messages: Sequence[float], since: float, cut: float = float("inf")) -> list[float]:
    """When a session is asked, seconds from the first Monday; after `cut` it hears nothing, and the first
    probe ends it, for it finds it mute. Before, all are answered. Looked at every ten minutes."""
    begin = MONDAY - timedelta(weeks=WEEKS)
    offset, window = quarter(begin), timedelta(days=32) // QUARTER
    bits, n, last, answered = 0, 0, 0.0, 0
    found: list[float] = []
    second = since
    while second < WEEKS * WEEK:
        while n < len(messages) and messages[n] <= min(second, cut):
            last, answered = messages[n], 0
            bits |= 1 << int(last // (DAY / 96))
            n += 1
        if second - last >= HOURS:
            low = max(0, int(second // (DAY / 96)) - window)
            its = Past(offset + low, bits >> low)
            silent_since, now = (begin + timedelta(seconds=moment) for moment in (last, second))
            if is_silent(its, silent_since, now, answered=answered):
                answered += 1
                found.append(second)
                if second > cut:
                    break
        second += 600
    return found


WEEKS, KNOWN = 10, 4
KINDS: dict[str, tuple[Rate, float, float, tuple[int, ...], float, float]] = {
    # rate, most, messages, days closed; at most so many probes a week, median of hours until it is found
    "busy shop": (open_hours(range(6), (8, 19), 40, 0.3), 40, 4, (), 4, 1.5),
    "quiet lawyer": (open_hours(range(5), (9, 18), 0.7, 0.02), 0.7, 6, (), 6, 48),
    "night bar": (open_hours((3, 4, 5), (18, 27), 12, 0.05), 12, 4, (), 3, 6),
    "always a little": (lambda _: 1, 1, 3, (), 10, 8),
    "rising season": (season(1.4), 30, 4, (), 4, 8),
    "falling season": (season(0.7), 30, 4, (), 12, 6),
    "holidays": (open_hours(range(6), (8, 19), 40, 0.3), 40, 4, (37, 45, 53, 60, 61, 62), 6, 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_over_weeks_of_traffic_a_mute_session_is_found_and_a_quiet_one_is_seldom_asked(kind: str) -> None:
    rate, most, messages, closed, probes, hours = KINDS[kind]
    heard_at = traffic(rate, most=most, messages=messages, closed=closed, seed=7)
    needless = asked(heard_at, KNOWN * WEEK)
    assert len(needless) / (WEEKS - KNOWN) <= probes
    last, first = bisect(heard_at, (WEEKS - 2) * WEEK), bisect(heard_at, (KNOWN + 1) * WEEK)
    delays = []
    for cut in heard_at[first : last : max(1, (last - first) // 11)]:
        *_, found = asked(heard_at, cut // WEEK * WEEK, cut)
        assert found > cut, "never found"
        delays.append((found - cut) / HOURS)
    assert median(delays) <= hours


def test_a_holiday_costs_a_few_probes() -> None:
    rate, most, messages, _, _, _ = KINDS["busy shop"]
    holiday = 7 * 7 + 2
    heard_at = traffic(rate, most=most, messages=messages, closed=[holiday], seed=7)
    on_it = [
        second for second in asked(heard_at, KNOWN * WEEK) if holiday * DAY <= second < holiday * DAY + DAY
    ]
    assert 1 <= len(on_it) <= 5
