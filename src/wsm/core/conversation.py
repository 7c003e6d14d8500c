"""The states of a conversation and of its ticket, as one table.

A conversation is where its newest ticket is: start → waiting → served → closed, or put aside in between. A
row says what a trigger does in a state and which acts follow; what is not in the table is refused. Both
diagrams in ARCHITECTURE.md are printed from it: a ticket begins where a row opens one, and ends where it is
closed, unless its customer comes back in time.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class State(StrEnum):
    """Where a conversation stands. START: it has had no ticket yet."""

    START = "start"
    WAITING = "waiting"
    SERVED = "served"
    PARKED = "parked"
    CLOSED = "closed"


class Trigger(StrEnum):
    """What can move it. What a customer does has several forms because the line decides which one it is."""

    WROTE_PLACE_FREE = "wrote, place free"
    WROTE_ALL_BUSY = "wrote, all busy"
    WROTE_LINE_FULL = "wrote, line full"
    CAME_BACK_PLACE_FREE = "came back in time, place free"
    CAME_BACK_ALL_BUSY = "came back in time, all busy"
    CALLED = "called"
    GIVEN = "given to an agent"
    MOVED = "moved to a queue"
    RETURNED = "returned"
    PARKED = "parked"
    OVERDUE = "waited too long"
    CLOSED = "closed"
    MERGED = "became another one"


class Act(StrEnum):
    """What follows from a transition; `attendance` turns acts into effects with addresses."""

    OPEN_SERVED = "open a ticket that is served"
    OPEN_WAITING = "open a ticket that waits"
    OPEN_OVERFLOWN = "open a ticket for the message that is left, and end it"
    REOPEN_SERVED = "open the last ticket again, served"
    REOPEN_WAITING = "open the last ticket again, waiting"
    SERVE = "serve the ticket"
    GIVE = "give the ticket to another agent"
    MOVE = "let the ticket wait in a queue"
    RETURN = "let the ticket wait again"
    PARK = "put the ticket aside"
    OVERFLOW = "end the ticket: a message may be left"
    CLOSE = "close the ticket"
    TELL_TURN = "tell the turn"
    TELL_PLACE = "tell the place"
    TELL_MESSAGE = "tell that a message may be left"


class Transition(msgspec.Struct, frozen=True):
    """One row of the table."""

    state: State
    trigger: Trigger
    next: State
    acts: tuple[Act, ...] = ()


_OPENING = (
    (Trigger.WROTE_PLACE_FREE, State.SERVED, (Act.OPEN_SERVED, Act.TELL_TURN)),
    (Trigger.WROTE_ALL_BUSY, State.WAITING, (Act.OPEN_WAITING, Act.TELL_PLACE)),
    (Trigger.WROTE_LINE_FULL, State.CLOSED, (Act.OPEN_OVERFLOWN, Act.TELL_MESSAGE)),
)
_WROTE = (Trigger.WROTE_PLACE_FREE, Trigger.WROTE_ALL_BUSY, Trigger.WROTE_LINE_FULL)

TRANSITIONS = (
    *(Transition(State.START, *row) for row in _OPENING),
    Transition(State.START, Trigger.CLOSED, State.START),
    *(Transition(State.WAITING, trigger, State.WAITING) for trigger in _WROTE),
    Transition(State.WAITING, Trigger.CALLED, State.SERVED, (Act.SERVE, Act.TELL_TURN)),
    Transition(State.WAITING, Trigger.GIVEN, State.SERVED, (Act.SERVE, Act.TELL_TURN)),
    Transition(State.WAITING, Trigger.MOVED, State.WAITING, (Act.MOVE, Act.TELL_PLACE)),
    Transition(State.WAITING, Trigger.OVERDUE, State.CLOSED, (Act.OVERFLOW, Act.TELL_MESSAGE)),
    Transition(State.WAITING, Trigger.CLOSED, State.CLOSED, (Act.CLOSE,)),
    Transition(State.WAITING, Trigger.MERGED, State.CLOSED, (Act.CLOSE,)),
    *(Transition(State.SERVED, trigger, State.SERVED) for trigger in _WROTE),
    Transition(State.SERVED, Trigger.GIVEN, State.SERVED, (Act.GIVE,)),
    Transition(State.SERVED, Trigger.MOVED, State.WAITING, (Act.MOVE, Act.TELL_PLACE)),
    Transition(State.SERVED, Trigger.RETURNED, State.WAITING, (Act.RETURN,)),
    Transition(State.SERVED, Trigger.PARKED, State.PARKED, (Act.PARK,)),
    Transition(State.SERVED, Trigger.CLOSED, State.CLOSED, (Act.CLOSE,)),
    Transition(State.SERVED, Trigger.MERGED, State.CLOSED, (Act.CLOSE,)),
    Transition(State.PARKED, Trigger.CAME_BACK_PLACE_FREE, State.SERVED, (Act.SERVE, Act.TELL_TURN)),
    Transition(State.PARKED, Trigger.CAME_BACK_ALL_BUSY, State.WAITING, (Act.RETURN, Act.TELL_PLACE)),
    Transition(State.PARKED, Trigger.GIVEN, State.SERVED, (Act.SERVE, Act.TELL_TURN)),
    Transition(State.PARKED, Trigger.MOVED, State.WAITING, (Act.MOVE, Act.TELL_PLACE)),
    Transition(State.PARKED, Trigger.CLOSED, State.CLOSED, (Act.CLOSE,)),
    Transition(State.PARKED, Trigger.MERGED, State.CLOSED, (Act.CLOSE,)),
    *(Transition(State.CLOSED, *row) for row in _OPENING),
    Transition(State.CLOSED, Trigger.CAME_BACK_PLACE_FREE, State.SERVED, (Act.REOPEN_SERVED, Act.TELL_TURN)),
    Transition(State.CLOSED, Trigger.CAME_BACK_ALL_BUSY, State.WAITING, (Act.REOPEN_WAITING, Act.TELL_PLACE)),
    Transition(State.CLOSED, Trigger.GIVEN, State.SERVED, (Act.REOPEN_SERVED, Act.TELL_TURN)),
    Transition(State.CLOSED, Trigger.CLOSED, State.CLOSED),
)

_TABLE = {(row.state, row.trigger): row for row in TRANSITIONS}
_OPENS = frozenset({Act.OPEN_SERVED, Act.OPEN_WAITING, Act.OPEN_OVERFLOWN})


def step(state: State, trigger: Trigger) -> Transition:
    """Look up what `trigger` does in `state`. A KeyError is a bug: ask `may` about what people ask for."""
    return _TABLE[state, trigger]


def may(state: State, trigger: Trigger) -> bool:
    """Whether the table has a row for `trigger` in `state`."""
    return (state, trigger) in _TABLE


def diagram() -> str:
    """Print the table as the Mermaid state diagram of a conversation for ARCHITECTURE.md."""
    moves = [row for row in TRANSITIONS if row.next != row.state]
    return _drawn(["[*] --> start", *(f"{row.state} --> {row.next}: {row.trigger}" for row in moves)])


def ticket_diagram() -> str:
    """Print the same table as the life of one ticket, which a conversation may have many of."""
    rows = [row for row in TRANSITIONS if row.acts and (row.state is not State.CLOSED or not _opens(row))]
    return _drawn(
        f"{'[*]' if _opens(row) else row.state} --> {row.next}: {row.trigger}"
        for row in rows
        if row.next != row.state or row.trigger in {Trigger.GIVEN, Trigger.MOVED}
    )


def _opens(row: Transition) -> bool:
    return not _OPENS.isdisjoint(row.acts)


def _drawn(edges: Iterable[str]) -> str:
    return "\n".join(["stateDiagram-v2", *(f"    {edge}" for edge in edges)])
