"""The line once more, as its rules are told to people: lists that are sorted, agents who are counted.

It takes what was done, turn by turn, from effects or from the audit, and knows nothing of how it was decided.
Raises AssertionError at the first thing that does not follow from the rules: somebody called past the first
in rank, an agent above his capacity, a ticket that waits although somebody has room for it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from wsm.core.attendance import RETURN_WITHIN
from wsm.core.tickets import Did, Effect

MICROSECOND = timedelta(microseconds=1)
OPEN = {"waiting", "served", "parked"}


class Row(msgspec.Struct, frozen=True):
    """Something that was done, as the audit has it."""

    what: str
    conversation_id: int | None
    detail: Mapping[str, Any]
    at: datetime


def rows_of(effects: Iterable[Effect], at: datetime) -> list[Row]:
    """What effects would leave in the audit."""
    return [
        Row(
            effect.did,
            effect.conversation,
            {"by": effect.by, "agent": effect.agent, "queue": effect.queue, "level": effect.level},
            at,
        )
        for effect in effects
    ]


class Hall(msgspec.Struct):
    """A queue's rules."""

    capacity: int = 1
    ageing: timedelta = timedelta(minutes=15)
    pull: bool = False


class Clerk(msgspec.Struct):
    """An agent's rules, and whether he is there."""

    name: str
    capacity: int
    halls: set[int]
    online: bool = False


class Person(msgspec.Struct):
    """A conversation and where its ticket stands."""

    state: str = "start"
    queue: int = 0
    entered_at: datetime | None = None
    number: int = 0
    level: int = 1
    clerk: int | None = None
    parked_at: datetime | None = None
    ever_served: bool = False


