"""The hand-over: entries into mailboxes, bells to workers, and what became of them.

Five Lua scripts do it, one call each; this module names their arguments and reads their answers. A call that
ends in StreamsUnavailable may or may not have happened and may be repeated: ACCEPT then keeps an entry twice
(PostgreSQL knows it), FINISH answers False, a lost CLAIM costs a lease, the others change nothing again.

What a bell shows is a snapshot; only FINISH decides whether the worker still held it. The lease is no fence:
that is the lane in PostgreSQL.
"""

import time
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

import msgspec
from redis.asyncio import Redis

from wsm.core.errors import StreamsUnavailable
from wsm.core.events import Origin
from wsm.core.ids import ChatId, EntryId, SessionName, TenantId
from wsm.streams import keys
from wsm.streams.client import translated
from wsm.streams.depth import Depth, measure
from wsm.streams.finishing import Finishing
from wsm.streams.keys import Kind
from wsm.streams.scripts import Arguments, load, together

ATTEMPTS = 5
"""How often an entry may fail, or lose its worker, before it is a dead letter."""

DELAYS_SECONDS = (1, 5, 30, 120)
"""How long a chat is put aside after the first, second, … failure of its entry."""

RINGS_AT_ONCE = 100  # tenants in mail
FULL_REPLY = 8
"""A claim stops when the bodies that it returns reach this many full turns: 8 MiB by default."""

JOBS = {kind: f"wsm.worker.bells.{kind}" for kind in Kind}
"""The import path that a stock RQ worker would call for a bell."""

_ORIGINS = {origin.encode(): origin for origin in Origin}
_DATA = {kind: zlib.compress(msgspec.json.encode((name, None, [], {}))) for kind, name in JOBS.items()}


class Verdict(StrEnum):
    """What became of an offer."""

    ACCEPTED = "accepted"
    TENANT_FULL = "tenant_full"
    ALL_FULL = "all_full"


_VERDICTS = (Verdict.ACCEPTED, Verdict.TENANT_FULL, Verdict.ALL_FULL)


class Offer(msgspec.Struct, frozen=True):
    """An entry for a tenant's mailbox."""

    tenant: TenantId
    session: SessionName
    origin: Origin
    received_at_ms: int
    body: bytes


class Misfit(msgspec.Struct, frozen=True):
    """An authentic webhook that belongs to no session that wsm knows: kept in the capped quarantine."""

    server: str
    session: str
    reason: str
    received_at_ms: int
    body: bytes


class Entry(msgspec.Struct, frozen=True):
    """An entry as it lies in a mailbox, or among those of a chat that was put aside."""

    id: EntryId
    session: SessionName
    origin: Origin
    received_at_ms: int
    body: bytes
    from_parked: ChatId | None


class Bell(msgspec.Struct, frozen=True):
    """A leased turn or delivery of one tenant.

    entries  what a turn may handle: chats that came back first, then the mailbox, each in order
    parked   chats still put aside: their entries are not handled but put aside too
    alone    the last worker was lost: one entry only, and the attempt is counted already
    """

    kind: Kind
    tenant: TenantId
    id: str
    entries: tuple[Entry, ...]
    parked: frozenset[ChatId]
    alone: bool


class Parking(msgspec.Struct, frozen=True):
    """Entries of one chat to put aside.

    culprit  the entry that failed: it sets the delay, and its fifth failure makes it a dead letter with
             `reason`; None when the chat was put aside already
    """

    chat: ChatId
    culprit: EntryId | None
    reason: str
    entries: tuple[Entry, ...]


class Claim(msgspec.Struct, frozen=True):
    """New bells, the ids of held ones that are no longer the worker's, and how many were rung for."""

    bells: tuple[Bell, ...]
    lost: tuple[str, ...]
    rung: Mapping[Kind, int]


class Sweep(msgspec.Struct, frozen=True):
    """What one slice of a sweep did.

    cursor    for the next slice; 0 after the last one
    rung      tenants put into mail
    expired   leases that ran out
    returned  chats that came back
    repaired  bells lost, orphaned, or missing among the ready
    foreign   jobs that other tools put into tenants' queues
    """

    cursor: int
    rung: int
    expired: int
    returned: int
    repaired: int
    foreign: int


class Limits(msgspec.Struct, frozen=True):
    """The marks at which mailboxes are full. WAHA's entries stop there, also fetched ones; wsm's own pass.

    quarantine_entries, quarantine_bytes  of what belongs to no session; the oldest goes first
    dead_letters  a tenant who has so many is paused: what still comes stays in his mailbox
    """

    tenant_entries: int
    tenant_bytes: int
    all_bytes: int
    quarantine_entries: int
    quarantine_bytes: int = 16 * 1024 * 1024
    dead_letters: int = 1_000


