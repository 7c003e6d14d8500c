"""Deliveries: a tenant's due intents go out, each session on its own, one message in flight per session.

Claim, call and settlement are three steps; a crash between them leaves the intent in doubt, and the next
bell looks for evidence before anything is sent again. A session whose gateway hangs holds up itself alone;
one that has to wait for its pace ends, and is rung for when its time has come: nothing sleeps in a slot.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from typing import Self

from wsm.core.content import Loaded, Text
from wsm.core.engines import heard_as
from wsm.core.errors import GatewayRefused, StoreUnavailable, Unavailable, WsmError
from wsm.core.ids import BareId, TenantId
from wsm.core.outbox import (
    Claimed,
    Composing,
    Doubtful,
    IntentState,
    Loading,
    Outcome,
    after_error,
    after_look_up,
    after_refused_look_up,
    delay,
)
from wsm.core.pacing import lengthened
from wsm.gateway.waha import Gateways, WahaSession
from wsm.store import outbox
from wsm.store.database import Database
from wsm.store.months import Months
from wsm.store.paces import Pacing
from wsm.streams.handover import Bell
from wsm.telemetry import SENDS, logger
from wsm.worker import locks
from wsm.worker.media import Files

log = logger("worker")

MESSAGES_PER_BELL = 50
"""After so many messages of one session the others get their turn: the bell goes to the tail."""

_COURTESY_SECONDS = 2.0
"""How long the signs of reading and typing may take."""

_AWAY = 2
"""So much longer than a message is a session left alone that is away."""

CLOCKS_DIFFER = timedelta(seconds=60)
"""By how much the own clock may be ahead of WhatsApp's where only times tell a message from older ones."""


