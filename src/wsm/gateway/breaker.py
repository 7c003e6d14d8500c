"""A circuit breaker: a server that does not answer is left alone, then asked once, then trusted again.

              enough FAILED in a row                rest is over
    CLOSED ─────────TRIPPED─────────► OPEN ◄────FAILED──── PROBING
       ▲                               │ └─────RESTED─────────►│
       └───────────ANSWERED────────────┴───────ANSWERED────────┘

Any answer counts, also a refusal: it shows that the server lives. Every rest is twice as long as the one
before, up to a bound, until the server answers.
"""

from collections.abc import Callable
from enum import StrEnum


class Circuit(StrEnum):
    """Whether calls are let through: all, none, or the one that asks."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Signal(StrEnum):
    """What a call or the clock tells. ABANDONED: the call was given up by its caller."""

    ANSWERED = "answered"
    FAILED = "failed"
    TRIPPED = "tripped"
    RESTED = "rested"
    ABANDONED = "abandoned"


TRANSITIONS = {
    (Circuit.CLOSED, Signal.TRIPPED): Circuit.OPEN,
    (Circuit.OPEN, Signal.RESTED): Circuit.PROBING,
    (Circuit.OPEN, Signal.ANSWERED): Circuit.CLOSED,
    (Circuit.PROBING, Signal.ANSWERED): Circuit.CLOSED,
    (Circuit.PROBING, Signal.FAILED): Circuit.OPEN,
    (Circuit.PROBING, Signal.ABANDONED): Circuit.OPEN,
}
"""What is not in the table changes nothing."""


class Breaker:
    """One server's breaker.

    clock     monotonic seconds
    failures  so many calls without an answer, and none with one between them, open the circuit
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        failures: int = 5,
        rest_seconds: float = 1.0,
        longest_rest_seconds: float = 30.0,
    ) -> None:
        self.circuit = Circuit.CLOSED
        self._clock = clock
        self._failures = failures
        self._first_rest = rest_seconds
        self._longest_rest = longest_rest_seconds
        self._rest = rest_seconds
        self._failed = 0
        self._rests_until = 0.0

    def admits(self) -> bool:
        """Say whether a call may start now. Who is admitted reports once by `tell`."""
        if self.circuit is Circuit.OPEN and self._clock() >= self._rests_until:
            self._move(Signal.RESTED)
            return True
        return self.circuit is Circuit.CLOSED

    def tell(self, signal: Signal) -> None:
        """Take the report of an admitted call: ANSWERED, FAILED or ABANDONED."""
        if signal is Signal.ANSWERED:
            self._failed = 0
            self._rest = self._first_rest
        if signal is Signal.FAILED and self.circuit is Circuit.CLOSED:
            self._failed += 1
            signal = Signal.TRIPPED if self._failed >= self._failures else signal
        self._move(signal)

    def _move(self, signal: Signal) -> None:
        before, self.circuit = self.circuit, TRANSITIONS.get((self.circuit, signal), self.circuit)
        if self.circuit is Circuit.OPEN and before is not Circuit.OPEN:
            rest = 0.0 if signal is Signal.ABANDONED else self._rest
            self._rests_until = self._clock() + rest
            self._rest = min(max(self._rest, rest * 2), self._longest_rest)
