"""The line as a turn reads and writes it: the tickets that it touches, who serves, and the first who wait.

What is read does not grow with the line: each ticket is found by its conversation, and the heads of a queue
by the index that has them in order. What was moved is written once, as it stands at the end; the steps say
in which order it happened.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from wsm.core.asks import Ask, Asked, SetAgent
from wsm.core.attendance import GONE_AFTER, PARKED_AT_MOST, Line
from wsm.core.bot import Bot
from wsm.core.conversation import State
from wsm.core.customer import Talk
from wsm.core.events import Event, TimerDue
from wsm.core.hours import Hours, open_span
from wsm.core.ids import SessionName
from wsm.core.notices import Manners, Pace, Policy, Told
from wsm.core.tickets import TOLD, Agent, Did, Effect, Ended, Level, Queue, QueueId, Rank, Spot
from wsm.core.timers import OF_TICKETS, SWEEPING, Case, Fired, TimerKind
from wsm.store.database import Transaction, listed
from wsm.store.people import Merged

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
        self._left: Mapping[QueueId, Rank] = {}
        self.sweeps = False
        self._line: Line | None = None
        self._current: dict[int, int] = {}
        self._taking: set[int] = set()
        self._new: dict[int, list[int]] = defaultdict(list)
        self._audit: list[dict[str, Any]] = []

    def asks(self, events: Sequence[Event], names: Sequence[str], aliases: Sequence[str]) -> Iterator[Asking]:
        """Yield the queries for a turn of these events, in these sessions, with people of these aliases."""
        asked = [event.what for event in events if isinstance(event, Asked)]
        timers = [event for event in events if isinstance(event, TimerDue)]
        self.sweeps = any(isinstance(what, Ask) and what.is_lasting for what in asked)
        self.sweeps |= any(timer.kind in SWEEPING for timer in timers)
        far = self.sweeps or any(
            isinstance(what, SetAgent) or (isinstance(what, Ask) and what.agent) for what in asked
        )
        self._limit = len(events) + (_LOOK_FAR if far else _LOOK_AHEAD)
        yield from self._line_asks()
        if timers:
            yield "take_timers", {"timers": [timer.timer for timer in timers]}
        if aliases:
            yield "known_tickets", {"names": names, "aliases": aliases}

    def _line_asks(self) -> Iterator[Asking]:
        now = self._transaction.now
        yield "open_line", {"limit": self._limit + 1}
        yield "line_agents", {}
        if self.sweeps:
            before = {"parked_before": now - PARKED_AT_MOST, "gone_before": now - GONE_AFTER}
            yield "due_tickets", {"limit": self._limit, **before}

    def took(self, answers: Mapping[str, list[Any]]) -> None:
        """Take the answers to what was asked, by the queries' names."""
        self._answers = answers

    def became(self, merged: Merged, answers: Mapping[str, list[Any]]) -> None:
        """Take the answers once more, after contacts have become one.

        Timers of tickets that went find nothing; those of talks are about what the talk became.
        """
        talks, rows = merged.talks, self._answers.get("take_timers", [])
        timers = [
            row._replace(
                id=None if row.id in merged.gone else row.id,
                talk=talks.get(row.talk, row.talk),
                conversation_id=talks.get(row.conversation_id, row.conversation_id),
            )
            for row in rows
            if row.kind not in OF_TICKETS or row.id not in merged.gone
        ]
        self._answers = {**answers, "take_timers": timers}
        self._left = merged.left

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
        agents = [_agent(row) for row in self._answers.get("line_agents", [])]
        for row in self._answers.get("open_line", []):
            if row.queue not in queues:
                queues[row.queue] = _queue(row, agents, self._transaction.now)
            queue = queues[row.queue]
            if row.id is not None:
                queue.heads.append(_spot(row, row.queue))
        for queue in queues.values():
            queue.more = len(queue.heads) > self._limit
        known = {row.id: _spot(row, row.queue_id) for row in self._answers.get("known_tickets", [])}
        due = [_spot(row, row.queue_id) for row in self._answers.get("due_tickets", [])]
        timed = [
            _spot(row, row.queue_id) for row in self._answers.get("take_timers", []) if row.id is not None
        ]
        opened = sorted(known.values(), key=lambda spot: spot.state is State.CLOSED)
        self._line = Line(
            [*queues.values()],
            agents,
            [*opened, *due, *timed],
            now=self._transaction.now,
            entrances=entrances,
            before=self._line,
        )
        for queue_id, rank in self._left.items():
            self._line.left(queue_id, rank)
        self._left = {}
        self._line.short = sum(self._line.due(spot) is not None for spot in due) >= self._limit
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

    def newest(self, conversation: int) -> int | None:
        """Return the newest ticket of a conversation at this step, open or not."""
        return self._current.get(conversation)

    def talk(self, row: Any) -> Talk:
        """Return what is known of a conversation, by its row, besides where it stands."""
        of_it = [each for each in self._answers.get("known_tickets", []) if each.conversation_id == row.id]
        return Talk(
            told=next((_told(each) for each in of_it if each.state != State.CLOSED), Told()),
            survey_until=max((each.survey_until for each in of_it if each.survey_until), default=None),
            human_until=getattr(row, "human_until", None),
            burst_since=getattr(row, "burst_since", None),
        )

    @property
    def bot(self) -> Bot | None:
        """How the tenant's bot behaves."""
        row = next(iter(self._answers.get("open_line", [])), None)
        return None if row is None or row.bot is None else msgspec.convert(row.bot, Bot)

    @property
    def fired(self) -> dict[int, Fired]:
        """The timers whose time has come, by their numbers."""
        return {row.timer: _fired(row) for row in self._answers.get("take_timers", []) if row.kind in _KINDS}

    async def keep(self, line: Line) -> Mapping[int, State]:
        """Write what has moved, new tickets in a round trip; return where their conversations are."""
        if known := [_row(spot) for spot in line.changed if spot.ticket is not None]:
            self._transaction.later("keep_tickets", tickets=listed(known))
        if line.presences:
            agents = [
                {
                    "agent": each.id,
                    "online": each.online,
                    "since": each.since,
                    "busy_at": each.busy_at,
                    "removed": each.removed,
                }
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
        if effect.did not in TOLD:
            if conversation is not None and effect.did is not Did.REFUSED:
                if effect.did in _OPENS:
                    self._current[conversation] = self._new[conversation].pop(0)
                (self._taking.discard if effect.did is Did.CLOSED else self._taking.add)(conversation)
            detail = {name: getattr(effect, name) for name in ("by", "agent", "queue", "level", "ask", "why")}
            self._audit.append(
                {"place": len(self._audit), "what": effect.did, "conversation": conversation,
                 "ticket": self._current.get(conversation or 0),
                 "detail": {name: value for name, value in detail.items() if value not in ("", None)}}
            )  # fmt: skip

    def note(self, line: dict[str, Any]) -> None:
        """Add a line to the audit."""
        self._audit.append({"place": len(self._audit), **line})

    def write_audit(self) -> None:
        """Write what was followed."""
        if self._audit:
            self._transaction.later("write_audit", lines=listed(self._audit))
        self._audit = []

    @property
    def mark(self) -> str:
        """Tells the intents of this turn from those of others."""
        return f"{self._transaction.now.timestamp():.6f}"


def _queue(row: Any, agents: Sequence[Agent], now: datetime) -> Queue:
    hours = None if row.hours is None else msgspec.convert(row.hours, Hours)
    opened_at, closes_at = (hours and open_span(hours, row.zone, now)) or (None, None)
    its = [agent.capacity for agent in agents if agent.online and agent.serves(row.queue)]
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
        hours=hours,
        zone=row.zone,
        shut=hours is not None and opened_at is None,
        leaves=hours is not None and hours.entering == "message",
        opened_at=opened_at,
        closes_at=closes_at,
        pace=Pace(
            sum(its) if agents else row.capacity, row.slots_lately, row.handle_seconds, row.handle_sample
        ),
        notices=msgspec.convert(row.notices, Policy),
        manners=msgspec.convert(row.manners, Manners),
        served=row.served,
        waiting=row.waiting or 0,
        newest_at=row.newest_at,
    )


def _agent(row: Any) -> Agent:
    queues = None if row.queues is None else frozenset(row.queues)
    return Agent(
        id=row.id,
        name=row.name,
        capacity=row.capacity,
        online=row.online,
        queues=queues,
        since=row.since,
        served=row.served,
        busy_at=row.busy_at,
        removed=row.removed_at is not None,
    )


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


def _told(row: Any) -> Told:
    return Told(
        place=row.told_place,
        at=row.told_at,
        updates=row.told_updates,
        asked_at=row.asked_at,
        silence_at=row.silence_at,
    )


_KINDS = frozenset(TimerKind)


def _fired(row: Any) -> Fired:
    case = None
    if row.id is not None:
        case = Case(
            state=State(row.state),
            ticket=row.id,
            place=row.place,
            told=_told(row),
            served_at=row.served_at,
            turn_told_at=row.turn_told_at,
            heard_at=row.heard_at,
            said_at=row.said_at,
            args=row.args,
        )
    return Fired(
        kind=TimerKind(row.kind), conversation=row.talk, queue=row.of_queue, case=case, human=row.human
    )


def _row(spot: Spot) -> dict[str, Any]:
    return msgspec.structs.asdict(spot)
