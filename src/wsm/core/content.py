"""What can be sent: every kind as a value, and what a value must be before anything is asked of a gateway.

A value of `Content` says what somebody wants to leave through a session; it travels in commands and stands in
the outbox as its JSON (`kind` is the tag and the outbox' column). What acts on an earlier message names it by
its bare id: the full id that the gateway asks for is made of the history's row (`Target`).

Which engine can send what is the table in `core.engines`. The bounds here are WhatsApp's where somebody has
written them down, beside each its source, and ours elsewhere: longer than anybody needs, so that what is
refused is a mistake.
"""

import math
import re
from datetime import timedelta
from enum import StrEnum

import msgspec

from wsm.core.addresses import place_of
from wsm.core.errors import BadInput
from wsm.core.ids import BareId, ChatId
from wsm.core.phones import phone_digits

TEXT_CHARACTERS = 65_536
"""Of a text: WhatsApp's own applications take no more (user reports; its Cloud API stops at 4,096)."""
CAPTION_CHARACTERS = 1_024
"""Of a caption: the Cloud API's reference of media messages."""
POLL_OPTIONS = range(2, 13)
"""How many answers: WhatsApp's help page about polls says 12 at most; one is no question."""
QUESTION_CHARACTERS, OPTION_CHARACTERS = 255, 100
"""Of a poll: what WhatsApp's own applications let one type."""
NAME_CHARACTERS = 256
"""Of a name, a title, a file name: ours."""
URL_CHARACTERS = 2_048
EMOJI_CHARACTERS = 16
"""Code points of one emoji: a family with skin tones has 11, a flag of tags 7."""

_TARGET = re.compile(r"[!-~]{1,200}\Z")
_MIMETYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,127}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_KEYCAP = "\N{COMBINING ENCLOSING KEYCAP}"
_LETTERS_THAT_ARE_EMOJI = frozenset("\N{INFORMATION SOURCE}\N{CIRCLED LATIN CAPITAL LETTER M}")


class SendClass(StrEnum):
    """Why something is sent: the outbox' `class`, the most urgent first."""

    AGENT = "agent"
    BOT = "bot"
    TURN = "turn"
    PLACE = "place"
    SURVEY = "survey"
    CAMPAIGN = "campaign"


class MediaSource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a file comes from: exactly one of the two.

    stored  its number in the tenant's media store
    url     where wsm fetches it, through the session's own way out, when it is about to be sent
    """

    stored: int | None = None
    url: str | None = None
    mimetype: str | None = None
    filename: str | None = None


class _Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag=str.lower):
    """A message of its own. reply_to: the bare id of the message in the same chat that it answers."""

    reply_to: BareId | None = None


class Text(_Said, frozen=True, kw_only=True):
    text: str


class Image(_Said, frozen=True, kw_only=True):
    media: MediaSource
    caption: str = ""


class File(_Said, frozen=True, kw_only=True):
    media: MediaSource
    caption: str = ""


class Voice(_Said, frozen=True, kw_only=True):
    """A voice note: ogg/opus, or whatever the gateway converts."""

    media: MediaSource


class Video(_Said, frozen=True, kw_only=True):
    media: MediaSource
    caption: str = ""


class Location(_Said, frozen=True, kw_only=True):
    """Degrees, north and east positive."""

    latitude: float
    longitude: float
    title: str = ""


class Contact(_Said, frozen=True, kw_only=True):
    """Somebody's card. phone: digits with country code."""

    name: str
    phone: str
    organization: str = ""


class Poll(_Said, frozen=True, kw_only=True):
    question: str
    options: tuple[str, ...]
    multiple: bool = False


class _Acting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag=str.lower):
    """Something done to an earlier message. target: its bare id, in the same chat."""

    target: BareId


class Reaction(_Acting, frozen=True, kw_only=True):
    """emoji: empty takes an earlier one back."""

    emoji: str


class Edit(_Acting, frozen=True, kw_only=True):
    text: str


class Revoke(_Acting, frozen=True, kw_only=True):
    """Deleted for everyone."""


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag=str.lower):
    """The chat is marked as read."""


class Typing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag=str.lower):
    """The correspondent sees somebody type, for as long as WhatsApp shows it."""


Content = (
    Text | Image | File | Voice | Video | Location | Contact | Poll | Reaction | Edit | Revoke | Seen | Typing
)


Said = Text | Image | File | Voice | Video | Location | Contact | Poll
"""What becomes a message of its own, and so has an id; the rest acts on a message or a chat."""

OTHER_WORDS = frozenset({"location", "contact", "poll"})
"""Kinds of which an echo says something else than `shown`, in each engine its own."""

LIFETIME = {
    SendClass.AGENT: timedelta(hours=24),
    SendClass.BOT: timedelta(hours=6),
    SendClass.TURN: timedelta(hours=24),
    SendClass.PLACE: timedelta(hours=24),
    SendClass.SURVEY: timedelta(hours=24),
    SendClass.CAMPAIGN: timedelta(days=7),
}
"""How long something may wait to leave, where nobody said it: after that nobody would understand it."""

_SHORT_LIVED = {"seen": timedelta(hours=1), "typing": timedelta(minutes=1)}


class Target(msgspec.Struct, frozen=True):
    """The earlier message that something answers or acts on, as the history knows it.

    participant  its author in a group or status
    """

    bare: BareId
    from_me: bool
    participant: ChatId | None = None


class Loaded(msgspec.Struct, frozen=True):
    """A file at hand, about to be sent. mimetype: what it really is."""

    content: bytes
    mimetype: str
    filename: str | None = None

    def __repr__(self) -> str:
        return f"Loaded({len(self.content)} bytes, {self.mimetype!r})"


