"""What WAHA is asked for each kind, and that it fits what WAHA says of itself."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from unit.test_core_content import GOOD, ID
from wsm.core.content import Contact, Image, Loaded, Target, Text, Video, Voice, is_message, needs_media
from wsm.core.errors import BadInput
from wsm.core.ids import BareId, ChatId, SessionName
from wsm.gateway.sending import ask, vcard
from wsm.wire.waha_ids import full_id, message_id

SESSION = SessionName("user_1460561546")
CHAT = ChatId("5511977776666@c.us")
GROUP = ChatId("120363000000000001@g.us")
MEMBER = ChatId("5511900000009@c.us")
OWN = Target(ID, from_me=True)
FULL = f"true_{CHAT}_{ID}"
FILES = {
    "image": Loaded(b"\xff\xd8\xff", "image/jpeg"),
    "file": Loaded(b"%PDF-", "application/pdf", "nota.pdf"),
    "voice": Loaded(b"OggS", "audio/ogg", "voice.ogg"),
    "video": Loaded(b"\x00\x00\x00\x20ftypisom", "video/mp4", "v.mp4"),
}
COMMON = {"session": SESSION, "chatId": CHAT}
ANA = """BEGIN:VCARD
VERSION:3.0
FN:Ana Sá
ORG:Loja;
TEL;type=CELL;type=VOICE;waid=5511900000001:+5511900000001
END:VCARD"""
MESSAGES = (
    "/api/user_1460561546/chats/5511977776666%40c.us/messages/true_5511977776666%40c.us_3EB0C767D82C2D8E5A1F"
)
ASKED: dict[str, tuple[str, str, Any]] = {
    "text": ("POST", "/api/sendText", {**COMMON, "text": "Olá 👋", "id": "3EB0", "reply_to": FULL}),
    "image": ("POST", "/api/sendImage", {
        **COMMON, "file": {"mimetype": "image/jpeg", "data": "/9j/"}, "caption": "a vitrine", "id": "3EB0"}),
    "file": ("POST", "/api/sendFile", {
        **COMMON, "caption": "", "id": "3EB0",
        "file": {"mimetype": "application/pdf", "data": "JVBERi0=", "filename": "nota.pdf"}}),
    "voice": ("POST", "/api/sendVoice", {
        **COMMON, "convert": False, "id": "3EB0",
        "file": {"mimetype": "audio/ogg", "data": "T2dnUw==", "filename": "voice.ogg"}}),
    "video": ("POST", "/api/sendVideo", {
        **COMMON, "caption": "o vídeo", "convert": False, "asNote": False, "id": "3EB0",
        "file": {"mimetype": "video/mp4", "data": "AAAAIGZ0eXBpc29t", "filename": "v.mp4"}}),
    "location": ("POST", "/api/sendLocation", {
        **COMMON, "latitude": -23.5505, "longitude": -46.6333, "title": "A loja", "id": "3EB0"}),
    "contact": ("POST", "/api/sendContactVcard", {**COMMON, "contacts": [{"vcard": ANA}], "id": "3EB0"}),
    "poll": ("POST", "/api/sendPoll", {
        **COMMON, "id": "3EB0",
        "poll": {"name": "Que dia?", "options": ["sexta", "sábado"], "multipleAnswers": True}}),
    "reaction": ("PUT", "/api/reaction", {"session": SESSION, "messageId": FULL, "reaction": "👍🏽"}),
    "edit": ("PUT", MESSAGES, {"text": "outra coisa"}),
    "revoke": ("DELETE", MESSAGES, None),
    "seen": ("POST", "/api/sendSeen", COMMON),
    "typing": ("POST", "/api/startTyping", COMMON),
}  # fmt: skip
CHANGED = "/api/{session}/chats/{chatId}/messages/{messageId}"


@pytest.mark.parametrize("kind", ASKED)
def test_each_kind_is_one_call(kind: str) -> None:
    asked = ask(SESSION, CHAT, GOOD[kind], id=BareId("3EB0"), target=OWN, media=FILES.get(kind))
    method, path, body = ASKED[kind]
    sent = None if asked.body is None else msgspec.json.decode(msgspec.json.encode(asked.body))
    assert (asked.method, asked.path, sent) == (method, path, body)
    assert asked.is_message == is_message(GOOD[kind])


@pytest.mark.parametrize("kind", [kind for kind, (_, _, body) in ASKED.items() if body is not None])
def test_what_is_asked_fits_what_waha_says_of_itself(kind: str, waha_fixtures: Path) -> None:
    document = msgspec.json.decode((waha_fixtures / "openapi.json").read_bytes())
    method, path, body = ASKED[kind]
    where = CHANGED if "/chats/" in path else path
    place = "/".join(
        part.replace("~", "~0").replace("/", "~1")
        for part in ("paths", where, method.lower(), "requestBody", "content", "application/json", "schema")
    )
    registry: Registry[Any] = Registry().with_resource(
        "urn:waha", Resource.from_contents(_taken_back(document), default_specification=DRAFT202012)
    )
    Draft202012Validator({"$ref": f"urn:waha#/{place}"}, registry=registry).validate(body)


def _taken_back(document: Any) -> Any:
    """Take back what WAHA's description is wrong about: a truth value and a MIME type are no objects."""
    if isinstance(document, dict):
        if "schemas" in document:
            schemas = document["schemas"]
            schemas["MessagePoll"]["properties"]["multipleAnswers"] = {"type": "boolean"}
            for name in ("VoiceBinaryFile", "VideoBinaryFile"):
                for field in ("mimetype", "filename"):
                    schemas[name]["properties"][field] = {"type": "string"}
        return {key: _taken_back(value) for key, value in document.items()}
    return document


