"""Catch-up: what a session missed is fetched from its gateway and enters at the front door.

WAHA keeps the webhooks that it could not deliver in memory (CONTRACT 5.3): its death loses them, and the
messages stand in its history alone. They are fetched from a while before the last one that was heard, the
oldest first; what no turn has counted goes into the mailbox as the webhook that should have brought it,
under the same key. So whichever of the two comes first counts, and the other is a duplicate.

Bounded by age, number, chats and time. Safe to repeat, and to break off anywhere: the mark from which it
begins moves only when everything has entered. Acks, edits, reactions and votes are not fetched.
"""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from wsm.core.errors import GatewayRefused, GatewayUnavailable, MailboxFull, NotFound
from wsm.core.events import MessageReceived, Origin
from wsm.core.ids import ChatId, EntryId, SessionAddress
from wsm.core.moments import milliseconds
from wsm.gateway.history import ALL_CHATS
from wsm.gateway.waha import WahaSession
from wsm.store import catchup
from wsm.store.database import Database
from wsm.streams.handover import Offer, Verdict
from wsm.telemetry import CAUGHT_UP, logger
from wsm.wire import waha

log = logger("control")

EARLIER = timedelta(minutes=15)
"""How long before the last one heard a catch-up begins: a media message is told up to ten minutes after newer
ones (CONTRACT 3.1), and the seventh repeat of a webhook comes some nine minutes after the first try."""

_LISTS_ALL_CHATS = frozenset({"GOWS", "NOWEB"})
_NO_STORE = "store_disabled"
_BATCH = 100  # entries of one ACCEPT
_EMPTY_PAGES = 2

Accept = Callable[[Sequence[Offer]], Awaitable[list[Verdict]]]


class Caught(msgspec.Struct, frozen=True):
    """What a catch-up did.

    fetched  messages that were looked at; most are known
    entered  those that no turn had counted: what was missed
    cut_off  a bound was reached, and there may be more; to be repeated, which goes on behind what has entered
    """

    fetched: int = 0
    entered: int = 0
    cut_off: bool = False


class _Missed(msgspec.Struct, frozen=True):
    sent_at_ms: int
    body: bytes


class _Haul(msgspec.Struct):
    """A catch-up under way. seen: the keys of what was looked at."""

    address: SessionAddress
    session_id: int
    gateway: WahaSession
    engine: str | None
    since_s: int
    ends_at: datetime
    seen: set[str] = msgspec.field(default_factory=set)
    newest_ms: int = 0
    fetched: int = 0
    entered: int = 0
    cut_off: bool = False


