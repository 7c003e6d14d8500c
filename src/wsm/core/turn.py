"""What a turn decides: events in, steps out.

The events of one tenant are taken in the order of their chats; for each the table of conversations and the
line say what follows. A step is a `Record` (a row of history), an `Effect` of the line, a `Send` (what
somebody asked to write), a `Wished` (what a customer wants to be spared) or what follows from these
(`aftermath`); they are performed in their order, in one transaction.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

import msgspec

from wsm.core import customer, hours, timers
from wsm.core.aftermath import Aftermath, Arm, Tell, TellFar, TellPlace, TookOver, after
from wsm.core.asks import Ask, Asked, follow
from wsm.core.attendance import Line
from wsm.core.bot import PAUSE, Bot
from wsm.core.content import Content, SendClass, is_message, is_own_target, target_of
from wsm.core.conversation import State
from wsm.core.courtesy import is_thanks
from wsm.core.customer import Talk
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
    TimerDue,
)
from wsm.core.ids import BareId, ChatId, SessionName
from wsm.core.moments import moment
from wsm.core.notices import LEAVING, word
from wsm.core.tickets import ConversationId, Did, Effect, Ended
from wsm.core.timers import Case, Do, Fired, TimerKind
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
    talk: Talk = msgspec.field(default_factory=Talk)


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


Step = Record | Effect | Send | Wished | Aftermath
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
    bot: Bot | None = None,
    fired: Mapping[int, Fired] = MappingProxyType({}),
) -> list[Step]:
    """Decide on the events of one turn, oldest first, and return the steps in order.

    chats  the conversation of every chat among the events; one that nobody wrote in, or asked to, is
           missing. Their `state`, `handled` and `talk` are moved along.
    line   the tenant's line, as far as these events may move it; moved along
    own    bare ids of own messages that wsm itself has sent, or is sending
    answer_since_ms  a customer's backfilled message that was sent before is history, and starts nothing
    known  of what is asked to be sent
    bot    how the tenant's bot behaves, None if nobody answers by himself
    fired  the timers whose time has come, by their numbers; one that is missing is gone, or due later by now
    """
    turn = _Turn(chats, line, own, answer_since_ms, known, bot, fired)
    for event in sorted(events, key=lambda event: event.order):
        turn.take(event)
    turn.end()
    for conversation in chats.values():
        conversation.state = line.state(conversation.id) or conversation.state
    return turn.steps


class _Turn:
    """The events of one turn, taken one by one. heard: when customers last wrote, as this turn knows it."""

    def __init__(
        self,
        chats: Chats,
        line: Line,
        own: frozenset[BareId],
        answer_since_ms: int,
        known: Known,
        bot: Bot | None,
        fired: Mapping[int, Fired],
    ) -> None:
        self.steps: list[Step] = []
        self._chats = chats
        self._line = line
        self._authors = {bare: "agent" if bare in known.agents else "bot" for bare in own}
        self._known = known
        self._answer_since_ms = answer_since_ms
        self._bot = bot
        self._fired = fired
        self._heard: dict[ConversationId, datetime] = {}

    def take(self, event: Event) -> None:
        """Decide on one event, and on what follows from it."""
        before = len(self.steps)
        self._take(event)
        self._follow(before)

    def end(self) -> None:
        """Call whoever can be served by now, and say who has moved."""
        before = len(self.steps)
        self.steps += [*self._line.refilled(), *self._line.lines_moved()]
        self._follow(before)

    def _follow(self, before: int) -> None:
        self.steps += after([step for step in self.steps[before:] if isinstance(step, Effect)], self._line)

    def _take(self, event: Event) -> None:
        conversation = self._chats.get((event.session, event.chat)) if event.chat else None
        if isinstance(event, Asked) and isinstance(event.what, Ask):
            self.steps += _asked(event, event.what, conversation, self._line)
        elif isinstance(event, TimerDue):
            if (fired := self._fired.get(event.timer)) is not None:
                self._timer(fired)
        elif conversation is None:
            return
        elif isinstance(event, CloseAsked):
            self.steps += self._line.closed(conversation.id, event.by)
        elif isinstance(event, MessageReceived):
            self._message(event, conversation)
        elif isinstance(event, HistoryEvent):
            author = "agent" if event.from_me else "customer"
            self.steps.append(Record(event, conversation.id, author, late=event.order < conversation.handled))
        elif isinstance(event, SendAsked):
            send = _send(event, conversation, self._known)
            self.steps.append(send)
            if send.send_class is SendClass.AGENT and send.refused is None:
                self._person_spoke(conversation)

    def _message(self, event: MessageReceived, conversation: Conversation) -> None:
        author = _author(event, self._authors)
        conversation.heard |= author == "customer"
        old = event.order.sent_at_ms < self._answer_since_ms
        too_old = event.backfilled and author == "customer" and old
        late = too_old or event.order < conversation.handled
        record = Record(event, conversation.id, author, late)
        wish = _wish(event, conversation) if author == "customer" else None
        if not late and self._leaves(event, conversation):
            wish = None
        if wish is Wish.OUT or (wish is Wish.IN and not late):
            self.steps += [record, *_wished(wish, event, conversation, self._line, late=late)]
            return
        if late or conversation.kind is not ChatKind.DIRECT or author == "bot" or event.id in self._authors:
            self.steps.append(record)
            return
        conversation.handled = event.order
        if author == "customer":
            self._customer(event, conversation, record)
        elif event.body.strip().lower() == CLOSING_WORD:
            self.steps += [record, *self._line.closed(conversation.id, "agent")]
        else:
            self.steps.append(record)
            self._person_spoke(conversation)

    def _leaves(self, event: MessageReceived, conversation: Conversation) -> bool:
        """Whether who waits says the word that leaves the line: he wants no more than that."""
        return self._line.state(conversation.id) is State.WAITING and word(event.body) in LEAVING

    def _customer(self, event: MessageReceived, conversation: Conversation, record: Record) -> None:
        line, who, talk = self._line, conversation.id, conversation.talk
        wrote_at = moment(event.order.sent_at_ms)
        self._heard[who] = wrote_at
        state = line.state(who) or conversation.state
        asked = customer.asks(event, who, state, talk, line, wrote_at)
        if asked is not None:
            self.steps += [record, *asked]
            return
        thanks = is_thanks(event.body)
        self.steps += line.wrote(who, at=wrote_at, session=event.session, thanks=thanks)
        self.steps.append(record)
        if not thanks:
            self.steps += customer.wrote(who, line.state(who) or state, talk, line, self._bot)

    def _person_spoke(self, conversation: Conversation) -> None:
        """From here on a person has the talk: the bot is silent, and what it was to answer is answered."""
        pause = PAUSE if self._bot is None else timedelta(hours=self._bot.pause_hours)
        conversation.talk.human_until = self._line.now + pause
        conversation.talk.burst_since = None
        self.steps.append(TookOver(conversation.id, self._line.now + pause))

    def _timer(self, fired: Fired) -> None:
        """Do what the time of a timer has come for."""
        line, who = self._line, fired.conversation
        if fired.kind is TimerKind.TEND:
            self.steps += line.tended()
        elif fired.kind is TimerKind.HOURS:
            self._hours(fired)
        elif fired.kind is TimerKind.PULSE and fired.queue is not None:
            self.steps.append(TellFar(fired.queue))
        elif fired.kind is TimerKind.BURST:
            self.steps += customer.paused(fired, line)
        elif who is not None and fired.case is not None:
            self._of_ticket(fired.kind, who, fired.case)

    def _hours(self, fired: Fired) -> None:
        queue = self._line.queues.get(fired.queue or 0)
        if queue is None or queue.hours is None:
            return
        if queue.shut:
            ended = self._line.hours_ended(queue.name)
            self.steps += ended
            self.steps += [
                Tell(effect.conversation, "closing")
                for effect in ended
                if effect.did is Did.CLOSED and effect.conversation is not None
            ]
        due_at = now = self._line.now
        if not self._line.short:  # else more wait than were seen, and are sent away next
            due_at = hours.next_change(queue.hours, queue.zone, now) or now + hours.LOOK_AGAIN
        self.steps.append(Arm(kind=TimerKind.HOURS, due_at=due_at, queue=queue.id))

    def _of_ticket(self, kind: TimerKind, who: ConversationId, case: Case) -> None:
        line = self._line
        spot, now = line.spot(who), line.now
        if spot is None or spot.ticket != case.ticket:
            return
        queue = line.queues[spot.queue]
        heard = [at for at in (case.heard_at, self._heard.get(who)) if at is not None]
        then = timers.decide(
            kind,
            msgspec.structs.replace(
                case,
                state=spot.state,
                heard_at=max(heard, default=None),
                shut=queue.shut,
                notices=queue.notices,
                manners=queue.manners,
            ),
            now,
        )
        if then.do is Do.PARK:
            self.steps += line.parked(who, "clock")
        elif then.do is Do.END:
            self.steps += line.closed(who, "clock", Ended.SERVED)
        if then.say:
            self.steps.append(Tell(who, then.say, then.minutes))
        if then.apologize:
            self.steps.append(TellPlace(who, asked=False))
        if then.again is not None:
            self.steps.append(Arm(kind=then.again[0], due_at=then.again[1], conversation=who, args=then.args))


def _asked(event: Asked, ask: Ask, conversation: Conversation | None, line: Line) -> list[Effect]:
    """Move the line as somebody asks; what is refused says whose ask it was."""
    effects = follow(ask, event.by, conversation.id if conversation else None, line)
    return [
        msgspec.structs.replace(effect, ask=event.key) if effect.did is Did.REFUSED else effect
        for effect in effects
    ]


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