class Model:
    """The line of one tenant. entrance: the queue that who writes enters."""

    def __init__(self, halls: Mapping[int, Hall], clerks: Mapping[int, Clerk], entrance: int) -> None:
        self.halls = halls
        self.clerks = clerks
        self.entrance = entrance
        self.people: dict[int, Person] = {}
        self._numbers = 0
        self._declined: dict[int, int | None] = {}
        self._swept = False

    def turn(self, rows: Iterable[Row]) -> None:
        """Take all that one turn did."""
        self._declined, self._swept = {}, False
        done = []
        for row in rows:
            if row.what.partition(".")[0] in {"ticket", "agent"}:
                done.append(row)
                try:
                    getattr(self, "_" + row.what.replace(".", "_"))(row, self._person(row))
                    self._check_capacity()
                except AssertionError as exc:
                    raise AssertionError(f"{done}: {exc}; {self.people}") from exc
        self._check_nobody_is_forgotten()

    def waiting(self, hall: int) -> list[int]:
        """Who waits in a queue, in order."""
        its = [who for who, each in self.people.items() if (each.state, each.queue) == ("waiting", hall)]
        return sorted(its, key=lambda who: self._rank(self.people[who]))

    def served(self) -> list[int]:
        """Who is served."""
        return [who for who, each in self.people.items() if each.state == "served"]

    def takers(self, who: int) -> list[int | None]:
        """The agents who could take a ticket now; [None] where a queue without agents could."""
        person = self.people[who]
        if not self.clerks:
            busy = sum((each.state, each.queue) == ("served", person.queue) for each in self.people.values())
            return [None] if busy < self.halls[person.queue].capacity and who not in self._declined else []
        return [
            number
            for number in self.clerks
            if self._has_room(number) and person.queue in self.clerks[number].halls
            and self._declined.get(who, 0) != number
        ]  # fmt: skip

    def load(self, clerk: int) -> int:
        """How many an agent serves."""
        return sum((each.state, each.clerk) == ("served", clerk) for each in self.people.values())

    def _has_room(self, clerk: int) -> bool:
        return self.clerks[clerk].online and self.load(clerk) < self.clerks[clerk].capacity

    def _rank(self, person: Person) -> tuple[datetime, int]:
        assert person.entered_at is not None
        return person.entered_at + (person.level - 1) * self.halls[person.queue].ageing, person.number

    def _person(self, row: Row) -> Person:
        return self.people.setdefault(row.conversation_id or 0, Person())

    # What is done

    def _ticket_opened_served(self, row: Row, who: Person) -> None:
        self._opens(row, who)
        assert not self.waiting(self.entrance), "somebody waited"
        self._taken(row, who, fairly=True)

    def _ticket_opened_waiting(self, row: Row, who: Person) -> None:
        self._opens(row, who)
        assert row.conversation_id is not None
        busy = self.waiting(self.entrance) or not self.takers(row.conversation_id)
        unseen = self._swept  # others might have waited, whom the turn did not see; he is called in it
        assert busy or unseen or self.halls[self.entrance].pull, "somebody had room"
        who.state = "waiting"

    def _ticket_opened_overflown(self, row: Row, who: Person) -> None:
        self._opens(row, who)
        who.state = "closed"

    def _opens(self, row: Row, who: Person) -> None:
        assert who.state not in OPEN, "one open ticket at a time"
        self._enters(row, who, self.entrance)
        who.level, who.ever_served = 1, False

    def _enters(self, row: Row, who: Person, hall: int) -> None:
        newest = [self.people[each].entered_at for each in self.waiting(hall)]
        self._numbers += 1
        who.queue, who.number = hall, self._numbers
        who.entered_at = max([row.at, *(each + MICROSECOND for each in newest if each)])

    def _ticket_reopened_served(self, row: Row, who: Person) -> None:
        assert who.state == "closed"
        self._taken(row, who, fairly=False)

    def _ticket_reopened_waiting(self, _: Row, who: Person) -> None:
        assert who.state == "closed"
        assert who.ever_served, "who was never served has no place to come back to"
        who.state = "waiting"

    def _ticket_served(self, row: Row, who: Person) -> None:
        assert who.state in {"waiting", "parked"}
        if who.state == "waiting" and not row.detail.get("by"):
            assert not self.halls[who.queue].pull, "nobody asked"
            assert self.takers(row.conversation_id or 0), "nobody had room"
            self._is_first(row.conversation_id or 0)
        elif who.state == "waiting" and row.detail["by"] in {each.name for each in self.clerks.values()}:
            its = self.clerks[row.detail["agent"]].halls
            heads = [heads[0] for hall in its if (heads := self.waiting(hall))]
            assert row.conversation_id == min(heads, key=lambda each: self._rank(self.people[each]))
        self._taken(row, who, fairly=who.state == "waiting" and not row.detail.get("by"))

    def _is_first(self, who: int) -> None:
        """Nobody whom somebody could take stands before him, in his queue or another one."""
        before = [
            each
            for hall, its in self.halls.items() if not its.pull or hall == self.people[who].queue
            for each in self.waiting(hall)
            if self._rank(self.people[each]) < self._rank(self.people[who]) and self.takers(each)
        ]  # fmt: skip
        assert not before, f"{before} stood before"

    def _taken(self, row: Row, who: Person, *, fairly: bool) -> None:
        clerk = row.detail.get("agent")
        if self.clerks:
            assert clerk is not None, "by nobody"
            assert self._has_room(clerk), "he had no room"
            if fairly:
                takers = self.takers(row.conversation_id or 0)
                assert clerk in takers, "not one of his"
                fewest = min(self.load(each) for each in takers if each is not None)
                assert clerk == who.clerk or (who.clerk not in takers and self.load(clerk) == fewest), (
                    "unfair"
                )
        who.state, who.clerk, who.ever_served = "served", clerk, True

    def _ticket_given(self, row: Row, who: Person) -> None:
        assert who.state == "served"
        assert self._has_room(row.detail["agent"])
        who.clerk = row.detail["agent"]

    def _ticket_moved(self, row: Row, who: Person) -> None:
        assert who.state in OPEN
        who.state, who.queue, who.level = "waiting", row.detail["queue"], row.detail["level"]

    def _ticket_returned(self, row: Row, who: Person) -> None:
        assert who.state in {"served", "parked"}
        if who.state == "parked":
            assert who.parked_at is not None
            if row.at >= who.parked_at + RETURN_WITHIN:
                self._enters(row, who, who.queue)
        elif row.detail["by"] != "clock":
            self._declined[row.conversation_id or 0] = who.clerk
        who.state = "waiting"

    def _ticket_parked(self, row: Row, who: Person) -> None:
        assert who.state == "served"
        who.state, who.parked_at = "parked", row.at

    def _ticket_overflown(self, _: Row, who: Person) -> None:
        assert who.state == "waiting"
        who.state, self._swept = "closed", True

    def _ticket_closed(self, row: Row, who: Person) -> None:
        assert who.state in OPEN
        assert row.detail["by"], "it is said who closed"
        who.state = "closed"

    def _agent_online(self, row: Row, _: Person) -> None:
        self.clerks[row.detail["agent"]].online = True

    def _agent_offline(self, row: Row, _: Person) -> None:
        self.clerks[row.detail["agent"]].online = False

    # What always holds

    def _check_capacity(self) -> None:
        for number, clerk in self.clerks.items():
            assert self.load(number) <= clerk.capacity, f"{clerk.name} above his capacity"
        if not self.clerks:
            for number, hall in self.halls.items():
                served = [
                    each for each in self.people.values() if (each.state, each.queue) == ("served", number)
                ]
                assert len(served) <= hall.capacity, f"queue {number} above its capacity"

    def _check_nobody_is_forgotten(self) -> None:
        """After a turn nobody waits for whom somebody has room, but who was returned in it."""
        for number, hall in self.halls.items():
            if not hall.pull:
                for who in self.waiting(number):
                    assert not self.takers(who), (
                        f"{who} waits, and {self.takers(who)} have room: {self.people}"
                    )


assert {each.value for each in Did if each.value.startswith(("ticket.", "agent."))} == {
    name.removeprefix("_").replace("_", ".", 1)
    if name.count("_") == 2
    else name.removeprefix("_").replace("_", ".")
    for name in vars(Model)
    if name.startswith(("_ticket_", "_agent_"))
}, "every effect has its rule"
