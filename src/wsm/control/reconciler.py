"""The reconciler: every session is compared with what it should be, and brought back to it.

Each session is looked at through its own object every minute, and every few seconds while it is not as it
should be. A surprise brings a look at all sessions of that gateway: one says what no webhook told, or it
answers again after it was away. What `core.upkeep` then says is done by who has the session's leave, a few at
a time at each gateway, after a second look; each step is counted before it is taken. So a WAHA, a wsm or a
machine that starts again finds each session started once, by WAHA itself or from here, with the exit that it
had and without a new login. Nothing here logs a session out or deletes it.

Runs in the clock's leader alone; what is lost with it (when to look again) begins anew in the next one.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from wsm.control.looks import Looks
from wsm.control.moves import Moves, Place, place_of
from wsm.core.errors import Refused, Unavailable
from wsm.core.exits import look_every
from wsm.core.ids import ServerName, TenantId
from wsm.core.upkeep import ASKS_A_PERSON, Alarm, Step, Watched, is_steady, judge
from wsm.gateway.waha import WahaSession
from wsm.store import watch
from wsm.store.database import Database
from wsm.telemetry import SESSION_ALARMS, SESSION_REPAIRS, SESSIONS, logger

log = logger("reconciler")

ROUND_SECONDS = 1.0
_OFTEN_SECONDS = 60.0
_SOON_SECONDS = 5.0
_JITTER = (0.8, 1.2)
_HURRY_SECONDS = 5.0
_PATIENT_AFTER = 3
"""After so many repairs in vain it is looked at no more often than one that works."""
_LOOKS_AT_ONCE = 16
_STEPS_AT_ONCE = 4
_STATUSES = frozenset(
    {
        *("STOPPED", "STARTING", "SCAN_QR_CODE", "WORKING", "FAILED", "UNKNOWN"),
        *("PASSKEY_REQUIRED", "PASSKEY_CONFIRMATION_REQUIRED"),
    }
)


class Reconciler:
    """Compares and repairs.

    app, system        the database as the application's role and as the system's
    looks              what it sees with, and `moves` what it acts with
    leads              whether this process may: the clock's lead
    starts_per_second  at each gateway at most, when many have to be started
    """

    def __init__(
        self,
        app: Database,
        system: Database,
        moves: Moves,
        looks: Looks,
        *,
        leads: Callable[[], bool],
        now: Callable[[], datetime],
        starts_per_second: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._system = system
        self._moves = moves
        self._looks = looks
        self._leads = leads
        self._now = now
        self._monotonic = monotonic
        self._spacing_seconds = 1 / starts_per_second
        self._looking = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._stepping: dict[ServerName, asyncio.Semaphore] = {}
        self._next_step: dict[ServerName, float] = {}
        self._away: set[ServerName] = set()
        self._hurried_at: dict[ServerName, float] = {}
        self._said: dict[int, str] = {}
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._look_at: dict[int, float] = {}
        self._last: dict[int, tuple[object, ...]] = {}
        self._servers: dict[int, ServerName] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Compare and repair until `stop` is set; what is being done then is broken off."""
        try:
            while not stop.is_set():
                try:
                    await self.round()
                except Exception:
                    log.exception("round_failed")  # a bug here must not end the clock beside it
                with suppress(TimeoutError):
                    async with asyncio.timeout(ROUND_SECONDS):
                        await stop.wait()
        finally:
            await self._rest()

    async def round(self) -> None:
        """Begin to look after every session whose time has come. Does not wait for them."""
        if not self._leads():
            await self._rest()
            return
        try:
            rows = await watch.every(self._system)
        except Unavailable as exc:
            log.warning("reconciler_waits", reason=str(exc))
            return
        _show(rows)
        moment = self._monotonic()
        self._servers = {row.id: ServerName(row.server) for row in rows}
        for row in rows:
            known = (row.desired, row.observed, row.since_ms, row.other_phone)
            if self._last.get(row.id, known) != known:
                self._look_at[row.id] = moment
            self._last[row.id] = known
            if row.id not in self._busy and self._look_at.get(row.id, moment) <= moment:
                self._busy[row.id] = asyncio.create_task(self._attend(row))

    async def idle(self) -> None:
        """Wait until nothing that was begun goes on."""
        while self._busy:
            await asyncio.wait(self._busy.values())

    async def _rest(self) -> None:
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)
        for known in (self._busy, self._look_at, self._last, self._servers, self._said):
            known.clear()
        self._away.clear()
        await self._looks.forget()
        _show([])

    async def _attend(self, row: Any) -> None:
        """Look at one session and do what has to be done; say when to look again."""
        place = place_of(TenantId(row.tenant_id), row)
        about = {"tenant": place.address.tenant, "session": place.address.session}
        pause = _SOON_SECONDS
        try:
            async with self._looking:
                its, gateway = await self._looks.look(place, row)
            if (its.status or "UNKNOWN") != row.observed or place.server in self._away:
                self._hurry(place.server)
            if await self._settled(place, row, await self._looks.listen(place, row, its, gateway)):
                pause = self._patience(place)
            self._said.pop(row.id, None)
        except (Unavailable, Refused) as exc:
            if isinstance(exc, Unavailable):
                self._away.add(place.server)
            else:
                pause = _OFTEN_SECONDS
            if self._said.get(row.id) != str(exc):
                self._said[row.id] = str(exc)
                log.warning("session_waits", reason=str(exc), **about)
        except Exception:
            log.exception("upkeep_failed", **about)  # a bug with one session must not end the others
        finally:
            self._busy.pop(row.id, None)
            self._look_at[row.id] = self._monotonic() + pause * random.uniform(*_JITTER)  # noqa: S311

    async def _settled(self, place: Place, row: Any, its: Watched) -> bool:
        """Tell what is to be told, take the step that is to be taken; True when nothing is left to do."""
        now = self._now()
        verdict = judge(its, now)
        if verdict.alarm != row.alarm:
            await watch.set_alarm(self._app, place.address, row.id, verdict.alarm, now)
            log.warning(
                "session_alarm",
                tenant=place.address.tenant,
                session=place.address.session,
                alarm=verdict.alarm or "well",
                before=row.alarm,
            )
        if row.repairs and is_steady(its, now):
            await watch.forget_repairs(self._app, place.address, row.id, row.repairs)
        if verdict.step is not Step.NOTHING:
            await self._take(verdict.step, place, row)
            return False
        waits = verdict.alarm is Alarm.PAIRING_EXPIRED or row.repairs >= _PATIENT_AFTER
        # Else its number is to be learned, or what it missed to be fetched.
        works = its.status == "WORKING" and its.paired and row.caught_up_ms >= row.since_ms
        # Who has a number already may come back with another one, under which nothing must leave.
        asks = its.status in ASKS_A_PERSON and not its.paired
        return works or waits or asks or its.desired == "stopped"

    async def _take(self, step: Step, place: Place, row: Any) -> None:
        """Take a step when its turn has come, if it is still the one to take."""
        stepping = self._stepping.setdefault(place.server, asyncio.Semaphore(_STEPS_AT_ONCE))
        async with stepping:
            await self._own_turn(place.server)
            async with self._moves.owned(place) as mine:
                its = await self._looks.listen(place, row, *await self._looks.look(place, row))
                if judge(its, self._now()).step is not step:
                    return
                may = await watch.note_repair(
                    self._app,
                    place.address,
                    row.id,
                    epoch=mine.epoch,
                    repairs=row.repairs,
                    desired=row.desired,
                    now=self._now(),
                )
                if not may:
                    return
                SESSION_REPAIRS.labels(step).inc()
                log.info(
                    "session_repair", tenant=place.address.tenant, session=place.address.session, step=step
                )
                if step is Step.STOP:
                    await self._moves.halt(place, mine, WahaSession.stop)
                elif step is Step.RESTART:
                    await self._moves.restart(place, mine)
                else:
                    await self._moves.bring_up(place, mine)

    async def _own_turn(self, server: ServerName) -> None:
        """Wait until this gateway may be asked for another step."""
        moment = self._monotonic()
        mine = max(moment, self._next_step.get(server, moment))
        self._next_step[server] = mine + self._spacing_seconds
        await asyncio.sleep(mine - moment)

    def _patience(self, place: Place) -> float:
        """How long a session that is as it should be is left alone, in seconds."""
        pool = self._moves.pools.get(place.exit_pool or "")
        return _OFTEN_SECONDS if pool is None else min(_OFTEN_SECONDS, look_every(pool).total_seconds())

    def _hurry(self, server: ServerName) -> None:
        """Look at every session of a gateway as soon as can be."""
        self._away.discard(server)
        moment = self._monotonic()
        if moment - self._hurried_at.get(server, -_HURRY_SECONDS) < _HURRY_SECONDS:
            return
        self._hurried_at[server] = moment
        for id_, its in self._servers.items():
            if its == server and id_ not in self._busy:
                self._look_at[id_] = moment


def _show(rows: Sequence[Any]) -> None:
    """Measure how the sessions are; nothing while this process does not lead."""
    statuses = Counter(row.observed if row.observed in _STATUSES else "other" for row in rows)
    SESSIONS.clear()
    for status, count in statuses.items():
        SESSIONS.labels(status).set(count)
    alarms = Counter(row.alarm for row in rows)
    for alarm in Alarm:
        SESSION_ALARMS.labels(alarm).set(alarms[alarm])
