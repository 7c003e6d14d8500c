"""A WAHA webhook's body, decoded with care: its head, its times, and where a message stands.

Bodies come from browsers' JSON and from four engines (CONTRACT 1, 3.1, 4). What is half right is read as far
as it goes; only what is no JSON object with an event and a session is refused.
"""

import json
import re
from typing import Any, TypedDict

import msgspec

from wsm.core.errors import BadInput
from wsm.core.events import ChatKind, Order
from wsm.core.ids import ChatId, EntryId, SessionName, TenantId
from wsm.wire.waha_content import table, text
from wsm.wire.waha_ids import MessageId, chat_id, chat_kind, digest, key, message_id

_AHEAD_MS = 5 * 60_000  # a phone's clock may run ahead of WAHA's; it must not make every answer late
_DAY_MS = 86_400_000
_SECONDS_END = 10**11
"""Below this a timestamp is in seconds (until the year 5138), from it on in milliseconds (since 1973)."""
_MILLISECONDS_END = 10**14
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_DEEPEST = 200
"""Levels of nesting. A bound that hung on the stack could accept in one process what another cannot read."""
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_FROM_IS_THE_CHAT = ("NOWEB", "GOWS")


class Head(msgspec.Struct, frozen=True):
    """What ingest looks at: the event's name, the session named in the body, and whose number it is."""

    event: str
    session: str
    me: msgspec.Raw

    @property
    def me_id(self) -> ChatId | None:
        """The session's own number, read when it is asked for; None when the body names none."""
        try:
            me = _me.decode(self.me)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return chat_id(me.id) if me else None


class _Top(msgspec.Struct):
    event: object = None
    session: object = None
    me: msgspec.Raw = msgspec.Raw(b"null")


class _Me(msgspec.Struct):
    id: str | None = None


_top = msgspec.json.Decoder(_Top)
_me = msgspec.json.Decoder(_Me | None)


def head(body: bytes) -> Head:
    """Read the head of a signed body.

    Raises BadInput naming the field: not JSON, nested deeper than 200 levels, no event, no session.
    """
    if _is_too_deep(body):
        raise BadInput("body", "nested too deeply")
    top = _decoded(body)
    for field, value in (("event", top.event), ("session", top.session)):
        if not isinstance(value, str) or not value:
            raise BadInput(field, "missing" if value is None else "not a name")
    return Head(str(top.event), str(top.session), top.me)


class Common(TypedDict):
    """The fields that all events share, for `**`."""

    tenant: TenantId
    session: SessionName
    key: str
    order: Order
    name: str
    entry: EntryId
    raw: bytes


class Hook(msgspec.Struct, frozen=True):
    """A body, decoded, with where and when it came. `envelope` is empty when only its head could be read.

    backfilled  it is wsm's own, of a message that was fetched
    """

    tenant: TenantId
    session: SessionName
    name: str
    entry: EntryId
    received_at_ms: int
    raw: bytes
    envelope: dict[str, Any]
    payload: dict[str, Any]
    backfilled: bool = False

    def common(self, once: str, sent: object) -> Common:
        """Give what every event has: `once` is its key, `sent` the payload's own timestamp as it came."""
        arrived, _, counter = self.entry.partition("-")
        stamped_at_ms = self.at_ms(self.envelope.get("timestamp"))
        sent_at_ms = self.at_ms(sent)
        if sent_at_ms > stamped_at_ms + _AHEAD_MS and milliseconds(sent) is not None:
            sent_at_ms = stamped_at_ms
        order = Order(sent_at_ms, stamped_at_ms, (int(arrived), int(counter or 0)))
        return {
            "tenant": self.tenant,
            "session": self.session,
            "key": once,
            "order": order,
            "name": self.name,
            "entry": self.entry,
            "raw": self.raw,
        }

    def at_ms(self, value: object) -> int:
        """Read a timestamp; the arrival when it is missing, unreadable or more than a day ahead."""
        found = milliseconds(value)
        if found is None or found > self.received_at_ms + _DAY_MS:
            return self.received_at_ms
        return found

    def event_key(self, name: str) -> str:
        """Give the key of what has no id of its own. An event id alone is shared by two events."""
        if event_id := text(self.envelope.get("id")):
            return key("e", name, event_id)
        return key("h", digest(self.raw))


