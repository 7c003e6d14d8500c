"""WAHA's ids: what a chat id names, what a message id is made of, and keys that count once.

A message id is `{true|false}_{chat}_{bare}[_{participant}]` (CONTRACT 4). It comes without the prefix too,
and as an opaque word. Only the bare part is the same in every form of a message, so only that is compared.
What is no id gives None here, never an exception.
"""

import hashlib
import re

import msgspec

from wsm.core.content import Target
from wsm.core.events import ChatKind
from wsm.core.ids import BareId, ChatId

_JID = re.compile(r"([0-9A-Za-z+-]{1,100})(?:\.[0-9]+)?(?::[0-9]+)?@([0-9a-z.-]{1,40})\Z")
_PHONE = re.compile(r"\+?([0-9]{5,20})\Z")
_PLAIN = re.compile(r"[0-9A-Za-z._:@+=/-]{1,64}\Z")
_BARE_CHARACTERS = 200
"""Of a bare id that an index takes; WhatsApp's have 16 to 32."""
_PREFIXES = {"true": True, "false": False}
_SERVERS = {"s.whatsapp.net": "c.us", "hosted": "c.us", "hosted.lid": "lid"}
_KINDS = {
    "c.us": ChatKind.DIRECT,
    "lid": ChatKind.DIRECT,
    "g.us": ChatKind.GROUP,
    "newsletter": ChatKind.NEWSLETTER,
    "broadcast": ChatKind.BROADCAST,
}


class MessageId(msgspec.Struct, frozen=True):
    """A message id in its parts.

    from_me      what the prefix says; None without one. `payload.fromMe` is trusted more
    chat         the chat it names, if it names one
    bare         the id itself, NUL as U+FFFD; the whole text when it has no parts
    participant  the author in a group or status, if it names one
    opaque       it is no id of this message alone (an empty word, or only a chat), or longer than any: no
                 key may be made of it
    """

    from_me: bool | None
    chat: ChatId | None
    bare: BareId
    participant: ChatId | None = None
    opaque: bool = False


def chat_id(text: object) -> ChatId | None:
    """Write a chat id the one way wsm keeps it: no device part, `@c.us` for phones.

    A phone number alone gets `@c.us`, as WAHA does it. None when it names no chat: another type, WAHA's
    `me`, an empty or strange text.
    """
    if not isinstance(text, str):
        return None
    text = text.strip()
    if match := _JID.match(text):
        user, server = match.groups()
        return ChatId(f"{user}@{_SERVERS.get(server, server)}")
    if match := _PHONE.match(text):
        return ChatId(f"{match[1]}@c.us")
    return None


def chat_kind(chat: ChatId) -> ChatKind:
    """Say what a chat id names. What is not known is OTHER and hence never answered."""
    if chat == "status@broadcast":
        return ChatKind.STATUS
    return _KINDS.get(chat.rpartition("@")[2], ChatKind.OTHER)


def message_id(text: object) -> MessageId | None:
    """Take a message id apart; None when it is no text or an empty one."""
    if not isinstance(text, str) or not text.strip():
        return None
    parts = text.strip().replace("\0", "\ufffd").split("_")
    from_me = _PREFIXES.get(parts[0])
    if from_me is not None and len(parts) > 1:
        parts = parts[1:]
    if "@" not in parts[0]:
        bare = "_".join(parts)
        return MessageId(from_me, None, BareId(bare), opaque=_is_opaque(bare))
    chat = chat_id(parts[0])
    if len(parts) == 1:
        return MessageId(from_me, chat, BareId(parts[0]), opaque=True)
    bare, participant = "_".join(parts[1:]), None
    if len(parts) > 2 and "@" in parts[-1]:  # noqa: PLR2004 (chat, bare id, participant)
        bare, participant = "_".join(parts[1:-1]), chat_id(parts[-1])
    return MessageId(from_me, chat, BareId(bare), participant, opaque=_is_opaque(bare))


def full_id(chat: ChatId, target: Target) -> str:
    """Write the full id of a message in a chat, which replies, reactions, edits and deletions are told by."""
    participant = f"_{target.participant}" if target.participant else ""
    return f"{'true' if target.from_me else 'false'}_{chat}_{target.bare}{participant}"


def key(family: str, *parts: object) -> str:
    """Make a key that counts once: `m|0|3EB0…`, readable, bounded, and different for different parts.

    A part that is long or has unusual characters stands as `#` and 32 hex digits of its SHA-256.
    """
    return "|".join([family, *(_part(part) for part in parts)])


def digest(*parts: bytes) -> str:
    """Shorten to 32 hex digits of SHA-256. The parts are framed by their lengths."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()[:32]


def _is_opaque(bare: str) -> bool:
    return not 0 < len(bare) <= _BARE_CHARACTERS


def _part(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    text = str(value)
    if not text or _PLAIN.match(text):
        return text
    return "#" + digest(text.encode("utf-8", "replace"))
