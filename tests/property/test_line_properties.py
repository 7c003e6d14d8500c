"""The line under any history, seen in parts as a turn sees it: what P7 promises of it, judged by a model.

The store here is a dictionary, and a look shows two of those who wait, and one more for
each thing that happens in the turn. The same on PostgreSQL, with many workers: test_line_crowd.py.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from line_model import Clerk, Hall, Model, Row, rows_of
from lines import NOON
from wsm.core.asks import Ask, Verb, follow
from wsm.core.attendance import PARKED_AT_MOST, Line
from wsm.core.conversation import State
from wsm.core.notices import Notice, Policy, Told, to_tell
from wsm.core.tickets import Agent, Effect, Level, Queue, Spot

WHO = st.integers(1, 12)
NAMES = st.sampled_from(["ana", "bia", "caio"])
CHAT_ASKS = st.one_of(
    st.builds(Ask, verb=st.sampled_from([Verb.RETURN, Verb.PARK, Verb.LEAVE])),
    st.builds(Ask, verb=st.just(Verb.GIVE), agent=NAMES),
    st.builds(Ask, verb=st.just(Verb.MOVE), queue=st.sampled_from(["one", "two", ""]),
              level=st.sampled_from([None, *Level])),
)  # fmt: skip
ASKS = st.one_of(
    st.builds(Ask, verb=st.sampled_from([Verb.NEXT, Verb.ONLINE, Verb.OFFLINE]), agent=NAMES),
    st.just(Ask(verb=Verb.TEND)),
)
MOVE = st.one_of(
    st.tuples(st.just("wrote"), WHO),
    st.tuples(st.just("wrote"), WHO),
    st.tuples(st.just("closed"), WHO),
    st.tuples(st.just("closed"), WHO),
    st.tuples(CHAT_ASKS, WHO),
    st.tuples(ASKS, st.none()),
)
TURNS = st.lists(
    st.tuples(st.sampled_from([1, 1, 61, 130, 899, 1801, 90_000]), st.lists(MOVE, min_size=1, max_size=5)),
    min_size=5, max_size=25,
)  # fmt: skip
"""Seconds since the turn before, and what happens in one turn."""
AGENTS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([None, None, {1}, {2}])), max_size=3)
EXAMPLES = int(os.environ.get("WSM_LINE_EXAMPLES", "150"))


class Hallway:
    """Queues, agents and tickets in dictionaries; each look shows a part of them, as the store does."""

    def __init__(self, capacity: int, agents: list[Any], pull: int, *, reopen_hours: int = 24) -> None:
        self.now = NOON
        self.queues = [
            Queue(
                1,
                "one",
                capacity,
                max_wait=timedelta(hours=2),
                reopen=timedelta(hours=reopen_hours),
                pull=pull == 1,
            ),
            Queue(2, "two", 1, ageing=timedelta(minutes=1), pull=pull == 2),
        ]
        self.agents = [
            Agent(number, name, its, queues=None if halls is None else frozenset(halls), since=NOON)
            for number, (name, (its, halls)) in enumerate(
                zip(("ana", "bia", "caio"), agents, strict=False), 1
            )
        ]
        self.tickets: dict[int, Spot] = {}
        self.spots: dict[int, Spot] = {}
        self.model = Model(
            {each.id: Hall(each.capacity, each.ageing, each.pull) for each in self.queues},
            {each.id: Clerk(each.name, each.capacity, set(each.queues or {1, 2})) for each in self.agents},
            entrance=1,
        )
        for name in [each.name for each in self.agents]:
            self.turn((Ask(verb=Verb.ONLINE, agent=name), None))

    def turn(self, *moves: tuple[Any, Any]) -> list[Effect]:
        """Run a turn, as `core.turn.decide` and the worker do."""
        lasting = [(what, who) for what, who in moves if isinstance(what, Ask) and what.is_lasting]
        far = 2 + len(moves)
        line = self.look(moves, far)
        effects = self.moved(line, moves)
        while line.short:
            line = self.look(lasting, far, line)
            effects += self.moved(line, lasting)
        self.model.turn(rows_of(effects, self.now))
        return effects

    def moved(self, line: Line, moves: Sequence[tuple[Any, Any]]) -> list[Effect]:
        """Move a line, and store it."""
        effects: list[Effect] = []
        for what, who in moves:
            if what == "wrote":
                effects += line.wrote(who)
            elif what == "closed":
                effects += line.closed(who, "cli")
            else:
                effects += follow(what, "cli", who, line)
        effects += line.refilled()
        for spot in line.changed:
            spot.seq = len(self.tickets) if spot.ticket is None else spot.seq
            spot.ticket, spot.again = spot.ticket or len(self.tickets) + 1, False
            self.tickets[spot.ticket] = spot
            self.spots[spot.conversation] = spot
        return effects

    def look(self, moves: Sequence[tuple[Any, Any]], far: int, before: Line | None = None) -> Line:
        """Show a part of the line: who is named, who serves, and the first of those who wait."""
        for queue in self.queues:
            its = [each for each in self.spots.values() if each.queue == queue.id]
            waiting = sorted(
                (each for each in its if each.state is State.WAITING), key=lambda each: each.rank
            )
            queue.heads, queue.more = waiting[:far], len(waiting) > far
            queue.waiting, queue.served = len(waiting), sum(each.state is State.SERVED for each in its)
            queue.newest_at = max((each.entered_at for each in waiting), default=None)
        for agent in self.agents:
            its = [each for each in self.spots.values() if each.agent == agent.id]
            agent.served = sum(each.state is State.SERVED for each in its)
        sweeps = any(isinstance(what, Ask) and what.is_lasting for what, _ in moves)
        named = {who for _, who in moves}
        seen = [each for each in self.spots.values() if sweeps or each.conversation in named]
        return Line(self.queues, self.agents, seen, now=self.now, before=before)

    def check(self) -> None:
        """Compare the store with the model: everyone stands where the model has him."""
        for hall in (1, 2):
            waiting = [
                each for each in self.spots.values() if (each.state, each.queue) == (State.WAITING, hall)
            ]
            assert [each.conversation for each in sorted(waiting, key=lambda each: each.rank)] == (
                self.model.waiting(hall)
            )
        states = {who: each.state.value for who, each in self.spots.items()}
        assert states == {who: each.state for who, each in self.model.people.items() if who}

    def end(self) -> None:
        """Let everyone be served and go: nobody waits for ever."""
        for agent in self.agents:
            self.turn((Ask(verb=Verb.ONLINE, agent=agent.name), None))
        for _ in range(3 * len(self.spots) + 3):
            self.turn(*(("closed", who) for who in self.model.served()))
            for agent in self.agents:
                self.turn((Ask(verb=Verb.NEXT, agent=agent.name), None))
        self.now += PARKED_AT_MOST
        self.turn((Ask(verb=Verb.TEND), None))


@given(capacity=st.integers(0, 3), agents=AGENTS, pull=st.sampled_from([0, 0, 1, 2]), turns=TURNS)
@example(
    capacity=1,
    agents=[],
    pull=0,
    turns=[(1, [("wrote", who) for who in range(1, 9)]), *((1, [("closed", who)]) for who in range(1, 9))],
)
@example(
    capacity=1,
    agents=[],
    pull=0,
    turns=[(1, [("wrote", 2), ("wrote", 1), (Ask(verb=Verb.MOVE, queue="one"), 2)])],
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_line_moves(capacity: int, agents: list[Any], pull: int, turns: list[Any]) -> None:
    at = Hallway(capacity, agents, pull)
    for seconds, moves in turns:
        at.now += timedelta(seconds=seconds)
        at.turn(*moves)
        at.check()
    at.end()
    at.check()
    serves = {hall for agent in at.agents for hall in at.model.clerks[agent.id].halls}
    if not agents:
        serves = {queue.id for queue in at.queues if queue.capacity and not queue.pull}
    left = {who: spot.state for who, spot in at.spots.items() if spot.queue in serves}
    assert {*left.values()} <= {State.CLOSED}, f"for ever: {left}"


AT_ONCE = Policy(every=0, at_most=1_000, near=1_000)


@given(moves=st.lists(st.tuples(st.sampled_from(["wrote", "closed"]), st.integers(1, 8)), max_size=60))
def test_what_is_told_of_a_place_is_true_and_never_worse(moves: list[tuple[str, int]]) -> None:
    at = Hallway(1, [], 0, reopen_hours=0)
    told: dict[int, int] = {}
    for move in moves:
        for effect in at.turn(move):
            if effect.did.value == "ticket.opened.waiting":
                told.pop(effect.conversation or 0, None)
        for place, each in enumerate(at.model.waiting(1), 1):
            notice = to_tell(place, Told(place=told.get(each)), AT_ONCE, NOON)
            told[each] = notice.place if isinstance(notice, Notice) else told[each]
        assert [told[each] for each in at.model.waiting(1)] == [*range(1, len(at.model.waiting(1)) + 1)]


def test_a_model_that_is_told_a_lie_says_so() -> None:
    """The judge is judged: each of these breaks a rule."""
    lies: list[list[tuple[str, int, dict[str, Any]]]] = [
        [("ticket.opened.served", 1, {}), ("ticket.opened.served", 2, {})],
        [("ticket.opened.waiting", 1, {})],
        [("ticket.opened.served", 1, {}), ("ticket.opened.waiting", 2, {}), ("ticket.opened.waiting", 3, {}),
         ("ticket.closed", 1, {"by": "cli"}), ("ticket.served", 3, {})],
        [("ticket.opened.served", 1, {}), ("ticket.opened.waiting", 2, {}),
         ("ticket.closed", 1, {"by": "cli"})],
        [("ticket.opened.served", 1, {}), ("ticket.opened.waiting", 2, {}),
         ("ticket.served", 2, {"by": "cli"})],
        [("ticket.opened.served", 1, {}), ("ticket.opened.served", 1, {})],
    ]  # fmt: skip
    for lie in lies:
        model = Model({1: Hall()}, {}, 1)
        rows = [Row(what, who, detail, NOON) for what, who, detail in lie]
        with pytest.raises(AssertionError):
            model.turn(rows)
