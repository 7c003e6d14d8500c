"""The states of a conversation, as a table.

The customer's side of the line as its users know it: start → waiting → served → closed. A row says what a
trigger does in a state and which effects follow; what is not in the table is refused as a bug. The diagram
in ARCHITECTURE.md is printed from this table.
"""

from enum import StrEnum

import msgspec


class State(StrEnum):
    """Where a conversation stands."""

    START = "start"
    WAITING = "waiting"
    SERVED = "served"
    CLOSED = "closed"


class Trigger(StrEnum):
    """What can move it. `wrote` has two forms because the line decides which one a message is."""

    WROTE_PLACE_FREE = "wrote, place free"
    WROTE_ALL_BUSY = "wrote, all busy"
    CALLED = "called"
    CLOSED = "closed"


class Act(StrEnum):
    """What follows from a transition; `attendance` turns acts into effects with addresses."""

    OPEN_SERVED = "open a ticket that is served"
    OPEN_WAITING = "open a ticket that waits"
    SERVE = "serve the ticket"
    CLOSE = "close the ticket"
    TELL_TURN = "tell the turn"
    TELL_PLACE = "tell the place"


class Transition(msgspec.Struct, frozen=True):
    """One row of the table."""

    state: State
    trigger: Trigger
    next: State
    acts: tuple[Act, ...] = ()


TRANSITIONS = (
    Transition(State.START, Trigger.WROTE_PLACE_FREE, State.SERVED, (Act.OPEN_SERVED, Act.TELL_TURN)),
    Transition(State.START, Trigger.WROTE_ALL_BUSY, State.WAITING, (Act.OPEN_WAITING, Act.TELL_PLACE)),
    Transition(State.START, Trigger.CLOSED, State.START),
    Transition(State.WAITING, Trigger.WROTE_PLACE_FREE, State.WAITING),
    Transition(State.WAITING, Trigger.WROTE_ALL_BUSY, State.WAITING),
    Transition(State.WAITING, Trigger.CALLED, State.SERVED, (Act.SERVE, Act.TELL_TURN)),
    Transition(State.WAITING, Trigger.CLOSED, State.CLOSED, (Act.CLOSE,)),
    Transition(State.SERVED, Trigger.WROTE_PLACE_FREE, State.SERVED),
    Transition(State.SERVED, Trigger.WROTE_ALL_BUSY, State.SERVED),
    Transition(State.SERVED, Trigger.CLOSED, State.CLOSED, (Act.CLOSE,)),
    Transition(State.CLOSED, Trigger.WROTE_PLACE_FREE, State.SERVED, (Act.OPEN_SERVED, Act.TELL_TURN)),
    Transition(State.CLOSED, Trigger.WROTE_ALL_BUSY, State.WAITING, (Act.OPEN_WAITING, Act.TELL_PLACE)),
    Transition(State.CLOSED, Trigger.CLOSED, State.CLOSED),
)

_TABLE = {(row.state, row.trigger): row for row in TRANSITIONS}


def step(state: State, trigger: Trigger) -> Transition:
    """Look up what `trigger` does in `state`. A KeyError is a bug: only waiting tickets are ever called."""
    return _TABLE[state, trigger]


def diagram() -> str:
    """Print the table as a Mermaid state diagram for ARCHITECTURE.md."""
    lines = ["stateDiagram-v2", "    [*] --> start"]
    moves = [row for row in TRANSITIONS if row.next != row.state]
    lines += [f"    {row.state} --> {row.next}: {row.trigger}" for row in moves]
    return "\n".join(lines)
