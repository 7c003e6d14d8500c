"""`wsm outbox show`: what waits to be sent, until when and why; what has failed; and each session's pace."""

import argparse
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from wsm.config import Settings
from wsm.core.errors import BadInput
from wsm.core.ids import SessionName
from wsm.core.phones import masked
from wsm.core.reasons import Why, in_words
from wsm.desk import add_verb, tenant_number
from wsm.sandbox.screen import plain
from wsm.wire.waha import chat_id

if TYPE_CHECKING:
    from wsm.desk import Commands

_SHOWN_AT_MOST = 1_000


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

    now, session = utc_now(), SessionName(arguments.session) if arguments.session else None
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
        for conversation in conversations:
            rows, paces = await reads.outbox(database, arguments.tenant, session, conversation, now)
            intents += rows
    for pace in paces:
        print(plain(f"{pace.session}  {pace_line(pace, now)}"))
    for row in intents[:_SHOWN_AT_MOST]:
        print(plain(intent_line(row, now)))
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


def intent_line(row: Any, now: datetime) -> str:
    """Write one intent: since when, where, what, and what becomes of it. Nothing that it says is shown."""
    about = f"{row.created_at:%d %b %H:%M:%S}  {row.session}  {masked(row.chat_id)}  {row.intent} {row.kind}"
    return f"{about}  {_fate(row, now)}"


def _fate(row: Any, now: datetime) -> str:
    reason = in_words(row.reason)
    match row.state:
        case "failed":
            return f"failed: {reason}"
        case "sending":
            return "is being sent"
        case "indeterminate":
            return f"may have left, which is found out: {reason}"
    if row.not_before > now:
        return f"waits until {_at(row.not_before)}: {reason or 'it was asked for then'}"
    if row.due_at is not None and row.due_at > now and row.waits:
        told = f" ({reason})" if row.waits == Why.AWAY and reason else ""
        return f"waits until {_at(row.due_at)}: {in_words(row.waits)}{told}"
    return "is next, or waits for what is before it"


def _at(moment: datetime) -> str:
    return f"{moment:%d %b %H:%M:%S}"
