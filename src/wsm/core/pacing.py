"""The pace of a session: when its next message may leave, and why it waits.

Unofficial clients lose numbers over bursts, strangers and beats that no person keeps; nobody publishes a safe
rate. So every message is counted under one of three budgets, and waits until its budget has room:

    reply     in a chat whose correspondent has written before: what customers came for
    first     to somebody who never wrote: off by default, and warmed up over days
    campaign  to many: what the limits of all messages together leave, in allowed hours

A limit of N in W is exact and counts nothing: the n-th message may leave W after the (n - N)-th did. Limits
are never undercut: where a delay keeps one, its jitter only lengthens it. Figures are caps and no targets;
where they come from stands in `deploy/wsm.toml` and ADR 0017.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from wsm.core.content import SendClass
from wsm.core.outbox import RATE_LIMITED, Lock
from wsm.core.reasons import Why

Rate = Annotated[int, Meta(ge=1, le=1_000_000)]
_Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

FAIR = 10
"""Of so many messages of a session one goes to whoever has waited longest."""
SLOWER = 4
"""By how much the pauses between replies grow after WhatsApp called a session too fast."""
JITTER = (0.7, 1.3)
_LONGEST_LOCK = timedelta(days=30)
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_MORE_URGENT = {each: rank for rank, each in enumerate(SendClass)}
_OFFICE = frozenset({SendClass.AGENT, SendClass.TURN})
"""What a person said, or what somebody waits for: no limit of automatic messages holds it up."""
_AUTOMATIC = frozenset({SendClass.BOT, SendClass.SURVEY, SendClass.CAMPAIGN})
_UNCOUNTED = frozenset({"seen", "typing"})
_MEDIA = frozenset({"image", "file", "video"})


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figures, with their units in their names; `deploy/wsm.toml` says what each means."""

    reply_per_minute: Rate = 20
    reply_per_day: Rate = 3_000
    per_minute: Rate = 8
    per_hour: Rate = 200
    per_day: Rate = 1_000
    gap_seconds: _Seconds = 2.0
    ramp_seconds: _Seconds = 60.0
    contact_gap_seconds: _Seconds = 6.0
    contact_automated_per_day: Annotated[int, Meta(ge=1, le=1000)] = 20
    first_contacts: bool = False
    first_on_first_day: Rate = 15
    first_growth: Annotated[float, Meta(ge=1, le=10)] = 1.8
    first_days: Annotated[int, Meta(ge=1, le=60)] = 10
    first_idle_hours: Annotated[float, Meta(gt=0, le=8760)] = 72.0
    first_gap_seconds: tuple[_Seconds, _Seconds] = (30.0, 60.0)
    campaign_hours: tuple[Annotated[int, Meta(ge=0, le=24)], Annotated[int, Meta(ge=0, le=24)]] = (9, 20)
    campaign_weekdays: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat")
    typing: bool = True
    typing_chats: Annotated[int, Meta(ge=1, le=100)] = 3
    typing_seconds_per_character: _Seconds = 0.04
    typing_seconds: tuple[_Seconds, _Seconds] = (0.8, 8.0)
    freeze_hours: Annotated[float, Meta(gt=0, le=8760)] = 24.0
    slow_minutes: Annotated[float, Meta(gt=0, le=10_080)] = 60.0
    same_text_contacts: Annotated[int, Meta(ge=1, le=1_000_000)] = 3
    loop_minutes: Annotated[float, Meta(gt=0, le=1440)] = 10.0
    loop_messages: Rate = 8
    loop_repeats: Annotated[int, Meta(ge=2, le=1_000_000)] = 3
    bot_pause_minutes: Annotated[float, Meta(gt=0, le=10_080)] = 60.0


class Budget(StrEnum):
    """What a message is counted under; the words of the column."""

    REPLY = "reply"
    FIRST = "first"
    CAMPAIGN = "campaign"


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a session's pace.

    local     the moment in the tenant's time zone
    since     since when the session works without a break; None: not known
    reply_minute, reply_day, first_day, all_minute, all_hour, all_day   the claim that must be so old: the one
              that many before the next; None while there were fewer
    typing    in how many chats somebody types, and until when in the first of them
    """

    local: datetime
    since: datetime | None = None
    picks: int = 0
    next_at: datetime | None = None
    next_first_at: datetime | None = None
    warm_since: datetime | None = None
    first_at: datetime | None = None
    frozen_until: datetime | None = None
    slowed_until: datetime | None = None
    reply_minute: datetime | None = None
    reply_day: datetime | None = None
    first_day: datetime | None = None
    all_minute: datetime | None = None
    all_hour: datetime | None = None
    all_day: datetime | None = None
    typing: int = 0
    typing_until: datetime | None = None


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first of its class that may be next.

    since  when it was written
    types  somebody is to be shown to type it; typed: that was done
    confirms  it says that a wish of its correspondent was heard: no limit of automatic messages keeps it back
    """

    id: int
    urgency: SendClass
    cold: bool
    since: datetime
    kind: str = "text"
    typed: bool = False
    types: bool = False
    confirms: bool = False

    @property
    def budget(self) -> Budget | None:
        """What it is counted under; None for what is no message."""
        if self.kind in _UNCOUNTED:
            return None
        if self.cold:
            return Budget.FIRST
        return Budget.CAMPAIGN if self.urgency is SendClass.CAMPAIGN else Budget.REPLY


