"""Every error that crosses a room, by whose fault it is.

    WsmError
    ├── Refused               the same request fails again
    │   ├── BadInput          a field and the reason
    │   ├── Forbidden         no signature, a wrong one, or somebody else's
    │   ├── TooLarge          over a stated limit
    │   ├── NotFound          what was named does not exist
    │   ├── NotPossible       the line, as it is now, does not allow it
    │   └── GatewayRefused    the gateway said no; nothing was sent
    └── Unavailable           the same request may succeed later
        ├── MailboxFull       this tenant's mailbox, or all of them, are at their mark
        ├── StreamsUnavailable   Redis is away, full or not durable
        ├── LaneBusy             another turn of the same tenant holds his lock for too long
        ├── StoreUnavailable     PostgreSQL is away, or a time-out ran out
        ├── GatewayUnavailable   the gateway was not reached, or its session is not working: nothing was sent
        │   └── ExitFailed       nothing was reached through the session's exit
        ├── SourceUnavailable    a file that is to be sent cannot be fetched just now
        │   └── NoRoom           nor kept in memory: others are, and nobody was asked for it
        ├── SessionBusy          another process moves this session
        └── OutcomeUnknown       the gateway may have done it: evidence decides, never a blind repeat

Adapters translate every driver's error into one of these, `from` the original. Each process maps class to
answer in one table. Anything else that is raised is a bug.
"""

from datetime import datetime


class WsmError(Exception):
    """The root. Its text is fit for a log: no message text, no phone number, no secret."""


class Refused(WsmError):
    """The same request would fail again."""


class BadInput(Refused):
    """A field does not fit. `field` names it, `reason` says why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Forbidden(Refused):
    """The caller may not. `reason` is one word of a closed list, fit for a label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooLarge(Refused):
    """Over a stated limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"over the limit of {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class NotFound(Refused):
    """What was named does not exist."""


class NotPossible(Refused):
    """The line does not allow it as it is now; nothing has changed. The text says why."""


class GatewayRefused(Refused):
    """The gateway answered that it will not do this; nothing was sent.

    status  its HTTP status
    reason  one word of a closed list
    retry_after_seconds  what it asks one to wait, where it says so
    until   when it takes this again, where it says so: the end of WhatsApp's lock
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        retry_after_seconds: float | None = None,
        until: datetime | None = None,
    ) -> None:
        super().__init__(f"gateway answered {status}: {reason}")
        self.status = status
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.until = until


class Unavailable(WsmError):
    """The same request may succeed later."""


class MailboxFull(Unavailable):
    """A mailbox is at its mark. `scope` is `tenant` or `all`."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"mailbox full: {scope}")
        self.scope = scope


class StreamsUnavailable(Unavailable):
    """Redis is away, refuses writes, or did not confirm in time."""


class LaneBusy(Unavailable):
    """The wait for the tenant's lock ran out; nothing was read or written. Says nothing of other tenants."""


class StoreUnavailable(Unavailable):
    """PostgreSQL is away, or a statement, lock or transaction time-out ran out; nothing was committed."""


class GatewayUnavailable(Unavailable):
    """The gateway was not reached, or its session is not working; nothing was sent."""


class ExitFailed(GatewayUnavailable):
    """The session's exit is dead, refuses the password or hangs; nothing was reached through it."""


class SourceUnavailable(Unavailable):
    """A file that is to be sent cannot be fetched just now; nothing was sent."""


class NoRoom(SourceUnavailable):
    """There is no room in memory for one more file just now: it is other files that are in the way."""


class SessionBusy(Unavailable):
    """Another process moves this session, or this one's leave to do so ran out; it was not touched."""


class OutcomeUnknown(Unavailable):
    """The gateway may or may not have done it (time-out, broken connection, 5xx)."""
