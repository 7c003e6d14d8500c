"""The line: who is served, who waits, and what each of them is told.

Without agents a queue serves `capacity` conversations at a time. With agents it is they who serve: each up to
his capacity, in his queues, while he is online; who is called goes to the agent who served him last if he has
room, else to the one who serves the fewest, else to the one who has been idle longest. Everyone else waits in
order of rank (`tickets`).

The line is a value, and a partial one: a turn loads the tickets that it touches, who serves, and the first
of those who wait, moves them and stores what changed under its tenant's lock. `short` says that more could
be called than are seen: the turn then looks again. Moves return effects in the order in which they happened.

Places are 1…n without gaps because they are counted, never stored, and only when somebody is told his.
Notices are intents: what a customer is told is decided when the sending is claimed (`notices.to_tell`), so
one that came too late to be true is never sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count

from wsm.core.conversation import State, Trigger, may, step
from wsm.core.ids import SessionName
from wsm.core.tickets import (
    EFFECTS,
    NEW,
    Agent,
    ConversationId,
    Did,
    Effect,
    Ended,
    Level,
    Queue,
    QueueId,
    Rank,
    Spot,
    over_at,
)

RETURN_WITHIN = timedelta(minutes=30)
"""Who was put aside and writes within this time has the place that he had; later he is the last."""

PARKED_AT_MOST = timedelta(hours=24)
"""When a ticket that was put aside ends by itself."""

GONE_AFTER = timedelta(minutes=2)
"""How long an agent may be offline before his customers wait for another one."""

Taker = Agent | Queue
"""What has room for one more: an agent, or in a line without agents the queue."""


class Line:
    """The queues of one tenant, as a turn sees them. changed, presences: what is to be stored.

    declined: who was returned in this turn, by which agent.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        agents: Sequence[Agent] = (),
        spots: Sequence[Spot] = (),
        *,
        now: datetime,
        entrances: Mapping[SessionName, QueueId] | None = None,
        before: "Line | None" = None,
    ) -> None:
        """Take a tenant's queues, the first one first.

        spots      open tickets, and the last one of conversations without; those in `heads` may be left out
        entrances  where who writes to a session enters; the first queue if it is not said
        before     what the same turn saw before it looked again
        """
        self.now = now
        self.queues = {queue.id: queue for queue in queues}
        self.agents = {agent.id: agent for agent in agents}
        self.changed: list[Spot] = []
        self.presences: list[Agent] = []
        self.short = False
        self._entrances = entrances or {}
        self._spots = {spot.conversation: spot for queue in queues for spot in queue.heads}
        for spot in spots:
            self._spots.setdefault(spot.conversation, spot)
        self.declined: dict[ConversationId, int | None] = before.declined if before else {}
        self._moved: dict[QueueId, Rank] = {}
        self._numbers = count(NEW)

    # What customers do

    def wrote(
        self,
        conversation: ConversationId,
        *,
        at: datetime | None = None,
        session: SessionName | None = None,
        thanks: bool = False,
    ) -> list[Effect]:
        """A customer wrote: he is served, joins the line, is already in it, or is asked to leave a message.

        at      when he wrote, now if it is not said
        thanks  it is no more than a thank-you: it opens no ticket again
        """
        spot = self._spots.get(conversation)
        if spot is not None and spot.state is State.PARKED:
            return self._came_back(spot, in_time=(at or self.now) < over_at(spot.parked_at, RETURN_WITHIN))
        if spot is not None and self._reopens(spot, at or self.now):
            return [] if thanks else self._came_back(spot)
        if spot is not None and spot.state is not State.CLOSED:
            return []
        queue = self._entrance(session)
        entered_at = queue.entry_at(self.now)
        new = Spot(conversation, queue.id, State.START, entered_at, queue.rank_at(entered_at, Level.NORMAL))
        new.agent = spot.agent if spot else None
        taker = self._taker(new) if queue.is_empty and not queue.rests else None
        full = taker is None and queue.is_full_at(self.now)
        if full and spot is not None and spot.ended is Ended.OVERFLOW:
            return []  # one more line of the message that he leaves
        new.seq = next(self._numbers)
        self._spots[conversation] = new
        if full:
            new.ended = Ended.OVERFLOW
            return self._move(new, Trigger.WROTE_LINE_FULL)
        trigger = Trigger.WROTE_PLACE_FREE if taker else Trigger.WROTE_ALL_BUSY
        return self._move(new, trigger, taker=taker)

    def _reopens(self, spot: Spot, at: datetime) -> bool:
        within = self.queues[spot.queue].reopen
        return spot.ended is Ended.SERVED and bool(within) and at < over_at(spot.closed_at, within)

    def _came_back(self, spot: Spot, *, in_time: bool = True) -> list[Effect]:
        """Let a customer return: to the agent he had if he has room, else to his old place in the line."""
        queue = self.queues[spot.queue]
        if not in_time:
            spot.entered_at = queue.entry_at(self.now)
            spot.rank_at = queue.rank_at(spot.entered_at, spot.level)
        last = self.agents.get(spot.agent or 0)
        taker: Taker | None = last if last and last.has_room and last.serves(queue.id) else None
        if taker is None and queue.is_empty and not queue.rests:
            taker = self._taker(spot)
        spot.again = True
        trigger = Trigger.CAME_BACK_PLACE_FREE if taker else Trigger.CAME_BACK_ALL_BUSY
        return self._move(spot, trigger, taker=taker)

    # What agents and others ask for

    def closed(self, conversation: ConversationId, by: str, ended: Ended | None = None) -> list[Effect]:
        """End a ticket; the next ones are called. ended: how, if not as its state says."""
        spot = self._spots.get(conversation)
        if spot is None or spot.state is State.CLOSED:
            return []
        spot.ended = ended or (Ended.SERVED if spot.state is State.SERVED else Ended.CLOSED)
        return self._move(spot, Trigger.CLOSED, by=by) + self.refilled()

    def moved(
        self, conversation: ConversationId, by: str, *, queue: str = "", level: Level | None = None
    ) -> list[Effect]:
        """Let a ticket wait in a queue, or at a level, with the time of its entry."""
        spot = self._spots.get(conversation)
        to = self._queue(queue) if queue else self.queues.get(spot.queue if spot else 0)
        if spot is None or to is None or not may(spot.state, Trigger.MOVED):
            return self._refused(conversation, by, "there is no such queue" if spot and to is None else "")
        return self._move(spot, Trigger.MOVED, by=by, queue=to, level=level) + self.refilled()

    def given(
        self, conversation: ConversationId, by: str, *, agent: str, force: bool = False
    ) -> list[Effect]:
        """Give a ticket to an agent past the line, if he has room: a waiting, served or parked one, or a
        message that was left. force: also if he has none."""
        spot, to = self._spots.get(conversation), self._agent(agent)
        if spot is None or to is None or not may(spot.state, Trigger.GIVEN):
            return self._refused(conversation, by, "there is no such agent" if to is None else "")
        if spot.state is State.SERVED and spot.agent == to.id:
            return []
        if why_not := to.why_not(force=force):
            return self._refused(conversation, by, why_not)
        spot.again |= spot.state is State.CLOSED
        return self._move(spot, Trigger.GIVEN, by=by, taker=to) + self.refilled()

    def returned(self, conversation: ConversationId, by: str) -> list[Effect]:
        """Let a ticket wait again in its old place. Who gave it back is not given it in the same turn."""
        spot = self._spots.get(conversation)
        if spot is None or not may(spot.state, Trigger.RETURNED):
            return self._refused(conversation, by)
        self.declined[conversation] = spot.agent
        return self._move(spot, Trigger.RETURNED, by=by) + self.refilled()

    def parked(self, conversation: ConversationId, by: str) -> list[Effect]:
        """Put a ticket aside: its place is free until the customer writes."""
        spot = self._spots.get(conversation)
        if spot is None or not may(spot.state, Trigger.PARKED):
            return self._refused(conversation, by)
        return self._move(spot, Trigger.PARKED, by=by) + self.refilled()

    def next_for(self, agent: str) -> list[Effect]:
        """Give an agent who has room the first of those who wait in his queues."""
        to = self._agent(agent)
        if to is None or to.why_not():
            return self._refused(None, agent, to.why_not() if to else "there is no such agent")
        heads = [queue.heads[0] for queue in self.queues.values() if queue.heads and to.serves(queue.id)]
        if not heads:
            return []
        return self._move(min(heads, key=lambda spot: spot.rank), Trigger.CALLED, by=agent, taker=to)

    def present(self, agent: str, *, online: bool) -> list[Effect]:
        """An agent comes or goes. Who came is given customers; who went keeps his for GONE_AFTER."""
        if (its := self._agent(agent)) is None or (its.removed and online):
            return self._refused(None, agent, "there is no such agent")
        if its.online is online:
            return []
        its.online, its.since = online, self.now
        self._note(its)
        return [Effect(Did.ONLINE if online else Did.OFFLINE, None, agent, its.id), *self.refilled()]

    def removed(self, agent: str) -> list[Effect]:
        """An agent goes for good; his customers are another one's, as if he had only gone."""
        effects = self.present(agent, online=False)
        if (its := self._agent(agent)) is not None:
            its.removed = True
            self._note(its)
        return effects

    # What time does

    def tended(self) -> list[Effect]:
        """Do what has become due, to the tickets at hand: waits that took too long, agents who are gone,
        customers who did not come back."""
        effects: list[Effect] = []
        for spot in [*self._spots.values()]:
            if (trigger := self.due(spot)) is not None:
                spot.ended = Ended.OVERFLOW if trigger is Trigger.OVERDUE else Ended.NO_SHOW
                effects += self._move(spot, trigger, by="clock")
        return effects + self.refilled()

    def due(self, spot: Spot) -> Trigger | None:
        """Say what time has come for of a ticket, None: nothing."""
        if spot.state is State.WAITING:
            overdue_at = self.queues[spot.queue].overdue_at(spot.entered_at)
            return Trigger.OVERDUE if overdue_at and overdue_at <= self.now else None
        if spot.state is State.PARKED:
            return Trigger.CLOSED if over_at(spot.parked_at, PARKED_AT_MOST) <= self.now else None
        gone = spot.state is State.SERVED and self._is_gone(spot.agent)
        return Trigger.RETURNED if gone else None

    def hours_ended(self, queue: str) -> list[Effect]:
        """Do with those who wait at closing time what their queue says: they keep their places, or not."""
        effects: list[Effect] = []
        if (its := self._queue(queue)) is None or its.keeps:
            return effects
        for spot in [*its.heads]:
            spot.ended = Ended.CLOSED
            effects += self._move(spot, Trigger.CLOSED, by="clock")
        self.short |= its.more
        return effects

    def _is_gone(self, agent: int | None) -> bool:
        its = self.agents.get(agent or 0)
        return its is not None and not its.online and over_at(its.since, GONE_AFTER) <= self.now

    def refilled(self) -> list[Effect]:
        """Call whoever can be served, the first in rank first."""
        effects: list[Effect] = []
        while (found := self._next()) is not None:
            effects += self._move(found[0], Trigger.CALLED, taker=found[1])
        return effects

    def left(self, queue: QueueId, rank: Rank) -> None:
        """Somebody has left a queue before it was looked at: who stands behind this rank has moved."""
        self._moved[queue] = min(rank, self._moved.get(queue, rank))

    def lines_moved(self) -> list[Effect]:
        """Say once for each queue from which rank on everyone stands in a new place since the last time."""
        moved, self._moved = self._moved, {}
        return [Effect(Did.LINE_MOVED, None, queue=queue, behind=rank) for queue, rank in moved.items()]

    def state(self, conversation: ConversationId) -> State | None:
        """Return the state of a conversation's newest ticket, None if it has none."""
        spot = self._spots.get(conversation)
        return spot.state if spot else None

    def spot(self, conversation: ConversationId | None) -> Spot | None:
        """Return a conversation's newest ticket, None if it has none."""
        return None if conversation is None else self._spots.get(conversation)

    @property
    def spots(self) -> Iterable[Spot]:
        """The tickets that are seen, the newest of each conversation."""
        return self._spots.values()

    # How a ticket moves

    def _move(
        self,
        spot: Spot,
        trigger: Trigger,
        *,
        by: str = "",
        taker: Taker | None = None,
        queue: Queue | None = None,
        level: Level | None = None,
    ) -> list[Effect]:
        transition = step(spot.state, trigger)
        self._leave(spot)
        if queue is not None:
            spot.queue, spot.level = queue.id, spot.level if level is None else level
            spot.rank_at = queue.rank_at(spot.entered_at, spot.level)
        spot.state = transition.next
        if not any(spot is each for each in self.changed):
            self.changed.append(spot)
        self._arrive(spot, by, taker)
        agent = spot.agent if spot.state is State.SERVED else None
        to = (queue.id, spot.level) if queue else (None, None)
        return [Effect(EFFECTS[act], spot.conversation, by, agent, *to) for act in transition.acts]

    def _leave(self, spot: Spot) -> None:
        queue = self.queues[spot.queue]
        if spot.state is State.WAITING:
            queue.remove(spot)
            self.left(queue.id, spot.rank)
        elif spot.state is State.SERVED:
            queue.served -= 1
            if agent := self.agents.get(spot.agent or 0):
                agent.served -= 1
                self._note(agent, busy=True)

    def _arrive(self, spot: Spot, by: str, taker: Taker | None) -> None:
        queue = self.queues[spot.queue]
        match spot.state:
            case State.WAITING:
                queue.insert(spot)
            case State.SERVED:
                queue.served += 1
                spot.agent = None
                if isinstance(taker, Agent):
                    spot.agent = taker.id
                    taker.served += 1
                    self._note(taker, busy=True)
                spot.served_at = self.now
            case State.PARKED:
                spot.parked_at = self.now
        is_closed = spot.state is State.CLOSED
        spot.closed_at, spot.closed_by = (self.now, by or "line") if is_closed else (None, None)
        spot.ended = spot.ended if is_closed else None

    def _next(self) -> tuple[Spot, Taker] | None:
        """Find who is to be called, and by whom."""
        found: list[tuple[Spot, Taker]] = []
        for queue in self.queues.values():
            if queue.rests:
                continue
            for spot in queue.heads:
                if taker := self._taker(spot):
                    found.append((spot, taker))
                    break
                if spot.conversation not in self.declined:
                    break  # who stands behind him finds no room either
            else:
                self.short |= queue.more and self._has_room(queue)
        return min(found, key=lambda each: each[0].rank, default=None)

    def _has_room(self, queue: Queue) -> bool:
        if not self.agents:
            return queue.served < queue.capacity
        return any(agent.has_room and agent.serves(queue.id) for agent in self.agents.values())

    def _taker(self, spot: Spot) -> Taker | None:
        """Choose who takes a ticket, None if nobody has room for it."""
        queue = self.queues[spot.queue]
        declined = self.declined.get(spot.conversation, 0)
        if not self.agents:
            return queue if declined == 0 and queue.served < queue.capacity else None
        free = [
            agent
            for agent in self.agents.values()
            if agent.has_room and agent.serves(queue.id) and agent.id != declined
        ]
        return min(
            free,
            key=lambda agent: (
                agent.id != spot.agent, agent.served, agent.busy_at or agent.since or self.now, agent.id
            ),
            default=None,
        )  # fmt: skip

    def _note(self, agent: Agent, *, busy: bool = False) -> None:
        if busy:
            agent.busy_at = self.now
        if not any(agent is each for each in self.presences):
            self.presences.append(agent)

    def _entrance(self, session: SessionName | None) -> Queue:
        first = next(iter(self.queues.values()))
        return self.queues.get(self._entrances.get(session, first.id), first) if session else first

    def _queue(self, name: str) -> Queue | None:
        return next((queue for queue in self.queues.values() if queue.name == name), None)

    def _agent(self, name: str) -> Agent | None:
        return next((agent for agent in self.agents.values() if agent.name == name), None)

    def _refused(self, conversation: ConversationId | None, by: str, why: str = "") -> list[Effect]:
        state = self.state(conversation) if conversation else None
        return [Effect(Did.REFUSED, conversation, by, why=why or f"the ticket is {state or 'not there'}")]
