"""What a file is, by its first bytes: what somebody calls it is only believed where bytes say nothing.

An image must be an image, a voice note sound, a video moving pictures; a file may be anything. WhatsApp shows
JPEG and PNG, plays ogg/opus and mp4/H.264; of the rest the gateway converts sound and video, and no
image (WAHA's page about sending, July 2026).
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from wsm.core.content import Content, File, Image, Loaded, MediaSource, Video, Voice, needs_media
from wsm.core.errors import BadInput

HEAD_BYTES = 4_096
"""So many bytes at the beginning of a file say what it is."""
ANYTHING = "application/octet-stream"

_BEGINS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"#!AMR", "audio/amr"),
    (b"fLaC", "audio/flac"),
    (b"PK\x03\x04", "application/zip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
)
_CONTAINERS = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_BRANDS = {
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
    b"avif": "image/avif",
}
_OF_OFFICES = frozenset({"application/zip", "application/x-ole-storage"})
"""What documents of many programs are inside: which one is said by who names it."""
_SUFFIXES = {
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "json": "application/json",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "txt": "text/plain",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "zip": "application/zip",
}
_FAMILY = {Image: "image/", Voice: "audio/", Video: "video/"}
_SHOWN_IMAGES = frozenset({"image/jpeg", "image/png", "image/webp"})


def sniffed(head: bytes) -> str | None:
    """Tell a file's type by its first bytes; None where they say nothing."""
    for begin, mimetype in _BEGINS:
        if head.startswith(begin):
            return "video/ogg" if mimetype == "audio/ogg" and b"\x80theora" in head else mimetype
    if head[:4] == b"RIFF":
        return _CONTAINERS.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/3gpp" if head[8:10] == b"3g" else "video/mp4")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:  # noqa: PLR2004 (eleven bits of MPEG audio)
        return "audio/aac" if head[1] & 0xF6 == 0xF0 else "audio/mpeg"  # noqa: PLR2004 (ADTS has layer 0)
    return None


def type_of(head: bytes, *, said: str | None, filename: str | None) -> str:
    """Tell a file's type: by its bytes, else as somebody says, else by its name."""
    found = sniffed(head)
    if found is not None and found not in _OF_OFFICES:
        return found
    by_name = _SUFFIXES.get((filename or "").rpartition(".")[2].lower())
    named = said if said and not said.startswith(("image/", "audio/", "video/")) else by_name
    return named or found or ANYTHING


def loaded(
    content: Content,
    file: bytes,
    *,
    said: str | None = None,
    filename: str | None = None,
    types: Sequence[str] = (),
) -> Loaded:
    """Give a file the type that it is sent with, for what it is to be sent as.

    said, filename  what its source calls it; what `content` itself says goes before
    types           the types that may be sent, with `*`; empty: all

    Raises BadInput when it is empty, of a type that may not be sent, or none of the kind's.
    """
    source = needs_media(content) or MediaSource()
    name = source.filename or filename
    mimetype = type_of(file[:HEAD_BYTES], said=source.mimetype or said, filename=name)
    if not file:
        raise BadInput("media", "is an empty file")
    family = _FAMILY.get(type(content), "")
    if not mimetype.startswith(family):
        raise BadInput("media", f"is {mimetype}, and no {family.removesuffix('/')}")
    if isinstance(content, Image) and mimetype not in _SHOWN_IMAGES:
        raise BadInput("media", f"WhatsApp shows no {mimetype}: send it as a file")
    if types and not any(fnmatchcase(mimetype, each) for each in types):
        raise BadInput("media", f"{mimetype} is not among media_types")
    if isinstance(content, File) and name is None:
        name = "file"
    return Loaded(file, mimetype, name)
