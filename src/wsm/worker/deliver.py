"""Deliveries: a tenant's due intents go out, each session on its own, one message in flight per session.

Claim, call and settlement are three steps; a crash between them leaves the intent in doubt, and the next
bell looks for evidence before anything is sent again. A session whose gateway hangs holds up itself alone.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from wsm.core.errors import GatewayRefused, Unavailable, WsmError
from wsm.core.ids import BareId
from wsm.core.outbox import (
    Claimed,
    Doubtful,
    IntentState,
    Outcome,
    after_error,
    after_look_up,
    after_refused_look_up,
    delay,
)
from wsm.gateway.waha import Gateways, WahaSession
from wsm.store import outbox
from wsm.store.database import Database
from wsm.store.months import Months
from wsm.streams.handover import Bell
from wsm.telemetry import SENDS, logger

log = logger("worker")

MESSAGES_PER_BELL = 50
"""After so many messages of one session the others get their turn: the bell goes to the tail."""

CLOCKS_DIFFER = timedelta(seconds=60)
"""By how much the own clock may be ahead of WhatsApp's where only times tell a message from older ones."""


class Deliveries:
    """Runs deliver bells.

    start_within  a call begins only this long after its claim was asked for, by the own monotonic clock
    evidence      how long after a claim a look-up that finds nothing is evidence (180 s for WAHA)
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
    ) -> None:
        self._database = database
        self._gateways = gateways
        self._clock = clock
        self._monotonic = monotonic
        self._start_within = start_within
        self._evidence = evidence
        self._months = Months(database)
        self._reserved: dict[int, BareId] = {}

    async def run(self, bell: Bell, *, is_mine: Callable[[], bool]) -> bool:
        """Send what is due. Returns whether there is more. Raises Unavailable when the store is away.

        is_mine  whether the bell's lease still holds; without it nothing more is claimed
        """
        flights: dict[int, asyncio.Task[bool]] = {}
        more = False
        try:
            while True:
                sessions = []
                if is_mine() and not more:
                    sessions = await outbox.survey(self._database, bell.tenant, bell.id, self._clock())
                for session in sessions:
                    if session[0] not in flights:
                        flights[session[0]] = asyncio.create_task(self._serve(session, bell, is_mine))
                if not flights:
                    return more
                done, _ = await asyncio.wait(flights.values(), timeout=1, return_when=asyncio.FIRST_COMPLETED)
                more &= bool(done)  # who takes longer than that hangs: the others go on without him
                for key in [key for key, task in flights.items() if task.done()]:
                    more |= flights.pop(key).result()
        finally:
            for task in flights.values():
                task.cancel()
            await asyncio.gather(*flights.values(), return_exceptions=True)

    async def _serve(self, session: outbox.Session, bell: Bell, is_mine: Callable[[], bool]) -> bool:
        """Look up a session's doubts, then send until nothing is due. Returns whether it stopped early."""
        gateway = self._gateways.session(session[2], session[1])
        for doubt in await outbox.doubts(self._database, session, self._clock()):
            outcome = await self._look_up(gateway, doubt)
            await self._settle(doubt, outcome)
        for _ in range(MESSAGES_PER_BELL):
            if not is_mine():
                return False
            try:
                fresh_id = self._reserved.pop(session[0], None) or await gateway.new_message_id()
            except WsmError as exc:
                until = self._clock() + delay(3)
                await outbox.postpone(self._database, session, str(exc), until, self._clock())
                log.warning("gateway_away", tenant=bell.tenant, session=session[1].session, reason=str(exc))
                return False
            asked_at = self._monotonic()
            claimed = await outbox.claim(self._database, session, bell.id, fresh_id, self._clock())
            if fresh_id is not None and (claimed is None or claimed.reserved_id != fresh_id):
                self._reserved[session[0]] = fresh_id
            if claimed is None:
                return False
            outcome = await self._send(gateway, claimed, asked_at)
            await self._settle(claimed, outcome)
        return True

    async def _send(self, gateway: WahaSession, claimed: Claimed, asked_at: float) -> Outcome:
        """Make the one call of a claim, unless the claim is too old to be still this worker's."""
        if self._monotonic() - asked_at > self._start_within.total_seconds():
            return Outcome(IntentState.PENDING, "claimed too slowly", not_before=self._clock())
        try:
            bare_id = await gateway.send_text(claimed.chat, claimed.text, id=claimed.reserved_id)
        except WsmError as exc:
            return after_error(exc, attempt=claimed.attempt, now=self._clock())
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
        if doubt.reserved_id is not None:
            message = await gateway.find_message(doubt.reserved_id)
            return message.id if message else None
        own = await gateway.own_messages(doubt.chat, int((doubt.claimed_at - CLOCKS_DIFFER).timestamp()))
        same = [message.id for message in own if message.body == doubt.text]
        return next(iter(await outbox.unknown_own(self._database, doubt, same)), None)

    async def _settle(self, intent: Claimed | Doubtful, outcome: Outcome) -> None:
        address, now = intent.address, self._clock()
        await self._months.cover(now)
        await outbox.settle(self._database, address.tenant, intent.id, intent.attempt, outcome, now)
        SENDS.labels(intent.intent, outcome.state).inc()
        log.info("send", tenant=address.tenant, session=address.session, intent=intent.id, kind=intent.intent,
                 outcome=outcome.state, reason=outcome.reason)  # fmt: skip
