"""WAHA's webhook bodies, and wsm's own commands, read into `core.events`.

`head` is what ingest needs before it accepts; `read` is what a turn decides on. Neither loses anything: a
body that does not have the fields of its event becomes `Kept`, with the raw bytes. Every event counts once
under its key, which is made of facts that are the same in every delivery, every engine's wording and
every form of a chat id (CONTRACT 5.4):

    m|{fromMe}|{id}                           a message; `message` and `message.any` are the same one
    a|{fromMe}|{id}|{level}|{participant}     an ack
    d|{fromMe}|{id}|{target}|{hash}           an edit; the hash is of its text and times
    r|{fromMe}|{id}|{target}|{hash}           a revoke, likewise
    x|{fromMe}|{id}|{target}|{time}           a reaction
    v|{fromMe}|{id}|{target}|{time}           a vote
    s|{status}|{time}                         a session's status; |locked|{until} when it tells a lock
    c|{command}|{id}                          a command of wsm itself
    e|{event}|{event id}                      anything else
    h|{hash of the body}                      anything else without an id
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from wsm.core import events
from wsm.core.content import Content, SendClass, check
from wsm.core.errors import BadInput
from wsm.core.events import Origin, Source
from wsm.core.ids import BareId, ChatAddress, ChatId, EntryId, SessionName, TenantId
from wsm.wire import waha_content as content
from wsm.wire import waha_locks
from wsm.wire.asks import ASK, read_ask
from wsm.wire.people import HIDDEN_IDS, read_hidden_ids
from wsm.wire.waha_body import Head, Hook, Place, decoded, envelope, head, milliseconds, other_side, place
from wsm.wire.waha_content import table, text
from wsm.wire.waha_ids import chat_id, chat_kind, digest, key, message_id

__all__ = [
    "Head",
    "backfilled",
    "chat_id",
    "chat_kind",
    "close_command",
    "decoded",
    "head",
    "message_id",
    "message_key",
    "read",
    "send_command",
    "timer_command",
]

_COMMANDS = "command."
_CLOSE = _COMMANDS + "close"
_SEND = _COMMANDS + "send"
_TIMER = _COMMANDS + "timer"
_LEVELS = range(-1, 5)
_Moment = Annotated[int, msgspec.Meta(ge=0, lt=10**14)]
"""Milliseconds since 1970, before the year 5138."""
_NO_MESSAGES = frozenset({"ciphertext", "gp2"})
"""WEBJS' types of what it tells as `message.waiting` and of a group's own events."""


def read(
    body: bytes,
    *,
    tenant: TenantId,
    session: SessionName,
    origin: Origin,
    entry: EntryId,
    received_at_ms: int,
) -> events.Event:
    """Read an entry's body into the event that it is.

    tenant, session  the address that the signature proved; what the body says about it is not looked at
    received_at_ms   stands in for a timestamp that is missing, unreadable or more than a day ahead

    A body without the fields of its event becomes `Kept`, and so does a command that WAHA sent. Raises
    BadInput where `head` does, and for an unknown origin.
    """
    if origin is Origin.UNKNOWN:
        raise BadInput("origin", "written by nobody who is known here")
    whole = envelope(body)
    name = text(whole.get("event")) or head(body).event
    payload = table(whole.get("payload"))
    backfill = origin is Origin.CATCH_UP
    hook = Hook(tenant, session, name, entry, received_at_ms, body, whole, payload, backfill)
    reader = (_COMMAND_READERS if origin is not Origin.WAHA else {}).get(name) or _READERS.get(name)
    return (reader(hook) if reader else None) or _kept(hook)


def message_key(id: BareId, *, from_me: bool) -> str:  # noqa: A002 (WAHA's word)
    """Give the key of a message: what its echo and its acks are matched by."""
    return key("m", from_me, id)


def close_command(address: ChatAddress, *, id: str, by: str) -> bytes:  # noqa: A002 (WAHA's word)
    """Write the body that asks to close a chat's open ticket. The same `id` counts once."""
    payload = {"chat": address.chat, "by": by}
    return msgspec.json.encode({"event": _CLOSE, "session": address.session, "id": id, "payload": payload})


def send_command(
    address: ChatAddress,
    content: Content,
    *,
    id: str,  # noqa: A002 (WAHA's word)
    by: str,
    send_class: SendClass,
    not_before_ms: int | None = None,
    expires_ms: int | None = None,
) -> bytes:
    """Write the body that asks to send something into a chat. The same `id` counts once in a session."""
    payload = {
        "chat": address.chat,
        "by": by,
        "content": content,
        "class": send_class,
        "not_before_ms": not_before_ms,
        "expires_ms": expires_ms,
    }
    return msgspec.json.encode({"event": _SEND, "session": address.session, "id": id, "payload": payload})


