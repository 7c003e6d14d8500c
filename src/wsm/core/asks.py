"""What people ask of the line, and what follows from it.

An ask is a value that travels in a command and enters at the front door like everything else. Whoever asks
for what is not possible now (an agent without room, a ticket that nobody serves) is refused: the audit says
so, and nothing changes.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from wsm.core.attendance import Line
from wsm.core.events import Event
from wsm.core.tickets import ConversationId, Effect, Ended, Level

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
"""Of an agent."""


class Verb(StrEnum):
    """What may be asked. The first ones are about a chat's ticket, the others about an agent or a queue.

    give    to `agent`, if he has room; `force`: also if he has none
    move    to `queue`, at `level`, or both
    return  to its old place
    park    until the customer writes
    leave   the customer does not want to wait any more
    next    the first who waits, for `agent`
    online, offline  `agent` comes, or goes
    remove  `agent` goes for good
    tend    what has become due, and whoever may be called now: a queue has changed
    """

    GIVE = "give"
    MOVE = "move"
    RETURN = "return"
    PARK = "park"
    LEAVE = "leave"
    NEXT = "next"
    ONLINE = "online"
    OFFLINE = "offline"
    REMOVE = "remove"
    TEND = "tend"


class _What(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True,
            tag_field="what", tag=str.lower):  # fmt: skip
    """The common form: its JSON is a command's payload."""


class Ask(_What, frozen=True, kw_only=True):
    """Move the line."""

    verb: Verb
    agent: str = ""
    queue: str = ""
    level: Level | None = None
    force: bool = False

    @property
    def is_lasting(self) -> bool:
        """Whether it may concern more tickets than one look shows."""
        return self.verb is Verb.TEND


class SetAgent(_What, frozen=True, kw_only=True):
    """Make an agent, or change what is not None of him. queues: by name, empty for all."""

    agent: Name
    capacity: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    queues: tuple[str, ...] | None = None


What = Ask | SetAgent


class Asked(Event, frozen=True, kw_only=True):
    """Something is asked; of the ticket of `chat`, where one is named. by: who asks."""

    what: What
    by: str


def follow(ask: Ask, by: str, conversation: ConversationId | None, line: Line) -> list[Effect]:
    """Move the line as it is asked. conversation: of the chat that is named, None if nobody wrote in it."""
    match ask.verb:
        case Verb.NEXT:
            return line.next_for(ask.agent)
        case Verb.ONLINE | Verb.OFFLINE:
            return line.present(ask.agent, online=ask.verb is Verb.ONLINE)
        case Verb.REMOVE:
            return line.removed(ask.agent)
        case Verb.TEND:
            return line.tended()
    return [] if conversation is None else _of_chat(ask, by, conversation, line)


def _of_chat(ask: Ask, by: str, conversation: ConversationId, line: Line) -> list[Effect]:
    match ask.verb:
        case Verb.GIVE:
            return line.given(conversation, by, agent=ask.agent, force=ask.force)
        case Verb.MOVE:
            return line.moved(conversation, by, queue=ask.queue, level=ask.level)
        case Verb.RETURN:
            return line.returned(conversation, by)
        case Verb.PARK:
            return line.parked(conversation, by)
    return line.closed(conversation, by, Ended.LEFT)
