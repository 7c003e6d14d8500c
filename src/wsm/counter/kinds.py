"""The arguments of each kind that can be sent, and what is made of them."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

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
    Text,
    Typing,
    Video,
    Voice,
)
from wsm.core.ids import BareId
from wsm.core.phones import phone_digits
from wsm.wire.waha import message_id

Build = Callable[[argparse.Namespace], Content]
"""Makes what is to be sent of a command's arguments."""


def _nothing(_: argparse.ArgumentParser) -> None:
    """Add no more arguments."""


def _add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text")


def _add_reply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reply_to", metavar="ID", type=bare, help="the message that it answers")
    parser.add_argument("text")


def _add_file(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=Path, metavar="PATH", help="on this machine; it is stored first")
    source.add_argument("--url", help="fetched when it is sent, through the session's exit")
    source.add_argument("--stored", type=int, metavar="N", help="its number in the tenant's store")
    parser.add_argument("--filename", metavar="NAME", help="what the customer sees it called")
    parser.add_argument("--mimetype", metavar="TYPE", help="where its bytes do not say it")


def _add_captioned(parser: argparse.ArgumentParser) -> None:
    _add_file(parser)
    parser.add_argument("--caption", default="")


def _add_location(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latitude", type=float, help="degrees, north positive")
    parser.add_argument("longitude", type=float, help="degrees, east positive")
    parser.add_argument("--title", default="")


def _add_contact(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("phone", help="with country code")
    parser.add_argument("--organization", default="")


def _add_poll(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question")
    parser.add_argument("option", nargs="+")
    parser.add_argument("--multiple", action="store_true", help="more than one may be chosen")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="ID", type=bare, help="the message")


def _add_reaction(parser: argparse.ArgumentParser) -> None:
    _add_target(parser)
    parser.add_argument("emoji", help="empty takes an earlier one back")


def _add_edit(parser: argparse.ArgumentParser) -> None:
    _add_target(parser)
    parser.add_argument("text")


def _source(arguments: argparse.Namespace) -> MediaSource:
    """Say where a file comes from; one of this machine has no number yet."""
    return MediaSource(
        stored=1 if arguments.file is not None else arguments.stored,
        url=arguments.url,
        mimetype=arguments.mimetype,
        filename=arguments.filename or (arguments.file.name if arguments.file is not None else None),
    )


_Kind = tuple[Callable[[argparse.ArgumentParser], None], Build, str]
KINDS: Mapping[str, _Kind] = {
    "text": (_add_words, lambda said: Text(text=said.text, reply_to=said.reply_to), "a text"),
    "reply": (_add_reply, lambda said: Text(text=said.text, reply_to=said.reply_to), "a text that answers"),
    "image": (
        _add_captioned,
        lambda said: Image(media=_source(said), caption=said.caption, reply_to=said.reply_to),
        "a picture: JPEG or PNG",
    ),
    "file": (
        _add_captioned,
        lambda said: File(media=_source(said), caption=said.caption, reply_to=said.reply_to),
        "any file",
    ),
    "voice": (_add_file, lambda said: Voice(media=_source(said), reply_to=said.reply_to), "a voice note"),
    "video": (
        _add_captioned,
        lambda said: Video(media=_source(said), caption=said.caption, reply_to=said.reply_to),
        "a video",
    ),
    "location": (
        _add_location,
        lambda said: Location(
            latitude=said.latitude, longitude=said.longitude, title=said.title, reply_to=said.reply_to
        ),
        "a place",
    ),
    "contact": (
        _add_contact,
        lambda said: Contact(
            name=said.name,
            phone=phone_digits("phone", said.phone),
            organization=said.organization,
            reply_to=said.reply_to,
        ),
        "somebody's card",
    ),
    "poll": (
        _add_poll,
        lambda said: Poll(
            question=said.question,
            options=tuple(said.option),
            multiple=said.multiple,
            reply_to=said.reply_to,
        ),
        "a question with answers to choose from",
    ),
    "reaction": (
        _add_reaction,
        lambda said: Reaction(target=said.target, emoji=said.emoji),
        "an emoji on a message",
    ),
    "edit": (_add_edit, lambda said: Edit(target=said.target, text=said.text), "other words for an own text"),
    "delete": (_add_target, lambda said: Revoke(target=said.target), "delete an own message for everyone"),
    "seen": (_nothing, lambda _: Seen(), "mark the chat as read"),
    "typing": (_nothing, lambda _: Typing(), "show that somebody types"),
}
"""By the command's name: what adds its arguments, what is made of them, and what it is."""

REPLIES = frozenset({"text", "image", "file", "voice", "video", "location", "contact", "poll"})
"""Which of them may answer an earlier message, by an option."""


def bare(text: str) -> BareId:
    """Read a message's id off the command line: the full one, or its third part."""
    found = message_id(text)
    if found is None or found.opaque:
        raise argparse.ArgumentTypeError("is no message's id")
    return found.bare
