"""What a message is, in the engines' own words: the protobuf of NOWEB and GOWS, the types of the browsers."""

from collections.abc import Callable
from typing import Any, Final

from wsm.sandbox.waha import ids
from wsm.sandbox.waha.contents import Content, Kind
from wsm.sandbox.waha.state import Message

Json = dict[str, Any]

_MEDIA: Final = {
    Kind.IMAGE: "imageMessage",
    Kind.FILE: "documentMessage",
    Kind.VOICE: "audioMessage",
    Kind.VIDEO: "videoMessage",
}
_TYPES: Final = {
    Kind.TEXT: "chat",
    Kind.IMAGE: "image",
    Kind.FILE: "document",
    Kind.VOICE: "ptt",
    Kind.VIDEO: "video",
    Kind.LOCATION: "location",
    Kind.POLL: "poll_creation",
}


def message(said: Message, *, text_as: str = "conversation") -> Json:
    """Say a message as NOWEB and GOWS have it from WhatsApp; a text in one of its two forms."""
    content = said.content
    if content.kind in _OTHERS:
        return _OTHERS[content.kind](content)
    if content.media is None:
        return {text_as: said.body if text_as == "conversation" else {"text": said.body}}
    name = "ptvMessage" if content.media.note else _MEDIA[content.kind]
    file: Json = {"mimetype": content.media.mimetype}
    if said.body:
        file["caption"] = said.body
    if content.media.filename and content.kind is Kind.FILE:
        file["fileName"] = content.media.filename
    if content.media.size is not None:
        file["fileLength"] = str(content.media.size)
    if content.kind is Kind.VOICE:
        file["ptt"] = True
    return {name: file}


def act(event: str, said: Message, target: Message) -> Json:
    """Say a reaction, an edit or a deletion as NOWEB does."""
    key = {"remoteJid": ids.jid(target.chat), "fromMe": target.from_me, "id": target.id}
    if event == "message.reaction":
        return {"reactionMessage": {"key": key, "text": said.body}}
    if event == "message.revoked":
        return {"protocolMessage": {"key": key, "type": "REVOKE"}}
    edited = {"extendedTextMessage": {"text": said.body}}
    return {"protocolMessage": {"key": key, "type": "MESSAGE_EDIT", "editedMessage": edited}}


def location(content: Content) -> Json | None:
    """Say where a place is as WAHA says it: degrees as texts."""
    if content.location is None:
        return None
    return {
        "latitude": str(content.location.latitude),
        "longitude": str(content.location.longitude),
        "live": False,
        "name": content.location.title,
    }


def browser_body(said: Message) -> str:
    """Return the body as the browsers have it: cards and questions stand in it."""
    if said.content.poll:
        return said.content.poll.name
    return said.content.vcards[0] if len(said.content.vcards) == 1 else said.body


def browser_type(content: Content) -> str:
    """Return the browsers' word for a kind of message."""
    if content.kind is Kind.CONTACT:
        return "vcard" if len(content.vcards) == 1 else "multi_vcard"
    return _TYPES[content.kind]


def _location(content: Content) -> Json:
    place = content.location
    if place is None:
        return {}
    degrees = {"degreesLatitude": place.latitude, "degreesLongitude": place.longitude}
    return {"locationMessage": degrees | ({"name": place.title} if place.title else {})}


def _contact(content: Content) -> Json:
    cards = [{"vcard": card} for card in content.vcards]
    return {"contactMessage": cards[0]} if len(cards) == 1 else {"contactsArrayMessage": {"contacts": cards}}


def _poll(content: Content) -> Json:
    poll = content.poll
    if poll is None:
        return {}
    return {
        "pollCreationMessageV3": {
            "name": poll.name,
            "options": [{"optionName": option} for option in poll.options],
            "selectableOptionsCount": 0 if poll.multiple else 1,
        }
    }


_OTHERS: Final[dict[Kind, Callable[[Content], Json]]] = {
    Kind.LOCATION: _location,
    Kind.CONTACT: _contact,
    Kind.POLL: _poll,
}
