"""The line: who is served, who waits, and what each of them is told.

A queue serves `capacity` conversations at a time; everyone else waits in order of entry. The line is a value
that one turn loads, moves and stores again under its tenant's lock. Each move returns effects in the order
in which they happened; places are 1…n without gaps because they are counted, never stored.

Notices are intents: what a customer is told is computed again when the sending is claimed (`place_to_tell`),
so a notice that came too late to be true is never sent.
"""

from enum import StrEnum

import msgspec

from wsm.core.conversation import Act, State, Trigger, step

ConversationId = int


class Spot(msgspec.Struct):
    """One open ticket in the line. told: the place last told to the customer, None if none was."""

    conversation: ConversationId
    state: State
    told: int | None = None


class Did(StrEnum):
    """The words of effects, as the audit keeps them."""

    OPENED_SERVED = "ticket.opened.served"
    OPENED_WAITING = "ticket.opened.waiting"
    SERVED = "ticket.served"
    CLOSED = "ticket.closed"
    TELL_TURN = "tell.turn"
    TELL_PLACE = "tell.place"


class Effect(msgspec.Struct, frozen=True):
    """One thing to write: a change of a ticket (`by` says who closed it), or an intent to tell something."""

    did: Did
    conversation: ConversationId
    by: str = ""


class Line:
    """The open tickets of one queue, in order of entry."""

    def __init__(self, capacity: int, spots: list[Spot]) -> None:
        self.capacity = capacity
        self._spots = {spot.conversation: spot for spot in spots}

    def wrote(self, conversation: ConversationId, state: State) -> list[Effect]:
        """A customer wrote: he is served, joins the line, or is already in it."""
        free = self._served() < self.capacity and not self.waiting()
        return self._move(conversation, state, Trigger.WROTE_PLACE_FREE if free else Trigger.WROTE_ALL_BUSY)

    def closed(self, conversation: ConversationId, state: State, by: str) -> list[Effect]:
        """A ticket is closed: the next ones are called, and everyone whose place changed is to be told."""
        before = self.waiting()
        effects = self._move(conversation, state, Trigger.CLOSED, by)
        effects += self._call()
        return effects + self._tell_moved(before)

    def refilled(self) -> list[Effect]:
        """Call whoever can be served, as after a change of the capacity."""
        before = self.waiting()
        return self._call() + self._tell_moved(before)

    def waiting(self) -> list[ConversationId]:
        """Those who wait, in order: the place of each is its index + 1."""
        return [spot.conversation for spot in self._spots.values() if spot.state is State.WAITING]

    def state(self, conversation: ConversationId) -> State | None:
        """Return the state of an open ticket, None if the conversation has none."""
        spot = self._spots.get(conversation)
        return spot.state if spot else None

    def _served(self) -> int:
        return sum(spot.state is State.SERVED for spot in self._spots.values())

    def _call(self) -> list[Effect]:
        effects: list[Effect] = []
        for conversation in self.waiting()[: max(0, self.capacity - self._served())]:
            effects += self._move(conversation, State.WAITING, Trigger.CALLED)
        return effects

    def _tell_moved(self, before: list[ConversationId]) -> list[Effect]:
        places = {conversation: place for place, conversation in enumerate(before, 1)}
        return [
            Effect(Did.TELL_PLACE, conversation)
            for place, conversation in enumerate(self.waiting(), 1)
            if place != places.get(conversation)
        ]

    def _move(
        self, conversation: ConversationId, state: State, trigger: Trigger, by: str = ""
    ) -> list[Effect]:
        transition = step(state, trigger)
        if transition.next is State.CLOSED:
            self._spots.pop(conversation, None)
        elif transition.next is not State.START:
            self._spots.setdefault(conversation, Spot(conversation, transition.next)).state = transition.next
        return [Effect(_EFFECTS[act], conversation, by) for act in transition.acts]


_EFFECTS = {
    Act.OPEN_SERVED: Did.OPENED_SERVED,
    Act.OPEN_WAITING: Did.OPENED_WAITING,
    Act.SERVE: Did.SERVED,
    Act.CLOSE: Did.CLOSED,
    Act.TELL_TURN: Did.TELL_TURN,
    Act.TELL_PLACE: Did.TELL_PLACE,
}


def place_to_tell(place: int | None, told: int | None) -> int | None:
    """Decide, at the moment of sending, which place a waiting customer is told; None: nothing.

    place  his place now, None when he does not wait any more
    told   the last place that he was told

    An unasked notice never repeats a place and never tells a worse one. Throttling will be decided here.
    """
    if place is None or (told is not None and place >= told):
        return None
    return place
