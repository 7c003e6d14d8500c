"""What can be sent, and which engine can send it.

A value of `Content` says what somebody wants to leave through a session; it travels in commands and stands in
the outbox as its JSON (`kind` is the tag and the outbox' column). What acts on an earlier message names it by
its bare id: the full id that the gateway asks for is made of the history's row.

`can` is the one table of what each engine takes (CONTRACT.md 7.4, 7.5 and 11 of what WAHA does).
"""

from enum import StrEnum

import msgspec

from wsm.core.ids import BareId


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