class Deliveries:
    """Runs deliver bells.

    start_within  a call begins only this long after its claim was asked for, by the own monotonic clock
    evidence      how long after a claim a look-up that finds nothing is evidence (180 s for WAHA)
    pacing        the limits and pauses of every session
    files         out of which what needs a file is sent
    """

    def __init__(
        self,
        database: Database,
        gateways: Gateways,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        start_within: timedelta,
        evidence: timedelta,
        pacing: Pacing,
        files: Files,
    ) -> None:
        self._database = database
        self._gateways = gateways
        self._clock = clock
        self._monotonic = monotonic
        self._start_within = start_within
        self._evidence = evidence
        self._pacing = pacing
        self._files = files
        self._months = Months(database)
        self._reserved: dict[TenantId, dict[int, BareId | None]] = {}
        self._away: dict[int, int] = {}

    async def run(self, bell: Bell, *, is_mine: Callable[[], bool]) -> bool:
        """Send what is due. Returns whether there is more. Raises Unavailable when the store is away.

        is_mine  whether the bell's lease still holds; without it nothing more is claimed
        """
        flights: dict[int, asyncio.Task[bool]] = {}
        more = False
        try:
            while True:
                if is_mine() and not more:
                    await self._start(bell, is_mine, flights)
                if not flights:
                    return more
                done, _ = await asyncio.wait(flights.values(), timeout=1, return_when=asyncio.FIRST_COMPLETED)
                more &= bool(done)  # who takes longer than that hangs: the others go on without him
                for key in [key for key, task in flights.items() if task.done()]:
                    more |= flights.pop(key).result()
                if not flights:
                    # What has become due meanwhile rang again: the bell is marked, and followed by another.
                    return more
        finally:
            for task in flights.values():
                task.cancel()
            await asyncio.gather(*flights.values(), return_exceptions=True)

    async def _start(
        self, bell: Bell, is_mine: Callable[[], bool], flights: dict[int, asyncio.Task[bool]]
    ) -> None:
        """Begin with every session that has work due and is not in flight."""
        at_hand = self._reserved.setdefault(bell.tenant, {})
        # Taken out, so that nobody else uses them meanwhile; one that may have been used is never put back.
        ids = {session: at_hand.pop(session) for session in at_hand.keys() - flights.keys()}
        asked_at = self._monotonic()
        due_ones = await outbox.survey(self._database, bell.tenant, bell.id, ids, self._clock(), self._pacing)
        for due in due_ones:
            key = due.session[0]
            if isinstance(due.next, Claimed) and due.next.reserved_id == ids[key]:
                del ids[key]
            if key not in flights:
                flights[key] = asyncio.create_task(self._serve(due, asked_at, bell, is_mine))
        at_hand |= ids

    async def _serve(self, due: outbox.Due, asked_at: float, bell: Bell, is_mine: Callable[[], bool]) -> bool:
        """Serve a session, or leave it alone where it is away. Returns whether it stopped early."""
        try:
            return await self._served(due, asked_at, bell, is_mine)
        except _Away as away:
            await self._postpone(due.session, str(away))
            return False

    async def _served(
        self, due: outbox.Due, asked_at: float, bell: Bell, is_mine: Callable[[], bool]
    ) -> bool:
        """Look up a session's doubts, then send until nothing is due. Returns whether it stopped early.

        While a message is sent the id of the next one is reserved, and it is claimed as the one before is
        settled: one transaction a message.
        """
        session, found = due.session, due.next
        gateway = self._gateways.session(session[2], session[1], session[3])
        if due.doubts:
            for doubt in await outbox.doubts(self._database, session, self._clock()):
                await self._settle(doubt, await self._look_up(gateway, doubt))
        ids = self._reserved[bell.tenant]
        async with _Reserving(gateway, session[0], ids) as reserving:
            for left in reversed(range(MESSAGES_PER_BELL)):
                if found is None:
                    if not is_mine():
                        return False
                    await _id_at_hand(reserving)
                    asked_at = self._monotonic()
                    if (found := await self._claim(bell, session)) is None:
                        return False
                if not isinstance(found, Claimed):
                    found = await self._prepare(bell, session, gateway, found)
                    continue
                reserving.go_on()
                outcome = await self._send(gateway, found, asked_at)
                sent, found = found, None
                if left and outcome.bare_id is not None and is_mine():
                    now = self._clock()
                    await self._months.cover(now)
                    asked_at, at_hand = self._monotonic(), ids if reserving.has_id else {}
                    found, more = await outbox.sent_and_claim(
                        self._database, session, bell.id, sent, outcome.bare_id, at_hand, now, self._pacing
                    )
                    _tell(sent, outcome)
                    if not more:
                        return False
                else:
                    await self._settle(sent, outcome)
        return True

    async def _claim(
        self, bell: Bell, session: outbox.Session, loaded: int | None = None
    ) -> outbox.Found | None:
        """Claim what is next with the id that is at hand; it stays there if it was not used."""
        ids = self._reserved[bell.tenant]
        if session[0] not in ids:
            return None
        fresh_id = ids.pop(session[0])
        found = await outbox.claim(
            self._database, session, bell.id, fresh_id, self._clock(), self._pacing, loaded
        )
        if not isinstance(found, Claimed) or found.reserved_id != fresh_id:
            ids[session[0]] = fresh_id
        return found

    async def _prepare(
        self, bell: Bell, session: outbox.Session, gateway: WahaSession, first: Composing | Loading
    ) -> outbox.Found | None:
        """Do what has to be done before a claim, and return what is next if that is known then.

        A file is kept in memory until it was sent, and nothing else of the session is sent meanwhile.
        """
        if isinstance(first, Composing):
            await _compose(gateway, first)
            return None
        async with AsyncExitStack() as stack:
            try:
                file = self._files.loaded(bell.tenant, session[3], first.content)
                media = await stack.enter_async_context(file)
            except StoreUnavailable:
                raise
            except WsmError as exc:
                await outbox.set_aside(self._database, session, first, exc, self._clock())
                return None
            asked_at = self._monotonic()
            found = await self._claim(bell, session, first.id)
            if not isinstance(found, Claimed) or found.id != first.id:
                return found
            outcome = await self._send(gateway, found, asked_at, media)
            await self._settle(found, outcome)
            if outcome.bare_id is not None and outcome.bare_id == found.reserved_id:
                await outbox.prove_media_ids(self._database, session)
        return None

    async def _postpone(self, session: outbox.Session, reason: str) -> None:
        """Leave a session alone that is away: for longer each time, as far as this worker knows."""
        key, address, *_ = session
        times = self._away[key] = self._away.get(key, 0) + 1
        now = self._clock()
        until = now + lengthened(delay(times + _AWAY).total_seconds(), self._pacing.chance())
        await outbox.postpone(self._database, session, reason, until, now)
        log.warning("gateway_away", tenant=address.tenant, session=address.session, reason=reason)

    async def _send(
        self, gateway: WahaSession, claimed: Claimed, asked_at: float, media: Loaded | None = None
    ) -> Outcome:
        """Make the one call of a claim, unless the claim is too old to be still this worker's."""
        if claimed.typed and claimed.attempt == 1:
            await _best_effort(gateway.stop_typing(claimed.chat))
        if self._monotonic() - asked_at > self._start_within.total_seconds():
            return Outcome(IntentState.PENDING, "claimed too slowly", not_before=self._clock())
        try:
            bare_id = await gateway.send(
                claimed.chat,
                claimed.content or Text(text=claimed.text),
                id=claimed.reserved_id,
                target=claimed.target,
                media=media,
            )
        except WsmError as exc:
            now = self._clock()
            return after_error(exc, attempt=claimed.attempt, now=now, cold=claimed.cold, kind=claimed.kind)
        self._away.pop(claimed.session_id, None)
        return Outcome(IntentState.SENT, bare_id=bare_id)

    async def _look_up(self, gateway: WahaSession, doubt: Doubtful) -> Outcome:
        """Ask the gateway whether an intent has left: by its id, else by its text in the chat.

        What the history has already is no evidence: it is another message of the same words.
        """
        try:
            found = await self._found(gateway, doubt)
            working = (await gateway.get()).status == "WORKING"
        except GatewayRefused as exc:
            return after_refused_look_up(exc, doubt, evidence=self._evidence, now=self._clock())
        except Unavailable as exc:
            return Outcome(IntentState.INDETERMINATE, str(exc), not_before=self._clock() + delay(3))
        return after_look_up(found, doubt, working=working, evidence=self._evidence, now=self._clock())

    async def _found(self, gateway: WahaSession, doubt: Doubtful) -> BareId | None:
        if doubt.by_id and doubt.reserved_id is not None:
            message = await gateway.find_message(doubt.reserved_id)
            return message.id if message else None
        own = await gateway.own_messages(doubt.chat, int((doubt.claimed_at - CLOCKS_DIFFER).timestamp()))
        said = (heard_as(doubt.kind), doubt.text)
        same = [message.id for message in own if (message.kind, message.body) == said]
        return next(iter(await outbox.unknown_own(self._database, doubt, same)), None)

    async def _settle(self, intent: Claimed | Doubtful, outcome: Outcome) -> None:
        """Keep what came of it. Raises `_Away` when the session is not there for another one either."""
        address, now = intent.address, self._clock()
        await self._months.cover(now)
        await outbox.settle(self._database, address.tenant, intent.id, intent.attempt, outcome, now)
        _tell(intent, outcome)
        if outcome.lock is not None:
            until = await outbox.freeze(
                self._database, address, intent.session_id, self._pacing, outcome.lock, now
            )
            locks.tell(address, outcome.lock, until)
        if outcome.away:
            raise _Away(outcome.reason)


