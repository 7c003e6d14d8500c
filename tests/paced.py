"""A session's outbox in memory, moved by `core.pacing` and a clock that the test moves.

It keeps every claim, and finds what the core asks for by counting them: what the store finds by numbers and
indexes must be the same.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from wsm.core.content import SendClass
from wsm.core.pacing import (
    After,
    Budget,
    Correspondent,
    Head,
    Numbers,
    Pace,
    Wait,
    after_claim,
    choose,
    curve,
    put_off,
    refused,
    typing_time,
)

MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC)
SAO_PAULO = timedelta(hours=-3)
_ORDER = list(SendClass)
_NEVER_HELD = {SendClass.AGENT, SendClass.TURN}


class Intent(msgspec.Struct):
    """Something to say; `not_before` moves when it is put off or typed."""

    id: int
    urgency: SendClass
    chat: int
    cold: bool
    since: datetime
    not_before: datetime
    typing_until: datetime | None = None


class Claim(msgspec.Struct, frozen=True):
    """It left. behind: more urgent ones that could have left instead."""

    intent: Intent
    at: datetime
    budget: Budget | None
    behind: int


class Paced:
    """One session. off: what has to wait by itself; fresh: what never had; put_off: when others may."""

    def __init__(self, pace: Pace, chance: Callable[[], float], *, types: bool = True) -> None:
        self.pace = pace
        self.chance = chance
        self.types = types
        self.pending: dict[tuple[SendClass, bool], dict[int, Intent]] = defaultdict(dict)
        self.off: dict[int, Intent] = {}
        self.fresh: dict[tuple[SendClass, bool], dict[int, Intent]] = defaultdict(dict)
        self.put_off: dict[tuple[SendClass, bool], list[tuple[datetime, int]]] = defaultdict(list)
        self.chats: dict[tuple[int, SendClass], dict[int, None]] = defaultdict(dict)
        self.claims: list[Claim] = []
        self.failed: list[tuple[int, str]] = []
        self.times: dict[Budget | None, list[datetime]] = defaultdict(list)
        self.told: dict[int, list[tuple[datetime, SendClass]]] = defaultdict(list)
        self.after: After | None = None
        self.next_first_at: datetime | None = None
        self.warm_since: datetime | None = None
        self.frozen_until: datetime | None = None
        self.picks = 0
        self._numbers = 0

    def say(self, urgency: SendClass, chat: int, now: datetime, *, cold: bool = False) -> int:
        """Write an intent and return its number."""
        self._numbers += 1
        intent = Intent(self._numbers, urgency, chat, cold, now, now)
        self.pending[urgency, cold][self._numbers] = self.fresh[urgency, cold][self._numbers] = intent
        self.chats[chat, urgency][self._numbers] = None
        return self._numbers

    def step(self, now: datetime) -> datetime | None:
        """Do one thing that may be done now; say when to come again, None when nothing is left."""
        while True:
            heads = {head.id: head for head in self._heads(now)}
            chosen = choose(self.pace, self.numbers(now), heads.values(), now)
            if not isinstance(chosen, Head):
                return self._later(chosen, now)
            intent = self.pending[chosen.urgency, chosen.cold][chosen.id]
            whom = self._whom(intent, now)
            if refusal := refused(self.pace, chosen, whom, now):
                self.failed.append((intent.id, refusal.why))
                self._gone(intent)
            elif wait := put_off(self.pace, chosen, whom, now, self.chance()):
                self._put_off(intent, wait.until)
            elif chosen.types and not chosen.typed:
                intent.typing_until = now + typing_time(self.pace, "text", 80, self.chance())
                self._put_off(intent, intent.typing_until)
                self.picks += 1
                return now
            else:
                self._claim(chosen, intent, now)
                return now

    def run(self, until: datetime, now: datetime) -> datetime:
        """Let time pass until then, and everything leave in it that may."""
        at = self.step(now)
        while at is not None and at <= until:
            at = self.step(at)
        return until

    def numbers(self, now: datetime) -> Numbers:
        """What the core asks for, counted."""
        pace, replies, firsts = self.pace, self.times[Budget.REPLY], self.times[Budget.FIRST]
        everything = self.times[None]
        day = (now - self.warm_since).days if self.warm_since else 0
        limits = curve(pace)
        typing = [at for each in self.off.values() if (at := each.typing_until) is not None and at > now]
        return Numbers(
            local=(now + SAO_PAULO).replace(tzinfo=None),
            picks=self.picks,
            next_at=self.after.next_at if self.after else None,
            next_first_at=self.next_first_at,
            warm_since=self.warm_since,
            first_at=firsts[-1] if firsts else None,
            frozen_until=self.frozen_until,
            reply_minute=_nth(replies, pace.reply_per_minute),
            reply_day=_nth(replies, pace.reply_per_day),
            first_day=_nth(firsts, limits[day]) if day < len(limits) else None,
            all_minute=_nth(everything, pace.per_minute),
            all_hour=_nth(everything, pace.per_hour),
            all_day=_nth(everything, pace.per_day),
            typing=len(typing),
            typing_until=min(typing, default=None),
        )

    def _heads(self, now: datetime) -> Iterator[Head]:
        """Of each class the one that may go since longest; in a chat the first that was written.

        What was put off had been the first of its chat, and still is.
        """
        for group, those in self.pending.items():
            put_off = self.put_off[group]
            while put_off and not self._waits(those, *put_off[0]):
                heapq.heappop(put_off)
            first = next((each for each in self.fresh[group].values() if self._is_first(each)), None)
            due = [those[number] for at, number in put_off[:1] if at <= now]
            due += [first] if first is not None and first.not_before <= now else []
            if due:
                yield self._head(min(due, key=lambda each: (each.not_before, each.id)))

    def _put_off(self, intent: Intent, until: datetime) -> None:
        group = intent.urgency, intent.cold
        intent.not_before = until
        self.off[intent.id] = intent
        self.fresh[group].pop(intent.id, None)
        heapq.heappush(self.put_off[group], (until, intent.id))

    @staticmethod
    def _waits(those: dict[int, Intent], until: datetime, number: int) -> bool:
        return number in those and those[number].not_before == until

    def _is_first(self, intent: Intent) -> bool:
        return next(iter(self.chats[intent.chat, intent.urgency])) == intent.id

    def _gone(self, intent: Intent) -> None:
        """Take one out that left, or never will."""
        del self.pending[intent.urgency, intent.cold][intent.id]
        del self.chats[intent.chat, intent.urgency][intent.id]
        self.fresh[intent.urgency, intent.cold].pop(intent.id, None)

    def _head(self, intent: Intent) -> Head:
        return Head(
            id=intent.id,
            urgency=intent.urgency,
            cold=intent.cold,
            since=intent.since,
            typed=intent.typing_until is not None,
            types=self.types and self.pace.typing,
        )

    def _whom(self, intent: Intent, now: datetime) -> Correspondent:
        told = self.told[intent.chat]
        automatic = [at for at, urgency in told if urgency not in {SendClass.AGENT, SendClass.TURN}]
        return Correspondent(
            told_at=told[-1][0] if told else None,
            automated_at=_nth(automatic, self.pace.contact_automated_per_day),
        )

    def _claim(self, head: Head, intent: Intent, now: datetime) -> None:
        self.after = after_claim(self.pace, self.numbers(now), head, now, self.chance())
        self.next_first_at = self.after.next_first_at or self.next_first_at
        self.warm_since = self.after.warm_since or self.warm_since
        self.picks += not head.typed
        self._gone(intent)
        behind = 0 if head.typed else self._behind(intent, now)
        self.claims.append(Claim(intent, now, head.budget, behind))
        self.told[intent.chat].append((now, intent.urgency))
        self.times[head.budget].append(now)
        self.times[None].append(now)

    def _behind(self, intent: Intent, now: datetime) -> int:
        """How many were more urgent, answer people who wrote, and were held up by nobody of theirs."""
        gap = timedelta(seconds=self.pace.contact_gap_seconds)
        behind = 0
        for head in self._heads(now):
            told = self.told[self.pending[head.urgency, head.cold][head.id].chat]
            free = not told or told[-1][0] + gap <= now
            more_urgent = _ORDER.index(head.urgency) < _ORDER.index(intent.urgency)
            behind += more_urgent and free and not head.cold and head.urgency in _NEVER_HELD
        return behind

    def _later(self, wait: Wait | None, now: datetime) -> datetime | None:
        self.off = {number: each for number, each in self.off.items() if each.not_before > now}
        soon = [each.not_before for each in self.off.values()]
        return min([*soon, *([wait.until] if wait else [])], default=None)


def _nth(times: list[datetime], count: int) -> datetime | None:
    """The time of the claim so many before the next."""
    return times[-count] if len(times) >= count else None