class Handover:
    """The five scripts on one Redis.

    redis          a client of `client.connect`: no retries, bytes
    turn_entries, turn_bytes  what a turn gets at most; one entry always
    wait_replicas  how many replicas must have an accepted batch before `accept` returns
    wait_seconds   how long they may take

    `now_ms` is for tests: without it the scripts read Redis' clock. Every method raises StreamsUnavailable.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        limits: Limits,
        lease_seconds: float,
        turn_entries: int,
        turn_bytes: int = 1024 * 1024,
        wait_replicas: int = 0,
        wait_seconds: float = 1.0,
    ) -> None:
        self._redis = redis
        self._limits = limits
        self._lease_ms = int(lease_seconds * 1000)
        self._turn_entries = turn_entries
        self._turn_bytes = turn_bytes
        self._wait_replicas = wait_replicas
        self._wait_seconds = wait_seconds
        self._scripts = {name: load(name) for name in ("accept", "ring", "claim", "finish", "sweep")}
        self._finishing = Finishing(self._finish)

    async def accept(self, offers: Sequence[Offer | Misfit]) -> list[Verdict]:
        """Append a batch with one call; returns a verdict for each, in their order.

        When it returns, Redis has answered after its fsync (`appendfsync always`) and, if asked to, enough
        replicas have the batch. Too few of them raises StreamsUnavailable although the entries are kept: the
        sender's repetition is a duplicate.
        """
        limits = self._limits
        arguments: list[str | bytes | int] = [
            limits.tenant_entries, limits.tenant_bytes, limits.all_bytes, limits.quarantine_entries,
            limits.quarantine_bytes,
        ]  # fmt: skip
        for offer in offers:
            if isinstance(offer, Offer):
                arguments += (
                    offer.tenant, offer.session, offer.origin, offer.received_at_ms, offer.body, "",
                )  # fmt: skip
            else:
                arguments += (
                    "", offer.session, offer.server, offer.received_at_ms, offer.body, offer.reason,
                )  # fmt: skip
        with translated():
            script = self._scripts["accept"]
            if self._wait_replicas:
                answer, replicas = await script.and_wait(
                    self._redis, arguments, self._wait_replicas, self._wait_seconds
                )
                if replicas < self._wait_replicas:
                    raise StreamsUnavailable(f"{replicas} replicas confirmed, not {self._wait_replicas}")
            else:
                answer = await script(self._redis, arguments)
        return [_VERDICTS[code - 1] for code in answer]

    async def ring(self, kind: Kind, limit: int = RINGS_AT_ONCE) -> int:
        """Make bells for up to `limit` tenants in mail; returns how many were made."""
        with translated():
            return int(await self._scripts["ring"](self._redis, _ringing(kind, limit)))

    async def mail(self, kind: Kind, tenants: Sequence[TenantId]) -> None:
        """Have tenants rung for. For deliveries that are due; turns are mailed by what makes them due."""
        if tenants:
            with translated():
                await self._scripts["ring"](self._redis, _ringing(kind, 0, tenants))

    async def claim(
        self,
        worker: str,
        slots: Mapping[Kind, int],
        held: Sequence[Bell],
        *,
        ring: Sequence[Kind] = (),
        now_ms: int | None = None,
    ) -> Claim:
        """Renew the leases of `held` and lease up to `slots` more bells of each kind.

        ring  kinds to ring for beforehand, in the same round trip

        Turns bring their first entries. Of turns whose last worker was lost, a worker has one at a time.
        Fewer bells than slots with more ready means that the reply was full: a wake token is left, so the
        next `wait` returns at once.
        """
        arguments: list[str | bytes | int] = [
            worker, _given(now_ms), self._lease_ms, self._turn_entries, self._turn_bytes,
            FULL_REPLY * self._turn_bytes, ATTEMPTS, _stamp(now_ms),
            slots.get(Kind.TURN, 0), slots.get(Kind.DELIVER, 0), int(not any(bell.alone for bell in held)),
            self._limits.dead_letters,
        ]  # fmt: skip
        for bell in held:
            arguments += (bell.kind, bell.tenant, bell.id)
        calls = [(self._scripts["ring"], _ringing(kind, RINGS_AT_ONCE)) for kind in ring]
        with translated():
            *made, (lost, bells) = await together(self._redis, *calls, (self._scripts["claim"], arguments))
        return Claim(
            bells=tuple(map(_bell, bells)),
            lost=tuple(id_.decode() for id_ in lost),
            rung=dict(zip(ring, made, strict=True)),
        )

    async def finish(
        self,
        bell: Bell,
        *,
        handled: Sequence[Entry] = (),
        parked: Sequence[Parking] = (),
        deliver: bool = False,
        more: bool = False,
        now_ms: int | None = None,
    ) -> bool:
        """Settle a bell; False if its pointer was no longer the caller's, and then nothing changed.

        handled  entries that are committed
        parked   chats to put aside
        deliver  have the tenant rung for deliveries
        more     a delivery has more to do: a new bell at the tail

        With none of them the bell is handed back and nothing is counted. Entries that remain get a new bell
        at the tail. Bells that end while a call is out share the next one.
        """
        arguments: list[str | bytes | int] = [
            bell.kind, bell.tenant, bell.id, int(deliver), int(more), len(handled),
        ]  # fmt: skip
        for entry in handled:
            arguments += (entry.from_parked or "", entry.id, len(entry.body))
        arguments.append(len(parked))
        for parking in parked:
            entries = sorted(parking.entries, key=_place)
            ids = [entry.id for entry in entries]
            place = ids.index(parking.culprit) + 1 if parking.culprit else 0
            arguments += (parking.chat, place, parking.reason, len(entries))
            for entry in entries:
                arguments += (entry.from_parked or "", entry.id)
        return await self._finishing.settle(now_ms, arguments)

    async def _finish(self, now_ms: int | None, bells: Sequence[Arguments]) -> list[bool]:
        """Settle bells with one call, each given by its own values."""
        arguments: list[str | bytes | int] = [
            _given(now_ms), _stamp(now_ms), uuid4().hex, _DATA[Kind.TURN], _DATA[Kind.DELIVER],
            self._turn_entries, self._limits.dead_letters,
            len(DELAYS_SECONDS), *(seconds * 1000 for seconds in DELAYS_SECONDS),
        ]  # fmt: skip
        for bell in bells:
            arguments.append(len(bell))
            arguments += bell
        with translated():
            return [one == 1 for one in await self._scripts["finish"](self._redis, arguments)]

    async def sweep(self, cursor: int, *, slice_size: int = 500, now_ms: int | None = None) -> Sweep:
        """Look at about `slice_size` active tenants from `cursor` (0 to begin) and repair what is broken."""
        with translated():
            answer = await self._scripts["sweep"](self._redis, [cursor, slice_size, _given(now_ms)])
        return Sweep(*map(int, answer))

    async def wait(self, timeout_seconds: float, kinds: Sequence[Kind] = tuple(Kind)) -> None:
        """Block until a token says that there may be work of these kinds, or the time is over.

        Who has no room for a kind leaves its tokens to others.

        It is over at half the client's own time-out at the latest: a longer silence looks like a dead server.
        """
        patience: float | None = self._redis.connection_pool.connection_kwargs.get("socket_timeout")
        if patience is not None:
            timeout_seconds = min(timeout_seconds, patience / 2)
        seconds = max(timeout_seconds, 0.01)  # 0 would be for ever
        with translated():
            await self._redis.blpop([*map(keys.wake, kinds)], timeout=seconds)

    async def holder(self, kind: Kind, tenant: TenantId) -> str | None:
        """Return the name of the worker that runs the tenant's bell now, None when nobody does."""
        with translated():
            bell: Any = await self._redis.hget(keys.pointer(tenant, kind), "bell")
            if bell is None:
                return None
            name: Any = await self._redis.hget(keys.rq_job(bell.decode()), "worker_name")
        return name.decode() if name else None

    async def depth(self) -> Depth:
        """Read how much waits; for gauges."""
        return await measure(self._redis)


