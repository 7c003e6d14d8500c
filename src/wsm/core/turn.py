"""What a turn decides: events in, steps out.

The events of one tenant are taken in the order of their chats; for each the table of conversations and the
line say what follows. A step is a `Record` (a row of history), an `Effect` of the line, a `Send` (what
somebody asked to write) or a `Wished` (what a customer wants to be spared); they are performed in their
order, in one transaction.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec

from wsm.core.asks import Ask, Asked, follow
from wsm.core.attendance import Line
from wsm.core.content import Content, SendClass, is_message, is_own_target, target_of
from wsm.core.conversation import State
from wsm.core.courtesy import is_thanks
from wsm.core.engines import check_way
from wsm.core.errors import BadInput
from wsm.core.events import (
    ChatKind,
    CloseAsked,
    Event,
    HistoryEvent,
    MessageReceived,
    Order,
    SendAsked,
    Source,
)
from wsm.core.ids import BareId, ChatId, SessionName
from wsm.core.moments import moment
from wsm.core.tickets import ConversationId, Did, Effect, Ended
from wsm.core.wishes import Wish, wish_of

CLOSING_WORD = "#fim"
"""What an agent types on the phone, alone in a message, to close the chat's ticket."""

ANSWER_BACKFILLED_WITHIN = timedelta(minutes=30)
"""How old a backfilled message may be that is still answered.

Longer than the repairs that a lost session usually needs (`upkeep`: the fourth comes 21 minutes after the
first). Who wrote before that has called, asked again or gone, and many answers at once to old messages are
what numbers are banned for.
"""


class Conversation(msgspec.Struct):
    """One conversation as a turn sees it.

    handled  the newest message that moved it; older ones are late
    heard    its customer has written in it
    opted_out  he wants no automatic messages
    """

    id: ConversationId
    kind: ChatKind
    state: State
    handled: Order
    heard: bool = False
    opted_out: bool = False


class Record(msgspec.Struct, frozen=True):
    """A row of history to write.

    author  customer, agent or bot
    late    it came when it could not move anything any more: after a newer one, or backfilled too late
    """

    event: HistoryEvent
    conversation: ConversationId
    author: str
    late: bool


class Send(msgspec.Struct, frozen=True):
    """An intent to write.

    key      what bears the same one is sent once
    refused  why it will never leave; None: nothing speaks against it now
    """

    conversation: ConversationId
    content: Content
    send_class: SendClass
    key: str
    not_before_ms: int | None
    expires_ms: int | None
    refused: str | None


class Known(msgspec.Struct, frozen=True):
    """What has to be known of what is sent, or to be sent.

    engines  of the sessions; None where it was not heard yet
    targets  the messages that are answered or acted on, and are in the history: whether they are own ones
    agents   which of the own bare ids are an agent's words, sent through wsm
    """

    engines: Mapping[SessionName, str | None] = {}
    targets: Mapping[tuple[ConversationId, BareId], bool] = {}
    agents: frozenset[BareId] = frozenset()


class Wished(msgspec.Struct, frozen=True):
    """A customer's wish to remember, and to confirm once."""

    conversation: ConversationId
    wish: Wish


Step = Record | Effect | Send | Wished
Chats = Mapping[tuple[SessionName, ChatId], Conversation]
_NOTHING = Known()


def decide(
    events: Sequence[Event],
    chats: Chats,
    line: Line,
    own: frozenset[BareId],
    *,
    answer_since_ms: int = 0,
    known: Known = _NOTHING,
) -> list[Step]:
    """Decide on the events of one turn, oldest first, and return the steps in order.

    chats  the conversation of every chat among the events; one that nobody wrote in, or asked to, is
           missing. Their `state` and `handled` are moved along.
    line   the tenant's line, as far as these events may move it; moved along
    own    bare ids that wsm's own intents have reserved or sent
    answer_since_ms  a customer's backfilled message that was sent before is history, and starts nothing
    known  of what is asked to be sent
    """
    steps: list[Step] = []
    authors = {bare: "agent" if bare in known.agents else "bot" for bare in own}
    for event in sorted(events, key=lambda event: event.order):
        conversation = chats.get((event.session, event.chat)) if event.chat else None
        if isinstance(event, Asked) and isinstance(event.what, Ask):
            steps += _asked(event, event.what, conversation, line)
        elif conversation is None:
            continue
        elif isinstance(event, MessageReceived):
            steps += _message(event, conversation, line, authors, answer_since_ms)
        elif isinstance(event, HistoryEvent):
            author = "agent" if event.from_me else "customer"
            steps.append(Record(event, conversation.id, author, late=event.order < conversation.handled))
        elif isinstance(event, CloseAsked):
            steps += line.closed(conversation.id, event.by)
        elif isinstance(event, SendAsked):
            steps.append(_send(event, conversation, known))
    steps += [*line.refilled(), *line.lines_moved()]
    for conversation in chats.values():
        _follow(conversation, line)
    return steps


