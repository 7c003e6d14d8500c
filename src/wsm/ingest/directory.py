"""The directory of sessions in memory: who may sign, and under which secrets.

The clock publishes it; this copy asks for its version twice a second and reads it anew when that changed.
A copy that was not confirmed within `max_age_seconds` answers nothing, neither yes nor no: that age is the
bound on revocation. Secrets are derived at a session's first webhook and kept while its entry stays equal.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from wsm import telemetry
from wsm.core.errors import BadInput, Unavailable
from wsm.core.ids import ChatId, ServerName, SessionAddress, SessionName
from wsm.wire import directory as published
from wsm.wire.directory import Listed
from wsm.wire.signature import Verifier, session_secret
from wsm.wire.waha import chat_id

log = telemetry.logger("ingest")


class Seat:
    """A session that may sign.

    me  the number it is logged in with, `…@c.us`; None while nobody knows
    """

    __slots__ = ("_master_keys", "_verifier", "address", "listed", "me")

    def __init__(self, listed: Listed, master_keys: Mapping[str, bytes]) -> None:
        self.listed = listed
        self.address = SessionAddress(listed.tenant, listed.session)
        self.me: ChatId | None = chat_id(listed.me)
        self._master_keys = master_keys
        self._verifier: Verifier | None = None

    def verifier(self) -> Verifier:
        """Return the check of its signatures. Raises Unavailable without the master key that it names."""
        if self._verifier is None:
            key = self._master_keys.get(self.listed.kid)
            if key is None:
                raise Unavailable("master_key_unknown")
            self._verifier = Verifier(session_secret(key, self.address, g) for g in self.listed.generations)
        return self._verifier


class LiveDirectory:
    """The newest directory, kept so by `watch`.

    version, read   ask for the published version and for the directory itself, None when there is none
    master_keys     by key id; an entry under another key is answered 503, since the key may be on its way
    max_age_seconds since the last confirmation, beyond which every look-up raises Unavailable
    now             seconds of a clock that does not jump
    """

    def __init__(
        self,
        *,
        version: Callable[[], Awaitable[str | None]],
        read: Callable[[], Awaitable[bytes | None]],
        master_keys: Mapping[str, bytes],
        max_age_seconds: float = 2.0,
        poll_seconds: float = 0.5,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._version = version
        self._read = read
        self._master_keys = master_keys
        self._max_age_seconds = max_age_seconds
        self._poll_seconds = poll_seconds
        self._now = now
        self._confirmed_at: float | None = None
        self._trouble: str | None = None
        self._loaded: str | None = None
        self._by_address: dict[SessionAddress, Seat] = {}
        self._by_server: dict[tuple[ServerName, SessionName], Seat] = {}
        self._by_name: dict[SessionName, tuple[Seat, ...]] = {}

    def require(self) -> None:
        """Raise Unavailable unless the copy was confirmed lately."""
        if self._confirmed_at is None:
            raise Unavailable("directory_away")
        if self._now() - self._confirmed_at > self._max_age_seconds:
            raise Unavailable("directory_stale")

    def seat(self, address: SessionAddress) -> Seat | None:
        """Find a session by its tenant and name."""
        self.require()
        return self._by_address.get(address)

    def seat_at(self, server: ServerName, session: SessionName) -> Seat | None:
        """Find a session by its WAHA server and name."""
        self.require()
        return self._by_server.get((server, session))

    def seats_named(self, session: SessionName) -> tuple[Seat, ...]:
        """Find every session of a name, over all servers."""
        self.require()
        return self._by_name.get(session, ())

    async def refresh(self) -> None:
        """Confirm the copy, reading it anew if its version changed.

        Raises Unavailable when there is none or Redis is away, BadInput when it cannot be read.
        """
        asked_at = self._now()
        version = await self._version()
        if version is not None and version != self._loaded:
            body = await self._read()
            version = None if body is None else self._load(published.read(body))
        if version is None:
            raise Unavailable("directory_away")
        self._confirmed_at = asked_at

    async def watch(self) -> None:
        """Refresh again and again until cancelled; log when it begins and when it ceases to fail.

        It asks whether it was cancelled instead of waiting to be told: redis-py sends through
        `asyncio.wait_for`, and that of Python 3.11 drops a cancellation that comes as the send ends.
        """
        task = asyncio.current_task()
        assert task is not None
        while not task.cancelling():
            try:
                async with asyncio.timeout(self._max_age_seconds / 2):
                    await self.refresh()
            except TimeoutError:
                self._say("no reply in time")
            except (Unavailable, BadInput) as exc:
                self._say(str(exc))
            else:
                self._say(None)
            await asyncio.sleep(self._poll_seconds)

    def _load(self, directory: published.Directory) -> str:
        old = self._by_address
        seats: dict[SessionAddress, Seat] = {}
        for listed in directory.sessions:
            seat = old.get(SessionAddress(listed.tenant, listed.session))
            if seat is None or seat.listed != listed:
                seat = Seat(listed, self._master_keys)
            seats[seat.address] = seat
        named: dict[SessionName, tuple[Seat, ...]] = {}
        for address, seat in seats.items():
            named[address.session] = (*named.get(address.session, ()), seat)
        self._by_address = seats
        self._by_server = {(seat.listed.server, seat.listed.session): seat for seat in seats.values()}
        self._by_name = named
        self._loaded = directory.version
        self._warn_of_unknown_keys(directory)
        return directory.version

    def _warn_of_unknown_keys(self, directory: published.Directory) -> None:
        unknown = {listed.kid for listed in directory.sessions} - self._master_keys.keys()
        if unknown:
            log.error("master_key_unknown", kids=sorted(unknown), version=directory.version)

    def _say(self, trouble: str | None) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("directory_current", version=self._loaded, sessions=len(self._by_address))
        else:
            log.error("directory_not_confirmed", reason=trouble)
