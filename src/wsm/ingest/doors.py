"""Who may post at an address, and whose event it is.

Three doors. A session's own, at `/webhooks/waha/{tenant_id}/{session}`; the shared hook of a WAHA server,
at `/webhooks/waha?server={id}`; and the one for everybody else, which does the same work and says no.
A door first verifies the signature over the raw body, then, and only then, places the event.

What is authentic but nobody's, or bears another number than the session's, is a `Misfit`: kept apart, for a
person to look at, and answered 200, since it would not become better by being sent again.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Protocol

from wsm.core.errors import Forbidden
from wsm.core.events import Origin
from wsm.core.ids import DEFAULT_SERVER, ServerName, SessionAddress, SessionName
from wsm.ingest.directory import LiveDirectory, Seat
from wsm.streams.handover import Misfit, Offer
from wsm.wire.signature import Verifier
from wsm.wire.waha import Head

_MISMATCH = "signature_mismatch"
_NAME_LENGTH = 54


class Door(Protocol):
    """Where a webhook came in.

    known  the session that the address names, if there is one: what a log line may say
    """

    known: SessionAddress | None

    def verify(self, signatures: list[bytes], algorithms: list[bytes], body: bytes) -> None:
        """Raise Forbidden unless one of the door's secrets signed `body`; Unavailable if it cannot tell."""

    def place(self, head: Head, body: bytes, received_at_ms: int, /) -> Offer | Misfit:
        """Say whose a verified body is. Raises Forbidden when it names another session than the address."""


class SessionDoor:
    """A session's own webhook."""

    __slots__ = ("_seat", "known")

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.known: SessionAddress | None = seat.address

    def verify(self, signatures: list[bytes], algorithms: list[bytes], body: bytes) -> None:
        self._seat.verifier().check(signatures, algorithms, body)

    def place(self, head: Head, body: bytes, received_at_ms: int) -> Offer | Misfit:
        if head.session != self._seat.address.session:
            raise Forbidden("session_mismatch")
        return _offer(self._seat, head, body, received_at_ms)


class HookDoor:
    """The one webhook that a whole WAHA server posts to.

    Without a server named it is the default one's, and a session's name must be unique over all servers.
    """

    __slots__ = ("_directory", "_server", "_verifier", "known")

    def __init__(self, directory: LiveDirectory, server: ServerName | None, verifier: Verifier) -> None:
        self._directory = directory
        self._server = server
        self._verifier = verifier
        self.known: SessionAddress | None = None

    def verify(self, signatures: list[bytes], algorithms: list[bytes], body: bytes) -> None:
        self._verifier.check(signatures, algorithms, body)

    def place(self, head: Head, body: bytes, received_at_ms: int) -> Offer | Misfit:
        name = SessionName(head.session)
        if self._server is None:
            seats = self._directory.seats_named(name)
        else:
            seat = self._directory.seat_at(self._server, name)
            seats = () if seat is None else (seat,)
        if len(seats) == 1:
            return _offer(seats[0], head, body, received_at_ms)
        reason = "session_ambiguous" if seats else "session_unmapped"
        server = self._server or DEFAULT_SERVER
        return Misfit(server, head.session[:_NAME_LENGTH], reason, received_at_ms, body)


class ClosedDoor:
    """The door of a session, server or secret that does not exist: the same work, and always no.

    Its reason is for the log and the counter; the answer does not tell it from a wrong signature.
    """

    __slots__ = ("_decoy", "_reason", "known")

    def __init__(self, reason: str, decoy: Verifier) -> None:
        self._reason = reason
        self._decoy = decoy
        self.known: SessionAddress | None = None

    def verify(self, signatures: list[bytes], algorithms: list[bytes], body: bytes) -> None:
        try:
            self._decoy.check(signatures, algorithms, body)
        except Forbidden as exc:
            if exc.reason != _MISMATCH:
                raise
        raise Forbidden(self._reason)

    def place(self, _head: Head, _body: bytes, _received_at_ms: int) -> Offer | Misfit:
        raise Forbidden(self._reason)


class Doors:
    """Finds the door of an address.

    hook_secrets  by server: what each shared hook is signed with, several while one replaces another; a
                  server without one refuses everything at its hook
    """

    def __init__(self, directory: LiveDirectory, hook_secrets: Mapping[ServerName, Sequence[str]]) -> None:
        self._directory = directory
        decoy = Verifier([secrets.token_hex(32)])
        self._no_session = ClosedDoor("session_unknown", decoy)
        self._no_server = ClosedDoor("server_unknown", decoy)
        self._no_secret = ClosedDoor("hook_unconfigured", decoy)
        self._hooks: dict[ServerName | None, Door] = {
            server: HookDoor(directory, server, Verifier(values)) if values else self._no_secret
            for server, values in hook_secrets.items()
        }
        unnamed = hook_secrets.get(DEFAULT_SERVER, ())
        self._hooks[None] = HookDoor(directory, None, Verifier(unnamed)) if unnamed else self._no_secret

    def of_session(self, address: SessionAddress) -> Door:
        """The door of a session. Raises Unavailable while the directory is away or stale."""
        seat = self._directory.seat(address)
        return self._no_session if seat is None else SessionDoor(seat)

    def of_hook(self, server: ServerName | None) -> Door:
        """The door of a server's shared hook; None: none was named."""
        return self._hooks.get(server, self._no_server)


def _offer(seat: Seat, head: Head, body: bytes, received_at_ms: int) -> Offer | Misfit:
    """Place an event at its session, unless it says that it was another number's."""
    if _is_another_number(seat, head):
        listed = seat.listed
        return Misfit(listed.server, listed.session, "other_number", received_at_ms, body)
    return Offer(seat.address.tenant, seat.address.session, Origin.WAHA, received_at_ms, body)


def _is_another_number(seat: Seat, head: Head) -> bool:
    """Only ids of one kind can be told apart: a phone number says nothing about a `@lid`."""
    if seat.me is None or (me_id := head.me_id) is None:
        return False
    here, kind = seat.me.split("@")
    there, their_kind = me_id.split("@")
    return kind == their_kind and here != there
