"""`wsm outbox show`: what waits to be sent, until when and why; what has failed; and each session's pace."""

import argparse
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from wsm.config import Settings
from wsm.core.errors import BadInput
from wsm.core.ids import SessionName
from wsm.core.pacing import Wait
from wsm.core.phones import masked
from wsm.core.reasons import Why, in_words
from wsm.desk import add_verb, tenant_number
from wsm.sandbox.screen import plain
from wsm.wire.waha import chat_id

if TYPE_CHECKING:
    from wsm.desk import Commands

_SHOWN_AT_MOST = 1_000
_OF_THE_SESSION = frozenset({Why.AWAY, Why.EXIT, Why.NUMBER})
"""Why nothing at all of a session leaves."""


def add_outbox(commands: "Commands", settings: Callable[[], Settings]) -> None:
    """Add `outbox show`. settings: reads them when it runs."""
    outbox = commands.add_parser("outbox", help="what waits to be sent")
    verbs = outbox.add_subparsers(metavar="VERB", required=True)
    show = add_verb(
        verbs, "show", _show, settings, "what waits, until when and why; what failed within a day"
    )
    show.add_argument("tenant", type=tenant_number)
    show.add_argument("--session", help="only of this session")
    show.add_argument("--chat", help="only of this chat: a phone number with country code, or a chat id")


async def _show(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads, utc_now  # noqa: PLC0415 (loads its own parts)
    from wsm.store import reads  # noqa: PLC0415
    from wsm.store.paces import Pacing  # noqa: PLC0415

    now, session = utc_now(), SessionName(arguments.session) if arguments.session else None
    pacing = Pacing(settings.pace, lambda: 0.0)
    async with tenant_reads(settings) as database:
        conversations: list[int | None] = [None]
        if arguments.chat:
            chat = chat_id(arguments.chat)
            if chat is None:
                raise BadInput("--chat", "a phone number with country code, or a chat id")
            found = await reads.conversations(database, arguments.tenant, [chat], session)
            conversations = [row.id for row in found]
        intents: list[Any] = []
        paces: list[Any] = []
        waits: dict[int, Wait] = {}
        for conversation in conversations:
            rows, paces, more = await reads.outbox(
                database, arguments.tenant, session, conversation, now, pacing
            )
            intents += rows
            waits |= more
    for pace in paces:
        print(plain(f"{pace.session}  {pace_line(pace, now)}"))
    for row in intents[:_SHOWN_AT_MOST]:
        print(plain(intent_line(row, waits.get(row.id), now)))
    if not intents:
        print("nothing waits, and nothing failed within a day")


def pace_line(row: Any, now: datetime) -> str:
    """Say what a session's pace is like now."""
    if row.due_at is None:
        parts = ["nothing waits"]
    elif row.due_at <= now:
        parts = ["at work"]
    else:
        parts = [f"waits until {_at(row.due_at)}: {in_words(row.waits)}"]
    if row.frozen_until is not None and row.frozen_until > now:
        parts.append(f"writes to nobody new until {_at(row.frozen_until)} ({row.frozen_why})")
    if row.slowed_until is not None and row.slowed_until > now:
        parts.append(f"answers slowly until {_at(row.slowed_until)}")
    return "; ".join(
        [*parts, f"{row.replies} replies, {row.firsts} new people, {row.campaigns} of campaigns"]
    )


def intent_line(row: Any, wait: Wait | None, now: datetime) -> str:
    """Write one intent: since when, where, what, and what becomes of it. Nothing that it says is shown.

    wait  for its session's pace
    """
    about = f"{row.created_at:%d %b %H:%M:%S}  {row.session}  {masked(row.chat_id)}  {row.intent} {row.kind}"
    return f"{about}  {_fate(row, wait, now)}"


def _fate(row: Any, wait: Wait | None, now: datetime) -> str:
    reason = in_words(row.reason)
    match row.state:
        case "failed":
            return f"failed: {reason}"
        case "sending":
            return "is being sent"
        case "indeterminate":
            return f"may have left, which is found out: {reason}"
    if row.waits in _OF_THE_SESSION and row.due_at is not None and row.due_at > now:
        told = f" ({reason})" if row.waits == Why.AWAY and reason else ""
        until, why = row.due_at, f"{in_words(row.waits)}{told}"
    elif wait is not None and wait.until > row.not_before:
        until, why = wait.until, in_words(wait.why)
    else:
        until, why = row.not_before, reason or "it was asked for then"
    return f"waits until {_at(until)}: {why}" if until > now else "is next, or waits for what is before it"


def _at(moment: datetime) -> str:
    return f"{moment:%d %b %H:%M:%S} UTC"
