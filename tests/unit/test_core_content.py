"""What can be sent: which values are refused, what the history shows, and which engine can what."""

from typing import Any

import msgspec
import pytest

from wsm.core import engines
from wsm.core.content import (
    Contact,
    Content,
    Edit,
    File,
    Image,
    Location,
    MediaSource,
    Poll,
    Reaction,
    Revoke,
    Seen,
    SendClass,
    Text,
    Typing,
    Video,
    Voice,
    check,
    is_message,
    kind_of,
    lifetime,
    needs_media,
    shown,
    target_of,
)
from wsm.core.engines import OwnId, can, check_way, takes_id
from wsm.core.errors import BadInput
from wsm.core.events import ChatKind
from wsm.core.ids import BareId

ID = BareId("3EB0C767D82C2D8E5A1F")
STORED = MediaSource(stored=7)
GOOD: dict[str, Content] = {
    "text": Text(text="Olá 👋", reply_to=ID),
    "image": Image(media=STORED, caption="a vitrine"),
    "file": File(media=MediaSource(url="https://example.com/a.pdf", filename="nota fiscal.pdf")),
    "voice": Voice(media=MediaSource(stored=1, mimetype="audio/ogg")),
    "video": Video(media=STORED, caption="o vídeo"),
    "location": Location(latitude=-23.5505, longitude=-46.6333, title="A loja"),
    "contact": Contact(name="Ana Sá", phone="5511900000001", organization="Loja"),
    "poll": Poll(question="Que dia?", options=("sexta", "sábado"), multiple=True),
    "reaction": Reaction(target=ID, emoji="👍🏽"),
    "edit": Edit(target=ID, text="outra coisa"),
    "revoke": Revoke(target=ID),
    "seen": Seen(),
    "typing": Typing(),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_kind_is_one_word_from_the_command_to_the_outbox(kind: str) -> None:
    content = GOOD[kind]
    check(content)
    assert kind_of(content) == kind
    read: Content = msgspec.json.decode(msgspec.json.encode(content), type=Content)
    assert read == content


def test_the_history_shows_the_words_that_are_in_it() -> None:
    assert {kind: shown(content) for kind, content in GOOD.items()} == {
        "text": "Olá 👋",
        "image": "a vitrine",
        "file": "",
        "voice": "",
        "video": "o vídeo",
        "location": "A loja",
        "contact": "Ana Sá",
        "poll": "Que dia?",
        "reaction": "👍🏽",
        "edit": "outra coisa",
        "revoke": "",
        "seen": "",
        "typing": "",
    }


def test_what_is_a_message_has_a_file_or_a_target_is_said_once() -> None:
    assert {kind for kind, content in GOOD.items() if is_message(content)} == {
        "text", "image", "file", "voice", "video", "location", "contact", "poll",
    }  # fmt: skip
    assert {kind for kind, content in GOOD.items() if needs_media(content)} == {
        "image", "file", "voice", "video",
    }  # fmt: skip
    assert {kind for kind, content in GOOD.items() if target_of(content)} == {
        "text", "reaction", "edit", "revoke",
    }  # fmt: skip


BAD: list[tuple[Content, str]] = [
    (Text(text=" \n"), "text"),
    (Text(text="x" * 65_537), "text"),
    (Text(text="a\0b"), "text"),
    (Text(text="\ud83d"), "text"),
    (Text(text="a", reply_to=BareId("")), "reply_to"),
    (Text(text="a", reply_to=BareId("a b")), "reply_to"),
    (Edit(target=ID, text=""), "text"),
    (Revoke(target=BareId("x" * 201)), "target"),
    (Image(media=MediaSource()), "media"),
    (Image(media=MediaSource(stored=1, url="https://example.com/")), "media"),
    (Image(media=MediaSource(stored=0)), "stored"),
    (Image(media=MediaSource(stored=2**63)), "stored"),
    (Image(media=MediaSource(url="https://example.com/\n")), "url"),
    (Image(media=MediaSource(url="https://ana:passwd@example.com/")), "url"),
    (Image(media=MediaSource(url="http://127.0.0.1/passwd")), "url"),
    (Image(media=MediaSource(url=f"https://example.com/{'x' * 2_048}")), "url"),
    (Image(media=STORED, caption="x" * 1_025), "caption"),
    (File(media=MediaSource(stored=1, mimetype="pdf")), "mimetype"),
    (File(media=MediaSource(stored=1, mimetype="a/b\r\nX: y")), "mimetype"),
    (File(media=MediaSource(stored=1, filename="../../etc/passwd")), "filename"),
    (File(media=MediaSource(stored=1, filename="..")), "filename"),
    (File(media=MediaSource(stored=1, filename="a\\b")), "filename"),
    (Location(latitude=90.1, longitude=0), "latitude"),
    (Location(latitude=0, longitude=-180.1), "longitude"),
    (Location(latitude=float("nan"), longitude=0), "latitude"),
    (Location(latitude=0, longitude=float("inf")), "longitude"),
    (Location(latitude=0, longitude=0, title="a\nb"), "title"),
    (Contact(name="", phone="5511900000001"), "name"),
    (Contact(name="Ana\nTEL:+1", phone="5511900000001"), "name"),
    (Contact(name="Ana", phone="12"), "phone"),
    (Contact(name="Ana", phone="5511900000001", organization="a\u2028b"), "organization"),
    (Poll(question="", options=("a", "b")), "question"),
    (Poll(question="x" * 256, options=("a", "b")), "question"),
    (Poll(question="?", options=("a",)), "options"),
    (Poll(question="?", options=tuple(map(str, range(13)))), "options"),
    (Poll(question="?", options=("a", "a ")), "options"),
    (Poll(question="?", options=("a", "")), "options"),
    (Poll(question="?", options=("a", "x" * 101)), "options"),
    (Reaction(target=ID, emoji="ok"), "emoji"),
    (Reaction(target=ID, emoji="é"), "emoji"),
    (Reaction(target=ID, emoji="1"), "emoji"),
    (Reaction(target=ID, emoji="👍 "), "emoji"),
    (Reaction(target=ID, emoji="👍" * 17), "emoji"),
]


@pytest.mark.parametrize(("content", "field"), BAD)
def test_what_does_not_fit_is_refused_with_its_field_and_without_its_words(
    content: Content, field: str
) -> None:
    with pytest.raises(BadInput) as caught:
        check(content)
    assert caught.value.field == field
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize(
    "emoji", ["", "👍", "❤️", "1️⃣", "#️⃣", "🇧🇷", "👨‍👩‍👧‍👦", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "©️", "ℹ️", "Ⓜ️", "‼️", "⁉️", "〰️"]
)
def test_an_emoji_of_any_make_is_one(emoji: str) -> None:
    check(Reaction(target=ID, emoji=emoji))


@pytest.mark.parametrize("text", ["x" * 65_536, "\u2028", "😀", "a\r\nb"])
def test_a_text_may_say_anything(text: str) -> None:
    check(Text(text=f"{text[:-1]}." if len(text) > 65_000 else f"{text}."))


# Engines

TABLE = """
| kind | GOWS | NOWEB | WEBJS | WPP |
|---|---|---|---|---|
| text | own id | own id | yes | yes |
| image | own id, unproved | own id, unproved | yes | yes |
| file | own id, unproved | own id, unproved | yes | yes |
| voice | own id, unproved | own id, unproved | yes | yes |
| video | own id, unproved | own id, unproved | yes | yes |
| location | own id | own id | yes | yes |
| contact | own id | own id | yes | yes |
| poll | own id | own id | yes | yes |
| reaction | yes | yes | yes | yes |
| edit | yes | yes | yes | yes |
| revoke | yes | yes | yes | yes |
| seen | yes | yes | yes | yes |
| typing | yes | yes | yes | yes |
"""


def test_the_table_is_the_one_that_was_read() -> None:
    assert engines.page() == TABLE.strip()


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_stands_in_the_table(kind: str) -> None:
    for engine in engines.ENGINES:
        assert can(engine, kind)
        assert takes_id(engine, kind) in OwnId
    assert can(None, kind)
    assert takes_id(None, kind) is OwnId.NONE
    assert can("VENOM", kind) == (kind in {"text", "seen", "typing"})
    assert takes_id("VENOM", kind) is OwnId.NONE


@pytest.mark.parametrize(
    ("content", "engine", "chat", "field"),
    [
        (GOOD["poll"], "VENOM", ChatKind.DIRECT, "kind"),
        (GOOD["poll"], "GOWS", ChatKind.NEWSLETTER, "kind"),
        (GOOD["text"], "GOWS", ChatKind.STATUS, "chat"),
        (GOOD["text"], None, ChatKind.OTHER, "chat"),
    ],
)
def test_what_cannot_be_sent_there_is_refused(
    content: Content, engine: str | None, chat: ChatKind, field: str
) -> None:
    with pytest.raises(BadInput) as caught:
        check_way(content, engine, chat)
    assert caught.value.field == field


def test_what_can_be_sent_there_is_not_refused() -> None:
    check_way(GOOD["poll"], "GOWS", ChatKind.GROUP)
    check_way(GOOD["text"], "NOWEB", ChatKind.NEWSLETTER)


@pytest.mark.parametrize(
    ("send_class", "kind", "hours"),
    [
        (SendClass.AGENT, "text", 24.0),
        (SendClass.BOT, "text", 6.0),
        (SendClass.CAMPAIGN, "image", 168.0),
        (SendClass.CAMPAIGN, "seen", 1.0),
        (SendClass.AGENT, "typing", 1 / 60),
    ],
)
def test_what_waits_too_long_is_not_sent(send_class: SendClass, kind: str, hours: float) -> None:
    assert lifetime(send_class, kind).total_seconds() == hours * 3600


def test_a_content_of_another_time_is_no_content() -> None:
    said: list[Any] = [{"kind": "sticker"}, {"kind": "text"}, {"text": "x"}, {"kind": "text", "text": 1}, []]
    for each in said:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(each, Content)