class Place(msgspec.Struct, frozen=True):
    """Where a message stands, the same for every engine. `participant` is the author outside direct chats."""

    id: MessageId
    chat: ChatId
    from_me: bool
    participant: ChatId | None


def place(hook: Hook, payload: dict[str, Any]) -> Place | None:
    """Find chat, direction and author; None when the payload has no id or names no chat.

    `payload.fromMe` is believed before the id's prefix, which some engines write wrongly.
    """
    id_ = message_id(payload.get("id"))
    if id_ is None:
        return None
    said = (payload.get("fromMe"), id_.from_me, table(table(payload.get("_data")).get("key")).get("fromMe"))
    from_me = next((value for value in said if isinstance(value, bool)), False)
    chat = id_.chat or other_side(hook, payload, from_me=from_me)
    if chat is None:
        return None
    return Place(id_, chat, from_me, _author(payload, id_, chat))


def other_side(hook: Hook, payload: dict[str, Any], *, from_me: bool) -> ChatId | None:
    """Name the chat where no id does: NOWEB and GOWS have it in `from`, WEBJS opposite to the sender."""
    sender, receiver = chat_id(payload.get("from")), chat_id(payload.get("to"))
    if from_me and hook.envelope.get("engine") not in _FROM_IS_THE_CHAT:
        return receiver or sender
    return sender or receiver


def milliseconds(value: object) -> int | None:
    """Read seconds or milliseconds, whole or fractional, as number or text; None when it is no time."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MILLISECONDS_END:
        return None
    return round(value * 1000 if value < _SECONDS_END else value) or None


def envelope(body: bytes) -> dict[str, Any]:
    """Decode a whole body; empty when it is no object, or when only its head can be read."""
    return table(decoded(body))


def decoded(text: bytes) -> object:
    """Decode JSON as WAHA writes it; None when it is none, or nested too deeply."""
    try:
        found: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError:
        return None
    else:
        return found
    try:
        found = json.loads(_mended(text))
    except (ValueError, RecursionError):
        return None
    return found


def _author(payload: dict[str, Any], id_: MessageId, chat: ChatId) -> ChatId | None:
    if chat_kind(chat) is ChatKind.DIRECT:
        return None
    named = chat_id(payload.get("participant")) or chat_id(payload.get("author")) or id_.participant
    sender = chat_id(payload.get("from"))
    if named is None and sender and chat_kind(sender) is ChatKind.DIRECT:
        return sender
    return named


def _is_too_deep(body: bytes) -> bool:
    """Count brackets outside texts. Of what is no JSON it says anything."""
    if body.count(b"[") + body.count(b"{") <= _DEEPEST:
        return False
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    structure = b"".join(unescaped.translate(None, _NOT_STRUCTURE).split(b'"')[::2])
    depth = 0
    for mark in structure:
        depth += 1 if mark in b"[{" else -1
        if depth > _DEEPEST:
            return True
    return False


def _decoded(body: bytes) -> _Top:
    try:
        return _top.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return _top.decode(_mended(body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadInput("body", "not a JSON object") from None


def _mended(body: bytes) -> bytes:
    r"""Put U+FFFD for what only JavaScript takes for text: half an emoji, `\ud83d` without its partner.

    `JSON.stringify` writes it when somebody cut a text in the middle of an emoji; neither msgspec nor
    PostgreSQL accept it.
    """
    mended = _ESCAPE.sub(lambda match: rb"\ufffd" if match[1] else match[0], body)
    return mended.decode("utf-8", "replace").encode()
