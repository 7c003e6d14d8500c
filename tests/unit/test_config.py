"""The settings: what is odd stops the start with its name and the reason, and no secret is ever repeated."""

import re
from pathlib import Path

import msgspec
import pytest

from wsm.config import Settings, WahaServer, load, master_key
from wsm.core.errors import BadInput
from wsm.core.pacing import Pace

KEY = "5ec2e7" * 11
PASSWORD = "pässwörd-5ec2e7"
GOOD = {
    "REDIS_URL": f"redis://:{PASSWORD}@cache:6379/0",
    "DATABASE_URL": f"postgresql://wsm_app:{PASSWORD}@one:5432,two:5432/wsm",
    "WSM_MASTER_KEYS": f"k1:{KEY}, k2:{KEY}",
    "WSM_MASTER_KEY_ID": "k2",
    "WAHA_URL": "http://waha:3000",
    "WAHA_API_KEY": f"{PASSWORD}-api",
    "WEBHOOK_HMAC_SECRET": f"{PASSWORD}-old,{PASSWORD}-new",
    "PATH": "/usr/bin",
}


def refused(**changes: str) -> BadInput:
    """Load good settings with changes, which must be refused; the error must repeat no secret."""
    with pytest.raises(BadInput) as caught:
        load({**GOOD, **changes})
    told = f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {caught.value.args}"
    assert "5ec2e7" not in told, told
    assert "\n" not in str(caught.value)
    return caught.value


def test_everything_comes_from_the_environment() -> None:
    settings = load(GOOD)
    assert settings.redis_url == GOOD["REDIS_URL"]
    assert settings.waha["default"].hook_secrets == (f"{PASSWORD}-old", f"{PASSWORD}-new")
    assert master_key(settings, "k1") == bytes.fromhex(KEY)


@pytest.mark.parametrize("field", msgspec.structs.fields(Settings), ids=lambda field: field.name)
def test_every_field_can_be_set_by_its_own_variable(field: msgspec.structs.FieldInfo) -> None:
    special = {
        "master_keys": f"k2:{KEY}", "master_key_id": "k1", "log_level": "error", "redis_durability": "trust",
        "redis_url": "unix:///run/redis.sock", "host": "::", "trusted_proxies": "10.0.0.1, 10.0.0.2",
        "pace": "gap_seconds = 1, first_gap_seconds = [5, 6]", "job_queues": "quick, slow", "webhooks_url": "https://wsm.example/webhooks/waha",
        "media_types": "image/*, application/pdf", "media_hosts": "cdn.example, *.example.org",
        "media_in_flight_bytes": "70000000",
    }  # fmt: skip
    number = "7000000" if field.name.endswith("bytes") else "7"
    text = special.get(field.name, "postgresql:///wsm" if field.name.endswith("_url") else number)
    if field.name in {"waha", "exits"}:
        variable = f"WSM_{field.name.upper()}"
        assert refused(**{variable: "x"}).field == variable
        return
    environ = {name: value for name, value in GOOD.items() if name not in {"REDIS_URL", "DATABASE_URL"}}
    loaded = getattr(load({**environ, f"WSM_{field.name.upper()}": text}), field.name)
    assert loaded != field.default
    listed = tuple(part.strip() for part in text.split(","))
    assert loaded in (
        text,
        7,
        7.0,
        7000000,
        70000000,
        {"k2": KEY},
        listed,
        Pace(gap_seconds=1, first_gap_seconds=(5, 6)),
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("port", ["70000", "-1", "80.5", "http", "", " 8080"]),
        ("ops_port", ["65536", "-1"]),
        ("turn_slots", ["0", "-5", "many", "1e99"]),
        ("deliver_slots", ["0"]),
        ("job_slots", ["0", "501"]),
        ("job_queues", ["7", "a,7", "tenants", "a,a", "a b", "a:b", "-"]),
        ("turn_entries", ["0", "100000"]),
        ("lease_seconds", ["0", "1", "-4", "nan", "inf", "soon"]),
        ("drain_seconds", ["-1", "nan"]),
        ("send_timeout_seconds", ["0", "-150"]),
        ("evidence_seconds", ["0"]),
        ("stale_days", ["0", "1", "-60"]),
        ("catch_up_hours", ["0", "721", "-1", "soon"]),
        ("answer_backfilled_minutes", ["-1", "10081"]),
        ("database_connections", ["0"]),
        ("media_limit_bytes", ["0", "37748737"]),
        ("media_in_flight_bytes", ["0", "1000"]),
        ("media_types", ["image", "image/", "*/*", "Image/jpeg", "image/*jpeg"]),
        ("media_hosts", ["https://a.example", "a.example:443", "*", "*example.org", "a b"]),
        ("media_days", ["0", "6", "3651"]),
        ("body_limit_bytes", ["0", "-1", "1MiB"]),
        ("accept_timeout_seconds", ["0"]),
        ("header_deadline_seconds", ["0"]),
        ("keep_alive_seconds", ["4", "0"]),
        ("retry_after_seconds", ["-1", "soon"]),
        ("wait_replicas", ["-1", "99"]),
        ("mailbox_entries", ["0"]),
        ("quarantine_entries", ["0"]),
        ("mailbox_bytes", ["1000"]),
        ("all_mailboxes_bytes", ["1000"]),
        ("bodies_in_flight_bytes", ["1000"]),
        ("log_level", ["loud", "", "INFO "]),
        ("redis_durability", ["maybe"]),
        ("system_database_url", [f"mysql://u:{KEY}@h/db", f"u:{KEY}@h", f"postgresql://u:{KEY}%@h/db"]),
        ("owner_database_url", [f"host=h password={KEY}"]),
    ],
)
def test_odd_values_are_refused_by_name(name: str, values: list[str]) -> None:
    for value in values:
        error = refused(**{f"WSM_{name.upper()}": value})
        assert error.field == name, value
        assert error.reason