def timer_command(session: SessionName, timer: int, kind: str, due_ms: int) -> bytes:
    """Write the body that says that a timer's time has come. The same timer and time count once."""
    payload = {"timer": timer, "kind": kind, "due": due_ms}
    return msgspec.json.encode({"event": _TIMER, "session": session, "payload": payload})


def backfilled(session: SessionName, payload: object, *, engine: str | None) -> bytes | None:
    """Write a message of the gateway's history as the webhook that should have brought it.

    The envelope bears the message's own time, and `backfilled` for people who look at the raw body. None for
    what no webhook would bring as a message under this id: what has no id of its own, and in WEBJS what is
    still to be deciphered, which comes as a message later.
    """
    said = table(payload)
    id_ = message_id(said.get("id"))
    if id_ is None or id_.opaque or table(said.get("_data")).get("type") in _NO_MESSAGES:
        return None
    whole = {"event": "message.any", "session": session, "payload": said, "backfilled": True}
    if engine is not None:
        whole["engine"] = engine
    if (sent_ms := milliseconds(said.get("timestamp"))) is not None:
        whole["timestamp"] = sent_ms
    return msgspec.json.encode(whole)


def _message(hook: Hook) -> events.Event | None:
    payload = hook.payload
    at = place(hook, payload)
    if at is None:
        return None
    # An id that names only a chat would make all messages of that chat one.
    once = hook.event_key("message") if at.id.opaque else message_key(at.id.bare, from_me=at.from_me)
    return events.MessageReceived(
        **hook.common(once, payload.get("timestamp")),
        chat=at.chat,
        id=at.id.bare,
        from_me=at.from_me,
        source=_source(payload) if at.from_me else None,
        kind=content.kind(payload),
        body=text(payload.get("body")) or "",
        twin=content.twin(payload, at.chat, at.participant, from_me=at.from_me),
        participant=at.participant,
        push_name=None if at.from_me else content.push_name(payload),
        media=content.media(payload),
        reply_to=content.reply_to(payload),
        backfilled=hook.backfilled,
    )


def _ack(hook: Hook) -> events.Event | None:
    at = _fact(hook, hook.payload)
    said = hook.payload.get("ack")
    if at is None or isinstance(said, bool) or not isinstance(said, int | float) or said not in _LEVELS:
        return None
    level = int(said)
    once = key("a", at.from_me, at.id.bare, level, at.participant)
    code, reason, until_ms = waha_locks.ack_error(hook.payload)
    return events.MessageAcked(
        **hook.common(once, hook.payload.get("timestamp")),
        chat=at.chat,
        id=at.id.bare,
        from_me=at.from_me,
        level=level,
        participant=at.participant,
        code=code,
        reason=reason,
        until_ms=until_ms,
    )


def _edit(hook: Hook) -> events.Event | None:
    at = _fact(hook, hook.payload)
    body = text(hook.payload.get("body"))
    if at is None or body is None:
        return None
    target = _bare(hook.payload.get("editedMessageId")) or at.id.bare
    return events.MessageEdited(
        **hook.common(_change_key("d", at, target, hook.payload), hook.payload.get("timestamp")),
        chat=at.chat,
        id=at.id.bare,
        target=target,
        from_me=at.from_me,
        body=body,
    )


def _revoke(hook: Hook) -> events.Event | None:
    after, before = table(hook.payload.get("after")), table(hook.payload.get("before"))
    at = _fact(hook, after) or _fact(hook, before)
    target = _bare(hook.payload.get("revokedMessageId")) or _bare(before.get("id"))
    if at is None or target is None:
        return None
    return events.MessageRevoked(
        **hook.common(_change_key("r", at, target, after), after.get("timestamp")),
        chat=at.chat,
        id=at.id.bare,
        target=target,
        from_me=at.from_me,
    )


def _reaction(hook: Hook) -> events.Event | None:
    at = _fact(hook, hook.payload)
    reaction = table(hook.payload.get("reaction"))
    target = _bare(reaction.get("messageId"))
    if at is None or target is None:
        return None
    sent = hook.payload.get("timestamp")
    return events.MessageReacted(
        **hook.common(key("x", at.from_me, at.id.bare, target, milliseconds(sent)), sent),
        chat=at.chat,
        id=at.id.bare,
        target=target,
        from_me=at.from_me,
        text=text(reaction.get("text")) or "",
    )


def _vote(hook: Hook) -> events.Event | None:
    vote = table(hook.payload.get("vote"))
    at = _fact(hook, vote)
    target = _bare(table(hook.payload.get("poll")).get("id"))
    options = vote.get("selectedOptions")
    if at is None or target is None or not isinstance(options, list):
        return None
    sent = vote.get("timestamp")
    return events.PollVoted(
        **hook.common(key("v", at.from_me, at.id.bare, target, milliseconds(sent)), sent),
        chat=at.chat,
        id=at.id.bare,
        target=target,
        from_me=at.from_me,
        options=tuple(option for option in map(text, options) if option is not None),
    )