def test_a_file_never_leaves_as_a_url() -> None:
    for kind, file in FILES.items():
        asked = ask(SESSION, CHAT, GOOD[kind], media=file)
        assert asked.body is not None
        assert "url" not in asked.body["file"]
        with pytest.raises(BadInput, match="media"):
            ask(SESSION, CHAT, GOOD[kind])


@pytest.mark.parametrize("kind", ["text", "reaction", "edit", "revoke"])
def test_what_needs_an_earlier_message_is_not_asked_without_it(kind: str) -> None:
    with pytest.raises(BadInput, match="target"):
        ask(SESSION, CHAT, GOOD[kind])


def test_what_whatsapp_does_not_play_is_converted() -> None:
    media = needs_media(GOOD["voice"])
    assert media is not None
    for content, file in (
        (Voice(media=media), Loaded(b"ID3", "audio/mpeg")),
        (Video(media=media), Loaded(b"x", "video/webm")),
    ):
        asked = ask(SESSION, CHAT, content, media=file)
        assert asked.body is not None
        assert asked.body["convert"] is True
    asked = ask(SESSION, CHAT, Image(media=media), media=FILES["image"])
    assert asked.body is not None
    assert "convert" not in asked.body


def test_a_card_cannot_be_ended_by_a_name() -> None:
    card = vcard(Contact(name="A;B,C\\D", phone="+55 (11) 90000-0001"))
    assert "FN:A\\;B\\,C\\\\D\n" in card
    assert "waid=5511900000001:+5511900000001\n" in card
    assert "ORG" not in card


@pytest.mark.parametrize(
    ("chat", "target", "full"),
    [
        (CHAT, Target(ID, from_me=True), f"true_{CHAT}_{ID}"),
        (CHAT, Target(ID, from_me=False), f"false_{CHAT}_{ID}"),
        (GROUP, Target(ID, from_me=False, participant=MEMBER), f"false_{GROUP}_{ID}_{MEMBER}"),
    ],
)
def test_a_full_id_is_what_is_read_again(chat: ChatId, target: Target, full: str) -> None:
    assert full_id(chat, target) == full
    found = message_id(full)
    assert found is not None
    assert (found.from_me, found.chat, found.bare, found.participant) == (
        target.from_me,
        chat,
        target.bare,
        target.participant,
    )


def test_a_reply_in_a_group_names_who_wrote() -> None:
    answered = Target(ID, from_me=False, participant=MEMBER)
    asked = ask(SESSION, GROUP, Text(text="oi", reply_to=ID), target=answered)
    assert asked.body is not None
    assert asked.body["reply_to"] == f"false_{GROUP}_{ID}_{MEMBER}"
