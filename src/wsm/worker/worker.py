"""The worker: rings, claims and runs bells, and keeps their leases, until it is told to stop.

One loop moves the hand-over (RING, CLAIM, renewal); bells run beside it as tasks. Turns and deliveries have
separate slots, so that a gateway that hangs never stops the turns. When PostgreSQL is away the worker stops
claiming, hands back what it holds and asks again until the database answers; when Redis is away it waits.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Mapping
from functools import cache

from wsm.core.errors import StoreUnavailable, StreamsUnavailable, Unavailable
from wsm.store.database import Database
from wsm.streams.handover import Bell, Handover
from wsm.streams.keys import Kind
from wsm.telemetry import BELL_SECONDS, BELLS, BELLS_IN_FLIGHT, RINGS, logger
from wsm.worker.deliver import Deliveries
from wsm.worker.turn import Turns

log = logger("worker")

# To find a metric's labels takes longer than to count: an eighth of the CPU of an empty bell.
_bells, _seconds = cache(BELLS.labels), cache(BELL_SECONDS.labels)
_in_flight, _rings = cache(BELLS_IN_FLIGHT.labels), cache(RINGS.labels)

_IDLE_SECONDS = 1.0
_RENEW_SECONDS = 1.0
_PAUSE_SECONDS = 0.5


class Worker:
    """One process' share of the fleet.

    name           unique among living workers; leases and RQ's registries bear it
    slots          how many bells of each kind run at once
    drain_seconds  how long after the stop the running bells may take before they are cancelled
    """

    def __init__(
        self,
        name: str,
        handover: Handover,
        database: Database,
        turns: Turns,
        deliveries: Deliveries,
        *,
        slots: Mapping[Kind, int],
        drain_seconds: float,
    ) -> None:
        self._name = name
        self._handover = handover
        self._database = database
        self._turns = turns
        self._deliveries = deliveries
        self._free = dict(slots)
        self._drain_seconds = drain_seconds
        self._running: dict[str, tuple[Bell, asyncio.Task[None]]] = {}
        self._lost: set[str] = set()
        self._renewed_at = -math.inf
        self._freed = asyncio.Event()
        self._store_away = asyncio.Event()
        self._tokens: dict[Kind, asyncio.Task[None]] = {}

    @property
    def busy(self) -> bool:
        """Whether any bell runs."""
        return bool(self._running)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then claim nothing more, let the running bells end, and return."""
        mending = asyncio.create_task(self._mend())
        try:
            while not stop.is_set():
                try:
                    if self._store_away.is_set():
                        await self._hand_over(claiming=False)
                        await asyncio.sleep(_PAUSE_SECONDS)
                    elif not await self._hand_over(claiming=True):
                        await self._idle(stop)
                except StreamsUnavailable as exc:
                    log.warning("streams_away", reason=str(exc))
                    await asyncio.sleep(_PAUSE_SECONDS * random.uniform(1, 2))  # noqa: S311 (only to spread)
            await self._drain()
        finally:
            beside = [mending, *self._tokens.values()]
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def hand_back(self, bell_id: str) -> bool:
        """Cancel a running bell and give it to the tail; False when it does not run here."""
        if bell_id not in self._running:
            return False
        bell, task = self._running[bell_id]
        task.cancel()
        await asyncio.wait([task])
        if bell_id in self._running:  # it had not begun
            self._ended(bell)
        await self._hand_back(bell)
        return True

    async def _hand_over(self, *, claiming: bool) -> int:
        """Ring, renew what is due and claim once. Returns how many bells were claimed."""
        self._freed.clear()
        free = dict(self._free) if claiming else {}
        now = time.monotonic()
        due = now - self._renewed_at >= _RENEW_SECONDS
        # A busy worker claims hundreds of times a second: to renew everything each time was most of the work
        # of Redis. A lone turn is always named, for it keeps others of its kind away.
        held = [bell for bell, _ in self._running.values() if due or bell.alone]
        claim = await self._handover.claim(self._name, free, held, ring=tuple(Kind) if claiming else ())
        for kind, made in claim.rung.items():
            _rings(kind).inc(made)
        if due:
            self._renewed_at = now
        self._lost |= set(claim.lost) & self._running.keys()
        for bell in claim.bells:
            self._running[bell.id] = (bell, asyncio.create_task(self._see_to(bell)))
            self._free[bell.kind] -= 1
            _in_flight(bell.kind).inc()
        return len(claim.bells)

    async def _idle(self, stop: asyncio.Event) -> None:
        """Wait for a token, the stop, or a slot where none was; a second at most, so that leases are renewed.

        The wait for a token outlives a call of this: to cut it off would cost its connection. There is one
        for each kind, or who began to wait while one kind had no room would not hear of it when it has.
        """
        for kind, slots in self._free.items():
            if slots > 0 and kind not in self._tokens:
                self._tokens[kind] = asyncio.create_task(self._handover.wait(_IDLE_SECONDS, [kind]))
        beside = [asyncio.create_task(event.wait()) for event in (stop, self._freed)]
        due_in = max(0.0, self._renewed_at + _RENEW_SECONDS - time.monotonic())
        try:
            await asyncio.wait(
                [*beside, *self._tokens.values()],
                timeout=min(_IDLE_SECONDS, due_in),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in beside:
                task.cancel()
        for kind in [kind for kind, token in self._tokens.items() if token.done()]:
            self._tokens.pop(kind).result()

    async def _see_to(self, bell: Bell) -> None:
        """Run one bell to its end, whatever that is; the word it ended in is counted.

        A bug leaves the bell to its lease: SWEEP rings again, one entry at a time.
        """
        started = time.monotonic()
        outcome = "handed_back"
        try:
            outcome = await self._run(bell)
        except Unavailable as exc:
            log.warning("handed_back", tenant=bell.tenant, bell=bell.id, reason=str(exc))
            await self._hand_back(bell)
            if isinstance(exc, StoreUnavailable):
                self._store_away.set()
        except Exception:  # the other bells go on
            outcome = "bug"
            log.exception("bell_failed", tenant=bell.tenant, bell=bell.id)
        finally:
            self._ended(bell)
            _bells(bell.kind, outcome).inc()
            _seconds(bell.kind).observe(time.monotonic() - started)

    async def _run(self, bell: Bell) -> str:
        if bell.kind is Kind.TURN:
            settled = await self._turns.run(bell)
            mine = await self._handover.finish(
                bell, handled=settled.handled, parked=settled.parked, deliver=settled.deliver
            )
        else:
            more = await self._deliveries.run(bell, is_mine=lambda: bell.id not in self._lost)
            mine = await self._handover.finish(bell, more=more)
        if not mine:
            log.warning("bell_lost", tenant=bell.tenant, bell=bell.id)
        return "done" if mine else "lost"

    async def _hand_back(self, bell: Bell) -> None:
        """Give a bell to the tail unharmed; should Redis be away too, its lease runs out by itself."""
        with contextlib.suppress(StreamsUnavailable):
            await self._handover.finish(bell, more=True)

    async def _mend(self) -> None:
        """While the store is away, ask it until it answers."""
        while True:
            await self._store_away.wait()
            try:
                await self._database.ping()
                self._store_away.clear()
                log.info("store_back")
            except Unavailable:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _drain(self) -> None:
        """Let running bells end, renewing their leases; cancel and hand back what takes too long."""
        deadline = time.monotonic() + self._drain_seconds
        while (tasks := self._tasks()) and time.monotonic() < deadline:
            with contextlib.suppress(StreamsUnavailable):
                await self._hand_over(claiming=False)
            await asyncio.wait(tasks, timeout=_IDLE_SECONDS)
        late = list(self._running.values())
        for _, task in late:
            task.cancel()
        await asyncio.gather(*(task for _, task in late), return_exceptions=True)
        for bell, _ in late:  # here and not in its task, which may have been cancelled before it began
            await self._hand_back(bell)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for _, task in self._running.values()]

    def _ended(self, bell: Bell) -> None:
        """Give its slot to another; the loop is told when that kind had none left, for it claimed without."""
        del self._running[bell.id]
        self._lost.discard(bell.id)
        if self._free[bell.kind] == 0:
            self._freed.set()
        self._free[bell.kind] += 1
        _in_flight(bell.kind).dec()
