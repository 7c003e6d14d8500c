"""Learning who hidden ids are: the gateway of a session is asked for the id that is missing.

WhatsApp names a person by phone (`@c.us`) or by a hidden id (`@lid`); messages may name both, or one. Who
is known by one alone may be two contacts, of which one waits in the line and the other is answered. So a
session that works is asked, through its own client and exit: for the phone behind a hidden id, or the hidden
id of a phone. What it knows enters at the front door (`wire.people`), and a turn makes one contact of two.

It may never know. So everybody is asked for once a day at most, and the longer it has not known the more
rarely; 20 of a session every five minutes, one after the other, within half a minute. This runs beside who
looks after the session, and keeps him from nothing. Safe to repeat: what was told twice changes nothing. What
breaks off is told as far as it came, and goes on the next time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from wsm.core.errors import GatewayRefused, GatewayUnavailable, MailboxFull, Unavailable
from wsm.core.events import Origin
from wsm.core.ids import ChatId, ServerName, SessionAddress
from wsm.core.moments import milliseconds
from wsm.gateway.lids import CANNOT_TELL
from wsm.gateway.waha import WahaSession
from wsm.store import hidden_ids
from wsm.store.database import Database
from wsm.store.hidden_ids import Unknown
from wsm.streams.handover import Offer, Verdict
from wsm.telemetry import HIDDEN_IDS, logger
from wsm.wire.people import hidden_ids_command

log = logger("control")

EVERY = timedelta(minutes=5)
_AT_ONCE = 20
_AGAIN = timedelta(days=1)
_RAREST = timedelta(days=30)
_QUIET = timedelta(hours=1)
"""A session that had nobody to ask for, and has heard nothing since, is left alone for so long."""
_PER_SERVER = 4
"""Fewer than so many calls without an answer open a server's circuit."""

Accept = Callable[[Sequence[Offer]], Awaitable[list[Verdict]]]


class Learned(msgspec.Struct, frozen=True):
    """What came of a round.

    due      how many there were to ask for
    asked    for how many that was done; of so many both ids are known now: learned
    reason   why it ended before all were, if it did
    cannot   the gateway answers no such question: it is left alone for a day
    """

    due: int = 0
    asked: int = 0
    learned: int = 0
    reason: str = ""
    cannot: bool = False


class _Known(msgspec.Struct, frozen=True):
    """When a session is asked again: at `next_at` if it has heard something since, else at `quiet_until`."""

    heard_ms: int
    next_at: datetime
    quiet_until: datetime


