"""The line as a turn reads and writes it: the tickets that it touches, who serves, and the first who wait.

What is read does not grow with the line: each ticket is found by its conversation, and the heads of a queue
by the index that has them in order. What was moved is written once, as it stands at the end; the steps say
in which order it happened.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from wsm.core.asks import Ask, Asked, SetAgent
from wsm.core.attendance import GONE_AFTER, PARKED_AT_MOST, Line
from wsm.core.content import LIFETIME, SendClass
from wsm.core.conversation import State
from wsm.core.events import Event
from wsm.core.ids import SessionName
from wsm.core.tickets import TOLD, Agent, Did, Effect, Ended, Level, Queue, QueueId, Spot
from wsm.store.database import Transaction, listed

_OPENS = frozenset({Did.OPENED_SERVED, Did.OPENED_WAITING, Did.OPENED_OVERFLOWN})
_LOOK_AHEAD = 6
_LOOK_FAR = 100
"""How many of those who wait are read where an agent comes or time is over."""

Asking = tuple[str, dict[str, Any]]


class Tickets:
    """The line of one transaction. Its queries travel with the lane's own: `asks`, then `took`."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._answers: Mapping[str, list[Any]] = {}
        self._limit = _LOOK_AHEAD
        self._sweeps = False
        self._line: Line | None = None
        self._current: dict[int, int] = {}
        self._taking: set[int] = set()
        self._new: dict[int, list[int]] = defaultdict(list)
        self._audit: list[dict[str, Any]] = []
        self._moved: list[Effect] = []

    def asks(self, events: Sequence[Event], names: Sequence[str], aliases: Sequence[str]) -> Iterator[Asking]:
        """Yield the queries for a turn of these events, in these sessions, with people of these aliases."""
        asked = [event.what for event in events if isinstance(event, Asked)]
        far = any(
            isinstance(what, SetAgent) or (isinstance(what, Ask) and (what.agent or what.is_lasting))
            for what in asked
        )
        self._limit = len(events) + (_LOOK_FAR if far else _LOOK_AHEAD)
        self._sweeps = any(isinstance(what, Ask) and what.is_lasting for what in asked)
        yield from self._line_asks()
        if aliases:
            yield "known_tickets", {"names": names, "aliases": aliases}

    def _line_asks(self) -> Iterator[Asking]:
        now = self._transaction.now
        yield "open_line", {"limit": self._limit + 1}
        yield "line_agents", {}
        if self._sweeps:
            before = {"parked_before": now - PARKED_AT_MOST, "gone_before": now - GONE_AFTER}
            yield "due_tickets", {"limit": self._limit, **before}

    def took(self, answers: Mapping[str, list[Any]]) -> None:
        """Take the answers to what was asked, by the queries' names."""
        self._answers = answers

    async def set(self, agents: Sequence[SetAgent]) -> None:
        """Make or change agents, and look at the line once more."""
        for agent in agents:
            queues = None if agent.queues is None else list(agent.queues)
            self._transaction.later("set_agent", agent=agent.agent, capacity=agent.capacity, queues=queues)
        await self._look()

    async def _look(self) -> None:
        asked = [*self._line_asks()]
        rows = await self._transaction.each(*asked)
        self._answers = {**self._answers, **dict(zip((name for name, _ in asked), rows, strict=True))}

    def line(self, entrances: Mapping[SessionName, QueueId]) -> Line:
        """Return the line as it was read."""
        queues: dict[int, Queue] = {}
        for row in self._answers.get("open_line", []):
            queue = (
                queues.setdefault(row.queue, _queue(row)) if row.queue not in queues else queues[row.queue]
            )
            if row.id is not None:
                queue.heads.append(_spot(row, row.queue))
        for queue in queues.values():
            queue.more = len(queue.heads) > self._limit
        known = {row.id: _spot(row, row.queue_id) for row in self._answers.get("known_tickets", [])}
        due = [_spot(row, row.queue_id) for row in self._answers.get("due_tickets", [])]
        agents = [_agent(row) for row in self._answers.get("line_agents", [])]
        opened = sorted(known.values(), key=lambda spot: spot.state is State.CLOSED)
        self._line = Line(
            [*queues.values()],
            agents,
            [*opened, *due],
            now=self._transaction.now,
            entrances=entrances,
            before=self._line,
        )
        self._line.short = len(due) >= self._limit
        for spot in self._line.spots:
            if spot.ticket is not None:
                self._current[spot.conversation] = spot.ticket
            if spot.state is not State.CLOSED or spot.ended is Ended.OVERFLOW:
                self._taking.add(spot.conversation)
        return self._line

    async def again(self, entrances: Mapping[SessionName, QueueId]) -> Line:
        """Look at the line as it stands after what was performed."""
        self._answers = {}
        await self._look()
        return self.line(entrances)

    def ticket(self, conversation: int | None) -> int | None:
        """Return the ticket that a message belongs to at this step: an open one, or a message being left."""
        return self._current[conversation] if conversation in self._taking else None

    async def keep(self, line: Line) -> Mapping[int, State]:
        """Write what has moved, new tickets in a round trip; return where their conversations are."""
        if known := [_row(spot) for spot in line.changed if spot.ticket is not None]:
            self._transaction.later("keep_tickets", tickets=listed(known))
        if line.presences:
            agents = [
                {"agent": each.id, "online": each.online, "since": each.since, "busy_at": each.busy_at}
                for each in line.presences
            ]
            self._transaction.later("keep_agents", agents=listed(agents))
        if new := [spot for spot in line.changed if spot.ticket is None]:
            rows = [{"place": place, **_row(spot)} for place, spot in enumerate(new)]
            for row in sorted(await self._transaction.rows("open_tickets", tickets=listed(rows))):
                self._new[row.conversation_id].append(row.id)
        return {spot.conversation: spot.state for spot in line.changed}

    def follow(self, effect: Effect) -> None:
        """Follow a change of a ticket or an agent for the audit, and remember which lines moved."""
        conversation = effect.conversation
        if effect.did is Did.LINE_MOVED:
            self._moved.append(effect)
        elif effect.did not in TOLD:
            if conversation is not None:
                if effect.did in _OPENS:
                    self._current[conversation] = self._new[conversation].pop(0)
                (self._taking.discard if effect.did is Did.CLOSED else self._taking.add)(conversation)
            detail = {name: getattr(effect, name) for name in ("by", "agent", "queue", "level", "ask")}
            self._audit.append(
                {"place": len(self._audit), "what": effect.did, "conversation": conversation,
                 "ticket": self._current.get(conversation or 0),
                 "detail": {name: value for name, value in detail.items() if value not in ("", None)}}
            )  # fmt: skip

    def write_audit(self) -> None:
        """Write what was followed."""
        if self._audit:
            self._transaction.later("write_audit", lines=listed(self._audit))
        self._audit = []

    def tell_moved(self) -> None:
        """Write intents to tell the first ones behind who waits no more where they stand now."""
        now = self._transaction.now
        for effect in self._moved:
            rank_at, seq = effect.behind or (None, None)
            values = {"queue": effect.queue, "rank_at": rank_at, "seq": seq, "mark": f"{now.timestamp():.6f}"}
            self._transaction.later("tell_moved", **values, expires_at=now + LIFETIME[SendClass.PLACE])
        self._moved = []


