"""The settings: one frozen value, read once from a TOML file and the environment.

An unknown, missing or malformed name stops the start with the name and the reason. No secret has a
default. Code is handed the value that it needs, never the settings.

Sources, the later one wins: the file named by `WSM_CONFIG` (or none), then the environment. Every field is
`WSM_<FIELD>` there; five have the names that everybody knows: `REDIS_URL`, `DATABASE_URL`, `WAHA_URL`,
`WAHA_API_KEY` and `WEBHOOK_HMAC_SECRET`, of which the last three belong to the server `default`.
`deploy/wsm.toml` is the commented manual.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from wsm.core.errors import BadInput

_WELL_KNOWN = {"REDIS_URL": "redis_url", "DATABASE_URL": "database_url"}
_OF_DEFAULT_SERVER = {"WAHA_URL": "url", "WAHA_API_KEY": "api_key", "WEBHOOK_HMAC_SECRET": "hook_secrets"}
_PREFIX = "WSM_"
_NOT_SETTINGS = frozenset({"WSM_CONFIG"})


class WahaServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One WAHA: where it is, and what it shares with wsm.

    hook_secrets  the secrets of its one global hook, two at most while one replaces the other; empty
                  refuses everything at the shared hook.
    """

    url: str = ""
    api_key: str = ""
    hook_secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"WahaServer(url={self.url!r})"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, with its unit in its name. See `deploy/wsm.toml` for what each means."""

    redis_url: str = ""
    database_url: str = ""
    system_database_url: str = ""
    owner_database_url: str = ""
    master_keys: dict[str, str] = {}
    master_key_id: str = ""
    waha: dict[str, WahaServer] = {}

    host: str = "127.0.0.1"
    port: int = 8080
    trusted_proxies: tuple[str, ...] = ()
    ops_port: int = 0
    log_level: str = "info"

    body_limit_bytes: int = 1024 * 1024
    bodies_in_flight_bytes: int = 64 * 1024 * 1024
    header_deadline_seconds: float = 10.0
    body_deadline_seconds: float = 10.0
    keep_alive_seconds: int = 30
    accept_timeout_seconds: float = 2.0
    retry_after_seconds: int = 20
    wait_replicas: int = 0
    redis_durability: str = "check"

    mailbox_entries: int = 10_000
    mailbox_bytes: int = 64 * 1024 * 1024
    all_mailboxes_bytes: int = 512 * 1024 * 1024
    quarantine_entries: int = 10_000

    turn_slots: int = 100
    deliver_slots: int = 100
    turn_entries: int = 200
    lease_seconds: float = 4.0
    drain_seconds: float = 20.0
    database_connections: int = 8

    send_timeout_seconds: float = 150.0
    evidence_seconds: float = 180.0
    stale_days: int = 60

    def __repr__(self) -> str:
        return "Settings(…)"


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings. Raises BadInput with the name and the reason; blocks for one small file at most."""
    values: dict[str, Any] = {}
    if path := environ.get("WSM_CONFIG"):
        values = _read_file(Path(path))
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    for name, text in environ.items():
        if name in _WELL_KNOWN:
            values[_WELL_KNOWN[name]] = text
        elif name in _OF_DEFAULT_SERVER:
            server = values.setdefault("waha", {}).setdefault("default", {})
            server[_OF_DEFAULT_SERVER[name]] = text.split(",") if name == "WEBHOOK_HMAC_SECRET" else text
        elif name.startswith(_PREFIX) and name not in _NOT_SETTINGS:
            field = name.removeprefix(_PREFIX).lower()
            if field not in fields or field == "waha":
                raise BadInput(name, "no such setting")
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


def _pairs(name: str, text: str) -> dict[str, str]:
    """Read `kid:hex,kid:hex`."""
    pairs = dict(part.split(":", 1) for part in text.split(",") if ":" in part)
    if not pairs:
        raise BadInput(name, "write it as `id:hex` pairs, separated by commas")
    return pairs


def _listed(_name: str, text: str) -> list[str]:
    """Read `one,two`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _as_it_is(_name: str, text: str) -> str:
    return text


_FORMS: dict[str, Callable[[str, str], Any]] = {"master_keys": _pairs, "trusted_proxies": _listed}
"""How a variable's text is read where the field is not a plain value."""


def _named(exc: msgspec.ValidationError) -> tuple[str, str]:
    """Split msgspec's message, which ends in the path of the field, without repeating any value."""
    reason, _, path = str(exc).partition(" - at `$.")
    return path.rstrip("`") or "settings", reason


def _check(settings: Settings) -> None:
    for kid, key in settings.master_keys.items():
        try:
            if len(bytes.fromhex(key)) < 32:  # noqa: PLR2004 (256 bits)
                raise BadInput("master_keys", f"key {kid!r} is shorter than 32 bytes")
        except ValueError:
            raise BadInput("master_keys", f"key {kid!r} is not hexadecimal") from None
    if settings.master_keys and settings.master_key_id not in settings.master_keys:
        raise BadInput("master_key_id", "names the master key for new secrets; it is not among master_keys")
    for name, server in settings.waha.items():
        if len(server.hook_secrets) > 2:  # noqa: PLR2004 (the old one and the new one)
            raise BadInput(f"waha.{name}.hook_secrets", "two at most")
        if any(not secret for secret in server.hook_secrets):
            raise BadInput(f"waha.{name}.hook_secrets", "an empty secret is no secret")
    if settings.redis_durability not in {"check", "trust"}:
        raise BadInput("redis_durability", "`check` or `trust`")
