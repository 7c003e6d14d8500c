"""The judge's own line: places, capacities and order, by what the rows of tickets say.

A place is one more than the number of those who wait in the same queue and come first: by the time of their
entry, earlier by the queue's ageing for each level that is more urgent, and by their number where that is
equal. Nothing here is taken from wsm; what is compared is what became true together, in one transaction.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import msgspec

from day.journal import Note

Key = tuple[int, int]
"""A tenant and a number in it."""


class Ticket(msgspec.Struct):
    """A ticket, as its row says. wait: how often it has begun to wait."""

    id: int
    conversation: int
    queue: int
    state: str
    level: int
    entered_at: datetime
    seq: int
    agent: int | None
    wait: int = 0


class Truth(msgspec.Struct, frozen=True):
    """How it stood with an intent's ticket in the moment of its claim.

    place  None for who did not wait
    agent  the name of who served it
    wait   how often the ticket had begun to wait
    """

    claim: Mapping[str, Any]
    at: datetime
    ticket: int | None
    state: str | None
    place: int | None
    agent: str | None
    wait: int


class Hall:
    """The line of one tenant, moved by his notes.

    is_open  whether his queues are, at a time
    found    what broke a rule, by the rule's word
    """

    def __init__(
        self,
        tenant: int,
        queues: Sequence[Any],
        is_open: Callable[[datetime], bool],
        found: Mapping[str, list[str]],
    ) -> None:
        self.tenant = tenant
        self.tickets: dict[int, Ticket] = {}
        self._agents: dict[int, Mapping[str, Any]] = {}
        self._queues = {queue.id: queue for queue in queues if queue.tenant_id == tenant}
        self._is_open = is_open
        self._found = found

    def follow(self, together: Sequence[Note]) -> Iterator[Truth]:
        """Take what one transaction did; give the truth of each of its claims."""
        before = {id_: ticket.state for id_, ticket in self.tickets.items() if ticket.state == "waiting"}
        moved: dict[int, str] = {}
        at: datetime | None = None
        for note in together:
            match note.what:
                case "ticket":
                    self._move(note.row)
                case "agent":
                    self._agents[note.row["id"]] = note.row
                case "audit":
                    at = datetime.fromisoformat(note.row["at"])
                    if note.row["ticket_id"] is not None:
                        moved[note.row["ticket_id"]] = note.row["what"]
                case "claim":
                    yield self._truth(note.row)
        if at is not None:
            load = self._load()
            self._check_capacity(load)
            self._check_order(before, moved)
            if self._is_open(at):
                self._check_nobody_is_forgotten(load, moved)

    def place(self, ticket: Ticket) -> int:
        """Count the place of who waits."""
        mine = self._rank(ticket)
        return 1 + sum(self._rank(other) < mine for other in self._waiting(ticket.queue))

    def _waiting(self, queue: int) -> Iterator[Ticket]:
        return (each for each in self.tickets.values() if (each.state, each.queue) == ("waiting", queue))

    def _rank(self, ticket: Ticket) -> tuple[datetime, int]:
        ageing = timedelta(minutes=self._queues[ticket.queue].ageing_minutes)
        return ticket.entered_at + (ticket.level - 1) * ageing, ticket.seq

    def _move(self, row: Mapping[str, Any]) -> None:
        was = self.tickets.get(row["id"])
        begins = row["state"] == "waiting" and (was is None or was.state != "waiting")
        self.tickets[row["id"]] = Ticket(
            id=row["id"],
            conversation=row["conversation_id"],
            queue=row["queue_id"],
            state=row["state"],
            level=row["level"],
            entered_at=datetime.fromisoformat(row["entered_at"]),
            seq=row["seq"],
            agent=row["agent_id"],
            wait=(was.wait if was else 0) + begins,
        )

    def _truth(self, claim: Mapping[str, Any]) -> Truth:
        ticket = self.tickets.get(claim["ticket_id"] or 0)
        waits = ticket is not None and ticket.state == "waiting"
        serves = ticket.agent if ticket is not None and ticket.state == "served" else None
        return Truth(
            claim=claim,
            at=datetime.fromisoformat(claim["claimed_at"]),
            ticket=claim["ticket_id"],
            state=ticket.state if ticket else None,
            place=self.place(ticket) if ticket and waits else None,
            agent=self._agents[serves]["name"] if serves else None,
            wait=ticket.wait if ticket else 0,
        )

    def _load(self) -> Counter[int]:
        return Counter(each.agent for each in self.tickets.values() if each.state == "served" and each.agent)

    def _check_capacity(self, load: Mapping[int, int]) -> None:
        for agent, number in load.items():
            its = self._agents[agent]
            if number > its["capacity"]:
                self._found["above_capacity"].append(
                    f"{self.tenant}: {its['name']} serves {number}, and may serve {its['capacity']}"
                )

    def _check_order(self, before: Mapping[int, str], moved: Mapping[int, str]) -> None:
        """Who was called stood first: nobody who waited before and still waits was before him.

        Whom an agent gives back is not given to him again at once; others may pass him then.
        """
        called = [id_ for id_, what in moved.items() if what in {"ticket.served", "ticket.opened.served"}]
        left = [
            self.tickets[id_] for id_ in before if self.tickets[id_].state == "waiting" and id_ not in moved
        ]
        for id_ in called:
            mine = self.tickets[id_]
            if mine.state != "served":
                continue
            for other in left:
                if other.queue == mine.queue and self._rank(other) < self._rank(mine):
                    word = "fifo" if other.level == mine.level else "order"
                    self._found[word].append(
                        f"{self.tenant}: ticket {id_} was called, and {other.id} stood before it"
                    )

    def _check_nobody_is_forgotten(self, load: Mapping[int, int], moved: Mapping[int, str]) -> None:
        """Nobody waits although somebody has room for him, where people are called by themselves."""
        free = [
            agent
            for id_, agent in self._agents.items()
            if agent["online"] and load.get(id_, 0) < agent["capacity"]
        ]
        for queue in self._queues.values():
            able = [agent["name"] for agent in free if agent["queues"] is None or queue.id in agent["queues"]]
            if not able or queue.pull:
                continue
            for ticket in self._waiting(queue.id):
                if moved.get(ticket.id) != "ticket.returned":
                    self._found["forgotten"].append(
                        f"{self.tenant}: ticket {ticket.id} waits, and {able[0]} has room"
                    )


def truths(
    notes: Iterable[Note],
    queues: Sequence[Any],
    is_open: Callable[[datetime], bool],
    found: Mapping[str, list[str]],
) -> list[Truth]:
    """Follow all tenants, and give the truth of every claim."""
    halls: dict[int, Hall] = {}
    told: list[Truth] = []
    ordered = sorted(notes, key=lambda note: (note.tenant, note.n))
    for (tenant, _), together in groupby(ordered, key=lambda note: (note.tenant, note.tx)):
        hall = halls.setdefault(tenant, Hall(tenant, queues, is_open, found))
        told += hall.follow(list(together))
    return told
