"""What a WAHA message says: its kind, its media, who wrote it, and the other id of the same person.

Engines differ in `_data` (CONTRACT 3, 4): NOWEB puts WhatsApp's own message at `_data.message`, GOWS at
`_data.Message` with the addresses in `_data.Info`, WEBJS only a `_data.type`. Every function takes the
payload as decoded and answers None or the plainest word for what it does not find.
"""

import json
from typing import Any

from wsm.core.events import ChatKind, Media
from wsm.core.ids import BareId, ChatId
from wsm.wire.waha_ids import chat_id, chat_kind, message_id

_BY_MESSAGE = {
    "conversation": "text",
    "extendedTextMessage": "text",
    "imageMessage": "image",
    "videoMessage": "video",
    "ptvMessage": "video",
    "audioMessage": "audio",
    "documentMessage": "document",
    "stickerMessage": "sticker",
    "lottieStickerMessage": "sticker",
    "locationMessage": "location",
    "liveLocationMessage": "location",
    "contactMessage": "contact",
    "contactsArrayMessage": "contact",
    "pollCreationMessage": "poll",
    "pollCreationMessageV2": "poll",
    "pollCreationMessageV3": "poll",
    "albumMessage": "album",
    "protocolMessage": "system",
    "senderKeyDistributionMessage": "system",
}
_WRAPPERS = (
    "ephemeralMessage",
    "viewOnceMessage",
    "viewOnceMessageV2",
    "viewOnceMessageV2Extension",
    "documentWithCaptionMessage",
)
_BY_TYPE = {
    "chat": "text",
    "image": "image",
    "video": "video",
    "ptt": "voice",
    "audio": "audio",
    "document": "document",
    "sticker": "sticker",
    "location": "location",
    "vcard": "contact",
    "multi_vcard": "contact",
    "poll_creation": "poll",
    "album": "album",
    "e2e_notification": "system",
    "notification": "system",
    "notification_template": "system",
    "protocol": "system",
}
_BY_MIMETYPE = {
    "image": "image",
    "video": "video",
    "audio": "audio",
    "application": "document",
    "text": "document",
}
_ERROR_CHARACTERS = 300


def text(value: object) -> str | None:
    """Return a text as databases can keep it (NUL becomes U+FFFD); None for anything else."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else None


def table(value: object) -> dict[str, Any]:
    """Return a JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def media(payload: dict[str, Any]) -> Media | None:
    """Return the media file as announced. One that was not downloaded has no url, and maybe an error."""
    found = table(payload.get("media"))
    if not found and payload.get("hasMedia") is not True:
        return None
    error = found.get("error")
    if error is not None and not isinstance(error, str):
        error = json.dumps(error, ensure_ascii=False)
    return Media(
        mimetype=text(found.get("mimetype")),
        filename=text(found.get("filename")),
        url=text(found.get("url")) or text(payload.get("mediaUrl")),
        error=error and (text(error) or "")[:_ERROR_CHARACTERS],
    )


def kind(payload: dict[str, Any]) -> str:
    """Name the kind of a message: what the engine says, else what its fields show."""
    data = table(payload.get("_data"))
    by_engine = _by_message(table(data.get("message")) or table(data.get("Message")))
    return by_engine or _BY_TYPE.get(str(data.get("type"))) or _by_fields(payload)


def reply_to(payload: dict[str, Any]) -> BareId | None:
    """Return the bare id of the message that this one answers."""
    quoted = message_id(table(payload.get("replyTo")).get("id"))
    return quoted.bare if quoted else None


def push_name(payload: dict[str, Any]) -> str | None:
    """Return the name that the author gave himself."""
    data = table(payload.get("_data"))
    for name in (data.get("pushName"), table(data.get("Info")).get("PushName"), data.get("notifyName")):
        if found := text(name):
            return found
    return None


def twin(
    payload: dict[str, Any], chat: ChatId, participant: ChatId | None, *, from_me: bool
) -> ChatId | None:
    """Return the other id (`@lid` or phone) of the correspondent, in a group of the participant."""
    data = table(payload.get("_data"))
    key, info = table(data.get("key")), table(data.get("Info"))
    if chat_kind(chat) is ChatKind.DIRECT:
        person: ChatId | None = chat
        named = (key.get("remoteJidAlt"), info.get("RecipientAlt" if from_me else "SenderAlt"))
    else:
        person = participant
        named = (key.get("participantAlt"), info.get("SenderAlt"))
    for other in map(chat_id, named):
        if other and person and {_server(other), _server(person)} == {"lid", "c.us"}:
            return other
    return None


def _server(chat: ChatId) -> str:
    return chat.rpartition("@")[2]


def _by_message(message: dict[str, Any]) -> str | None:
    for wrapper in _WRAPPERS:
        if inner := table(table(message.get(wrapper)).get("message")):
            message = inner
    for name, found in _BY_MESSAGE.items():
        if message.get(name) is not None:
            part = table(message[name])
            return "voice" if found == "audio" and (part.get("ptt") or part.get("PTT")) else found
    return None


def _by_fields(payload: dict[str, Any]) -> str:
    if payload.get("location"):
        return "location"
    if payload.get("vCards"):
        return "contact"
    if (file := media(payload)) is not None:
        mimetype = file.mimetype or ""
        if mimetype.startswith("audio/ogg") and "opus" in mimetype:
            return "voice"
        return _BY_MIMETYPE.get(mimetype.partition("/")[0], "media")
    return "text" if text(payload.get("body")) else "other"