def _asked(event: Asked, ask: Ask, conversation: Conversation | None, line: Line) -> list[Effect]:
    """Move the line as somebody asks; what is refused says whose ask it was."""
    effects = follow(ask, event.by, conversation.id if conversation else None, line)
    return [
        msgspec.structs.replace(effect, ask=event.key) if effect.did is Did.REFUSED else effect
        for effect in effects
    ]


def _message(
    event: MessageReceived,
    conversation: Conversation,
    line: Line,
    authors: Mapping[BareId, str],
    answer_since_ms: int,
) -> list[Step]:
    author = _author(event, authors)
    conversation.heard |= author == "customer"
    too_old = event.backfilled and author == "customer" and event.order.sent_at_ms < answer_since_ms
    late = too_old or event.order < conversation.handled
    record = Record(event, conversation.id, author, late)
    wish = _wish(event, conversation) if author == "customer" else None
    if wish is Wish.OUT or (wish is Wish.IN and not late):
        return [record, *_wished(wish, event, conversation, line, late=late)]
    if late or conversation.kind is not ChatKind.DIRECT or author == "bot" or event.id in authors:
        return [record]
    conversation.handled = event.order
    if author == "customer":
        wrote_at = moment(event.order.sent_at_ms)
        thanks = is_thanks(event.body)
        return [*line.wrote(conversation.id, at=wrote_at, session=event.session, thanks=thanks), record]
    if event.body.strip().lower() == CLOSING_WORD:
        return [record, *line.closed(conversation.id, "agent")]
    return [record]


def _wish(event: MessageReceived, conversation: Conversation) -> Wish | None:
    """Read a customer's wish; one that takes back what was never asked for is a message like any other."""
    wish = wish_of(event.body) if conversation.kind is ChatKind.DIRECT and event.kind == "text" else None
    return None if wish is Wish.IN and not conversation.opted_out else wish


def _wished(
    wish: Wish, event: MessageReceived, conversation: Conversation, line: Line, *, late: bool
) -> list[Step]:
    """Remember a wish. It opens no ticket; who waits leaves the line with it. A late one is heard, too."""
    is_out, was_out = wish is Wish.OUT, conversation.opted_out
    conversation.opted_out = is_out
    steps: list[Step] = [Wished(conversation.id, wish)] if is_out != was_out else []
    if late:
        return steps
    conversation.handled = event.order
    if is_out and line.state(conversation.id) is State.WAITING:
        steps += line.closed(conversation.id, "customer", Ended.LEFT)
    return steps


def _send(event: SendAsked, conversation: Conversation, known: Known) -> Send:
    """Make an intent of it; one that cannot leave is kept with the reason, for who asked has gone."""
    try:
        check_way(event.content, known.engines.get(event.session), conversation.kind)
        check_target(event.content, known.targets, conversation.id)
        refused = None
    except BadInput as exc:
        refused = str(exc)
    return Send(
        conversation.id,
        event.content,
        event.send_class,
        event.intent_key,
        event.not_before_ms,
        event.expires_ms,
        refused,
    )


def check_target(
    content: Content, targets: Mapping[tuple[ConversationId, BareId], bool], conversation: ConversationId
) -> None:
    """Raise BadInput unless the message that it answers or acts on is there, and an own one if it must be."""
    target = target_of(content)
    if target is None:
        return
    field = "reply_to" if is_message(content) else "target"
    if (conversation, target) not in targets:
        raise BadInput(field, "there is no such message in this chat")
    if is_own_target(content) and not targets[conversation, target]:
        raise BadInput(field, "is not an own message: nobody changes what others wrote")


def _author(event: MessageReceived, authors: Mapping[BareId, str]) -> str:
    """Tell who wrote: an own message that neither wsm nor the API sent was typed by an agent.

    authors  of what wsm itself sent, by its id
    """
    if not event.from_me:
        return "customer"
    return authors.get(event.id, "bot" if event.source is Source.API else "agent")


def _follow(conversation: Conversation, line: Line) -> None:
    """Move a conversation along with the line: it is where its newest ticket is."""
    conversation.state = line.state(conversation.id) or conversation.state
