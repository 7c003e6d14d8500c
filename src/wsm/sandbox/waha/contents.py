"""What a message is beside its text: a file, a place, cards of people, a poll.

The bytes of files that were sent are kept while there is room, as WAHA keeps them for minutes; what is known
of them for ever is their hash.
"""

import hashlib
from collections import OrderedDict
from enum import StrEnum
from typing import Final

import msgspec

_ROOM_BYTES: Final = 64 * 1024 * 1024


class Kind(StrEnum):
    """What kind of message it is, in the words of the calls that send it."""

    TEXT = "text"
    IMAGE = "image"
    FILE = "file"
    VOICE = "voice"
    VIDEO = "video"
    LOCATION = "location"
    CONTACT = "contact"
    POLL = "poll"


_KINDS: Final = {"image": Kind.IMAGE, "audio": Kind.VOICE, "video": Kind.VIDEO}


class Media(msgspec.Struct, frozen=True):
    """A media file: its bytes are served at `/api/files/…`; with an `error` there is no URL.

    sha256, size  of a file that was sent, as it was handed over
    converted     WAHA was asked to bring it into WhatsApp's form: the bytes that arrive are others
    note          a round video
    """

    mimetype: str = "image/jpeg"
    filename: str | None = None
    error: str | None = None
    sha256: str | None = None
    size: int | None = None
    converted: bool = False
    note: bool = False

    @property
    def kind(self) -> Kind:
        """What a customer's file is; of one that the session sent the call says it."""
        return _KINDS.get(self.mimetype.partition("/")[0], Kind.FILE)


class Location(msgspec.Struct, frozen=True):
    """A place, in degrees."""

    latitude: float
    longitude: float
    title: str | None = None


class Poll(msgspec.Struct, frozen=True):
    """A question with answers to choose from."""

    name: str
    options: list[str]
    multiple: bool = False


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of it; what a kind has not is empty."""

    kind: Kind = Kind.TEXT
    media: Media | None = None
    location: Location | None = None
    vcards: list[str] = []
    poll: Poll | None = None


class Files:
    """The bytes of files by the bare ids of their messages: the newest, up to 64 MiB."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def keep(self, id: str, data: bytes) -> None:  # noqa: A002 (WAHA's word for it)
        """Keep a file, and drop the oldest ones for it."""
        self._bytes += len(data) - len(self._kept.pop(id, b""))
        self._kept[id] = data
        while self._bytes > _ROOM_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)

    def get(self, id: str) -> bytes | None:  # noqa: A002 (WAHA's word for it)
        """Return a file, or None when there is none (any more)."""
        return self._kept.get(id)


def digest(data: bytes) -> str:
    """Return the hash by which a file is known."""
    return hashlib.sha256(data).hexdigest()