def kind_of(content: Content) -> str:
    """Name a kind: the word of the outbox' column."""
    return str(type(content).__struct_config__.tag)


def is_message(content: Content) -> bool:
    """Whether it becomes a message of its own."""
    return isinstance(content, Said)


def lifetime(send_class: SendClass, kind: str) -> timedelta:
    """How long it may wait to leave. Signs of life (seen, typing) are soon none any more."""
    return min(LIFETIME[send_class], _SHORT_LIVED.get(kind, timedelta.max))


def needs_media(content: Content) -> MediaSource | None:
    """Return where the file comes from that it needs; None when it needs none."""
    return content.media if isinstance(content, Image | File | Voice | Video) else None


def target_of(content: Content) -> BareId | None:
    """Return the earlier message that it answers or acts on; None when there is none."""
    if isinstance(content, Reaction | Edit | Revoke):
        return content.target
    return None if isinstance(content, Seen | Typing) else content.reply_to


def is_own_target(content: Content) -> bool:
    """Whether the message that it acts on must be an own one: nobody edits what others wrote."""
    return isinstance(content, Edit | Revoke)


def shown(content: Content) -> str:
    """Say what the history shows of it.

    Of texts and captions an echo says the same in its `body`; of the rest each engine says something else.
    """
    match content:
        case Text() | Edit():
            said = content.text
        case Image() | File() | Video():
            said = content.caption
        case Location():
            said = content.title
        case Contact():
            said = content.name
        case Poll():
            said = content.question
        case Reaction():
            said = content.emoji
        case _:
            said = ""
    return said


def check(content: Content) -> None:
    """Raise BadInput with the first field that does not fit. No reason repeats what somebody wrote."""
    if (target := target_of(content)) is not None and not _TARGET.match(target):
        raise BadInput("reply_to" if is_message(content) else "target", "is no message's id")
    if (source := needs_media(content)) is not None:
        _check_source(source)
    match content:
        case Text() | Edit():
            _check_words("text", content.text, TEXT_CHARACTERS)
        case Image() | File() | Video():
            _check_words("caption", content.caption, CAPTION_CHARACTERS, empty=True)
        case Location():
            _check_degrees("latitude", content.latitude, 90)
            _check_degrees("longitude", content.longitude, 180)
            _check_line("title", content.title, NAME_CHARACTERS, empty=True)
        case Contact():
            _check_line("name", content.name, NAME_CHARACTERS)
            phone_digits("phone", content.phone)
            _check_line("organization", content.organization, NAME_CHARACTERS, empty=True)
        case Poll():
            _check_poll(content)
        case Reaction() if content.emoji:
            _check_emoji(content.emoji)


def _check_source(source: MediaSource) -> None:
    if (source.stored is None) == (source.url is None):
        raise BadInput("media", "comes from the store or from a URL: one of the two")
    if source.stored is not None and not 0 < source.stored < 2**63:
        raise BadInput("stored", "is no number of the media store")
    if source.url is not None:
        _check_line("url", source.url, URL_CHARACTERS)
        place_of(source.url)
    if source.mimetype is not None and not _MIMETYPE.match(source.mimetype):
        raise BadInput("mimetype", "is written like image/jpeg")
    if source.filename is not None:
        check_filename(source.filename)


def check_filename(name: str) -> None:
    """Raise BadInput for what is no plain name of a file."""
    _check_line("filename", name, NAME_CHARACTERS)
    if re.search(r"[/\\]", name) or name in {".", ".."}:
        raise BadInput("filename", "is a name, without folders")


def _check_words(field: str, text: str, characters: int, *, empty: bool = False) -> None:
    if not empty and not text.strip():
        raise BadInput(field, "is empty")
    if len(text) > characters:
        raise BadInput(field, f"has more than {characters} characters")
    if "\0" in text or re.search(r"[\ud800-\udfff]", text):
        raise BadInput(field, "has characters that are none")


def _check_line(field: str, text: str, characters: int, *, empty: bool = False) -> None:
    _check_words(field, text, characters, empty=empty)
    if _CONTROL.search(text):
        raise BadInput(field, "is one line of plain text")


def _check_degrees(field: str, degrees: float, most: int) -> None:
    if not math.isfinite(degrees) or abs(degrees) > most:
        raise BadInput(field, f"degrees, from -{most} to {most}")


def _check_poll(poll: Poll) -> None:
    _check_words("question", poll.question, QUESTION_CHARACTERS)
    if len(poll.options) not in POLL_OPTIONS:
        raise BadInput("options", f"{POLL_OPTIONS[0]} to {POLL_OPTIONS[-1]} of them")
    for option in poll.options:
        _check_line("options", option, OPTION_CHARACTERS)
    if len({option.strip() for option in poll.options}) < len(poll.options):
        raise BadInput("options", "two of them are the same")


def _check_emoji(emoji: str) -> None:
    """Refuse words: which characters are emoji changes every year, which are none does not."""
    of_keycaps = "0123456789#*" if _KEYCAP in emoji else ""
    for character in emoji:
        is_word = character.isalpha() and character not in _LETTERS_THAT_ARE_EMOJI
        is_plain = character.isspace() or (character.isascii() and character not in of_keycaps)
        if is_word or is_plain or _CONTROL.match(character) or "\ud800" <= character <= "\udfff":
            raise BadInput("emoji", "is one emoji, or empty to take it back")
    if len(emoji) > EMOJI_CHARACTERS:
        raise BadInput("emoji", "is one emoji, or empty to take it back")