class Wait(msgspec.Struct, frozen=True):
    """Nothing may leave before `until`."""

    until: datetime
    why: Why


class Refusal(msgspec.Struct, frozen=True):
    """It will never leave. dropped: nobody has to know; else it failed."""

    why: Why
    dropped: bool = False


class Correspondent(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of whom a head goes to.

    told_at         when a message to him was claimed last
    automated_at    when the n-th last automatic one was, n being the day's limit
    opted_out       he asked for no more
    bot_paused_until  the bot is silent in this chat
    said, repeated  what the bot said to him within the loop's minutes, and how much of it was this text
    same_text       how many others of the session got the same automatic text within a day
    """

    told_at: datetime | None = None
    automated_at: datetime | None = None
    opted_out: bool = False
    bot_paused_until: datetime | None = None
    said: int = 0
    repeated: int = 0
    same_text: int = 0


class After(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim leaves behind for the next one."""

    next_at: datetime
    next_first_at: datetime | None = None
    warm_since: datetime | None = None


def jittered(seconds: float, chance: float) -> timedelta:
    """Vary a delay by ±30 %. chance: random, at least 0 and less than 1."""
    least, most = JITTER
    return timedelta(seconds=seconds * (least + (most - least) * chance))


def lengthened(seconds: float, chance: float) -> timedelta:
    """Vary a delay that keeps a limit: up to 30 % longer, never shorter."""
    return timedelta(seconds=seconds * (1 + (JITTER[1] - 1) * chance))


def curve(pace: Pace) -> list[int]:
    """How many new people a session may write to within 24 hours, on each day of its warm-up."""
    return [int(pace.first_on_first_day * pace.first_growth**day) for day in range(pace.first_days)]


def choose(pace: Pace, numbers: Numbers, heads: Iterable[Head], now: datetime) -> Head | Wait | None:
    """Choose what leaves next, or say until when everything waits and why. None: there is nothing.

    heads  of each class, and of known and new correspondents, the first that may be next

    What was typed goes first; then the most urgent, but of each ten one is whoever has waited longest among
    those whose budget has room: nobody waits for ever behind the urgent ones.
    """
    waits: list[Wait] = []
    ready: list[Head] = []
    for head in heads:
        wait = may_leave(pace, numbers, head, now)
        if wait is None:
            ready.append(head)
        else:
            waits.append(wait)
    if ready:
        fair = numbers.picks % FAIR == FAIR - 1
        return min(ready, key=lambda head: (not head.typed, *_turn(head, fair=fair)))
    return min(waits, key=lambda wait: wait.until, default=None)


def _turn(head: Head, *, fair: bool) -> tuple[object, ...]:
    return (head.since, head.id) if fair else (_MORE_URGENT[head.urgency], head.cold, head.id)


def may_leave(pace: Pace, numbers: Numbers, head: Head, now: datetime) -> Wait | None:
    """Say until when a head waits for its session, and why; None when it may leave."""
    budget = head.budget
    if budget is None:
        return None
    found = [Wait(numbers.next_at, Why.RAMP if _ramp(pace, numbers, now) < 1 else Why.GAP)] if (
        numbers.next_at is not None
    ) else []  # fmt: skip
    if head.types and not head.typed and numbers.typing >= pace.typing_chats and numbers.typing_until:
        found.append(Wait(numbers.typing_until, Why.TYPING))
    if budget is Budget.REPLY:
        found += _limits(Why.REPLY_LIMIT, (numbers.reply_minute, _MINUTE), (numbers.reply_day, _DAY))
    else:
        found += _limits(
            Why.ALL_LIMIT,
            (numbers.all_minute, _MINUTE), (numbers.all_hour, _HOUR), (numbers.all_day, _DAY),
        )  # fmt: skip
        if numbers.slowed_until is not None:
            found.append(Wait(numbers.slowed_until, Why.SLOWED))
    if budget is Budget.FIRST:
        found += _limits(Why.FIRST_LIMIT, (numbers.first_day, _DAY))
        if numbers.next_first_at is not None:
            found.append(Wait(numbers.next_first_at, Why.FIRST_GAP))
        if numbers.frozen_until is not None:
            found.append(Wait(numbers.frozen_until, Why.FROZEN))
    if head.urgency is SendClass.CAMPAIGN:
        found.append(Wait(now + until_open(pace, numbers.local), Why.HOURS))
    latest = max(found, key=lambda wait: wait.until, default=None)
    return latest if latest is not None and latest.until > now else None


def _limits(why: Why, *limits: tuple[datetime | None, timedelta]) -> Sequence[Wait]:
    return [Wait(at + within, why) for at, within in limits if at is not None]


def until_open(pace: Pace, local: datetime) -> timedelta:
    """How long until campaigns may leave. local: the tenant's own time, without zone."""
    opens, closes = pace.campaign_hours
    for days in range(8):
        day = local.date() + timedelta(days=days)
        if WEEKDAYS[day.weekday()] not in pace.campaign_weekdays or closes <= opens:
            continue
        begins = datetime.combine(day, time()) + timedelta(hours=opens)
        if local < begins + timedelta(hours=closes - opens):
            return max(begins - local, timedelta())
    return timedelta(days=7)


def refused(pace: Pace, head: Head, whom: Correspondent, now: datetime) -> Refusal | None:
    """Say why a head will never leave, None when it may."""
    if head.budget is None or head.confirms:
        return None
    if head.urgency in _AUTOMATIC and whom.opted_out:
        return Refusal(Why.OPTED_OUT)
    if head.cold and (whom.opted_out or not pace.first_contacts):
        return Refusal(Why.OPTED_OUT if whom.opted_out else Why.FIRST_OFF)
    if head.urgency is SendClass.BOT:
        paused = whom.bot_paused_until is not None and whom.bot_paused_until > now
        if paused or loops(pace, head, whom):
            return Refusal(Why.BOT_LOOP, dropped=True)
    if head.urgency in _AUTOMATIC and head.budget is not Budget.REPLY and (
        whom.same_text >= pace.same_text_contacts
    ):  # fmt: skip
        return Refusal(Why.SAME_TEXT)
    return None


def loops(pace: Pace, head: Head, whom: Correspondent) -> bool:
    """Whether the bot goes round in circles: too much said to one person, or the same again and again."""
    too_much = whom.said >= pace.loop_messages or whom.repeated >= pace.loop_repeats - 1
    return head.urgency is SendClass.BOT and too_much


def put_off(pace: Pace, head: Head, whom: Correspondent, now: datetime, chance: float) -> Wait | None:
    """Say until when a head waits for the sake of its correspondent, None when it need not."""
    if head.budget is None:
        return None
    found = []
    if whom.told_at is not None and whom.told_at + timedelta(seconds=pace.contact_gap_seconds) > now:
        found.append(Wait(whom.told_at + lengthened(pace.contact_gap_seconds, chance), Why.CONTACT_GAP))
    asked_for = head.urgency in _OFFICE or head.confirms
    if not asked_for and whom.automated_at is not None and whom.automated_at + _DAY > now:
        found.append(Wait(whom.automated_at + _DAY, Why.CONTACT_DAY))
    return max(found, key=lambda wait: wait.until, default=None)


def typing_time(pace: Pace, kind: str, characters: int, chance: float) -> timedelta:
    """How long somebody types a message, or records it."""
    least, most = pace.typing_seconds
    seconds = {"voice": 3.0}.get(kind, 2.0 if kind in _MEDIA else 0.0)
    seconds += characters * pace.typing_seconds_per_character
    return jittered(min(max(seconds, least), most), chance)


def after_claim(pace: Pace, numbers: Numbers, head: Head, now: datetime, chance: float) -> After:
    """Say what pauses follow a claim. Without a budget none does."""
    if head.budget is None:
        return After(next_at=numbers.next_at or now)
    gap = pace.gap_seconds
    if numbers.slowed_until is not None and numbers.slowed_until > now:
        gap *= SLOWER
    rate = _ramp(pace, numbers, now)
    if rate < 1:
        per_minute = pace.reply_per_minute if head.budget is Budget.REPLY else pace.per_minute
        gap = max(gap, 60 / per_minute / rate)
    next_at = now + jittered(gap, chance)
    if head.budget is not Budget.FIRST:
        return After(next_at=next_at)
    least, most = pace.first_gap_seconds
    idle = numbers.first_at is None or now - numbers.first_at > timedelta(hours=pace.first_idle_hours)
    return After(
        next_at=next_at,
        next_first_at=now + timedelta(seconds=least + (most - least) * chance),
        warm_since=now if idle or numbers.warm_since is None else numbers.warm_since,
    )


def frozen(pace: Pace, lock: Lock, now: datetime) -> tuple[datetime, datetime | None]:
    """Say until when nobody new is written to after WhatsApp said no, and until when replies are slower.

    WhatsApp's own time counts, if it is to come, and for a month at most: clocks and units go wrong, and
    nobody would look at such a session again. Where it names none, a day for 463 (the one lock whose end was
    reported lasted six, but most 463s name no lock at all and pass sooner) and an hour for 429.
    """
    said = min(lock.until, now + _LONGEST_LOCK) if lock.until is not None and lock.until > now else None
    if lock.why == RATE_LIMITED:
        until = said or now + timedelta(minutes=pace.slow_minutes)
        return until, until
    return said or now + timedelta(hours=pace.freeze_hours), None


def _ramp(pace: Pace, numbers: Numbers, now: datetime) -> float:
    """Which part of its rate a session has that came back a moment ago: a tenth at first, then more."""
    if numbers.since is None or pace.ramp_seconds == 0:
        return 1.0
    age = max(0.0, (now - numbers.since).total_seconds())
    return min(1.0, 0.1 + 0.9 * age / pace.ramp_seconds)
