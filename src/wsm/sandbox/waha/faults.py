"""What goes wrong on command: the next sends, in the order in which they were asked for, and what is asked of
WhatsApp through a mute session.

A send is every call that brings something to a chat: all kinds of messages, reactions, edits, deletions.
Calls that mark a chat as seen or show that somebody types go wrong only by name.
"""

from collections import deque
from enum import StrEnum
from typing import Final

import msgspec

_SIGNALS: Final = frozenset({"sendSeen", "startTyping", "stopTyping"})


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
    RATE_OVERLIMIT = "rate_overlimit"
    """500 with the text by which WhatsApp slows an engine down, and nothing was sent."""
    TOO_MANY = "too_many"
    """429 of what stands before WAHA, with `retry_after` if there is one, and nothing was sent."""
    NOT_IMPLEMENTED = "not_implemented"
    """501, as an engine that lacks it, and nothing was sent."""
    ERROR_ACK = "error_ack"
    """201 and the echo, then ack −1 with `error` if there is one, and nothing arrives."""
    HANG = "hang"
    """Silence for `seconds`, then the message leaves and is answered, also when the caller has gone."""
    HANG_AFTER = "hang_after"
    """The message leaves, and the answer comes `seconds` later."""
    CUT_BEFORE = "cut_before"
    """The connection breaks, and nothing was sent."""
    CUT_AFTER = "cut_after"
    """The message leaves, and the connection breaks."""

    @property
    def passes(self) -> bool:
        """Whether a message arrives in the end, if it is asked for again where it never left."""
        return self not in {Wrong.ERROR_463, Wrong.NOT_IMPLEMENTED, Wrong.ERROR_ACK}


class Queries(StrEnum):
    """What becomes of live queries while a session is mute."""

    HANG = "hang"
    """Silence until the engine gives up, then 500."""
    FAIL = "fail"
    """500 at once: the engine knows that its socket is gone, and says WORKING all the same."""
    ANSWER = "answer"
    """They are answered: only messages are stuck."""


class AckError(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Why a message was not delivered: `error` of an error ack. until: ISO 8601."""

    code: str | None
    blocked: bool
    reason: str | None = None
    until: str | None = None
    enforcement_type: str | None = None


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The next `times` sends go wrong: only of this session, to this phone, by this call, when it is named.

    call         the last part of its path, as `sendImage` or `reaction`; `edit` and `delete` of messages
    retry_after  the header of TOO_MANY: seconds or a date
    error        of ERROR_ACK
    """

    kind: Wrong
    seconds: float = 0.0
    times: int = 1
    session: str | None = None
    phone: str | None = None
    call: str | None = None
    retry_after: str | None = None
    error: AckError | None = None

    def meets(self, session: str, phone: str, call: str) -> bool:
        """Whether it is meant for a send."""
        by_name = self.call == call if self.call else call not in _SIGNALS
        return by_name and self.session in {None, session} and self.phone in {None, phone}


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

    def take(self, session: str, phone: str, call: str) -> Fault | None:
        """Use up the first fault that is meant for this send."""
        for position, fault in enumerate(self._coming):
            if not fault.meets(session, phone, call):
                continue
            if fault.times > 1:
                self._coming[position] = msgspec.structs.replace(fault, times=fault.times - 1)
            else:
                del self._coming[position]
            return fault
        return None
