"""The settings: one frozen value, read once from a TOML file and the environment.

An unknown, missing or malformed name stops the start with the name and the reason. No secret has a
default. Code is handed the value that it needs, never the settings.

Sources, the later one wins: the file named by `WSM_CONFIG` (or none), then the environment. Every field is
`WSM_<FIELD>` there; five have the names that everybody knows: `REDIS_URL`, `DATABASE_URL`, `WAHA_URL`,
`WAHA_API_KEY` and `WEBHOOK_HMAC_SECRET`, of which the last three belong to the server `default`.
`deploy/wsm.toml` is the commented manual.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from wsm.core.errors import BadInput
from wsm.core.exits import Pool, check_pool
from wsm.core.pacing import Pace

_WELL_KNOWN = {"REDIS_URL": "redis_url", "DATABASE_URL": "database_url"}
_OF_DEFAULT_SERVER = {"WAHA_URL": "url", "WAHA_API_KEY": "api_key", "WEBHOOK_HMAC_SECRET": "hook_secrets"}
_PREFIX = "WSM_"
_TABLES = frozenset({"waha", "exits"})
"""Settings that only a file can hold whole."""
_NOT_SETTINGS = frozenset({"WSM_CONFIG"})
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,16}\Z")
_QUEUE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
_MEDIA_TYPE = re.compile(r"[a-z]+/(?:[a-z0-9.+-]+|\*)\Z")
_MEDIA_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\Z")
_SCHEMES = {
    "redis_url": {"redis", "rediss", "redis+sentinel", "unix"},
    "database_url": {"postgresql", "postgres"},
    "system_database_url": {"postgresql", "postgres"},
    "owner_database_url": {"postgresql", "postgres"},
    "webhooks_url": {"http", "https"},
}
SENTINEL_URL = re.compile(
    r"redis\+sentinel://(?:(?P<username>[^:@/]*):(?P<password>[^:@/]*)@)?"
    r"(?P<hosts>(?:\[[0-9A-Fa-f:.]+\]|[^][@/:,\s]+):[1-9]\d{0,4}"
    r"(?:,(?:\[[0-9A-Fa-f:.]+\]|[^][@/:,\s]+):[1-9]\d{0,4})*)"
    r"/(?P<service>[A-Za-z0-9._-]+)"
)
"""How a URL of sentinels is written: urlsplit knows one host only."""
_DATABASE_URL = re.compile(
    r"postgres(?:ql)?://(?:[^\s@/?]*@)?"
    r"(?:(?:\[[0-9A-Fa-f:.%]+\]|[^][\s@/?:,]*)(?::\d{0,5})?(?:,(?=[^/?])|(?=[/?]|\Z)))*"
    r"(?:/[^\s@?]*)?(?:\?[^\s@]*)?"
)
"""What libpq takes apart as it was meant. Of anything else it would complain with a piece of the password."""
_WORDS = {
    "log_level": ("debug", "info", "warning", "error"),
    "redis_durability": ("check", "trust"),
}

_HOLD_A_BODY = (
    "bodies_in_flight_bytes",
    "accept_queue_bytes",
    "mailbox_bytes",
    "all_mailboxes_bytes",
    "quarantine_bytes",
)

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=2**50)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class WahaServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One WAHA: where it is, and what it shares with wsm.

    capacity      so many sessions may be placed on it; WAHA's own pages say 500 for GOWS, 100 to 500 for
                  NOWEB, 50 for browsers (CONTRACT 9)
    route         private: sessions reach it without their exits, which it uses itself; public: through them
    hook_secrets  the secrets of its one global hook, two at most while one replaces the other; empty
                  refuses everything at the shared hook.
    """

    url: str = ""
    api_key: str = ""
    capacity: Annotated[int, Meta(ge=1, le=100_000)] = 500
    route: Literal["private", "public"] = "private"
    hook_secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "WahaServer(…)"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, with its unit in its name. See `deploy/wsm.toml` for what each means."""

    redis_url: str = ""
    database_url: str = ""
    system_database_url: str = ""
    owner_database_url: str = ""
    master_keys: dict[str, str] = {}
    master_key_id: str = ""
    waha: dict[str, WahaServer] = {}
    exits: dict[str, Pool] = {}
    webhooks_url: str = ""
    pace: Pace = Pace()

    host: str = "127.0.0.1"
    port: Port = 8080
    trusted_proxies: tuple[str, ...] = ()
    ops_port: Port = 0
    log_level: str = "info"

    body_limit_bytes: Bytes = 1024 * 1024
    bodies_in_flight_bytes: Bytes = 64 * 1024 * 1024
    header_deadline_seconds: Seconds = 10.0
    body_deadline_seconds: Seconds = 10.0
    keep_alive_seconds: Annotated[int, Meta(ge=5, le=3600)] = 30
    connections: Annotated[int, Meta(ge=1, le=100_000)] = 4_000
    requests_in_flight: Count = 1_000
    accept_timeout_seconds: Seconds = 2.0
    accept_queue_entries: Count = 2_048
    accept_queue_bytes: Bytes = 32 * 1024 * 1024
    retry_after_seconds: Annotated[int, Meta(ge=1, le=3600)] = 20
    wait_replicas: Annotated[int, Meta(ge=0, le=10)] = 0
    redis_durability: str = "check"

    mailbox_entries: Annotated[int, Meta(ge=1)] = 10_000
    mailbox_bytes: Bytes = 64 * 1024 * 1024
    all_mailboxes_bytes: Bytes = 512 * 1024 * 1024
    quarantine_entries: Count = 10_000
    quarantine_bytes: Bytes = 16 * 1024 * 1024
    dead_letters: Count = 1_000

    turn_slots: Count = 100
    deliver_slots: Count = 100
    turn_entries: Annotated[int, Meta(ge=1, le=2000)] = 200  # Lua takes some 8,000 arguments
    lease_seconds: Annotated[float, Meta(ge=2, le=600)] = 4.0  # renewed every second
    drain_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 20.0
    database_connections: Annotated[int, Meta(ge=1, le=1000)] = 8
    job_queues: tuple[str, ...] = ("jobs",)
    job_slots: Annotated[int, Meta(ge=1, le=500)] = 20  # a thread each

    starts_per_second: Annotated[float, Meta(gt=0, le=1000)] = 2.0
    send_timeout_seconds: Seconds = 150.0
    evidence_seconds: Seconds = 180.0
    media_limit_bytes: Annotated[int, Meta(ge=1, le=36 * 1024 * 1024)] = 16 * 1024 * 1024  # WAHA's bodies
    media_in_flight_bytes: Bytes = 64 * 1024 * 1024
    media_types: tuple[str, ...] = ()
    media_hosts: tuple[str, ...] = ()
    media_days: Annotated[int, Meta(ge=7, le=3650)] = 30  # a campaign waits for 7 days
    stale_days: Annotated[int, Meta(ge=2, le=3650)] = 60  # WAHA repeats for up to 44 hours
    catch_up_after_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    catch_up_hours: Annotated[int, Meta(ge=1, le=720)] = 72
    answer_backfilled_minutes: Annotated[int, Meta(ge=0, le=10_080)] = 30

    def __repr__(self) -> str:
        return "Settings(…)"


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings. Raises BadInput with the name and the reason; blocks for one small file at most."""
    values: dict[str, Any] = {}
    if path := environ.get("WSM_CONFIG"):
        values = _read_file(Path(path))
    given: dict[str, str] = {}
    for name, text in environ.items():
        if name in _OF_DEFAULT_SERVER:
            server = _table(_table(values, "waha"), "default", "waha.default")
            server[_OF_DEFAULT_SERVER[name]] = text.split(",") if name == "WEBHOOK_HMAC_SECRET" else text
        elif field := _field(name):
            if field in given:
                raise BadInput(name, f"means the same as {given[field]}: set one of them")
            given[field] = name
            values[field] = _FORMS.get(field, _as_it_is)(name, text)
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise BadInput(*_named(exc)) from None
    _check(settings)
    return settings


