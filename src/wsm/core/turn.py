"""What a turn decides: events in, steps out.

The events of one tenant are taken in the order of their chats; for each the table of conversations and the
line say what follows. A step is either a `Record` (a row of history) or an `Effect` of the line; they are
performed in their order, in one transaction.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec

from wsm.core.attendance import ConversationId, Effect, Line
from wsm.core.conversation import State
from wsm.core.events import ChatKind, CloseAsked, Event, HistoryEvent, MessageReceived, Order, Source
from wsm.core.ids import BareId, ChatId, SessionName

CLOSING_WORD = "#fim"
"""What an agent types on the phone, alone in a message, to close the chat's ticket."""

ANSWER_BACKFILLED_WITHIN = timedelta(minutes=30)
"""How old a backfilled message may be that is still answered.

Longer than the repairs that a lost session usually needs (`upkeep`: the fourth comes 21 minutes after the
first). Who wrote before that has called, asked again or gone, and many answers at once to old messages are
what numbers are banned for.
"""


class Conversation(msgspec.Struct):
    """One conversation as a turn sees it. handled: the newest message that moved it; older ones are late."""

    id: ConversationId
    kind: ChatKind
    state: State
    handled: Order


class Record(msgspec.Struct, frozen=True):
    """A row of history to write.

    author  customer, agent or bot
    late    it came when it could not move anything any more: after a newer one, or backfilled too late
    """

    event: HistoryEvent
    conversation: ConversationId
    author: str
    late: bool


Step = Record | Effect
Chats = Mapping[tuple[SessionName, ChatId], Conversation]


def decide(
    events: Sequence[Event],
    chats: Chats,
    line: Line,
    own: frozenset[BareId],
    *,
    answer_since_ms: int = 0,
) -> list[Step]:
    """Decide on the events of one turn, oldest first, and return the steps in order.

    chats  the conversation of every chat among the events; one that nobody wrote in is missing. Their
           `state` and `handled` are moved along.
    line   the tenant's line; moved along
    own    bare ids that wsm's own intents have reserved or sent
    answer_since_ms  a customer's backfilled message that was sent before is history, and starts nothing
    """
    steps: list[Step] = []
    for event in sorted(events, key=lambda event: event.order):
        if event.chat is None or (conversation := chats.get((event.session, event.chat))) is None:
            continue
        _follow(conversation, line)
        if isinstance(event, MessageReceived):
            steps += _message(event, conversation, line, own, answer_since_ms)
        elif isinstance(event, HistoryEvent):
            author = "agent" if event.from_me else "customer"
            steps.append(Record(event, conversation.id, author, late=event.order < conversation.handled))
        elif isinstance(event, CloseAsked):
            steps += line.closed(conversation.id, conversation.state, event.by)
    for conversation in chats.values():
        _follow(conversation, line)
    return steps


def _message(
    event: MessageReceived,
    conversation: Conversation,
    line: Line,
    own: frozenset[BareId],
    answer_since_ms: int,
) -> list[Step]:
    author = _author(event, own)
    too_old = event.backfilled and author == "customer" and event.order.sent_at_ms < answer_since_ms
    late = too_old or event.order < conversation.handled
    record = Record(event, conversation.id, author, late)
    if late or conversation.kind is not ChatKind.DIRECT or author == "bot":
        return [record]
    conversation.handled = event.order
    if author == "customer":
        return [*line.wrote(conversation.id, conversation.state), record]
    if event.body.strip().lower() == CLOSING_WORD:
        return [record, *line.closed(conversation.id, conversation.state, "agent")]
    return [record]


def _author(event: MessageReceived, own: frozenset[BareId]) -> str:
    """Tell who wrote: an own message that neither wsm nor the API sent was typed by an agent."""
    if not event.from_me:
        return "customer"
    return "bot" if event.id in own or event.source is Source.API else "agent"


def _follow(conversation: Conversation, line: Line) -> None:
    """Move a conversation along with the line: an open ticket says its state, a lost one is closed."""
    state = line.state(conversation.id)
    if state is not None:
        conversation.state = state
    elif conversation.state in {State.WAITING, State.SERVED}:
        conversation.state = State.CLOSED
