"""A session's way through its statuses, as it was seen on each engine.

pairing                  STARTING, SCAN_QR_CODE (repeated with each code), [NOWEB: STARTING,] WORKING
credentials are there    STARTING, WORKING
connection drops         NOWEB: WORKING for 2 s without a socket, STARTING until it is back, WORKING
                         GOWS: STARTING, WORKING    browsers: FAILED, 2 s later STARTING, WORKING
pairing with a passkey   SCAN_QR_CODE, PASSKEY_REQUIRED, [PASSKEY_CONFIRMATION_REQUIRED,] WORKING
removed on the phone     FAILED; after a restart STOPPED, STARTING, FAILED
nobody scans             SCAN_QR_CODE six times, FAILED; the browsers start again
stop, delete             STOPPED
restart, logout          STOPPED, STARTING, …
account restricted       WORKING again, with `data`; every later WORKING has it until it is lifted

Where there is a WhatsApp (`World.whatsapp`), all this needs a connection to it, on the session's own way:

none at the start        NOWEB: STARTING every 2 s, after 60 of them FAILED    browsers: FAILED, STARTING, …
                         GOWS before 2026.7: STARTING for ever; since then FAILED, and the start call fails
one that breaks          the connection drops, as above; GOWS and browsers try every 2 s, without an end
"""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from wsm.sandbox.waha import bodies, network
from wsm.sandbox.waha.handset import Handset
from wsm.sandbox.waha.state import (
    Account,
    Engine,
    EngineError,
    Forgotten,
    Linked,
    Passkey,
    Removed,
    Session,
    Status,
    StatusPoint,
    Timelock,
    World,
    usual_phone,
)
from wsm.sandbox.waha.webhooks import Courier

_CONNECT_SECONDS = 0.3
_NOTICE_DROP_SECONDS = 2.0
_RETRY_SECONDS = 2.0
_AFTER_SCAN_SECONDS = 2.0
_LOCK_SECONDS = 5.0
_QR_SECONDS = 20.0
_QR_CODES = 6
_PASSKEY_SECONDS = 60.0
_TRIES = 60
_START_FAILS_SINCE: Final = (2026, 7)
_STATUSES_SHOWN = 3
_STOP_SECONDS: Final = {Engine.WEBJS: 3.0, Engine.WPP: 3.0, Engine.NOWEB: 1.0, Engine.GOWS: 0.01}
_UNPAIR_SECONDS = 1.0