def master_key(settings: Settings, kid: str) -> bytes:
    """Return the master key `kid` as bytes. Raises BadInput when it is not configured."""
    try:
        return bytes.fromhex(settings.master_keys[kid])
    except KeyError:
        raise BadInput("master_keys", f"no key named {kid!r}") from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise BadInput("WSM_CONFIG", f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise BadInput("WSM_CONFIG", f"{path} is not TOML: {exc}") from exc


def _field(name: str) -> str | None:
    """Return the field that a variable sets; None for one that is not wsm's. Raises BadInput."""
    if name in _WELL_KNOWN:
        return _WELL_KNOWN[name]
    if not name.startswith(_PREFIX) or name in _NOT_SETTINGS:
        return None
    field = name.removeprefix(_PREFIX).lower()
    if field not in Settings.__struct_fields__ or field in _TABLES:
        raise BadInput(name, "no such setting")
    return field


def _table(values: dict[str, Any], name: str, path: str = "") -> dict[str, Any]:
    """Return the table `name`, made if missing. Raises BadInput when something else has that name."""
    found = values.setdefault(name, {})
    if not isinstance(found, dict):
        raise BadInput(path or name, "must be a table")
    return found


def _pairs(name: str, text: str) -> dict[str, str]:
    """Read `kid:hex,kid:hex`."""
    pairs = [part.split(":", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs) or len({kid for kid, *_ in pairs}) < len(pairs):  # noqa: PLR2004
        raise BadInput(name, "write it as `id:hex` pairs, separated by commas, each id once")
    return {kid.strip(): key.strip() for kid, key in pairs}


def _listed(_name: str, text: str) -> list[str]:
    """Read `one,two`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _inline(name: str, text: str) -> dict[str, Any]:
    """Read `field = value, field = value`, as TOML's tables are written on a line."""
    try:
        found: dict[str, Any] = tomllib.loads(f"it = {{ {text} }}")["it"]
    except tomllib.TOMLDecodeError:
        raise BadInput(name, "write it as `field = value` pairs, separated by commas") from None
    return found


def _as_it_is(_name: str, text: str) -> str:
    return text


_FORMS: dict[str, Callable[[str, str], Any]] = {
    "master_keys": _pairs,
    "trusted_proxies": _listed,
    "job_queues": _listed,
    "pace": _inline,
    "media_types": _listed,
    "media_hosts": _listed,
}
"""How a variable's text is read where the field is not a plain value."""


def _named(exc: msgspec.ValidationError) -> tuple[str, str]:
    """Split msgspec's message, which ends in the path of the field, and repeats no value but an odd word."""
    reason, _, path = str(exc).partition(" - at `$.")
    if reason.startswith("Invalid enum value"):
        reason = "is none of the words that it may be"
    return path.rstrip("`") or "settings", reason


def _check(settings: Settings) -> None:
    for field, words in _WORDS.items():
        if getattr(settings, field) not in words:
            raise BadInput(field, f"must be one of {', '.join(words)}")
    for field, schemes in _SCHEMES.items():
        if url := getattr(settings, field):
            _check_url(field, url, schemes)
    _check_keys(settings)
    _check_queues(settings.job_queues)
    for name, server in settings.waha.items():
        _check_server(f"waha.{name}", server)
    for name, pool in settings.exits.items():
        try:
            check_pool(pool)
        except BadInput as exc:
            raise BadInput(f"exits.{name}.{exc.field}", exc.reason) from None
    _check_sizes(settings)
    for field in ("first_gap_seconds", "typing_seconds", "campaign_hours"):
        least, most = getattr(settings.pace, field)
        if least > most:
            raise BadInput(f"pace.{field}", "the first of the two is not the smaller one")
    _check_media(settings)


def _check_sizes(settings: Settings) -> None:
    """Refuse what does not fit to another setting."""
    if settings.catch_up_hours > settings.stale_days * 24:
        raise BadInput("catch_up_hours", "reaches back behind stale_days: what was seen before is forgotten")
    for field in _HOLD_A_BODY:
        if getattr(settings, field) < settings.body_limit_bytes:
            raise BadInput(field, "is less than body_limit_bytes: the longest body would never fit")
    if settings.media_in_flight_bytes < settings.media_limit_bytes:
        raise BadInput("media_in_flight_bytes", "is less than media_limit_bytes: such a file would never fit")


def _check_media(settings: Settings) -> None:
    """Refuse entries of lists that would never match anything."""
    if not all(map(_MEDIA_TYPE.match, settings.media_types)):
        raise BadInput("media_types", "each is written like image/jpeg or image/*, in small letters")
    if not all(map(_MEDIA_HOST.match, settings.media_hosts)):
        raise BadInput("media_hosts", "each is a host's name, or *. and a name, without scheme and port")


def _check_server(table: str, server: WahaServer) -> None:
    if len(server.hook_secrets) > 2:  # noqa: PLR2004 (the old one and the new one)
        raise BadInput(f"{table}.hook_secrets", "two at most")
    if any(not secret for secret in server.hook_secrets):
        raise BadInput(f"{table}.hook_secrets", "an empty secret is no secret")
    if server.route == "public" and not server.url.startswith("https://"):
        raise BadInput(f"{table}.route", "public needs https://: exits would read the API key")


def _check_url(field: str, url: str, schemes: set[str]) -> None:
    """Refuse what no driver would take. Nothing of a URL is repeated: it may have a password in it."""
    if url.partition("://")[0] not in schemes or "://" not in url:
        raise BadInput(field, f"must be a URL that begins with {' or '.join(sorted(schemes))}://")
    if re.search(r"%(?![0-9A-Fa-f]{2})", url):
        raise BadInput(field, "a % in it must be written %25")
    if url.startswith("redis+sentinel://"):
        if not SENTINEL_URL.fullmatch(url):
            raise BadInput(field, "is written redis+sentinel://user:password@host:port,host:port/service")
        return
    if field.endswith("database_url"):  # it may name several hosts
        if not _DATABASE_URL.fullmatch(url):
            raise BadInput(field, "in a name or password, write @ / ? and spaces as %40 %2F %3F %20")
        return
    try:
        fits = urlsplit(url).port != 0 and "@" not in urlsplit(url).path and not re.search(r"\s", url)
    except ValueError:
        fits = False
    if not fits:
        raise BadInput(field, "is no URL: host, port and path must be written as in any other")


def _check_queues(names: tuple[str, ...]) -> None:
    """Refuse names that a tenant's queue may have, or that stands for all of these."""
    if not all(map(_QUEUE_NAME.match, names)) or "tenants" in names or len({*names}) < len(names):
        raise BadInput("job_queues", "a name begins with a letter, stands there once, and is not `tenants`")


def _check_keys(settings: Settings) -> None:
    """Refuse master keys that are none. An id is repeated only once it is known to be one."""
    for kid, key in settings.master_keys.items():
        if not _KEY_ID.match(kid):
            raise BadInput(
                "master_keys", "an id has 1 to 16 letters, digits, `_` and `-`; the key comes after it"
            )
        try:
            if len(bytes.fromhex(key)) < 32:  # noqa: PLR2004 (256 bits)
                raise BadInput("master_keys", f"key {kid!r} is shorter than 32 bytes")
        except ValueError:
            raise BadInput("master_keys", f"key {kid!r} is not hexadecimal") from None
    if settings.master_keys and settings.master_key_id not in settings.master_keys:
        raise BadInput("master_key_id", "names the master key for new secrets; it is not among master_keys")
