"""The parser of `wsm send` and `wsm media`, and what they do.

`wsm send` checks what can be known now and asks at the front door; what it asked for leaves when its turn has
come. With `--key` it may be repeated: what bears the same key is sent once.
"""

import argparse
import asyncio
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wsm.config import Settings
from wsm.core import media as files
from wsm.core.addresses import is_listed, place_of
from wsm.core.content import (
    Content,
    File,
    MediaSource,
    SendClass,
    check,
    is_message,
    needs_media,
    target_of,
)
from wsm.core.engines import check_way
from wsm.core.errors import BadInput, NotFound, TooLarge
from wsm.core.events import Origin
from wsm.core.ids import ChatAddress, ChatId, SessionName, TenantId
from wsm.core.moments import milliseconds
from wsm.core.turn import check_target
from wsm.counter.kinds import KINDS, REPLIES, bare
from wsm.desk import add_verb, tenant_number
from wsm.sandbox.screen import plain
from wsm.wire.waha import chat_id, chat_kind, send_command

if TYPE_CHECKING:
    from wsm.desk import Commands
    from wsm.store.database import Database

_KEY_CHARACTERS = 200
_LONGEST_WAIT, _JUST_NOW = timedelta(days=30), timedelta(minutes=1)
_SPAN = re.compile(r"(\d{1,6})([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_BY_HAND = (SendClass.AGENT, SendClass.BOT, SendClass.SURVEY, SendClass.CAMPAIGN)


def add_sends(commands: "Commands", settings: Callable[[], Settings]) -> None:
    """Add `send` and `media`. settings: reads them when a command runs."""
    send = commands.add_parser("send", help="send something into a chat, when its turn has come")
    send.add_argument("tenant", type=tenant_number)
    send.add_argument("chat", help="a phone number with country code, or a chat id")
    kinds = send.add_subparsers(metavar="KIND", required=True)
    for name, (add, build, text) in KINDS.items():
        parser = add_verb(kinds, name, _send, settings, text)
        parser.set_defaults(build=build)
        add(parser)
        _add_options(parser, replies=name in REPLIES)
    media = commands.add_parser("media", help="a tenant's store of files to send")
    verbs = media.add_subparsers(metavar="VERB", required=True)
    put = add_verb(verbs, "add", _media_add, settings, "put a file in, and print its number")
    listed = add_verb(verbs, "list", _media_list, settings, "what there is")
    for parser in (put, listed):
        parser.add_argument("tenant", type=tenant_number)
    put.add_argument("path", type=Path)


def _add_options(parser: argparse.ArgumentParser, *, replies: bool) -> None:
    if replies:
        parser.add_argument("--reply-to", metavar="ID", type=bare, help="the message that it answers")
    parser.add_argument("--session", help="which of the tenant's sessions, if he has several")
    parser.add_argument(
        "--class",
        dest="send_class",
        type=SendClass,
        choices=_BY_HAND,
        default=SendClass.AGENT,
        metavar="CLASS",
        help=f"{', '.join(_BY_HAND)}: the more urgent first (agent)",
    )
    parser.add_argument("--key", help="what bears the same key is sent once")
    when = "a time (2026-11-20T12:00-03:00), or from now: 90s, 10m, 2h, 3d"
    parser.add_argument("--not-before", metavar="WHEN", help=when)
    parser.add_argument("--expires", metavar="WHEN", help=f"not sent after it: {when}")


async def _send(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import front_door, tenant_reads, utc_now  # noqa: PLC0415 (each loads its own parts)
    from wsm.streams.handover import Offer  # noqa: PLC0415

    now, content = utc_now(), arguments.build(arguments)
    check(content)
    times = _times(arguments, now)
    name = _key(arguments.key)
    async with tenant_reads(settings) as database:
        address = await _checked(database, arguments, content)
        if (source := needs_media(content)) is not None:
            stored = await _stored(database, arguments, settings, content, source)
            content = msgspec.structs.replace(content, media=stored)
    body = send_command(address, content, id=name, by="cli", send_class=arguments.send_class, **times)
    offer = Offer(address.tenant, address.session, Origin.CLI, milliseconds(now), body)
    async with front_door(settings) as handover:
        await handover.accept([offer])
    print(f"asked to send this to {plain(address.chat)}, under the key {plain(name)}")


async def _checked(database: "Database", arguments: argparse.Namespace, content: Content) -> ChatAddress:
    """Find the chat, and refuse what its session cannot send there."""
    from wsm.store import reads  # noqa: PLC0415

    address, conversation, engine = await _address(database, arguments)
    check_way(content, engine, chat_kind(address.chat))
    if conversation is None:
        if not is_message(content):
            raise NotFound(f"tenant {address.tenant} has no conversation with that chat")
        check_target(content, {}, 0)
    elif (target := target_of(content)) is not None:
        found = await reads.targets(database, address.tenant, conversation, target)
        check_target(content, {(conversation, row.bare_id): row.from_me for row in found}, conversation)
    return address


async def _address(
    database: "Database", arguments: argparse.Namespace
) -> tuple[ChatAddress, int | None, str | None]:
    """Find the one chat that a command names: with its conversation, if there is one, and its engine."""
    from wsm.store import reads  # noqa: PLC0415

    tenant: TenantId = arguments.tenant
    chat: ChatId | None = chat_id(arguments.chat)
    if chat is None:
        raise BadInput("chat", "a phone number with country code, or a chat id")
    sessions = {row.name: row.engine for row in await reads.sessions(database, tenant)}
    named = SessionName(arguments.session) if arguments.session else None
    if not sessions or (named is not None and named not in sessions):
        raise NotFound(f"tenant {tenant} has no such session")
    rows = await reads.conversations(database, tenant, [chat], named)
    at = [(SessionName(row.session), ChatId(row.chat_id), row.id) for row in rows]
    if not at:
        at = [(named, chat, None)] if named else [(SessionName(each), chat, None) for each in sessions]
    if len(at) > 1:
        raise BadInput("--session", f"needed: one of {', '.join(session for session, *_ in at)}")
    [(session, answered, conversation)] = at
    return ChatAddress(tenant, session, answered), conversation, sessions[session]


async def _stored(
    database: "Database",
    arguments: argparse.Namespace,
    settings: Settings,
    content: Content,
    source: MediaSource,
) -> MediaSource:
    """Put a file of this machine into the store, once it is known to be fit for what it is sent as."""
    from wsm.bootstrap import utc_now  # noqa: PLC0415
    from wsm.store import media  # noqa: PLC0415

    if arguments.file is None:
        if source.url is not None and not is_listed(place_of(source.url).host, settings.media_hosts):
            raise BadInput("--url", "its host is not among media_hosts")
        if source.stored is not None and await media.size(database, arguments.tenant, source.stored) is None:
            raise NotFound(f"the store has no file {source.stored}")
        return source
    file = await _read(arguments.file, settings.media_limit_bytes)
    fit = files.loaded(content, file, types=settings.media_types)
    number = await media.put(
        database, arguments.tenant, file, mimetype=fit.mimetype, filename=fit.filename, now=utc_now()
    )
    return msgspec.structs.replace(source, stored=number)


async def _media_add(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads, utc_now  # noqa: PLC0415
    from wsm.store import media  # noqa: PLC0415

    file = await _read(arguments.path, settings.media_limit_bytes)
    source = MediaSource(stored=1, filename=arguments.path.name)
    whole = File(media=source)
    check(whole)
    fit = files.loaded(whole, file, types=settings.media_types)
    async with tenant_reads(settings) as database:
        number = await media.put(
            database, arguments.tenant, file, mimetype=fit.mimetype, filename=fit.filename, now=utc_now()
        )
    print(f"{number}  {fit.mimetype}  {len(file)} bytes")


async def _media_list(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import media  # noqa: PLC0415

    async with tenant_reads(settings) as database:
        rows = await media.listed(database, arguments.tenant)
    for row in rows:
        name = plain(row.filename or "-")
        print(f"{row.id:<6} {row.mimetype:<28} {row.bytes:>10} bytes  used {row.used_at:%Y-%m-%d}  {name}")
    if not rows:
        print("the store is empty")


async def _read(path: Path, limit_bytes: int) -> bytes:
    """Read a file that is not too long."""

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(limit_bytes + 1)

    try:
        content = await asyncio.to_thread(read)
    except OSError as exc:
        raise BadInput("--file", f"cannot read it: {exc.strerror}") from exc
    if len(content) > limit_bytes:
        raise TooLarge(limit_bytes)
    return content


def _key(text: str | None) -> str:
    if text is None:
        return uuid.uuid4().hex
    if not text.strip() or len(text) > _KEY_CHARACTERS or not text.isprintable():
        raise BadInput("--key", f"1 to {_KEY_CHARACTERS} characters")
    return text


def _times(arguments: argparse.Namespace, now: datetime) -> dict[str, Any]:
    """Read between when it may leave."""
    not_before = _moment("--not-before", arguments.not_before, now)
    expires = _moment("--expires", arguments.expires, now)
    if expires is not None and expires <= max(now, not_before or now):
        raise BadInput("--expires", "is over before it may leave")
    return {
        "not_before_ms": None if not_before is None else milliseconds(not_before),
        "expires_ms": None if expires is None else milliseconds(expires),
    }


def _moment(option: str, text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    if span := _SPAN.match(text):
        at = now + timedelta(**{_UNITS[span[2]]: int(span[1])})
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise BadInput(option, "a time like 2026-11-20T12:00-03:00, or a span like 10m") from None
        if at.tzinfo is None:
            raise BadInput(option, "a time needs its zone, like -03:00")
    if at > now + _LONGEST_WAIT:
        raise BadInput(option, f"at most {_LONGEST_WAIT.days} days from now")
    if at < now - _JUST_NOW:
        raise BadInput(option, "is over")
    return at.astimezone(UTC)