def _fresh(kind: Kind) -> str:
    """Name a bell: never reused, so that an old RQ job of the same id cannot deafen its tenant."""
    return f"{kind}-{uuid4().hex}"


def _ringing(kind: Kind, limit: int, tenants: Sequence[TenantId] = ()) -> list[str | bytes | int]:
    return [kind, limit, _fresh(kind), _stamp(None), _DATA[kind], *tenants]


def _given(now_ms: int | None) -> str | int:
    return "" if now_ms is None else now_ms


def _stamp(now_ms: int | None) -> str:
    """Write a time as RQ 2.12 does."""
    seconds = time.time() if now_ms is None else now_ms / 1000
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _place(entry: Entry) -> tuple[int, int]:
    milliseconds, counter = entry.id.split("-")
    return int(milliseconds), int(counter)


def _bell(answer: Any) -> Bell:
    kind, tenant, id_, alone, entries, parked = answer
    return Bell(
        kind=Kind(kind.decode()),
        tenant=TenantId(int(tenant)),
        id=id_.decode(),
        entries=tuple(_entry(chat, *entry) for chat, entry in entries),
        parked=frozenset(ChatId(chat.decode()) for chat in parked),
        alone=alone == 1,
    )


def _entry(chat: bytes, id_: bytes, fields: Sequence[bytes]) -> Entry:
    """Read an entry that CLAIM found to be one. Whose origin or session is odd fails in its turn, alone."""
    _, at, _, origin, _, session, _, body = fields
    return Entry(
        id=EntryId(id_.decode()),
        session=SessionName(session.decode(errors="replace")),
        origin=_ORIGINS.get(origin, Origin.UNKNOWN),
        received_at_ms=int(at),
        body=body,
        from_parked=ChatId(chat.decode()) or None,
    )