class Lifecycle:
    """Moves sessions from status to status, and says each of them in a webhook."""

    def __init__(self, world: World, courier: Courier, handset: Handset) -> None:
        self._world = world
        self._courier = courier
        self._handset = handset
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of a session's name. Raises EngineError after the 5 s that WAHA waits for it."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        try:
            async with asyncio.timeout(_LOCK_SECONDS * self._world.tempo.waits):
                await lock.acquire()
        except TimeoutError:
            raise EngineError(f"async-lock timed out in queue {name}") from None
        try:
            yield
        finally:
            lock.release()

    def create(self, name: str, config: dict[str, Any] | None) -> Session:
        """Make a session, stopped."""
        session = Session(name, config)
        self._world.sessions[name] = session
        return session

    def start(self, session: Session) -> None:
        """Start it: STARTING now, the rest in the background."""
        session.statuses = []
        session.account = None
        session.muted = False
        session.proxy = session.setting("proxy")
        session.codes = {}
        session.passkey = None
        self._enter(session, Status.STARTING)
        self._live(session, self._connect(session))

    async def answer_for(self, session: Session) -> None:
        """Wait as long as a call that started a session does. Raises EngineError if GOWS reached nobody."""
        if session.life and self._is_newer_gows and self._world.whatsapp:
            await asyncio.wait({session.life})
            if session.status is Status.FAILED and session.account is None:
                raise EngineError("failed to connect to WhatsApp")

    async def stop(self, session: Session) -> None:
        """Stop it, and take as long as the engine takes."""
        if not session.running:
            return
        if session.life:
            session.life.cancel()
        self._hang_up(session)
        self._enter(session, Status.STOPPED)
        await self._world.pause(_STOP_SECONDS[self._world.engine])

    async def unpair(self, session: Session) -> None:
        """Forget the credentials, and with them the device's messages."""
        if session.name in self._world.accounts:
            self._world.learn(Forgotten(session.name))
            await self._world.pause(_UNPAIR_SECONDS)
        session.account = None

    def scan(self, session: Session, phone: str | None = None, push_name: str = "Loja") -> None:
        """Scan the QR code that it shows, with this phone or its usual one."""
        self._world.learn(Linked(session.name, phone or usual_phone(session.name), push_name))
        self._live(session, self._log_in(session))

    def ask_passkey(self, session: Session, passkey: Passkey) -> None:
        """Let WhatsApp want a passkey for a login; it waits a minute for it."""
        session.passkey = passkey
        self._wait_for_passkey(session, Status.PASSKEY_REQUIRED)

    def answer_passkey(self, session: Session) -> None:
        """Take the right answer to the challenge; a code may be left to compare."""
        if self._passkey_of(session).code is None:
            self.confirm_passkey(session)
        else:
            self._wait_for_passkey(session, Status.PASSKEY_CONFIRMATION_REQUIRED)

    def confirm_passkey(self, session: Session) -> None:
        """Let somebody have found the codes equal."""
        passkey, session.passkey = self._passkey_of(session), None
        self.scan(session, passkey.phone, passkey.push_name)

    def drop(self, session: Session, away_seconds: float) -> None:
        """Let its connection to WhatsApp drop, for at least so long."""
        self._hang_up(session)
        self._live(session, self._reconnect(session, away_seconds))

    def unlink(self, session: Session) -> None:
        """Remove the device on the phone: the session fails, and its credentials are worth nothing."""
        if session.life:
            session.life.cancel()
        self._hang_up(session)
        self._world.learn(Removed(session.name))
        self._enter(session, Status.FAILED)

    def restrict(self, session: Session, timelock: Timelock) -> None:
        """Let WhatsApp restrict the account: a WORKING session says WORKING again, with what it is told."""
        session.timelock = timelock
        if session.status is Status.WORKING:
            self._enter(session, Status.WORKING)

    def lift(self, session: Session, timelock: Timelock) -> None:
        """Let it end: that is said once."""
        self.restrict(session, msgspec.structs.replace(timelock, is_active=False))
        session.timelock = None

    def lose(self) -> None:
        """Forget every session and break its connection, as SIGKILL does."""
        for session in self._world.sessions.values():
            self._hang_up(session)
        self._world.sessions.clear()

    def unmute(self, session: Session) -> None:
        """Let a muted session hear again: what was held arrives in a burst."""
        session.muted = False
        if session.connected:
            self._handset.catch_up(session)

    def _live(self, session: Session, life: Coroutine[Any, Any, None]) -> None:
        """Let this happen to it, and nothing else any more."""
        before, session.life = session.life, self._world.chores.spawn(life)
        if before and before is not asyncio.current_task():
            before.cancel()

    def _enter(self, session: Session, status: Status) -> None:
        session.status = status
        session.statuses = [*session.statuses, StatusPoint(status, self._world.now_ms())][-_STATUSES_SHOWN:]
        self._courier.emit(session, "session.status", bodies.session_status(self._world, session))

    def _work(self, session: Session, account: Account) -> None:
        session.account = account
        session.connected = True
        self._enter(session, Status.WORKING)
        self._handset.catch_up(session)

    @property
    def _is_newer_gows(self) -> bool:
        return self._world.engine is Engine.GOWS and self._world.since(*_START_FAILS_SINCE)

    def _hang_up(self, session: Session) -> None:
        session.connected = False
        line, session.line = session.line, None
        if line:
            line.hang_up()

    async def _dials(self, session: Session) -> bool:
        """Connect a session to WhatsApp, and say whether that went well."""
        if self._world.whatsapp is None:
            return True
        try:
            line = await network.call(self._world, session)
        except network.NotReached:
            return False
        session.line = line
        self._world.chores.spawn(self._hold(session, line), counts=False)
        return True

    async def _hold(self, session: Session, line: network.Line) -> None:
        """Wait for the end of a connection; one that nobody wanted to end is a drop."""
        try:
            await line.ended()
        finally:
            line.hang_up()
        if session.line is line:
            self.drop(session, 0.0)

    async def _connect(self, session: Session) -> None:
        await self._world.pause(_CONNECT_SECONDS)
        if await self._dials(session):
            self._enter_whatsapp(session)
        elif self._is_newer_gows and session.account is None:
            self._enter(session, Status.FAILED)
        else:
            session.life = self._world.chores.spawn(self._go_without(session), counts=False)

    async def _go_without(self, session: Session) -> None:
        """Go on when WhatsApp was not reached, each engine in its way."""
        noweb = self._world.engine is Engine.NOWEB
        if self._world.engine.in_browser:
            await self._fail(session)
            return
        if not noweb and session.account is None:  # GOWS gives up, and says so only in its log
            return
        for _ in range(_TRIES) if noweb else itertools.count():
            await self._world.pause(_RETRY_SECONDS)
            if noweb:
                self._enter(session, Status.STARTING)
            if await self._dials(session):
                self._enter_whatsapp(session)
                return
        self._enter(session, Status.FAILED)

    def _enter_whatsapp(self, session: Session) -> None:
        """Log in with what is stored, or show codes."""
        account = self._world.accounts.get(session.name)
        if account is None and self._world.auto_scan:
            self._show_code(session)
            self.scan(session)
        elif account is None:
            session.life = self._world.chores.spawn(self._wait_for_scan(session), counts=False)
        elif account.linked:
            self._work(session, account)
        else:
            self._hang_up(session)
            session.account = account
            self._enter(session, Status.FAILED)

    def _show_code(self, session: Session) -> None:
        session.qr = f"2@{secrets.token_urlsafe(96)}"
        self._enter(session, Status.SCAN_QR_CODE)

    async def _wait_for_scan(self, session: Session) -> None:
        """Show one code after the other until one is scanned, which cancels this, or all were shown."""
        for _ in range(_QR_CODES):
            self._show_code(session)
            await self._world.pause(_QR_SECONDS)
        await self._fail(session)

    def _wait_for_passkey(self, session: Session, status: Status) -> None:
        self._enter(session, status)
        before, session.life = session.life, self._world.chores.spawn(self._tire(session), counts=False)
        if before:
            before.cancel()

    async def _tire(self, session: Session) -> None:
        await self._world.pause(_PASSKEY_SECONDS)
        await self._fail(session)

    def _passkey_of(self, session: Session) -> Passkey:
        if session.passkey is None:
            raise EngineError("no passkey is asked for")
        return session.passkey

    async def _log_in(self, session: Session) -> None:
        await self._world.pause(_AFTER_SCAN_SECONDS)
        if self._world.engine is Engine.NOWEB:
            self._enter(session, Status.STARTING)
            await self._world.pause(_CONNECT_SECONDS)
        self._work(session, self._world.accounts[session.name])

    async def _fail(self, session: Session) -> None:
        self._hang_up(session)
        self._enter(session, Status.FAILED)
        if self._world.engine.in_browser:
            await self._world.pause(_RETRY_SECONDS)
            self._enter(session, Status.STARTING)
            await self._connect(session)

    async def _reconnect(self, session: Session, away_seconds: float) -> None:
        """Come back from a drop, each engine in its way."""
        if self._world.engine is Engine.NOWEB:
            await self._world.pause(_NOTICE_DROP_SECONDS)
        elif self._world.engine.in_browser:
            self._enter(session, Status.FAILED)
            await self._world.pause(_RETRY_SECONDS)
        self._enter(session, Status.STARTING)
        if self._world.engine is Engine.NOWEB:
            await self._try_again(session, away_seconds)
        else:
            await asyncio.sleep(away_seconds)
        if session.status is Status.STARTING:
            await self._connect(session)

    async def _try_again(self, session: Session, away_seconds: float) -> None:
        """Say STARTING with every try of NOWEB's, and give up after so many."""
        clock = asyncio.get_running_loop().time
        back_at = clock() + away_seconds
        for _ in range(_TRIES):
            left = back_at - clock()
            if left <= 0:
                return
            await asyncio.sleep(min(left, _RETRY_SECONDS * self._world.tempo.waits))
            self._enter(session, Status.STARTING)
        self._enter(session, Status.FAILED)