class CatchUp:
    """Fetches what sessions missed.

    app       the database as the application's role
    accept    `Handover.accept`; what is fetched stops at a full mailbox, as webhooks do
    reach     how far back at most; shorter than the dedupe remembers
    messages  so many enter at most
    chats     so many are looked at most, where a gateway has no list over all of them
    limit     after so long no further page is asked for
    """

    def __init__(
        self,
        app: Database,
        accept: Accept,
        *,
        now: Callable[[], datetime],
        reach: timedelta = timedelta(days=3),
        messages: int = 1_000,
        chats: int = 200,
        limit: timedelta = timedelta(seconds=60),
    ) -> None:
        self._app = app
        self._accept = accept
        self._now = now
        self._reach = reach
        self._messages = messages
        self._chats = chats
        self._limit = limit
        self._told: set[SessionAddress] = set()

    async def fetch(self, address: SessionAddress, session_id: int, gateway: WahaSession) -> Caught:
        """Fetch what a session that works has missed. Nothing for one that is new: its mark begins now.

        A gateway that keeps no history (NOWEB without its store) is told of once, and nothing is fetched.

        Raises NotFound; GatewayUnavailable, StoreUnavailable, StreamsUnavailable or MailboxFull in its midst:
        what has entered by then stays, and a repetition enters the rest. GatewayRefused for any other no.
        Blocks for `limit` and one call's time at most.
        """
        heard = await catchup.heard(self._app, address.tenant, session_id)
        if heard is None:
            raise NotFound(f"tenant {address.tenant} has no session {address.session}")
        now = self._now()
        if not heard.heard_ms:  # what it hears from now on may be missed
            await catchup.heard_all(self._app, address.tenant, session_id, milliseconds(now))
            return Caught()
        since = max(heard.heard_ms / 1000 - EARLIER.total_seconds(), (now - self._reach).timestamp())
        engine = heard.engine or (await gateway.get()).engine
        its = _Haul(address, session_id, gateway, engine, int(since), now + self._limit)
        try:
            await (self._in_one_list(its) if engine in _LISTS_ALL_CHATS else self._by_chats(its))
        except GatewayRefused as exc:
            if exc.reason != _NO_STORE:
                raise
            self._tell_once(address)
            return Caught()
        if not its.cut_off:
            until_ms = min(its.newest_ms, milliseconds(now))
            await catchup.heard_all(self._app, address.tenant, session_id, until_ms)
        return self._told_of(its)

    async def _in_one_list(self, its: _Haul) -> None:
        """Go through the gateway's list over all chats; each page enters before the next is asked for.

        It leaves out what is no message only when it has cut the page, so one empty page is not the end.
        """
        empty = 0
        for page in itertools.count():
            if empty == _EMPTY_PAGES or self._is_over(its, held=0):
                return
            said = await its.gateway.history.messages(ALL_CHATS, its.since_s, page)
            empty = 0 if said else empty + 1
            await self._enter(its, await self._missed(its, said))

    async def _by_chats(self, its: _Haul) -> None:
        """Go through the chats one by one. Nothing enters before all were read: first come, first served.

        A chat that cannot be read keeps no other one out; what it raised is raised in the end.
        """
        missed: list[_Missed] = []
        failed: GatewayUnavailable | GatewayRefused | None = None
        for chat in await self._active(its):
            try:
                missed += await self._of_chat(its, chat, held=len(missed))
            except (GatewayUnavailable, GatewayRefused) as exc:
                failed = exc
        await self._enter(its, sorted(missed, key=lambda each: each.sent_at_ms))
        if failed is not None:
            raise failed

    async def _of_chat(self, its: _Haul, chat: ChatId, *, held: int) -> list[_Missed]:
        missed: list[_Missed] = []
        for page in itertools.count():
            if self._is_over(its, held=held + len(missed)):
                break
            said = await its.gateway.history.messages(chat, its.since_s, page)
            if not said:
                break
            missed += await self._missed(its, said)
        return missed

    async def _active(self, its: _Haul) -> list[ChatId]:
        """List the chats in which something may have been said since then."""
        active: list[ChatId] = []
        for page in itertools.count():
            if self._is_over(its, held=0):
                break
            listed = await its.gateway.history.chats(page)
            newer = [chat for chat, last_s in listed if last_s is None or last_s >= its.since_s]
            if not newer:
                break
            active += newer
            if len(active) > self._chats:
                its.cut_off = True
                break
        return active[: self._chats]

    def _is_over(self, its: _Haul, *, held: int) -> bool:
        """Whether a bound is reached; the catch-up is cut off then."""
        over = its.entered + held >= self._messages or self._now() >= its.ends_at
        its.cut_off |= over
        return over

    async def _missed(self, its: _Haul, said: Sequence[object]) -> list[_Missed]:
        """Find the messages of a page that no turn has counted, in their order."""
        its.fetched += len(said)
        found: dict[str, _Missed] = {}
        for payload in said:
            body = waha.backfilled(its.address.session, payload, engine=its.engine)
            event = None if body is None else self._read(its, body)
            if event is not None and event.key not in its.seen:
                found[event.key] = _Missed(event.order.sent_at_ms, event.raw)
        its.seen.update(found)
        its.newest_ms = max([its.newest_ms, *(each.sent_at_ms for each in found.values())])
        known = await catchup.known(self._app, its.address.tenant, its.session_id, found)
        CAUGHT_UP.labels("known").inc(len(said) - len(found) + len(known))
        return [each for key, each in found.items() if key not in known]

    def _read(self, its: _Haul, body: bytes) -> MessageReceived | None:
        """Read a body as a turn will."""
        event = waha.read(
            body,
            tenant=its.address.tenant,
            session=its.address.session,
            origin=Origin.CATCH_UP,
            entry=EntryId("0-0"),
            received_at_ms=self._now_ms(),
        )
        return event if isinstance(event, MessageReceived) else None

    async def _enter(self, its: _Haul, missed: Sequence[_Missed]) -> None:
        """Put messages into the mailbox, as many as still may. Raises MailboxFull at its mark."""
        its.cut_off |= its.entered + len(missed) > self._messages
        missed = missed[: self._messages - its.entered]
        for first in range(0, len(missed), _BATCH):
            verdicts = await self._accept(
                [
                    Offer(its.address.tenant, its.address.session, Origin.CATCH_UP, self._now_ms(), each.body)
                    for each in missed[first : first + _BATCH]
                ]
            )
            accepted = verdicts.count(Verdict.ACCEPTED)
            its.entered += accepted
            CAUGHT_UP.labels("entered").inc(accepted)
            if accepted < len(verdicts):
                raise MailboxFull("tenant" if Verdict.TENANT_FULL in verdicts else "all")

    def _tell_once(self, address: SessionAddress) -> None:
        if address not in self._told:
            self._told.add(address)
            log.warning("catch_up_without_store", tenant=address.tenant, session=address.session)

    def _told_of(self, its: _Haul) -> Caught:
        tell = log.warning if its.cut_off else log.info
        tell(
            "caught_up",
            tenant=its.address.tenant,
            session=its.address.session,
            fetched=its.fetched,
            entered=its.entered,
            cut_off=its.cut_off,
        )
        return Caught(its.fetched, its.entered, its.cut_off)

    def _now_ms(self) -> int:
        return milliseconds(self._now())