class _Away(Exception):
    """Its gateway is not reached, or the session does not work there. The reason is its text."""


async def _id_at_hand(reserving: "_Reserving") -> None:
    """See to it that an id is at hand. Raises `_Away` where none can be had."""
    try:
        await reserving.wait()
    except WsmError as exc:
        raise _Away(str(exc)) from exc


async def _compose(gateway: WahaSession, composing: Composing) -> None:
    """Mark as read what was handled, and show that somebody types, as before any answer."""
    if composing.seen:
        await _best_effort(gateway.send_seen(composing.chat))
    await _best_effort(gateway.start_typing(composing.chat))


async def _best_effort(call: Awaitable[None]) -> None:
    """Make a call that nothing depends on; it may not keep the message waiting."""
    with suppress(WsmError, TimeoutError):
        async with asyncio.timeout(_COURTESY_SECONDS):
            await call


def _tell(intent: Claimed | Doubtful, outcome: Outcome) -> None:
    SENDS.labels(intent.intent, intent.kind, outcome.state).inc()
    log.info("send", tenant=intent.address.tenant, session=intent.address.session, intent=intent.id,
             kind=intent.intent, outcome=outcome.state, reason=outcome.reason)  # fmt: skip


class _Reserving:
    """The next id of a session, asked for while there is something else to wait for.

    ids  what is at hand, by session; an id that nothing was claimed with stays there for the next bell
    """

    def __init__(self, gateway: WahaSession, session: int, ids: dict[int, BareId | None]) -> None:
        self._gateway = gateway
        self._session = session
        self._ids = ids
        self._asking: asyncio.Task[None] | None = None

    @property
    def has_id(self) -> bool:
        """Whether the next claim can be made at once."""
        return self._session in self._ids

    async def wait(self) -> None:
        """Wait for an id. Raises WsmError when the gateway gives none."""
        if self.has_id:
            return
        asking, self._asking = self._asking or self._start(), None
        await asking

    def go_on(self) -> None:
        """Ask for the next id, unless it is at hand."""
        if not self.has_id:
            self._asking = self._asking or self._start()

    def _start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        self._ids[self._session] = await self._gateway.new_message_id()
        self._asking = None  # one that failed stays, for who waits for it

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ask no longer: an id that is on its way is lost, which costs nothing."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
