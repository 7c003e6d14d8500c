"""What the proxy writes down of everything that was asked of it."""

import time
from enum import StrEnum

import msgspec

from wsm.sandbox.exits.faults import Fault

Peer = tuple[str, int]
"""An address and a port, as the other side of a connection sees them."""


class Ending(StrEnum):
    """How a passage ended. The second half are faults."""

    ANSWERED = "answered"
    CLIENT = "client"
    """The client left first."""
    TARGET = "target"
    """The target left first; before its answer that is 502."""
    MALFORMED = "malformed"
    UNAUTHORIZED = "unauthorized"
    UNREACHABLE = "unreachable"
    STOPPED = "stopped"

    CUT = "cut"
    DEAD = "dead"
    REFUSED = "refused"
    HUNG = "hung"
    BAD_GATEWAY = "bad_gateway"
    DIED = "died"
    IDLE = "idle"


class Passage(msgspec.Struct, kw_only=True, eq=False):
    """One tunnel or forwarded request, whatever became of it.

    identity        None while it is not known, and when the password was wrong
    host, port      the target as the client named it
    leaves_from     what the target sees; None when nothing went out
    country         what the provider says of the exit
    sent_bytes      passed on to the target
    received_bytes  passed on to the client
    started_at, moved_at, ended_at  by `time.monotonic`; moved_at is when a byte last passed, ended_at None
                    as long as it is open
    faults          those that were ordered for a number of passages, this one among them
    """

    is_tunnel: bool
    host: str
    port: int
    identity: str | None = None
    leaves_from: Peer | None = None
    country: str | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    started_at: float = msgspec.field(default_factory=time.monotonic)
    moved_at: float = msgspec.field(default_factory=time.monotonic)
    ended_at: float | None = None
    ending: Ending | None = None
    faults: tuple[Fault, ...] = ()

    def end(self, ending: Ending) -> None:
        """Keep how it ended: what is said first counts."""
        self.ending = self.ending or ending


class Over(Exception):
    """A passage has come to its end; the connections are not fit for anything more."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending
