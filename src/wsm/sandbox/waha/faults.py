"""What goes wrong on command: the next sends, in the order in which they were asked for, and what is asked of
WhatsApp through a mute session."""

from collections import deque
from enum import StrEnum

import msgspec


class Wrong(StrEnum):
    """What happens to a send. Whether the message leaves is the point of each."""

    FAIL_BEFORE = "fail_before"
    """500, and nothing was sent."""
    FAIL_AFTER = "fail_after"
    """500, but the message left and its echo comes."""
    FAIL_THEN_SEND = "fail_then_send"
    """500 at once, and the message leaves `seconds` later: WAHA goes on working after its answer."""
    ERROR_463 = "error_463"
    """500 with the text of a restricted account, and nothing was sent."""
    HANG = "hang"
    """Silence for `seconds`, then the message leaves and is answered, also when the caller has gone."""
    HANG_AFTER = "hang_after"
    """The message leaves, and the answer comes `seconds` later."""
    CUT_BEFORE = "cut_before"
    """The connection breaks, and nothing was sent."""
    CUT_AFTER = "cut_after"
    """The message leaves, and the connection breaks."""


class Queries(StrEnum):
    """What becomes of live queries while a session is mute."""

    HANG = "hang"
    """Silence until the engine gives up, then 500."""
    FAIL = "fail"
    """500 at once: the engine knows that its socket is gone, and says WORKING all the same."""
    ANSWER = "answer"
    """They are answered: only messages are stuck."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next `times` sends go wrong; only of this session and to this phone, when they are named."""

    kind: Wrong
    seconds: float = 0.0
    times: int = 1
    session: str | None = None
    phone: str | None = None

    def meets(self, session: str, phone: str) -> bool:
        """Whether it is meant for a send."""
        return self.session in {None, session} and self.phone in {None, phone}


class Faults:
    """The faults to come."""

    def __init__(self) -> None:
        self._coming: deque[Fault] = deque()

    @property
    def coming(self) -> list[Fault]:
        """What is still to come, next first."""
        return list(self._coming)

    def add(self, fault: Fault) -> None:
        """Let the next sends go wrong."""
        self._coming.append(fault)

    def clear(self) -> None:
        """Let every send go right again."""
        self._coming.clear()

    def take(self, session: str, phone: str) -> Fault | None:
        """Use up the first fault that is meant for this send."""
        for position, fault in enumerate(self._coming):
            if not fault.meets(session, phone):
                continue
            if fault.times > 1:
                self._coming[position] = msgspec.structs.replace(fault, times=fault.times - 1)
            else:
                del self._coming[position]
            return fault
        return None
