"""Who there is on a day, and how long it lasts: figures, and what a seed makes of them."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from wsm.core.bot import Bot
from wsm.core.hours import Hours
from wsm.core.ids import SessionName, TenantId
from wsm.core.notices import Manners

OPENS = datetime(2026, 11, 23, 11, tzinfo=UTC)
"""A Monday, 08:00 in São Paulo."""

_ZONE = "America/Sao_Paulo"
_LONG = 4.0
_FULL = (2_000, 8.0, 10)
"""Customers, hours and agents of each shop on a whole day; smaller days have as many agents as they need."""
_PEAKS = ((0.30, 0.08), (0.72, 0.07))
"""Where in the day most write, and how wide that is: in the morning, and after lunch."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue's rules, in the words of the commands that set them."""

    name: str
    values: Mapping[str, Any] = {}
    manners: Manners = Manners()
    entering: Literal["wait", "message"] = "wait"
    calls: bool = True


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant: his numbers enter the queue that stands at the same place."""

    tenant: TenantId
    name: str
    locale: str
    queues: tuple[Queue, ...]
    bot: Bot | None = None

    @property
    def sessions(self) -> tuple[SessionName, ...]:
        """His two numbers."""
        return SessionName(f"user_{self.tenant}"), SessionName(f"user_{self.tenant}_two")


SHOPS = (
    Shop(
        tenant=TenantId(1460561546),
        name="Clínica",
        locale="pt-BR",
        bot=Bot(),
        queues=(
            Queue(name="default", values={"reopen_hours": 2}, manners=Manners(survey=True)),
            Queue(name="exames", values={"reopen_hours": 2, "ageing_minutes": 10}),
        ),
    ),
    Shop(
        tenant=TenantId(1460561547),
        name="Loja",
        locale="pt-BR",
        queues=(
            Queue(
                name="default",
                values={"max_wait_minutes": 40, "keeps": False, "reopen_hours": 1},
                manners=Manners(remind=600, end=600),
                entering="message",
            ),
            Queue(
                name="vendas",
                values={"max_length": 20, "keeps": False},
                manners=Manners(remind=600, end=600),
                entering="message",
            ),
        ),
    ),
    Shop(
        tenant=TenantId(1460561548),
        name="Hotel",
        locale="en",
        queues=(
            Queue(name="default", values={"reopen_hours": 0}, manners=Manners(survey=True)),
            Queue(name="groups", values={"pull": True, "reopen_hours": 0}, calls=False),
        ),
    ),
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A day. troubles: how often something goes wrong; 1 is usual, 0 never."""

    seed: int
    customers: int = _FULL[0]
    hours: float = _FULL[1]
    troubles: float = 1.0
    shops: tuple[Shop, ...] = SHOPS

    @property
    def agents(self) -> int:
        """How many each shop has: as busy as those of a whole day."""
        customers, hours, agents = _FULL
        return max(2, round(agents * (self.customers / customers) / (self.hours / hours)))

    @property
    def closes(self) -> datetime:
        """When the shops close."""
        return OPENS + timedelta(minutes=round(self.hours * 60))

    @property
    def next_morning(self) -> datetime:
        """When they open again; the night of a short day is an hour long."""
        return OPENS + timedelta(days=1) if self.hours > _LONG else self.closes + timedelta(hours=1)

    @property
    def noon(self) -> datetime:
        """When the next morning is over."""
        return self.next_morning + timedelta(hours=4 if self.hours > _LONG else 1.5)

    @property
    def ends(self) -> datetime:
        """When everything has to be over: who was put aside in the last minute has his day."""
        return self.noon + timedelta(hours=26)

    def is_open(self, at: datetime) -> bool:
        """Whether the shops are open then."""
        return OPENS <= at < self.closes or self.next_morning <= at < self.noon

    def open_hours(self, queue: Queue) -> Hours:
        """The hours of a queue, in the words of a shop's door."""
        zone = ZoneInfo(_ZONE)
        week: dict[str, tuple[str, ...]] = {}
        for opens, closes in ((OPENS, self.closes), (self.next_morning, self.noon)):
            day = opens.astimezone(zone).strftime("%a").lower()
            span = f"{opens.astimezone(zone):%H:%M}-{closes.astimezone(zone):%H:%M}"
            week[day] = (*week.get(day, ()), span)
        return Hours(week=week, entering=queue.entering)

    def chance(self, *of: object) -> random.Random:
        """The luck of one thing, whatever the others do."""
        return random.Random("/".join(map(str, (self.seed, *of))))

    def arrival(self, chance: random.Random) -> datetime:
        """When somebody writes first: most in the peaks, some at any time, a few when it is closed."""
        if chance.random() < 0.03:
            return self.closes + timedelta(minutes=chance.uniform(1, 180))
        place = chance.random()
        if chance.random() < 0.6:
            place = min(max(chance.gauss(*chance.choice(_PEAKS)), 0.0), 0.999)
        return OPENS + place * (self.closes - OPENS)
