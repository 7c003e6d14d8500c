"""What WAHA is asked for each kind of thing that can be sent (CONTRACT 7.4, 7.5): one call each.

Files always travel in the body: WAHA would fetch a URL from its own address, past the session's exit. What is
no message of its own has no id, and none is looked for in the answer. An id is passed wherever one is given:
engines that take none ignore it.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from wsm.core.content import (
    Contact,
    Content,
    Edit,
    File,
    Image,
    Loaded,
    Location,
    Poll,
    Reaction,
    Revoke,
    Said,
    Seen,
    Target,
    Text,
    Typing,
    Video,
    Voice,
)
from wsm.core.errors import BadInput
from wsm.core.ids import BareId, ChatId, SessionName
from wsm.wire.waha_ids import full_id

_PLAYED_VOICE = "audio/ogg"
_PLAYED_VIDEO = "video/mp4"


_CALLS = {
    Text: ("send_text", "sendText"),
    Image: ("send_image", "sendImage"),
    File: ("send_file", "sendFile"),
    Voice: ("send_voice", "sendVoice"),
    Video: ("send_video", "sendVideo"),
    Location: ("send_location", "sendLocation"),
    Contact: ("send_contact", "sendContactVcard"),
    Poll: ("send_poll", "sendPoll"),
}


class Ask(msgspec.Struct, frozen=True):
    """One call: op is its name in the metrics; is_message: its answer bears an id."""

    op: str
    method: str
    path: str
    body: dict[str, Any] | None
    is_message: bool


def ask(
    session: SessionName,
    chat: ChatId,
    content: Content,
    *,
    id: BareId | None = None,  # noqa: A002 (WAHA's word)
    target: Target | None = None,
    media: Loaded | None = None,
) -> Ask:
    """Write the call that sends something.

    id      reserved for it
    target  the message that it answers or acts on
    media   its file

    Raises BadInput when it needs a target or a file and there is none.
    """
    match content:
        case Reaction():
            body = {"messageId": _full(chat, target), "reaction": content.emoji, "session": session}
            return Ask("react", "PUT", "/api/reaction", body, is_message=False)
        case Edit():
            path = _path_of(session, chat, target)
            return Ask("edit", "PUT", path, {"text": content.text}, is_message=False)
        case Revoke():
            return Ask("revoke", "DELETE", _path_of(session, chat, target), None, is_message=False)
        case Seen():
            body = {"session": session, "chatId": chat}
            return Ask("send_seen", "POST", "/api/sendSeen", body, is_message=False)
        case Typing():
            body = {"session": session, "chatId": chat}
            return Ask("start_typing", "POST", "/api/startTyping", body, is_message=False)
    op, path, own = _said(content, media)
    if id is not None:
        own["id"] = id
    if content.reply_to is not None:
        own["reply_to"] = _full(chat, target)
    return Ask(op, "POST", path, {"session": session, "chatId": chat, **own}, is_message=True)


def _said(content: Said, media: Loaded | None) -> tuple[str, str, dict[str, Any]]:
    """Write a message of its own: the call's name, its path, and the body beyond what all have."""
    name, path = _CALLS[type(content)]
    match content:
        case Text():
            own: dict[str, Any] = {"text": content.text}
        case Image() | File():
            own = {"file": _file(media), "caption": content.caption}
        case Voice():
            own = {"file": _file(media), "convert": _is_converted(media, _PLAYED_VOICE)}
        case Video():
            convert = _is_converted(media, _PLAYED_VIDEO)
            own = {"file": _file(media), "caption": content.caption, "asNote": False, "convert": convert}
        case Location():
            own = {"latitude": content.latitude, "longitude": content.longitude, "title": content.title}
        case Contact():
            own = {"contacts": [{"vcard": vcard(content)}]}
        case Poll():
            options, many = list(content.options), content.multiple
            own = {"poll": {"name": content.question, "options": options, "multipleAnswers": many}}
    return name, f"/api/{path}", own


def vcard(contact: Contact) -> str:
    """Write somebody's card as WAHA's own pages do; WhatsApp finds the account by `waid`."""
    lines = [
        "BEGIN:VCARD",
        "VERSION:3.0",
        f"FN:{_escaped(contact.name)}",
        f"ORG:{_escaped(contact.organization)};" if contact.organization else "",
        f"TEL;type=CELL;type=VOICE;waid={_digits(contact.phone)}:+{_digits(contact.phone)}",
        "END:VCARD",
    ]
    return "\n".join(line for line in lines if line)


def _file(media: Loaded | None) -> dict[str, Any]:
    """Write a file; bytes become base64 when the body is encoded."""
    if media is None:
        raise BadInput("media", "is needed here and was not loaded")
    file: dict[str, Any] = {"mimetype": media.mimetype, "data": media.content}
    return file if media.filename is None else {**file, "filename": media.filename}


def _is_converted(media: Loaded | None, played: str) -> bool:
    """Whether the gateway is to convert it: WhatsApp does not play it as it is."""
    return media is None or media.mimetype != played


def _path_of(session: SessionName, chat: ChatId, target: Target | None) -> str:
    parts = (quote(part, safe="") for part in (session, chat, _full(chat, target)))
    return "/api/{}/chats/{}/messages/{}".format(*parts)


def _full(chat: ChatId, target: Target | None) -> str:
    if target is None:
        raise BadInput("target", "is needed here and was not found")
    return full_id(chat, target)


def _escaped(text: str) -> str:
    """Write a value of a card (RFC 2426): what would end or divide it loses that meaning."""
    for character in "\\,;":
        text = text.replace(character, "\\" + character)
    return text


def _digits(phone: str) -> str:
    return "".join(character for character in phone if character.isdigit())
