"""Mute: whether a session that says WORKING is silent beyond its own norm.

The norm is the session's own past: in how many quarters of an hour something came in during the same stretch
of the week, one, two, three and four weeks ago. Nights, Sundays and lunches are in it by themselves, and one
odd week of the four is left out: a holiday, or an outage. Who is not known for two weeks has no norm.

That it is silent makes nobody mute: it is a reason to ask, by an active probe. Each probe that is answered
doubles the silence that the next one needs, so that a holiday costs a few of them.

Simulated over 16 weeks, the first four of them to learn from, three runs each; looked at every five minutes;
cut off at one of its messages by chance (tests/unit/test_core_mute.py has the same in short):

    session                                     needless probes a week    mute is seen after, median; 90 %
    shop, 40 conversations an hour, Mon to Sat           1.4                  1.1 h;  1.2 h
    the same with six holidays                           2.4                  1.1 h; 11 h
    bar, three nights a week                             0.6                  1.2 h; 16 h
    lawyer, 6 conversations a working day                1.8                 19 h;   66 h (the weekend)
    one conversation an hour, day and night              5.4                  4.7 h;  7 h
    season that ends, 30 % less each week                6.2                  1.3 h; 14 h
    season that begins, 40 % more each week              0.6                  1.2 h;  7 h

With three quarters for `_ENOUGH` probes double and the median falls to 1.0, 12 and 3.6 h; with six there are
a third of them, and it is 1.6, 22 and 7 h (shop, lawyer, one an hour).
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

QUARTER = timedelta(minutes=15)
PAST = timedelta(days=32)
"""As much as is looked at: four weeks, and a silence of four days."""
SHORTEST = timedelta(hours=1)
"""No shorter silence means anything."""
_WEEK = timedelta(weeks=1) // QUARTER
_WEEKS = 4
_FEWEST_WEEKS = 2
_ODD_FROM = 3
_ENOUGH = 4
"""In so many quarters something usually came in, before a silence is beyond the norm."""
_MOST_DOUBLINGS = 16


class Past(msgspec.Struct, frozen=True):
    """When something came in through a session: bit n of `heard` is the quarter numbered `since` + n."""

    since: int
    heard: int


def quarter(at: datetime) -> int:
    """Number the quarter of an hour that a moment falls into, from 1970 on, in UTC."""
    return int(at.timestamp()) // int(QUARTER.total_seconds())


def start_of(number: int) -> datetime:
    """Return when a quarter begins."""
    return datetime.fromtimestamp(number * QUARTER.total_seconds(), UTC)


def past(since: int, heard: Iterable[int]) -> Past:
    """Make a past of the numbers of quarters, counted from `since`."""
    bits = 0
    for number in heard:
        bits |= 1 << number
    return Past(since, bits)


def usual(its: Past, last: datetime, now: datetime) -> int:
    """Count the whole quarters between the last sign of life and now in which something usually comes in.

    The last sign is `last`, or the newest in its past where that is newer.

    Of the weeks that are known the least, without the oddest of three or more; 0 when fewer than two are.
    """
    first = its.since + (its.heard & -its.heard).bit_length() - 1
    start, end = max(quarter(last) + 1, its.since + its.heard.bit_length()), quarter(now)
    within = (1 << max(0, end - start)) - 1
    counts = sorted(
        (its.heard >> start - weeks * _WEEK - its.since & within).bit_count()
        for weeks in range(1, _WEEKS + 1)
        if its.heard and first <= start - weeks * _WEEK
    )
    if len(counts) < _FEWEST_WEEKS:
        return 0
    return counts[1 if len(counts) >= _ODD_FROM else 0]


def is_silent(its: Past, last: datetime, now: datetime, *, answered: int = 0) -> bool:
    """Whether to ask a session that was last heard at `last`.

    answered  how many probes were answered since then
    """
    if now - last < SHORTEST:
        return False
    return usual(its, last, now) >= _ENOUGH << min(answered, _MOST_DOUBLINGS)
