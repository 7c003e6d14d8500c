"""What follows from a turn beside the moves of the line: texts, timers, and who may speak.

Each value is one thing to write; `after` derives the timers that the moves of the line call for.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from wsm.core.attendance import GONE_AFTER, PARKED_AT_MOST, Line
from wsm.core.conversation import State
from wsm.core.tickets import ConversationId, Did, Effect, Queue, QueueId, Spot
from wsm.core.timers import TimerKind


class Tell(msgspec.Struct, frozen=True):
    """A text about his ticket is for a customer. name: of the template; minutes: stands in it."""

    conversation: ConversationId
    name: str
    minutes: int | None = None


class TellPlace(msgspec.Struct, frozen=True):
    """He is to be told his place at once, though it did not improve. asked: he wants to know; else nothing
    has moved for long."""

    conversation: ConversationId
    asked: bool


class TellFar(msgspec.Struct, frozen=True):
    """A queue has moved for a while: those far behind who came far are to be told."""

    queue: QueueId


class TookOver(msgspec.Struct, frozen=True):
    """A person has spoken to a customer: the bot is silent until then."""

    conversation: ConversationId
    until: datetime


class AnswerWanted(msgspec.Struct, frozen=True):
    """What a customer wrote is complete: whoever answers by himself may answer all of it now, once."""

    conversation: ConversationId


class Scored(msgspec.Struct, frozen=True):
    """A customer has said how it was, from 1 to 5."""

    conversation: ConversationId
    score: int


class AskHowItWas(msgspec.Struct, frozen=True):
    """A ticket that somebody served has ended. If a person spoke in it, its customer is asked, once."""

    conversation: ConversationId
    until: datetime


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """A timer is to be set: of the conversation, of its ticket, or of a queue.

    sooner  one that is set already and is due before stays
    """

    kind: TimerKind
    due_at: datetime
    conversation: ConversationId | None = None
    queue: QueueId | None = None
    args: Mapping[str, Any] = {}
    sooner: bool = False


Aftermath = Tell | TellPlace | TellFar | TookOver | AnswerWanted | Scored | AskHowItWas | Arm

_WAITS = frozenset({Did.OPENED_WAITING, Did.REOPENED_WAITING, Did.RETURNED, Did.MOVED})
_SERVED = frozenset({Did.OPENED_SERVED, Did.REOPENED_SERVED, Did.SERVED, Did.GIVEN})
_NOBODYS = frozenset({"clock", "customer", "line"})
"""Who ends a ticket without having served anybody."""


def after(effects: Iterable[Effect], line: Line) -> Iterator[Aftermath]:
    """Say what the moves of a line call for, as it stands after them."""
    for effect in effects:
        spot = line.spot(effect.conversation)
        queue = line.queues.get(spot.queue if spot else effect.queue or 0)
        if effect.did is Did.OFFLINE:
            yield Arm(kind=TimerKind.TEND, due_at=line.now + GONE_AFTER, sooner=True)
        elif effect.did is Did.LINE_MOVED and queue is not None:
            due_at = line.now + timedelta(seconds=queue.notices.every)
            yield Arm(kind=TimerKind.PULSE, due_at=due_at, queue=queue.id, sooner=True)
        elif spot is not None and queue is not None:
            yield from _of_ticket(effect, spot, queue, line.now)


def _of_ticket(effect: Effect, spot: Spot, queue: Queue, now: datetime) -> Iterator[Aftermath]:
    who, manners = spot.conversation, queue.manners
    if effect.did is Did.TELL_MESSAGE:
        yield Tell(who, "closed_message" if queue.shut else "overflow")
    if effect.did in _WAITS and spot.state is State.WAITING:
        if queue.notices.silence:
            due_at = now + timedelta(seconds=queue.notices.silence)
            yield Arm(kind=TimerKind.SILENCE, due_at=due_at, conversation=who)
        if overdue_at := queue.overdue_at(spot.entered_at):
            yield Arm(kind=TimerKind.TEND, due_at=max(now, overdue_at), sooner=True)
    elif effect.did in _SERVED and spot.state is State.SERVED:
        if effect.did is Did.SERVED and manners.nudge:
            yield Arm(kind=TimerKind.NUDGE, due_at=now + timedelta(seconds=manners.nudge), conversation=who)
        if manners.remind:
            yield Arm(kind=TimerKind.REMIND, due_at=now + timedelta(seconds=manners.remind), conversation=who)
    elif effect.did is Did.PARKED:
        yield Arm(kind=TimerKind.TEND, due_at=now + PARKED_AT_MOST, sooner=True)
    elif effect.did is Did.CLOSED and manners.survey and effect.by not in _NOBODYS:
        yield AskHowItWas(who, now + timedelta(seconds=manners.survey_open))
