"""The customers' phones: what came, what became of it, and what else was seen, in its order."""

import msgspec

from wsm.sandbox.waha.contents import Kind, Location, Media, Poll


class Received(msgspec.Struct):
    """What a customer got: one for every time it left, whatever its id.

    text      of an edited message the newest; the earlier ones are `edits`, oldest first
    reaction  the session's own to it; empty when there is none (any more)
    """

    session: str
    chat: str
    id: str
    text: str
    source: str
    at_ms: int
    reply_to: str | None = None
    kind: Kind = Kind.TEXT
    media: Media | None = None
    location: Location | None = None
    vcards: list[str] = []
    poll: Poll | None = None
    edits: list[str] = []
    reaction: str = ""
    deleted: bool = False


class Act(msgspec.Struct, frozen=True):
    """Something that the session did to an earlier message, its own or the customer's.

    kind    `reaction`, `edit` or `revoke`
    id      the act's own
    target  the bare id of the message; the customer's phone need not know it
    """

    session: str
    kind: str
    id: str
    target: str
    text: str
    at_ms: int


class Signal(msgspec.Struct, frozen=True):
    """What else a customer sees: `seen`, `typing`, `recording`, `paused`.

    ids  the messages that were marked as seen, where the call named them
    """

    session: str
    kind: str
    at_ms: int
    ids: list[str] = []


class Moment(msgspec.Struct, frozen=True):
    """One entry of the order in which everything was seen: the kind of a message, an act or a signal."""

    what: str
    session: str
    at_ms: int
    id: str | None = None


class CustomerPhone(msgspec.Struct):
    """One customer's phone. acks: the levels that it answers a message with, if not the usual ones."""

    inbox: list[Received] = []
    signals: list[Signal] = []
    acts: list[Act] = []
    timeline: list[Moment] = []
    acks: tuple[int, ...] | None = None

    def receive(self, received: Received) -> None:
        """Get a message, once more."""
        self.inbox.append(received)
        self.timeline.append(Moment(received.kind, received.session, received.at_ms, received.id))

    def undergo(self, act: Act) -> None:
        """See an act, and what it changes in the inbox."""
        self.acts.append(act)
        self.timeline.append(Moment(act.kind, act.session, act.at_ms, act.target))
        for each in self.inbox:
            if (each.session, each.id) == (act.session, act.target):
                _change(each, act)

    def see(self, signal: Signal) -> None:
        """See a signal."""
        self.signals.append(signal)
        self.timeline.append(Moment(signal.kind, signal.session, signal.at_ms))


def _change(entry: Received, act: Act) -> None:
    match act.kind:
        case "reaction":
            entry.reaction = act.text
        case "edit":
            entry.edits = [*entry.edits, entry.text]
            entry.text = act.text
        case "revoke":
            entry.deleted = True
