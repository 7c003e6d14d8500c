"""What a request to send says: the text, what the message is beside it, and the bytes of a file.

Nothing is validated, as in WAHA: what is missing is a stumble of the engine, a 500.
"""

import binascii
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple

import httpx

from wsm.sandbox.waha.contents import Content, Kind, Location, Media, Poll, digest
from wsm.sandbox.waha.rest import given, refused, text_of
from wsm.sandbox.waha.state import Engine, EngineError, World

Json = dict[str, Any]

_MIMETYPES: Final = {
    Kind.IMAGE: "image/jpeg",
    Kind.FILE: "application/octet-stream",
    Kind.VOICE: "audio/ogg; codecs=opus",
    Kind.VIDEO: "video/mp4",
}
_IN_EVERY_WAHA_SINCE: Final = (2026, 6, 1)
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/]")
_DIGITS: Final = re.compile(r"\D")


class Sendable(NamedTuple):
    """What is to be sent. data: the bytes of its file."""

    text: str
    content: Content = Content()
    data: bytes | None = None


Reader = Callable[[World, Json], Awaitable[Sendable]]


async def _text(_world: World, body: Json) -> Sendable:
    return Sendable(text_of(body, "text", "matchAll"))


async def _media(world: World, body: Json, *, kind: Kind) -> Sendable:
    if not world.since(*_IN_EVERY_WAHA_SINCE):
        raise refused(
            422,
            f"The feature is available only in Plus version for '{world.engine}' engine. "
            "Check this out: https://waha.devlike.pro/",
        )
    file = body.get("file")
    if not isinstance(file, dict):
        raise EngineError(f"Cannot use 'in' operator to search for 'url' in {file or 'undefined'}")
    data = await _bytes(world, file)
    converted = bool(body.get("convert")) and kind in {Kind.VOICE, Kind.VIDEO}
    media = Media(
        mimetype=_MIMETYPES[kind] if converted else str(file.get("mimetype") or _MIMETYPES[kind]),
        filename=given(file, "filename"),
        sha256=digest(data),
        size=len(data),
        converted=converted,
        note=bool(body.get("asNote")) and kind is Kind.VIDEO,
    )
    caption = "" if kind is Kind.VOICE else str(body.get("caption") or "")
    return Sendable(caption, Content(kind=kind, media=media), data)


async def _location(_world: World, body: Json) -> Sendable:
    place = Location(_degrees(body, "latitude"), _degrees(body, "longitude"), given(body, "title"))
    return Sendable("", Content(kind=Kind.LOCATION, location=place))


async def _contact(_world: World, body: Json) -> Sendable:
    contacts = body.get("contacts")
    if not isinstance(contacts, list):
        raise EngineError("Cannot read properties of undefined (reading 'map')")
    return Sendable("", Content(kind=Kind.CONTACT, vcards=[_vcard(each) for each in contacts]))


async def _poll(_world: World, body: Json) -> Sendable:
    asked = body.get("poll")
    if not isinstance(asked, dict) or not isinstance(asked.get("options"), list):
        raise EngineError("Cannot read properties of undefined (reading 'name')")
    options = [str(option) for option in asked["options"]]
    poll = Poll(str(asked.get("name") or ""), options, bool(asked.get("multipleAnswers")))
    return Sendable("", Content(kind=Kind.POLL, poll=poll))


READERS: Final[dict[str, Reader]] = {
    "sendText": _text,
    "sendImage": partial(_media, kind=Kind.IMAGE),
    "sendFile": partial(_media, kind=Kind.FILE),
    "sendVoice": partial(_media, kind=Kind.VOICE),
    "sendVideo": partial(_media, kind=Kind.VIDEO),
    "sendLocation": _location,
    "sendContactVcard": _contact,
    "sendPoll": _poll,
}
"""The calls that send a message, by the last part of their paths."""


async def _bytes(world: World, file: Json) -> bytes:
    """Fetch a file directly, as WAHA does, or decode it as leniently as Node."""
    if "url" in file:
        return await _fetched(str(file["url"]))
    if isinstance(file.get("data"), str):
        sextets = _NOT_BASE64.sub("", file["data"].translate({ord("-"): "+", ord("_"): "/"}))
        return binascii.a2b_base64(sextets[: len(sextets) - (len(sextets) % 4 == 1)] + "===")
    if world.engine is Engine.NOWEB:
        raise refused(422, 'Either "file.url" or "file.data" must be specified.')
    raise EngineError(
        "The first argument must be of type string or an instance of Buffer. Received undefined"
    )


async def _fetched(url: str) -> bytes:
    async with httpx.AsyncClient(
        verify=False,  # noqa: S501 (WAHA does not verify)
        trust_env=False,
        follow_redirects=True,
    ) as client:
        try:
            response = await client.get(url)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise EngineError(f"fetch of the file failed: {type(exc).__name__}") from None
    if not response.is_success:
        raise EngineError(f"Request failed with status code {response.status_code}")
    return response.content


def _degrees(body: Json, key: str) -> float:
    value = body.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EngineError(f"{key}: number expected")
    return float(value)


def _vcard(contact: Any) -> str:
    """Return the card that was given, or make one of its parts as WAHA does."""
    if not isinstance(contact, dict):
        raise EngineError("Cannot read properties of undefined (reading 'vcard')")
    if contact.get("vcard"):
        return str(contact["vcard"])
    phone = str(contact.get("phoneNumber") or "")
    who = contact.get("whatsappId") or _DIGITS.sub("", phone)
    organization = f"ORG:{contact['organization']};\n" if contact.get("organization") else ""
    return (
        f"BEGIN:VCARD\nVERSION:3.0\nFN:{contact.get('fullName') or ''}\n{organization}"
        f"TEL;type=CELL;type=VOICE;waid={str(who).partition('@')[0]}:{phone}\nEND:VCARD"
    )
