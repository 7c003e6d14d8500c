"""The time of the day, which nothing but the day moves, and what is going to happen in it."""

import heapq
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

Action = Callable[[], Awaitable[None]]

BETWEEN_ACTIONS = timedelta(milliseconds=3)
"""What happens in one second happens one after the other."""


class Clock:
    """Says what time it is to everybody who decides."""

    def __init__(self, now: datetime) -> None:
        self.began = self.now = now

    def __call__(self) -> datetime:
        """Now."""
        return self.now

    def ms(self) -> int:
        """Now, in milliseconds since 1970."""
        return int(self.now.timestamp() * 1000)

    def seconds(self) -> float:
        """Seconds since the day began: a clock that never goes back."""
        return (self.now - self.began).total_seconds()


class Agenda:
    """What is going to happen, in its order; in whole seconds, as often as wsm's clock ticks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._coming: list[tuple[datetime, int, Action]] = []

    @property
    def next_at(self) -> datetime | None:
        """When something happens next."""
        return self._coming[0][0] if self._coming else None

    def at(self, when: datetime, action: Action) -> None:
        """Let something happen then, or in the next second if that is over."""
        when = whole_second(max(when, self._clock.now + BETWEEN_ACTIONS))
        heapq.heappush(self._coming, (when, next(self._numbers), action))

    def after(self, seconds: float, action: Action) -> None:
        """Let something happen so much later."""
        self.at(self._clock.now + timedelta(seconds=seconds), action)

    async def happen(self) -> None:
        """Let everything happen whose second has come."""
        second = self._clock.now
        while self._coming and self._coming[0][0] <= second:
            _, _, action = heapq.heappop(self._coming)
            await action()
            self._clock.now += BETWEEN_ACTIONS


def whole_second(at: datetime) -> datetime:
    """Return the first whole second that is not before."""
    return at if at.microsecond == 0 else at.replace(microsecond=0) + timedelta(seconds=1)
