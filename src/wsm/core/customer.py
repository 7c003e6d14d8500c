"""What a customer's message asks for besides being served: his place, a way out of the line, a score.

And whom an answer by nobody in particular would disturb: who waits, and who talks to a person.
"""

from datetime import datetime

import msgspec

from wsm.core.aftermath import Aftermath, AnswerWanted, Arm, Scored, Tell, TellPlace
from wsm.core.attendance import Line
from wsm.core.bot import Bot, Rule, complete_at, rule
from wsm.core.conversation import State
from wsm.core.events import MessageReceived
from wsm.core.notices import ASKING, LEAVING, LEAVING_A_MESSAGE, STAYING, Told, is_answered, word
from wsm.core.tickets import ConversationId, Effect, Ended, Spot
from wsm.core.timers import Fired, TimerKind

_SCORES = frozenset("12345")


class Talk(msgspec.Struct):
    """What is known of a conversation besides where it stands.

    told         of his place, in the ticket that is open
    survey_until how long a digit is the score of the ticket that was closed last
    human_until  how long the bot is silent, for a person has spoken
    burst_since  when what he is writing began, None: he is not
    """

    told: Told = Told()
    survey_until: datetime | None = None
    human_until: datetime | None = None
    burst_since: datetime | None = None


def asks(
    event: MessageReceived, who: ConversationId, state: State, talk: Talk, line: Line, at: datetime
) -> list[Effect | Aftermath] | None:
    """Decide on a message that says something to wsm itself; None when it is for whoever serves.

    state, at  where the conversation stands, and when he wrote
    """
    if rule(event.kind) is Rule.NOTED:
        return []
    if state is State.WAITING:
        return _waiting(event.body, who, talk, line)
    score = event.body.strip()
    if (
        state is State.CLOSED
        and score in _SCORES
        and talk.survey_until is not None
        and at < talk.survey_until
    ):
        talk.survey_until = None
        return [Scored(who, int(score)), Tell(who, "thanks")]
    return None


def _waiting(body: str, who: ConversationId, talk: Talk, line: Line) -> list[Effect | Aftermath] | None:
    said, spot = word(body), line.spot(who)
    if said in ASKING and spot is not None:
        if not is_answered(talk.told, line.queues[spot.queue].notices, line.now):
            return []
        talk.told = msgspec.structs.replace(talk.told, asked_at=line.now)
        return [TellPlace(who, asked=True)]
    if said in LEAVING:
        return [*line.closed(who, "customer", Ended.LEFT), Tell(who, "left")]
    if talk.told.offered and said == STAYING:
        return []
    if talk.told.offered and said == LEAVING_A_MESSAGE:
        return [*line.closed(who, "customer", Ended.OVERFLOW), Tell(who, "overflow")]
    return None


def wrote(who: ConversationId, state: State, talk: Talk, line: Line, bot: Bot | None) -> list[Aftermath]:
    """Say when an answer is wanted to what a customer has written, if it is.

    bot  the tenant's, None if nobody answers by himself
    """
    human = talk.human_until is not None and talk.human_until > line.now
    if bot is None or human or _somebody_has(line.spot(who), state):
        return []
    if not bot.debounce:
        return [AnswerWanted(who)]
    talk.burst_since = talk.burst_since or line.now
    due_at = complete_at(line.now, talk.burst_since, bot)
    args = {"since": talk.burst_since.isoformat()}
    return [Arm(kind=TimerKind.BURST, due_at=due_at, conversation=who, args=args)]


def paused(fired: Fired, line: Line) -> list[Aftermath]:
    """Say that an answer is wanted to a burst that is complete, unless somebody has the talk by now, or its
    ticket was closed since the burst began."""
    who = fired.conversation
    if who is None or fired.human:
        return []
    spot = line.spot(who)
    if spot is not None and fired.case is not None and spot.closed_at is not None:
        began_at = datetime.fromisoformat(str(fired.case.args["since"]))
        if spot.ended is not Ended.OVERFLOW and spot.closed_at >= began_at:
            return []
    return [] if _somebody_has(spot, spot.state if spot else State.START) else [AnswerWanted(who)]


def _somebody_has(spot: Spot | None, state: State) -> bool:
    """Whether an answer by nobody in particular would disturb: he waits, or an agent serves him."""
    return state is State.WAITING or (state is State.SERVED and spot is not None and spot.agent is not None)