def _status(hook: Hook) -> events.Event | None:
    status = text(hook.payload.get("status"))
    if not status:
        return None
    statuses = hook.payload.get("statuses")
    at = table(statuses[-1]).get("timestamp") if isinstance(statuses, list) and statuses else None
    if milliseconds(at) is None:
        at = hook.envelope.get("timestamp")
    when = milliseconds(at)
    once = hook.event_key(hook.name) if when is None else key("s", status, when)
    locked, until_ms = waha_locks.timelock(hook.payload)
    if locked and when is not None:  # WORKING again, to tell this
        once = key("s", status, when, "locked", until_ms)
    return events.SessionStatusReported(
        **hook.common(once, at),
        status=status,
        at_ms=hook.at_ms(at),
        engine=text(hook.envelope.get("engine")),
        locked=locked,
        locked_until_ms=until_ms,
    )


def _close(hook: Hook) -> events.Event | None:
    id_, chat = text(hook.envelope.get("id")), chat_id(hook.payload.get("chat"))
    if not id_ or chat is None:
        return None
    by = text(hook.payload.get("by")) or ""
    return events.CloseAsked(**hook.common(key("c", "close", id_), None), chat=chat, by=by)


def _send(hook: Hook) -> events.Event | None:
    """Read a command to send. What does not fit is no such command: whoever wrote it did not check it."""
    id_, chat = text(hook.envelope.get("id")), chat_id(hook.payload.get("chat"))
    if not id_ or chat is None:
        return None
    try:
        said: Content = msgspec.convert(hook.payload.get("content"), Content)
        send_class = msgspec.convert(hook.payload.get("class"), SendClass)
        times = msgspec.convert(hook.payload, _Times)
        check(said)
    except (msgspec.ValidationError, BadInput):
        return None
    return events.SendAsked(
        **hook.common(key("c", "send", id_), None),
        chat=chat,
        by=text(hook.payload.get("by")) or "",
        content=said,
        send_class=send_class,
        intent_key=key("send", hook.session, id_),
        not_before_ms=times.not_before_ms,
        expires_ms=times.expires_ms,
    )


class _Times(msgspec.Struct):
    not_before_ms: _Moment | None = None
    expires_ms: _Moment | None = None


def _timer(hook: Hook) -> events.Event | None:
    timer, due_ms = hook.payload.get("timer"), hook.payload.get("due")
    kind = text(hook.payload.get("kind"))
    if not isinstance(timer, int) or not isinstance(due_ms, int) or kind is None:
        return None
    return events.TimerDue(**hook.common(key("c", "timer", timer, due_ms), due_ms), timer=timer, kind=kind)


def _kept(hook: Hook) -> events.Kept:
    """Keep what has no reader, or not the fields of its event."""
    once = hook.event_key(hook.name)
    return events.Kept(**hook.common(once, hook.payload.get("timestamp")), chat=_named_chat(hook))


_READERS: dict[str, Callable[[Hook], events.Event | None]] = {
    "message": _message,
    "message.any": _message,
    "message.ack": _ack,
    "message.ack.group": _ack,
    "message.edited": _edit,
    "message.revoked": _revoke,
    "message.reaction": _reaction,
    "poll.vote": _vote,
    "session.status": _status,
}
_COMMAND_READERS: dict[str, Callable[[Hook], events.Event | None]] = {
    _CLOSE: _close,
    _SEND: _send,
    _TIMER: _timer,
    ASK: read_ask,
    HIDDEN_IDS: read_hidden_ids,
}


def _fact(hook: Hook, payload: dict[str, Any]) -> Place | None:
    """Find the place of something about a message; None also when its id names no message."""
    at = place(hook, payload)
    return None if at is None or at.id.opaque else at


def _change_key(family: str, at: Place, target: BareId, payload: dict[str, Any]) -> str:
    """Key an edit or a revoke. WEBJS edits bear the original's id, so text and times tell them apart."""
    edited = table(payload.get("_data")).get("latestEditSenderTimestampMs")
    words = (text(payload.get("body")), milliseconds(payload.get("timestamp")), milliseconds(edited))
    return key(family, at.from_me, at.id.bare, target, digest(*(str(word).encode() for word in words)))


def _bare(value: object) -> BareId | None:
    id_ = message_id(value)
    return id_.bare if id_ and not id_.opaque else None


def _source(payload: dict[str, Any]) -> Source | None:
    said = payload.get("source")
    return Source(said) if isinstance(said, str) and said in ("api", "app") else None


def _named_chat(hook: Hook) -> ChatId | None:
    """Find the chat that a body without a reader names."""
    parts = (hook.payload, table(hook.payload.get("vote")), table(hook.payload.get("after")))
    for part in parts:
        id_ = message_id(part.get("id"))
        from_me = part.get("fromMe") is True
        found = (id_.chat if id_ else None) or chat_id(part.get("chatId"))
        if chat := found or other_side(hook, part, from_me=from_me):
            return chat
    return chat_id(table(hook.payload.get("group")).get("id"))