def _queue(row: Any) -> Queue:
    return Queue(
        id=row.queue,
        name=row.name,
        capacity=row.capacity,
        ageing=timedelta(minutes=row.ageing_minutes),
        max_length=row.max_length,
        max_wait=timedelta(minutes=row.max_wait_minutes) if row.max_wait_minutes else None,
        reopen=timedelta(hours=row.reopen_hours),
        pull=row.pull,
        keeps=row.keeps,
        served=row.served,
        waiting=row.waiting or 0,
        newest_at=row.newest_at,
    )


def _agent(row: Any) -> Agent:
    queues = None if row.queues is None else frozenset(row.queues)
    return Agent(row.id, row.name, row.capacity, row.online, queues, row.since, row.served, row.busy_at)


def _spot(row: Any, queue: int) -> Spot:
    """Read a ticket; those that wait have neither been put aside nor ended."""
    ended = getattr(row, "ended", None)
    return Spot(
        conversation=row.conversation_id,
        queue=queue,
        state=State(row.state),
        entered_at=row.entered_at,
        rank_at=row.rank_at,
        seq=row.seq,
        level=Level(row.level),
        ticket=row.id,
        agent=row.agent_id,
        served_at=row.served_at,
        parked_at=getattr(row, "parked_at", None),
        closed_at=getattr(row, "closed_at", None),
        ended=ended and Ended(ended),
    )


def _row(spot: Spot) -> dict[str, Any]:
    return msgspec.structs.asdict(spot)
