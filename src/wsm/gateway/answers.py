"""The facts in a gateway's answers, whatever the engine (CONTRACT 7.4). None where there is no such fact.

The id of a sent message stands in another place for every engine: GOWS and WPP answer a message with the full
id as text, NOWEB the raw message with the bare id in `key.id`, WEBJS an object of parts. Refusals are told
by their own words alone, never by the request that WAHA repeats in them.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from wsm.core.ids import BareId, ChatId
from wsm.core.moments import moment
from wsm.wire.waha import chat_id, message_id
from wsm.wire.waha_body import milliseconds
from wsm.wire.waha_content import kind

_LEVELS = range(-1, 5)
_LONGEST_WAIT_SECONDS = 7 * 86_400.0
"""That is believed: a lock for new contacts lasts for days."""
_REASONS = (
    (re.compile(r"\berror 463\b"), "reachout_timelock"),
    (re.compile(r"rate-overlimit|\berror 429\b", re.IGNORECASE), "rate_limited"),
    (re.compile(r"message not found", re.IGNORECASE), "message_not_found"),
    (re.compile(r"already exists", re.IGNORECASE), "already_exists"),
    (re.compile(r"noweb store", re.IGNORECASE), "store_disabled"),
    (re.compile(r"^cannot (get|post|put|delete) ", re.IGNORECASE), "no_such_call"),
    (re.compile(r"timed out|maximum execution time", re.IGNORECASE), "engine_timeout"),
    (re.compile(r"connection closed", re.IGNORECASE), "engine_disconnected"),
)
_BY_STATUS = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    413: "too_large",
    422: "unprocessable",
    429: "rate_limited",
    500: "engine_error",
    501: "not_implemented",
    502: "bad_gateway",
    503: "gateway_away",
    504: "gateway_timeout",
}


class Found(msgspec.Struct, frozen=True):
    """A message that the gateway has. ack: -1 error, 0 pending, 1 server, 2 device, 3 read, 4 played."""

    id: BareId
    ack: int | None
    body: str
    kind: str = "text"


class SessionInfo(msgspec.Struct, frozen=True):
    """A session as its gateway describes it; `me` is the linked number. The rest has secrets and is left."""

    name: str
    status: str
    engine: str | None
    me: ChatId | None


def bare_id(answer: object) -> BareId | None:
    """Find the bare id of a message in any engine's answer."""
    message = _table(answer)
    id_ = message.get("id")
    data = _table(message.get("_data"))
    for candidate in (
        id_,
        _table(id_).get("id"),
        _table(id_).get("_serialized"),
        _table(message.get("key")).get("id"),
        _table(data.get("key")).get("id"),
        _table(data.get("id")).get("id"),
    ):
        found = message_id(candidate)
        if found and not found.opaque:
            return found.bare
    return None


def found(answer: object) -> Found | None:
    """Read one message."""
    message = _table(answer)
    id_ = bare_id(message)
    if id_ is None:
        return None
    ack, body = message.get("ack"), message.get("body")
    level = ack if isinstance(ack, int) and not isinstance(ack, bool) and ack in _LEVELS else None
    return Found(id_, level, body if isinstance(body, str) else "", kind(message))


def chat(answer: object) -> tuple[ChatId, int | None] | None:
    """Read a chat of the overview: its id, and the time of its last message in seconds."""
    summary = _table(answer)
    id_ = chat_id(summary.get("id"))
    if id_ is None:
        return None
    at = _table(summary.get("lastMessage")).get("timestamp")
    return id_, int(at) if isinstance(at, int | float) and not isinstance(at, bool) else None


def session_info(answer: object) -> SessionInfo | None:
    """Read a session's description."""
    session = _table(answer)
    name, status = session.get("name"), session.get("status")
    if not isinstance(name, str) or not isinstance(status, str):
        return None
    engine = _table(session.get("engine")).get("engine")
    return SessionInfo(
        name,
        status,
        engine if isinstance(engine, str) else None,
        chat_id(_table(session.get("me")).get("id")),
    )


def text_of(answer: object, name: str) -> str | None:
    """Find a text by its name: `value` of a code to scan, `code` of one to type or to compare."""
    value = _table(answer).get(name)
    return value if isinstance(value, str) and value else None


def person(answer: object) -> ChatId | None:
    """Read under which id somebody is reached whose number was asked for; None: he is not on WhatsApp."""
    return chat_id(_table(answer).get("chatId")) if _table(answer).get("numberExists") is True else None


def hidden_pair(answer: object) -> tuple[ChatId | None, ChatId | None] | None:
    """Read a hidden id and the phone's chat id behind it; None stands for the one that is not known.

    None altogether for an answer that names neither: whoever asked named one.
    """
    lid, phone = chat_id(_table(answer).get("lid")), chat_id(_table(answer).get("pn"))
    lid = lid if lid and lid.endswith("@lid") else None
    phone = phone if phone and phone.endswith("@c.us") else None
    return None if lid is phone is None else (lid, phone)


def config_of(answer: object) -> object:
    """Find a session's configuration, verbatim: there are secrets in it, and it belongs in no log."""
    return _table(answer).get("config")


def reason(status: int, answer: object) -> str:
    """Classify a refusal in one word of a closed list."""
    refusal = _table(answer)
    if status == 422 and "statusCode" not in refusal and "session" in refusal:  # noqa: PLR2004
        return "session_not_working"
    words = _words(refusal)
    return next((word for pattern, word in _REASONS if pattern.search(words)), None) or _BY_STATUS.get(
        status, "refused"
    )


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After: seconds, or a date as far from the answer's own; None where it makes no sense."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return min(float(said), _LONGEST_WAIT_SECONDS)
    try:
        wait = parsedate_to_datetime(said) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    return min(max(0.0, wait.total_seconds()), _LONGEST_WAIT_SECONDS)


def until(answer: object) -> datetime | None:
    """Find when WhatsApp's lock ends: `until` beside the code or in its details, as a time or a timestamp."""
    exception = _table(_table(answer).get("exception"))
    for place in (_table(answer).get("error"), exception, exception.get("details")):
        said = _table(place).get("until")
        if isinstance(said, str):
            with suppress(ValueError):
                at = datetime.fromisoformat(said)
                return at if at.tzinfo else at.replace(tzinfo=UTC)
        if (at_ms := milliseconds(said)) is not None:
            return moment(at_ms)
    return None


def _words(refusal: dict[str, Any]) -> str:
    """Take the refusal's own words: Nest's `message`, `detail`, the exception's; never the request's."""
    for value in (
        _table(refusal.get("exception")).get("message"),
        refusal.get("message"),
        refusal.get("detail"),
    ):
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return " ".join(str(part) for part in value)
    return ""


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
