"""Exits: how a provider of sticky proxies is told which of them is meant, and what an exit must be.

An exit is an identity at a provider: written into the user name or the password, it stays on one address for
as long as the provider keeps it. A session's identity is made of its lease's identifier, which nobody else
has while the lease lasts.

Sources, read in November 2026: Decodo `session` and `sessionduration`, 1 to 1,440 minutes (help.decodo.com,
custom sticky sessions); IPRoyal `_session-` of exactly 8 letters and digits, `_lifetime-` of up to 7 days, in
the password (docs.iproyal.com, rotation); Oxylabs `sessid` and `sesstime`, up to 30 minutes, kept for 60 s of
silence (developers.oxylabs.io, session control); Bright Data `-session-` and `-country-`
(docs.brightdata.com, rotation).
"""

import hashlib
import re
import string
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec

from wsm.core.errors import BadInput
from wsm.core.moments import milliseconds

_ALPHABET = string.digits + string.ascii_lowercase
_SAFE = re.compile(r"[A-Za-z0-9._~-]+\Z")
_ENDPOINT = re.compile(r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?):(?P<port>[1-9][0-9]{0,4})\Z")
_COUNTRY = re.compile(r"[a-z]{2}\Z")
_FIELDS = frozenset({"user", "password", "country", "COUNTRY", "session", "minutes"})
_LOOK_EVERY = timedelta(minutes=5)
_MOST_PORT = 65_535
_MOST_CHARACTERS = 255  # of a user name, and of a password: what RFC 1929 allows, and every proxy takes


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider wants an identity to be written.

    username, password  templates; `{user}` and `{password}` are the account's
    session_characters  how long `{session}` is: letters and digits
    minutes             the shortest and the longest `{minutes}`; None: it cannot be said
    idle_seconds        after so long a silence the identity may move to another address; None: not known
    """

    username: str
    password: str = "{password}"  # noqa: S105
    session_characters: int = 16
    minutes: tuple[int, int] | None = None
    idle_seconds: int | None = None


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "decodo": Provider(
            username="user-{user}-country-{country}-session-{session}-sessionduration-{minutes}",
            minutes=(1, 1_440),
        ),
        "brightdata": Provider(username="{user}-country-{country}-session-{session}"),
        "oxylabs": Provider(
            username="customer-{user}-cc-{COUNTRY}-sessid-{session}-sesstime-{minutes}",
            minutes=(1, 30),
            idle_seconds=60,
        ),
        "iproyal": Provider(
            username="{user}",
            password="{password}_country-{country}_session-{session}_lifetime-{minutes}m",  # noqa: S106
            session_characters=8,
            minutes=(1, 10_080),
        ),
        "generic": Provider(username="{user}-country-{country}-session-{session}"),
    }
)
"""By the name that the settings use; `generic` is for templates of one's own."""


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """One session's way out: an HTTP proxy and who one is there. The secrets are in no repr."""

    host: str
    port: int
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Exit({self.server!r})"

    @property
    def server(self) -> str:
        """`host:port`, without a scheme: with one GOWS builds an address that leads nowhere."""
        return f"{self.host}:{self.port}"

    def as_waha(self) -> dict[str, str]:
        """Write it as WAHA's `config.proxy`."""
        return {"server": self.server, "username": self.username, "password": self.password}


