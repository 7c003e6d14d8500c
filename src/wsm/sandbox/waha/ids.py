"""The ids that WAHA and WhatsApp make, and the forms of a correspondent's address.

A person has a phone number and a hidden id. Here the hidden id is the digit 9 before the phone number, so
that either can be found from the other; real ones have nothing in common.
"""

import itertools
import os
import secrets
import time
from typing import Final

from wsm.core.errors import BadInput

_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIRECT: Final = frozenset({"c.us", "s.whatsapp.net", "lid"})
_OTHERS: Final = frozenset({"g.us", "newsletter", "broadcast"})

_ticks = itertools.count()


def event_id() -> str:
    """Make an event's id: `evt_` and a lower-case ULID."""
    number = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return "evt_" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -5, -5))


def request_id() -> str:
    """Make the id of one delivery: unique in this process only, as `uniqid` makes it."""
    return f"3b2ozl{_base36(os.getpid())}{_base36(time.time_ns() // 1_000_000)}{_base36(next(_ticks))}"


def sent_id() -> str:
    """Make the bare id of a message sent through the API: `3EB0` and 18 hex digits."""
    return "3EB0" + secrets.token_hex(9).upper()


def phone_id() -> str:
    """Make the bare id of a message typed on a phone: `3A` and 18 hex digits."""
    return "3A" + secrets.token_hex(9).upper()


def message_id(*, from_me: bool, chat: str, bare: str, participant: str | None = None) -> str:
    """Join a message's full id: `true_5511…@c.us_3EB0…`, in groups with the author as fourth part."""
    tail = f"_{participant}" if participant else ""
    return f"{'true' if from_me else 'false'}_{chat}_{bare}{tail}"


def bare_of(message: str) -> str:
    """Return the bare id of a full id, or the text itself when it is already bare."""
    parts = message.split("_")
    return parts[2] if len(parts) > 2 else message  # noqa: PLR2004 (prefix, chat, bare id)


def chat_id(text: str) -> str:
    """Bring a chat id to WAHA's form: a bare number gets `@c.us`, `@s.whatsapp.net` becomes it."""
    name, _, host = text.partition("@")
    return f"{name}@c.us" if host in {"", "s.whatsapp.net"} else text


def person(text: str) -> str:
    """Return whose chat it is: the digits of a direct chat in any form, any other chat id as it is.

    Raises BadInput for what is no chat id.
    """
    name, _, host = text.removeprefix("+").partition("@")
    if name.isdigit() and (not host or host in _DIRECT):
        return name.removeprefix("9") if host == "lid" else name
    if name and host in _OTHERS:
        return text
    raise BadInput("phone", f"{text!r} is neither a phone number nor a chat id")


def owner(chat: str) -> str:
    """Return whose chat it is, as `person` does; what is no chat id is its own owner."""
    try:
        return person(chat)
    except BadInput:
        return chat


def phone_chat(who: str) -> str:
    """Return the chat id of a person by phone number; other chats stay what they are."""
    return f"{who}@c.us" if who.isdigit() else who


def lid_chat(who: str) -> str:
    """Return the chat id of a person by hidden id; other chats stay what they are."""
    return f"9{who}@lid" if who.isdigit() else who


def jid(chat: str) -> str:
    """Return a chat id as the engines NOWEB and GOWS write it in `_data`."""
    return chat.removesuffix("@c.us") + "@s.whatsapp.net" if chat.endswith("@c.us") else chat


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _BASE36[digit] + digits
    return digits or "0"