class HiddenIds:
    """Asks for the ids that are missing. Belongs to who leads, and to one event loop.

    app     the database as the application's role
    accept  `Handover.accept`
    limit_seconds  after so long a round ends, with what is known by then
    """

    def __init__(
        self,
        app: Database,
        accept: Accept,
        *,
        now: Callable[[], datetime],
        limit_seconds: float = 30.0,
    ) -> None:
        self._app = app
        self._accept = accept
        self._now = now
        self._limit_seconds = limit_seconds
        self._known: dict[int, _Known] = {}
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._asking: dict[ServerName, asyncio.Semaphore] = {}

    def begin(self, gateway: WahaSession, *, server: ServerName, session: int, heard_ms: int) -> None:
        """Begin a round beside the caller if the session's time has come. Returns at once, raises nothing.

        For sessions that work, under their own number and by their own exit.

        session   the row's id
        heard_ms  `sessions.heard_ms`: while it does not move nobody new has written
        """
        its, now = self._known.get(session), self._now()
        if its is not None and now < (its.quiet_until if its.heard_ms == heard_ms else its.next_at):
            return
        if session not in self._busy:
            self._busy[session] = asyncio.create_task(self._round(gateway, server, session, heard_ms))

    async def forget(self) -> None:
        """Break off what is being asked, and forget everything: another process leads."""
        tasks = list(self._busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._known.clear()

    @property
    def busy(self) -> bool:
        """Whether somebody is being asked."""
        return bool(self._busy)

    async def idle(self) -> None:
        """Wait until nobody is asked."""
        while self._busy:
            await asyncio.wait(self._busy.values())

    async def learn(self, gateway: WahaSession, session: int) -> Learned:
        """Ask for whoever may be asked for now, and let what is known enter.

        Blocks for the limit and a few queries at most. Raises StoreUnavailable, StreamsUnavailable and
        MailboxFull: then nothing counts as asked.
        """
        address, now = gateway.address, self._now()
        unknown = await hidden_ids.to_ask(self._app, address, session, now, most=_AT_ONCE)
        its = _Round()
        try:
            async with asyncio.timeout(self._limit_seconds):
                for each in unknown:
                    await self._ask(gateway, each, its)
        except TimeoutError:
            its.reason = "no answer in time"
        except (GatewayRefused, GatewayUnavailable) as exc:
            its.reason = str(exc)
        if its.pairs:
            await self._enter(address, its.pairs)
        if its.asked:
            await hidden_ids.asked(self._app, address, its.asked, now, at_least=_AGAIN, at_most=_RAREST)
        return Learned(len(unknown), len(its.asked), len(its.pairs), its.reason, cannot=its.cannot)

    async def _ask(self, gateway: WahaSession, who: Unknown, its: "_Round") -> None:
        """Ask for one. Raises what ends the round; who was refused has been asked for all the same."""
        lid, phone = who.lid, who.phone
        try:
            if lid is None and phone is not None:
                lid = await gateway.lids.lid_of(phone)
            elif lid is not None:
                phone = await gateway.lids.phone_of(lid)
        except GatewayRefused as exc:
            its.cannot = exc.reason in CANNOT_TELL
            if not its.cannot:
                its.asked.append(who.conversation)
            raise
        its.asked.append(who.conversation)
        if lid is not None and phone is not None:
            its.pairs.append((lid, phone))

    async def _enter(self, address: SessionAddress, pairs: Sequence[tuple[ChatId, ChatId]]) -> None:
        """Put what is known into the mailbox. A session's rounds are minutes apart: their time names them."""
        at_ms = milliseconds(self._now())
        body = hidden_ids_command(address, pairs, id=str(at_ms))
        [verdict] = await self._accept([Offer(address.tenant, address.session, Origin.CLOCK, at_ms, body)])
        if verdict is not Verdict.ACCEPTED:
            raise MailboxFull("tenant" if verdict is Verdict.TENANT_FULL else "all")

    async def _round(self, gateway: WahaSession, server: ServerName, session: int, heard_ms: int) -> None:
        """Do one round, remember when the next one is, and say what came of it."""
        its = None
        try:
            async with self._asking.setdefault(server, asyncio.Semaphore(_PER_SERVER)):
                its = await self.learn(gateway, session)
            _tell(gateway.address, its)
        except Unavailable as exc:
            about = {"tenant": gateway.address.tenant, "session": gateway.address.session}
            log.warning("hidden_ids_wait", reason=str(exc), **about)
        except Exception:
            log.exception("hidden_ids_failed")  # a bug here must end nothing else
        finally:
            now = self._now()
            pause = _AGAIN if its is not None and its.cannot else EVERY
            quiet = max(pause, _QUIET) if its is not None and not its.due else pause
            self._known[session] = _Known(heard_ms, now + pause, now + quiet)
            self._busy.pop(session, None)


class _Round(msgspec.Struct):
    """A round under way. asked: whom; pairs: who is known by now; reason: what ended it, if anything did."""

    asked: list[int] = []
    pairs: list[tuple[ChatId, ChatId]] = []
    reason: str = ""
    cannot: bool = False


def _tell(address: SessionAddress, its: Learned) -> None:
    HIDDEN_IDS.labels("learned").inc(its.learned)
    HIDDEN_IDS.labels("unknown").inc(its.asked - its.learned)
    about = {"tenant": address.tenant, "session": address.session}
    if its.reason:
        log.info("hidden_ids_wait", reason=its.reason, **about)
    if its.learned:
        log.info("hidden_ids", count=its.asked, found=its.learned, **about)
