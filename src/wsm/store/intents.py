"""Rows of the outbox as a turn writes them: notices, and what somebody asked to send."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from wsm.core.content import LIFETIME, SendClass, Text, kind_of, lifetime, shown, target_of
from wsm.core.events import SendAsked
from wsm.core.ids import BareId
from wsm.core.moments import moment
from wsm.core.templates import render
from wsm.core.tickets import ConversationId, Did, Effect
from wsm.core.turn import Chats, Send, Wished
from wsm.core.wishes import Wish
from wsm.store.database import Transaction, clean, listed

NOTICES = {Did.TELL_TURN: SendClass.TURN, Did.TELL_PLACE: SendClass.PLACE}
"""The effects that are notices, and of which class."""


def row(step: Send | Effect, ticket: int | None, now: datetime) -> dict[str, Any]:
    """Describe an intent, with the ticket that is open now."""
    return _asked(step, ticket, now) if isinstance(step, Send) else _notice(step, ticket, now)


def _notice(effect: Effect, ticket: int | None, now: datetime) -> dict[str, Any]:
    """Describe a notice. What is still to be told of a ticket is told once, as it then is."""
    send_class = NOTICES[effect.did]
    return {
        "conversation": effect.conversation,
        "ticket": ticket,
        "class": send_class,
        "kind": "text",
        "args": {},
        "key": f"{send_class}:{ticket}:{now.timestamp():.6f}",
        "not_before": now,
        "expires_at": now + LIFETIME[send_class],
    }


def _asked(step: Send, ticket: int | None, now: datetime) -> dict[str, Any]:
    kind = kind_of(step.content)
    not_before = now if step.not_before_ms is None else max(now, moment(step.not_before_ms))
    until = not_before + lifetime(step.send_class, kind)
    return {
        "conversation": step.conversation,
        "ticket": ticket,
        "class": step.send_class,
        "kind": kind,
        "args": step.content,
        "body": clean(shown(step.content)),
        "key": step.key,
        "not_before": not_before,
        "expires_at": until if step.expires_ms is None else moment(step.expires_ms),
        "refused": step.refused,
    }


async def targets(
    transaction: Transaction, sends: Sequence[SendAsked], chats: Chats
) -> Mapping[tuple[ConversationId, BareId], bool]:
    """Find the messages that are answered or acted on: which are there, and whether they are own ones."""
    wanted = [
        {"conversation": chats[at].id, "target": target}
        for event in sends
        if (at := (event.session, event.chat)) in chats and (target := target_of(event.content)) is not None
    ]
    rows = await transaction.rows("targets", targets=listed(wanted)) if wanted else []
    return {(row.conversation_id, BareId(row.bare_id)): row.from_me for row in rows}


async def wished(transaction: Transaction, step: Wished, place: int) -> list[dict[str, Any]]:
    """Remember a customer's wish, and describe what confirms it: nothing where it was known already."""
    query = "opt_out" if step.wish is Wish.OUT else "opt_in"
    changed, [manners] = await transaction.each((query, {"conversation": step.conversation}), ("manners", {}))
    if not changed:
        return []
    now, text = transaction.now, render(step.wish, manners.locale, manners.templates)
    return [
        {
            "place": place,
            "conversation": step.conversation,
            "ticket": None,
            "class": SendClass.BOT,
            "kind": "text",
            "args": Text(text=text),
            "body": text,
            "key": f"{step.wish}:{step.conversation}:{now.timestamp():.6f}",
            "not_before": now,
            "expires_at": now + LIFETIME[SendClass.BOT],
        }
    ]
