"""What people look at: the line, a chat's history, the audit. Each in one tenant's transaction."""

from datetime import datetime
from typing import Any

from wsm.core.ids import BareId, ChatId, SessionName, TenantId
from wsm.core.pacing import Wait
from wsm.core.people import forms
from wsm.store.database import Database, listed
from wsm.store.paces import Pacing, waits_for
from wsm.wire.waha import message_key


async def line(
    database: Database, tenant: TenantId, *, queue: str | None = None, first: int = 1, many: int = 1000
) -> list[Any]:
    """The open tickets: id, state, entered_at, served_at, told_place, level, chat_id, session, queue, agent,
    place (waiting). Of each queue, or the one that is named, `many` who wait from the place `first` on."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("show_line", queue=queue, first=first, many=many)


async def standing(database: Database, tenant: TenantId, chat: ChatId | None) -> list[Any]:
    """The open tickets of one person, named by any of his ids; as `line` has them."""
    aliases = forms(chat) if chat else ()
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("show_standing", aliases=list(aliases))


async def left_messages(database: Database, tenant: TenantId, *, many: int = 100) -> list[Any]:
    """The messages that were left and wait for an agent, oldest first: id, closed_at, chat_id, session,
    queue."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("show_left_messages", many=many)


async def agents(database: Database, tenant: TenantId) -> list[Any]:
    """The agents by name: id, name, capacity, online, since, served (how many), queues (None: all)."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("show_agents")


async def queues(database: Database, tenant: TenantId) -> list[Any]:
    """The queues: id, name, their settings, served and waiting (how many), oldest_at, sessions that enter."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("show_queues")


async def served_by(database: Database, tenant: TenantId, agent: str) -> list[Any]:
    """Whom an agent serves: chat_id, session, served_at."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("tickets_of_agent", agent=agent)


async def ticket(database: Database, tenant: TenantId, conversation: int) -> Any:
    """The open or last ticket of a conversation, or None: state, ended, queue, agent (who serves it)."""
    async with database.transaction(tenant) as transaction:
        return await transaction.row("ticket_of_conversation", conversation=conversation)


async def refusal(database: Database, tenant: TenantId, key: str) -> str | None:
    """Why a command that has just been handled was refused, in plain words; None: it was not."""
    async with database.transaction(tenant) as transaction:
        row = await transaction.row("command_refused", key=key)
        return None if row is None else row.why or "it is not possible now"


async def is_handled(database: Database, tenant: TenantId, session: SessionName, key: str) -> bool:
    """Whether a command has been handled, by the key under which it counts."""
    async with database.transaction(tenant) as transaction:
        return await transaction.row("command_seen", session=session, key=key) is not None


async def conversations(
    database: Database, tenant: TenantId, aliases: list[str], session: SessionName | None
) -> list[Any]:
    """The conversations with a correspondent, by any form of any of his ids: id, session, chat_id, state."""
    named = [form for alias in aliases for form in forms(ChatId(alias))]
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("conversations_of_chat", aliases=named, session=session)


async def targets(database: Database, tenant: TenantId, conversation: int, id: BareId) -> list[Any]:  # noqa: A002
    """The message with that id in a conversation, if there is one: conversation_id, bare_id, from_me,
    participant."""
    wanted = listed([{"conversation": conversation, "target": id}])
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("targets", targets=wanted)


async def history(database: Database, tenant: TenantId, conversation: int) -> tuple[list[Any], list[Any]]:
    """A conversation in its order, and the intents that have not become messages.

    Messages: sent_at, author, kind, body, late, bare_id, target_id, media, ack (highest level), error.
    Intents: created_at, class, kind, state, reason, body.
    """
    async with database.transaction(tenant) as transaction:
        messages = await transaction.rows("show_history", conversation=conversation)
        return messages, await transaction.rows("show_unsent", conversation=conversation)


async def outbox(
    database: Database,
    tenant: TenantId,
    session: SessionName | None,
    conversation: int | None,
    now: datetime,
    pacing: Pacing,
) -> tuple[list[Any], list[Any], dict[int, Wait]]:
    """What waits and what failed within a day, at most 1,000; the paces of the sessions; and what each waits
    for by its session's pace, by its id.

    Intents: id, session, intent, kind, state, reason, created_at, not_before, put_off, settled_at, cold,
    chat_id, session_id, due_at and waits (of the session). Paces: session_id, session, due_at, waits,
    frozen_until, frozen_why, slowed_until, replies, firsts, campaigns.
    """
    async with database.transaction(tenant, now) as transaction:
        intents, paces = await transaction.each(
            ("show_outbox", {"session": session, "conversation": conversation}),
            ("show_paces", {"session": session}),
        )
        pending = [row for row in intents if row.state == "pending"]
        at_work = sorted({row.session_id for row in pending})
        known = await transaction.each(*map(pacing.asked, at_work))
    of_session = {session_id: rows[0] for session_id, rows in zip(at_work, known, strict=True)}
    waits = ((row.id, waits_for(pacing.pace, of_session[row.session_id], row, now)) for row in pending)
    return intents, paces, {id_: wait for id_, wait in waits if wait is not None}


async def audit(database: Database, tenant: TenantId) -> list[Any]:
    """What happened to the line and what was told, in the order of the commits."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("show_audit")


async def sessions(database: Database, tenant: TenantId) -> list[Any]:
    """The sessions of a tenant: id, name, server, alias, kid, generations, phone, observed, desired, engine,
    exit_pool; of their upkeep other_phone, since_ms, dropped_ms, heard_ms, repairs, repaired_at, alarm; of
    the present exit has_exit, exit_verified_at, exit_trouble."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("sessions_named")


async def own_message(database: Database, tenant: TenantId, session: int, id: BareId) -> Any:  # noqa: A002
    """How far an own message of a session that is there got: heard (its echo or an ack came by webhook),
    level (the highest that was told, or None), refused."""
    values = {"session": session, "bare_id": id, "key": message_key(id, from_me=True)}
    async with database.transaction(tenant) as transaction:
        return await transaction.row("own_message", **values)


async def messages(database: Database, tenant: TenantId) -> list[Any]:
    """Every row of a tenant's history: bare_id, from_me, author, kind, body, conversation_id, sent_at."""
    async with database.transaction(tenant) as transaction:
        return await transaction.rows("show_messages")
