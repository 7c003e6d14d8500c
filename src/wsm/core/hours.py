"""When a queue is open: hours of the week, holidays, in the time zone of its tenant.

Hours are wall time, as they stand on a shop's door, also on the days on which clocks change: a time that is
left out is the one an hour later, and of an hour that comes twice the first opens and the second closes. A
queue without hours is always open.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from wsm.core.errors import BadInput

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_AHEAD_DAYS = 60
"""How far an opening is looked for: what does not open before is not told."""

LOOK_AGAIN = timedelta(days=30)
"""When to look again at a queue that neither opens nor closes before."""


class Hours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A queue's hours, as they are written: `HH:MM-HH:MM`, past midnight where the end is the smaller one.

    week      for each of `DAYS`; a day that is missing is closed
    holidays  by date, `YYYY-MM-DD`: the hours of that day instead, none for a closed one
    entering  what becomes of who writes while it is closed: he waits, or leaves a message
    """

    week: Mapping[str, tuple[str, ...]] = {}
    holidays: Mapping[str, tuple[str, ...]] = {}
    entering: Literal["wait", "message"] = "wait"


def check(hours: Hours, zone: str) -> None:
    """Refuse hours that cannot be kept. Raises BadInput naming the field."""
    for day, spans in hours.week.items():
        if day not in DAYS:
            raise BadInput("week", f"{day!r} is none of {', '.join(DAYS)}")
        _checked(f"week.{day}", spans)
    for day, spans in hours.holidays.items():
        try:
            date.fromisoformat(day)
        except ValueError:
            raise BadInput("holidays", f"{day!r} is no date like 2026-12-25") from None
        _checked(f"holidays.{day}", spans)
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise BadInput("time_zone", f"{zone!r} is unknown") from None


def days_said(text: str) -> dict[str, tuple[str, ...]]:
    """Read hours as people say them: `mon-fri 09:00-12:00 13:00-18:00`. Raises BadInput.

    >>> days_said("sat-sun 10:00-14:00")
    {'sat': ('10:00-14:00',), 'sun': ('10:00-14:00',)}
    """
    days, *spans = text.split() or [""]
    first, dash, last = days.partition("-")
    last = last if dash else first
    if first not in DAYS or last not in DAYS or DAYS.index(last) < DAYS.index(first):
        raise BadInput("open", f"{days!r} is neither a day like mon nor days like mon-fri")
    _checked("open", tuple(spans))
    return dict.fromkeys(DAYS[DAYS.index(first) : DAYS.index(last) + 1], tuple(spans))


def is_open(hours: Hours | None, zone: str, now: datetime) -> bool:
    """Whether the queue is open at `now`."""
    return hours is None or open_span(hours, zone, now) is not None


def open_span(hours: Hours, zone: str, now: datetime) -> tuple[datetime, datetime] | None:
    """Return since when it is open at `now`, and until when, at least for the day; None if it is not."""
    spans = _spans(hours, zone, now, 1)
    return next(((opens, closes) for opens, closes in spans if opens <= now < closes), None)


def next_opening(hours: Hours, zone: str, now: datetime) -> datetime | None:
    """Return when it opens next after `now`, in its own time zone; None if not within 60 days."""
    openings = (opens for opens, _ in _spans(hours, zone, now, _AHEAD_DAYS) if opens > now)
    opening = next(openings, None)
    return opening and opening.astimezone(ZoneInfo(zone))


def next_change(hours: Hours, zone: str, now: datetime) -> datetime | None:
    """Return when it opens or closes next, after `now`; None if not in the next weeks."""
    spans = list(_spans(hours, zone, now, _AHEAD_DAYS))
    within = next((closes for opens, closes in spans if opens <= now < closes), None)
    if within is not None:
        return within if within < now + timedelta(days=_AHEAD_DAYS - 1) else None
    return next_opening(hours, zone, now)


def in_words(opening: datetime | None, now: datetime, locale: str) -> str | None:
    """Say when it opens, for `{next_open}`; None when nobody knows.

    opening  in the queue's own time zone
    """
    if opening is None:
        return None
    days = (opening.date() - now.astimezone(opening.tzinfo).date()).days
    return _english(opening, days) if locale == "en" else _portuguese(opening, days)


def _english(opening: datetime, days: int) -> str:
    hour = f"{opening:%I:%M %p}".lstrip("0").replace(":00", "").lower()
    if days <= 1:
        return f"{'today' if days == 0 else 'tomorrow'} at {hour}"
    if days < len(DAYS):
        return f"on {_ENGLISH[opening.weekday()]} at {hour}"
    return f"on {_MONTHS[opening.month - 1]} {opening.day} at {hour}"


def _portuguese(opening: datetime, days: int) -> str:
    minutes = f"{opening.minute:02}" if opening.minute else ""
    hour = f"{'à' if opening.hour == 1 else 'às'} {opening.hour}h{minutes}"
    if days <= 1:
        return f"{'hoje' if days == 0 else 'amanhã'} {hour}"
    if days < len(DAYS):
        return f"{_PORTUGUESE[opening.weekday()]} {hour}"
    return f"em {opening:%d/%m} {hour}"


_ENGLISH = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PORTUGUESE = (
    "na segunda-feira",
    "na terça-feira",
    "na quarta-feira",
    "na quinta-feira",
    "na sexta-feira",
    "no sábado",
    "no domingo",
)


def _spans(hours: Hours, zone: str, now: datetime, days: int) -> Iterator[tuple[datetime, datetime]]:
    """Yield when it is open, in order, from yesterday on; what touches is one."""
    place = ZoneInfo(zone)
    today = now.astimezone(place).date()
    last: tuple[datetime, datetime] | None = None
    for ahead in range(-1, days + 1):
        day = today + timedelta(days=ahead)
        said = hours.holidays.get(day.isoformat(), hours.week.get(DAYS[day.weekday()], ()))
        for opens, closes in sorted(_on(day, span, place) for span in said):
            if last is not None and opens <= last[1]:
                last = (last[0], max(last[1], closes))
                continue
            if last is not None:
                yield last
            last = (opens, closes)
    if last is not None:
        yield last


def _on(day: date, span: str, place: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the moments of a span that begins on `day`, in UTC: between moments of one zone Python compares
    the walls."""
    opens, closes = map(_minutes, span.split("-"))
    until = day if closes > opens else day + timedelta(days=1)
    return _moment(day, opens, place, fold=0), max(_moment(until, closes, place, fold=n) for n in (0, 1))


def _moment(day: date, minutes: int, place: ZoneInfo, *, fold: int) -> datetime:
    day, minutes = day + timedelta(days=minutes // _DAY), minutes % _DAY
    wall = datetime.combine(day, time(minutes // 60, minutes % 60, fold=fold), tzinfo=place)
    return wall.astimezone(UTC)


_DAY = 24 * 60


def _minutes(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def _checked(field: str, spans: tuple[str, ...]) -> None:
    for span in spans:
        try:
            opens, closes = map(_minutes, span.split("-"))
        except ValueError:
            raise BadInput(field, f"{span!r} is no span like 09:00-18:00") from None
        if not (0 <= opens < _DAY and 0 <= closes <= _DAY and opens != closes):
            raise BadInput(field, f"{span!r} is no span like 09:00-18:00")