class Pool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account at a provider, from which sessions of one country get their exits.

    provider  a name of `PROVIDERS`
    endpoint  `host:port` of its HTTP proxy
    username, password  the account's; Bright Data's user name is `brd-customer-…-zone-…`
    country   two letters: where an exit must be
    sticky_minutes  how long an identity is asked to stay on its address
    check_url  answers from which address and country one came, as JSON; asked through the exit
    templates  of user name and password, instead of the provider's
    """

    provider: str
    endpoint: str
    username: str
    password: str
    country: str = "br"
    sticky_minutes: int = 30
    check_url: str = ""
    templates: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"Pool({self.provider!r}, {self.endpoint!r})"


class Way(msgspec.Struct, frozen=True):
    """Which identity of which pool a session acts through: a lease says it, settings make an `Exit` of it."""

    pool: str
    identity: str


class Seen(msgspec.Struct, frozen=True):
    """Where an exit came out: its address, and the country in two small letters, None if nobody said."""

    address: str
    country: str | None


def new_identifier(uuid: UUID, now: datetime) -> str:
    """Name a lease: `chip-{uuid}-{milliseconds since 1970}`."""
    return f"chip-{uuid}-{milliseconds(now)}"


def identity(pool: Pool, identifier: str) -> str:
    """The `{session}` of a lease at its provider: as long as it may be there, of letters and digits."""
    digits = int.from_bytes(hashlib.sha256(identifier.encode()).digest())
    said = ""
    for _ in range(_provider(pool).session_characters):
        digits, digit = divmod(digits, len(_ALPHABET))
        said += _ALPHABET[digit]
    return said


def exit_of(pool: Pool, session: str) -> Exit:
    """Write the exit of an `identity`. Raises BadInput naming the pool's field that does not fit."""
    provider = _provider(pool)
    place = _ENDPOINT.match(pool.endpoint)
    if place is None or int(place["port"]) > _MOST_PORT:
        raise BadInput("endpoint", "`host:port` of an HTTP proxy, without a scheme")
    if not _COUNTRY.match(pool.country):
        raise BadInput("country", "two small letters")
    if provider.minutes and not provider.minutes[0] <= pool.sticky_minutes <= provider.minutes[1]:
        raise BadInput("sticky_minutes", f"{provider.minutes[0]} to {provider.minutes[1]} at {pool.provider}")
    values = {
        "user": _safe("username", pool.username),
        "password": _safe("password", pool.password),
        "country": pool.country,
        "COUNTRY": pool.country.upper(),
        "session": session,
        "minutes": str(pool.sticky_minutes),
    }
    username, password = pool.templates or (provider.username, provider.password)
    if "{session}" not in username + password:
        raise BadInput("templates", "without `{session}` all sessions would share one exit")
    return Exit(
        host=place["host"],
        port=int(place["port"]),
        username=_filled("username", username, values),
        password=_filled("password", password, values),
    )


def check_pool(pool: Pool) -> None:
    """Raise BadInput, naming the field and the reason, unless sessions can get exits from a pool."""
    exit_of(pool, identity(pool, "chip"))


def look_every(pool: Pool) -> timedelta:
    """How often an exit is to be looked at while its session runs: it is found out that way when it moves.

    A look is also a sign of life. So it comes twice at least before the provider would drop an identity that
    is silent, or has kept one for as long as it was asked to; every 5 minutes where neither is sooner.
    """
    patience = [_LOOK_EVERY, timedelta(minutes=pool.sticky_minutes) / 2]
    idle_seconds = _provider(pool).idle_seconds
    if idle_seconds is not None:
        patience.append(timedelta(seconds=idle_seconds) / 2)
    return min(patience)


def fault(found: Seen, *, before: str | None, country: str) -> str | None:
    """Say what is wrong with where an exit came out, in one word; None when nothing is.

    before  the address that was found first in this lease
    """
    if found.country is not None and found.country != country:
        return "wrong_country"
    if before is not None and found.address != before:
        return "drift"
    return None


def _provider(pool: Pool) -> Provider:
    if pool.provider not in PROVIDERS:
        raise BadInput("provider", f"one of {', '.join(PROVIDERS)}")
    return PROVIDERS[pool.provider]


def _safe(field: str, value: str) -> str:
    """Refuse what not every engine writes into a proxy's address as it is: GOWS escapes nothing."""
    if not _SAFE.match(value):
        raise BadInput(field, "letters, digits, `.`, `_`, `~` and `-` only, and not empty")
    return value


def _filled(field: str, template: str, values: Mapping[str, Any]) -> str:
    names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    if not names <= _FIELDS:
        raise BadInput("templates", f"unknown field {', '.join(sorted(names - _FIELDS))}")
    said = template.format(**values)
    if len(said) > _MOST_CHARACTERS:
        raise BadInput(field, f"longer than {_MOST_CHARACTERS} characters with everything in it")
    return _safe("templates", said)