def test_what_is_forgotten_is_not_fetched_again() -> None:
    assert load({**GOOD, "WSM_STALE_DAYS": "3"}).catch_up_hours == 72
    assert refused(WSM_STALE_DAYS="3", WSM_CATCH_UP_HOURS="73").field == "catch_up_hours"


@pytest.mark.parametrize(
    "url", [f"http://:{KEY}@cache", f"cache/{KEY}", f"redis://:{KEY}@cache:port/0", f"redis://[{KEY}@cache"]
)
def test_an_address_that_no_driver_takes_is_refused(url: str) -> None:
    assert refused(REDIS_URL=url).field == "redis_url"


@pytest.mark.parametrize(
    "keys",
    [
        *(KEY, f"{KEY}:k1", f"k1:{KEY},{KEY}", f"k1:{KEY},k1:{KEY}", f"k1:{KEY}x", f"k1:{KEY[:40]}"),
        *("k1:", "", ","),
    ],
)
def test_malformed_master_keys_are_refused_and_not_repeated(keys: str) -> None:
    assert refused(WSM_MASTER_KEYS=keys).field in {"master_keys", "WSM_MASTER_KEYS"}


def test_the_key_for_new_secrets_must_be_there() -> None:
    assert refused(WSM_MASTER_KEY_ID="k9").field == "master_key_id"
    with pytest.raises(BadInput, match="no key named 'k9'"):
        master_key(load(GOOD), "k9")


@pytest.mark.parametrize("secrets", [f"{KEY},{KEY},{KEY}", "", f"{KEY},"])
def test_hook_secrets_are_one_or_two(secrets: str) -> None:
    assert refused(WEBHOOK_HMAC_SECRET=secrets).field == "waha.default.hook_secrets"


def test_an_unknown_variable_and_one_setting_twice_are_refused() -> None:
    assert refused(WSM_TURN_SLOT="5").field == "WSM_TURN_SLOT"
    twice = refused(WSM_REDIS_URL="redis://other")
    assert (twice.field, twice.reason) == ("WSM_REDIS_URL", "means the same as REDIS_URL: set one of them")


def write(path: Path, text: str) -> dict[str, str]:
    """An environment whose file says `text`."""
    path.write_text(text)
    return {"WSM_CONFIG": str(path)}


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environ = write(
        tmp_path / "wsm.toml",
        f'port = 9000\nturn_slots = 5\n[waha.default]\nurl = "http://a"\napi_key = "{KEY}"\n'
        f'[waha.two]\nurl = "http://two"\napi_key = "{KEY}"\nhook_secrets = ["{KEY}"]\n',
    )
    settings = load({**environ, "WSM_PORT": "9001", "WAHA_URL": "http://b"})
    assert (settings.port, settings.turn_slots) == (9001, 5)
    assert settings.waha["default"] == WahaServer(url="http://b", api_key=KEY)
    assert settings.waha["two"].hook_secrets == (KEY,)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port = ", "WSM_CONFIG"),
        (f'redis_url = "{KEY}', "WSM_CONFIG"),
        ('port = "http"', "port"),
        ("turn_slots = 0", "turn_slots"),
        ("prot = 1", "settings"),
        (f'waha = "{KEY}"', "waha"),
        (f'[waha]\ndefault = "{KEY}"', "waha"),
        (f'[waha.default]\nkey = "{KEY}"', "waha"),
        (f'[waha.default]\nhook_secrets = "{KEY}"', "waha"),
        (f"[master_keys]\nk1 = 5\nk2 = '{KEY}'", "master_keys"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, named: str) -> None:
    environ = write(tmp_path / "wsm.toml", text)
    for more in ({}, {"WAHA_URL": "http://waha"}):
        with pytest.raises(BadInput) as caught:
            load({**environ, **more})
        assert re.split(r"[.\[]", caught.value.field)[0] == named
        assert "5ec2e7" not in f"{caught.value} {caught.value.__cause__!r}"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(BadInput, match=re.escape(f"cannot read {path}")):
            load({"WSM_CONFIG": str(path)})
    (tmp_path / "latin").write_bytes(b'host = "\xe9"')
    with pytest.raises(BadInput, match="is not TOML"):
        load({"WSM_CONFIG": str(tmp_path / "latin")})


def test_no_repr_shows_a_secret() -> None:
    settings = load(GOOD)
    for shown in (settings, settings.waha, settings.waha["default"], [settings], {"settings": settings}):
        for text in (repr(shown), str(shown), f"{shown}", f"{shown!r}", "%s" % (shown,)):  # noqa: UP031
            assert "5ec2e7" not in text
