"""What an intent says, made of its row in the moment of the claim: true then, or not said at all."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from wsm.core import notices
from wsm.core.content import SendClass
from wsm.core.conversation import State
from wsm.core.hours import Hours, in_words, is_open, next_opening
from wsm.core.notices import Pace, Policy, Told, estimate
from wsm.core.templates import minutes_range, render
from wsm.core.wishes import confirms

_TRUE_IN: Mapping[str, State] = {
    "turn": State.SERVED,
    "nudge": State.SERVED,
    "reminder": State.SERVED,
    "released": State.PARKED,
    "left": State.CLOSED,
    "overflow": State.CLOSED,
    "closing": State.CLOSED,
    "closed_message": State.CLOSED,
    "ended": State.CLOSED,
    "survey": State.CLOSED,
}
"""Where a ticket must stand for a text about it to be true; the others are true anyway."""

UNTRUE, HUMAN, TOO_SOON = "no longer true", "a person has spoken", "told a moment ago"
"""Why an intent is dropped, or put off; in plain words, for people."""


class Saying(msgspec.Struct, frozen=True):
    """What is said. word: the template's name, if one was rendered; place: the one that this tells."""

    text: str
    word: str | None = None
    place: int | None = None


class Later(msgspec.Struct, frozen=True):
    """Not before then."""

    until: datetime


class Drop(msgspec.Struct, frozen=True):
    """Not at all, and why."""

    reason: str


def rendered(row: Any, now: datetime) -> Saying | Later | Drop:
    """Return what is true to say now of an intent. row: of the query `next_pending`."""
    is_notice = not row.args or "say" in row.args  # else somebody wrote it
    match row.intent:
        case SendClass.PLACE if is_notice:
            return _place(row, now)
        case SendClass.TURN | SendClass.SURVEY if is_notice:
            return _about_ticket(row, now)
        case SendClass.BOT if row.human_until is not None and row.human_until > now:
            if not confirms(row.intent_key):
                return Drop(HUMAN)
    return Saying(row.body or "")


def _place(row: Any, now: datetime) -> Saying | Later | Drop:
    policy, hours = msgspec.convert(row.notices, Policy), _hours(row)
    told = Told(
        place=row.told_place,
        at=row.place_told_at,
        updates=row.told_updates,
        asked_at=row.asked_at,
        silence_at=row.silence_at,
        entered_again=row.served_at is not None,
    )
    shut = not is_open(hours, row.zone, now)
    found = notices.to_tell(row.place, told, policy, now, shut=shut)
    if found is None:
        return Drop(UNTRUE)
    if isinstance(found, datetime):
        return Later(found)
    pace = Pace(
        slots=row.slots,
        slots_lately=row.slots_lately,
        seconds=row.handle_seconds,
        sample=row.handle_sample,
    )
    wait = None if shut else estimate(found.place, pace, policy)
    values = {
        "place": found.place,
        "ahead": found.place - 1,
        "eta": wait and minutes_range(*wait, row.locale),
        "next_open": _next_open(row, hours, now),
    }
    return Saying(render(found.name, row.locale, row.templates, **values), found.name, found.place)


def _about_ticket(row: Any, now: datetime) -> Saying | Drop:
    args: Mapping[str, Any] = row.args
    name = str(args.get("say", "turn"))
    if _TRUE_IN.get(name, row.ticket_state) != row.ticket_state:
        return Drop(UNTRUE)
    if name == "turn" and row.agent:
        name = "turn_by"
    values = {
        "agent": row.agent,
        "minutes": args.get("minutes"),
        "next_open": _next_open(row, _hours(row), now),
    }
    return Saying(render(name, row.locale, row.templates, **values), name)


def _hours(row: Any) -> Hours | None:
    return None if row.hours is None else msgspec.convert(row.hours, Hours)


def _next_open(row: Any, hours: Hours | None, now: datetime) -> str | None:
    return None if hours is None else in_words(next_opening(hours, row.zone, now), now, row.locale)
