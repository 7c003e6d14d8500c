"""The mute watchdog: finds the session that says WORKING and is not.

Silence beyond a session's own norm (`core.mute`) is a reason to ask, no more. Asked is by an active probe,
which goes to WhatsApp and back (`WahaSession.probe`); two that fail in a row, some time apart, make it mute.
What is found out of no session (the gateway or the exit away, no answer from the gateway itself) counts for
nothing. What is remembered is forgotten with the process: the next one asks anew.
"""

import asyncio
from datetime import datetime, timedelta

from wsm.core.errors import GatewayRefused, Unavailable
from wsm.core.ids import ServerName
from wsm.core.mute import SHORTEST, Past, is_silent
from wsm.gateway.waha import WahaSession
from wsm.store import watch
from wsm.store.database import Database
from wsm.telemetry import logger

log = logger("watchdog")

_APART = timedelta(seconds=40)
"""Between two probes of a session: below the minute after which sessions are looked at again."""
_ENOUGH = 2
_READ_ANEW = timedelta(hours=12)
_AT_ONCE = 4
"""Fewer than so many calls without an answer open a server's circuit: mute sessions must not close the
others' way."""


class _Known:
    """What is remembered of a session between two looks: 1 KB at most, 400 bytes of it its past.

    last      when a customer last wrote, read when `heard_ms` was this
    past      read when its silence was first long
    answered  probes since then; failed: probes in a row, since it last began to work
    """

    __slots__ = ("answered", "asked_at", "failed", "heard_ms", "last", "past", "read_at", "since_ms")

    def __init__(self) -> None:
        self.heard_ms = -1
        self.last: datetime | None = None
        self.past: Past | None = None
        self.read_at: datetime | None = None
        self.since_ms = 0
        self.answered = 0
        self.failed = 0
        self.asked_at: datetime | None = None


class Watchdog:
    """Looks for mute sessions. Belongs to who leads, and to one event loop.

    app  the database as the application's role
    """

    def __init__(self, app: Database) -> None:
        self._app = app
        self._known: dict[int, _Known] = {}
        self._asking: dict[ServerName, asyncio.Semaphore] = {}

    async def check(
        self,
        gateway: WahaSession,
        *,
        server: ServerName,
        session: int,
        phone: str,
        heard_ms: int,
        since_ms: int,
        now: datetime,
    ) -> bool:
        """Say whether a session is mute: it is to be restarted, and its tenant told.

        For sessions that should run and that their gateway has just called WORKING; once a minute or so each,
        and again before the restart. It stays mute, and is asked again every 40 s, until a probe is answered,
        a customer is heard, or it has begun to work anew: then two more probes have to fail.

        server    where it is: four of a server's sessions are asked at a time
        session   the row's id
        phone     its own number, digits alone
        heard_ms  `sessions.heard_ms`: when it moves, and only then, a customer may have written. Echoes of
                  what wsm sends, which a mute engine makes by itself, move it too: no signs of life
        since_ms  since when it says WORKING (`sessions.since_ms`)

        Returns at once for a session that was heard within the hour; else after a small query when `heard_ms`
        has moved, another one at most every 12 h, and within 50 s once its turn to be asked has come. Raises
        StoreUnavailable.
        """
        its = self._known.setdefault(session, _Known())
        await self._listen(gateway, its, session, heard_ms, now)
        if its.last is None or now - its.last < SHORTEST:
            return False
        if since_ms != its.since_ms:
            its.since_ms, its.failed = since_ms, 0
        if its.asked_at is not None and now - its.asked_at < _APART:
            return its.failed >= _ENOUGH
        if its.failed == 0:
            past = await self._past(gateway, its, session, now)
            if not is_silent(past, its.last, now, answered=its.answered):
                return False
        its.asked_at = now
        await self._ask(gateway, server, its, phone)
        return its.failed >= _ENOUGH

    def forget(self) -> None:
        """Forget everything: another process leads."""
        self._known.clear()

    async def _listen(
        self, gateway: WahaSession, its: _Known, session: int, heard_ms: int, now: datetime
    ) -> None:
        """Learn when a customer last wrote, if that may be news and matters."""
        if heard_ms == its.heard_ms or (its.last is not None and now - its.last < SHORTEST):
            return
        last = await watch.last_heard(self._app, gateway.address, session, now)
        its.heard_ms = heard_ms
        if last != its.last:
            its.last, its.answered, its.failed = last, 0, 0

    async def _past(self, gateway: WahaSession, its: _Known, session: int, now: datetime) -> Past:
        if its.past is None or its.read_at is None or now - its.read_at >= _READ_ANEW:
            its.past = await watch.past_of(self._app, gateway.address, session, now)
            its.read_at = now
        return its.past

    async def _ask(self, gateway: WahaSession, server: ServerName, its: _Known, phone: str) -> None:
        """Probe, and remember how it went."""
        about = {"tenant": gateway.address.tenant, "session": gateway.address.session}
        try:
            async with self._asking.setdefault(server, asyncio.Semaphore(_AT_ONCE)):
                answered = await gateway.probe(phone)
        except (Unavailable, GatewayRefused) as exc:
            log.info("session_silent", answered="unknown", reason=str(exc), **about)
            return
        if answered:
            its.answered, its.failed = its.answered + 1, 0
        else:
            its.failed += 1
        (log.info if answered else log.warning)(
            "session_silent", answered=answered, failed=its.failed, **about
        )
