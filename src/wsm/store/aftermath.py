"""What follows from a turn, written: texts about tickets, timers, and who may speak.

Everything travels with COMMIT. What is told is an intent, whose text is made when it is claimed.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from wsm.core.aftermath import (
    Aftermath,
    AnswerWanted,
    Arm,
    AskHowItWas,
    Scored,
    Tell,
    TellFar,
    TellPlace,
    TookOver,
)
from wsm.core.attendance import GONE_AFTER, PARKED_AT_MOST, Line
from wsm.core.content import LIFETIME, SendClass
from wsm.core.tickets import Did, Effect, Queue
from wsm.core.timers import OF_TICKETS, TimerKind
from wsm.store.database import Transaction, listed
from wsm.store.tickets import Tickets

_SAY_WITHIN = timedelta(hours=1)
"""A text about a ticket that could not be sent for so long is stale."""


class AftermathWriter:
    """Writes what follows from the steps of one turn."""

    def __init__(self, transaction: Transaction, tickets: Tickets) -> None:
        self._transaction = transaction
        self._tickets = tickets
        self._timers: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        self._says: list[dict[str, Any]] = []

    def take(self, step: Aftermath, line: Line) -> dict[str, Any] | None:
        """Write one step; return its line of the audit, if it has one."""
        match step:
            case Arm():
                self._arm(step)
            case Tell():
                self._tell(step)
            case TellPlace():
                self._later("tell_place", step.conversation, asked=step.asked)
            case TellFar():
                self._tell_far(line.queues[step.queue])
            case TookOver():
                self._later("took_over", step.conversation, until=step.until, conversation=step.conversation)
                return self._line("bot.silent", step.conversation)
            case AnswerWanted():
                return self._line("answer.wanted", step.conversation)
            case Scored():
                self._later("score", step.conversation, score=step.score)
                return {**self._line("survey.scored", step.conversation), "detail": {"score": step.score}}
            case AskHowItWas():
                self._later("ask_how_it_was", step.conversation, until=step.until)
        return None

    def follow(self, effects: Iterable[Effect], line: Line) -> None:
        """Write what the moves of the line bring about, once they are written, and what was gathered."""
        for effect in effects:
            if effect.did is Did.LINE_MOVED and effect.queue is not None:
                queue = line.queues[effect.queue]
                self._tell_moved(queue, queue.notices.near)
            elif effect.did is Did.CLOSED and effect.conversation is not None:
                self._transaction.later("bot_may_speak", conversation=effect.conversation)
        if self._tickets.sweeps:
            queues = line.queues.values()
            open_ = listed([{"queue": each.id, "since": each.opened_at} for each in queues if not each.shut])
            self._transaction.later("tend_next", parked=PARKED_AT_MOST, gone=GONE_AFTER, open=open_)
        if line.short:  # more could be moved than were seen: at once, by a turn of their own
            self._arm(Arm(kind=TimerKind.TEND, due_at=self._transaction.now, sooner=True))
        self._write()

    def _tell_moved(self, queue: Queue, many: int | None) -> None:
        """Have the first ones of a queue told where they stand now, or all of them, where it is worth it."""
        policy, transaction = queue.notices, self._transaction
        transaction.later(
            "tell_moved",
            queue=queue.id,
            many=many,
            every=timedelta(seconds=policy.every),
            at_most=policy.at_most,
            near=policy.near,
            step=policy.step,
            mark=self._tickets.mark,
            expires_at=transaction.now + LIFETIME[SendClass.PLACE],
        )

    def _write(self) -> None:
        for sooner, timers in self._timers.items():
            if timers:
                self._transaction.later("set_timers", timers=listed(timers), sooner=sooner)
        if self._says:
            expires_at = self._transaction.now + _SAY_WITHIN
            self._transaction.later("add_says", says=listed(self._says), expires_at=expires_at)
        self._timers, self._says = {False: [], True: []}, []

    def _arm(self, step: Arm) -> None:
        timers = self._timers[step.sooner]
        ticket = self._tickets.newest(step.conversation or 0) if step.kind in OF_TICKETS else None
        subject = {
            "kind": step.kind,
            "conversation": step.conversation if ticket is None else None,
            "ticket": ticket,
            "queue": step.queue,
        }
        same = [each for each in timers if subject.items() <= each.items()]
        if same and step.sooner:
            same[0]["due"] = min(same[0]["due"], step.due_at)
            return
        for each in same:
            timers.remove(each)
        timers.append({"place": len(timers), **subject, "due": step.due_at, "args": step.args})

    def _tell(self, step: Tell) -> None:
        ticket = self._tickets.newest(step.conversation)
        args = {"say": step.name} | ({} if step.minutes is None else {"minutes": step.minutes})
        key = f"say:{ticket}:{step.name}:{self._tickets.mark}"
        self._says.append(
            {
                "place": len(self._says),
                "conversation": step.conversation,
                "ticket": ticket,
                "class": "turn",
                "args": args,
                "key": key,
            }
        )

    def _tell_far(self, queue: Queue) -> None:
        self._tell_moved(queue, None)
        since = self._transaction.now - timedelta(days=queue.notices.sample_days)
        self._transaction.later("measure_queue", queue=queue.id, since=since)

    def _later(self, query: str, whose: int, **values: Any) -> None:
        now = self._transaction.now
        common = {"ticket": self._tickets.newest(whose), "mark": self._tickets.mark}
        self._transaction.later(query, **common, expires_at=now + LIFETIME[SendClass.PLACE], **values)

    def _line(self, what: str, conversation: int) -> dict[str, Any]:
        ticket = self._tickets.newest(conversation)
        return {"what": what, "conversation": conversation, "ticket": ticket, "detail": {}}
