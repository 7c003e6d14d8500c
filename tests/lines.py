"""The line as a value, for tests that need no server: one queue, or as many as one likes, at noon."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from wsm.core.attendance import Line
from wsm.core.conversation import State
from wsm.core.tickets import Agent, Effect, Level, Queue, Spot

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
QUEUE = 1


def minutes(number: float) -> datetime:
    """So many minutes past noon."""
    return NOON + timedelta(minutes=number)


def spot(
    who: int,
    state: State,
    at: float = 0,
    *,
    queue: int = QUEUE,
    level: Level = Level.NORMAL,
    agent: int | None = None,
) -> Spot:
    """A stored ticket that entered some minutes past noon."""
    rank_at = Queue(queue).rank_at(minutes(at), level)
    return Spot(who, queue, state, minutes(at), rank_at, who, level, ticket=who, agent=agent)


def line_of(
    *standing: tuple[int, State] | Spot,
    capacity: int = 1,
    queues: Iterable[Queue] = (),
    agents: Iterable[Agent] = (),
    now: datetime = NOON,
) -> Line:
    """A line in which these stand, those who wait in the order in which they are named."""
    spots = [each if isinstance(each, Spot) else spot(*each) for each in standing]
    its = [*queues] or [Queue(QUEUE, capacity=capacity)]
    people = [*agents]
    for queue in its:
        queue.heads = sorted(
            (each for each in spots if each.queue == queue.id and each.state is State.WAITING),
            key=lambda each: each.rank,
        )
        queue.waiting = len(queue.heads)
        queue.newest_at = max((each.entered_at for each in queue.heads), default=None)
        queue.served = sum(each.queue == queue.id and each.state is State.SERVED for each in spots)
    for agent in people:
        agent.served = sum(each.agent == agent.id and each.state is State.SERVED for each in spots)
    return Line(its, people, spots, now=now)


def waiting(line: Line, queue: int = QUEUE) -> list[int]:
    """Who waits, in order."""
    return [each.conversation for each in line.queues[queue].heads]


def told(effects: Iterable[Effect]) -> list[tuple[str, int | None]]:
    """What was done, to whom."""
    return [(effect.did.value, effect.conversation) for effect in effects]
