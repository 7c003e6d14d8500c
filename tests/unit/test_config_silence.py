"""A setting that does not fit is named, and what is written in it is not repeated."""

from pathlib import Path

import msgspec
import pytest

from wsm.config import Settings, WahaServer, load
from wsm.core.errors import BadInput
from wsm.core.exits import Pool
from wsm.core.ids import DEFAULT_SERVER
from wsm.gateway.waha import Gateways

CANARY = "canario-canario-canario"
"""Longer than a key's id may be, which is no secret."""
URLS = ("REDIS_URL", "DATABASE_URL", "WSM_SYSTEM_DATABASE_URL", "WSM_OWNER_DATABASE_URL", "WSM_WEBHOOKS_URL")
FORMS = (
    "{}", "{}://{}@host", "redis://:{}@host:99999", "redis://:{}@host:x", "redis://:{}/{}@host", "redis://:1/{}@host",
    "postgresql://wsm:{}@host:{}/db", "postgresql://wsm:%{}@host/db", "postgresql://wsm:7/{}@host/db",
    "postgresql://wsm:{}@{}@host/db", "postgresql://wsm:{} {}@host/db", "postgresql://wsm:{}?{}@host/db",
    "postgresql://wsm:{}/{}@host/db", "redis+sentinel://:{}@host", "redis+sentinel://:{}@h:1/{}/{}", "k1:{}",
    "k1:abcd{}", "{}:abcd", "k1:{},k1:{}", "1,{}", "-1{}", "[{}]", "\0{}", "{}\n{}",
)  # fmt: skip
REFUSED = [
    "postgresql://wsm:7/{}@host/db", "postgresql://wsm:{}@{}@host/db", "postgresql://wsm:{} {}@host/db",
    "postgresql://wsm:{}?{}@host/db", "postgresql://wsm:{}/{}@host/db", "postgresql://wsm:{}@host:{}/db",
]  # fmt: skip
"""What libpq would take apart elsewhere than meant, and then complain of in its own words."""


def refusal(environ: dict[str, str]) -> str:
    """What is said of settings that do not fit; nothing if they do."""
    try:
        load(environ)
    except BadInput as exc:
        return f"{exc} {exc!r} {exc.args}"
    return ""


@pytest.mark.parametrize("form", FORMS)
def test_no_value_of_a_variable_is_repeated(form: str) -> None:
    value = form.format(*[CANARY] * 3)
    names = {f"WSM_{field.name.upper()}" for field in msgspec.structs.fields(Settings)}
    for name in (*URLS, *names, "WAHA_URL", "WAHA_API_KEY", "WEBHOOK_HMAC_SECRET"):
        if not name.endswith("_URL") or name in (*URLS, "WAHA_URL"):
            assert CANARY not in refusal({name: value}), name


@pytest.mark.parametrize("form", REFUSED)
def test_a_database_url_that_would_be_taken_apart_otherwise_than_meant_is_refused(form: str) -> None:
    for name in URLS[1:4]:
        assert "%40" in refusal({name: form.format(*[CANARY] * 3)})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres@/wsm?host=%2Fvar%2Fpg&port=5432",
        "postgresql://wsm:it%27s%20a:b#c[d@host:5432/wsm?sslmode=require",
        "postgres://wsm:p@one:5432,two:5433/wsm?target_session_attrs=read-write",
        "postgresql://wsm:p@[::1]:5432/wsm",
        "postgresql:///wsm",
        "postgresql://host",
    ],
)
def test_urls_of_every_good_form_are_taken(url: str) -> None:
    assert load({"DATABASE_URL": url}).database_url == url


def test_no_value_of_a_file_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "wsm.toml"
    decodo = '[exits.br]\nprovider = "decodo"\n'
    for text in (
        f'redis_url = "{CANARY}"',
        f"redis_url = {CANARY}",
        f'redis_url = "{CANARY}',
        f'port = "{CANARY}"',
        f'[master_keys]\nk1 = "{CANARY}"',
        f'[waha.default]\nurl = "{CANARY}"\nroute = "{CANARY}"',
        f'[waha.default]\nroute = "public"\nurl = "http://u:{CANARY}@h"',
        f'[waha.default]\nhook_secrets = ["{CANARY}", "", ""]',
        f'[exits.br]\nprovider = "{CANARY}"\nendpoint = "h:1"\nusername = "u"\npassword = "{CANARY}"',
        f'{decodo}endpoint = "{CANARY}"\nusername = "{CANARY}"\npassword = "{CANARY} "',
        f'{decodo}endpoint = "h:1"\nusername = "{CANARY} "\npassword = "{CANARY}"',
        f'{decodo}endpoint = "h:1"\nusername = "a"\npassword = "é{CANARY}"',
        f'{decodo}endpoint = "h:1"\nusername = "a"\npassword = "{CANARY * 50}"',
    ):
        path.write_text(text, encoding="utf-8")
        said = refusal({"WSM_CONFIG": str(path)})
        assert said, text
        assert CANARY not in said


def test_no_gateways_url_key_or_check_is_repeated() -> None:
    pool = Pool(
        provider="generic", endpoint="h:1", username="u", password="p", check_url=f"http://u:{CANARY}@h"
    )
    for servers, pools in (
        ({DEFAULT_SERVER: WahaServer(url=f"http://u:{CANARY}@h", api_key="k")}, {}),
        ({DEFAULT_SERVER: WahaServer(url=f"ftp://{CANARY}", api_key="k")}, {}),
        ({DEFAULT_SERVER: WahaServer(url="http://h", api_key=f"é{CANARY}")}, {}),
        ({}, {"br": pool}),
    ):
        with pytest.raises(BadInput) as raised:
            Gateways(servers, pools, send_timeout_seconds=1)
        assert CANARY not in str(raised.value)
