"""How identities are written for every provider, and what is refused before anybody is called."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from wsm.core.errors import BadInput
from wsm.core.exits import (
    PROVIDERS,
    Pool,
    Seen,
    check_pool,
    exit_of,
    fault,
    identity,
    look_every,
    new_identifier,
)

NOW = datetime(2026, 11, 20, 12, 0, 0, 123_000, tzinfo=UTC)
UUID_1 = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
POOL = Pool(provider="decodo", endpoint="gate.example:7000", username="acme", password="s3cr3t")


def changed(**values: object) -> Pool:
    return msgspec.structs.replace(POOL, **values)


def test_a_lease_is_named_after_its_uuid_and_its_millisecond() -> None:
    assert new_identifier(UUID_1, NOW) == "chip-6ba7b810-9dad-11d1-80b4-00c04fd430c8-1795176000123"


@pytest.mark.parametrize(
    ("provider", "username", "password"),
    [
        ("decodo", "user-acme-country-br-session-SESSION-sessionduration-30", "s3cr3t"),
        ("brightdata", "acme-country-br-session-SESSION", "s3cr3t"),
        ("oxylabs", "customer-acme-cc-BR-sessid-SESSION-sesstime-30", "s3cr3t"),
        ("iproyal", "acme", "s3cr3t_country-br_session-SESSION_lifetime-30m"),
        ("generic", "acme-country-br-session-SESSION", "s3cr3t"),
    ],
)
def test_an_identity_is_written_as_the_provider_wants_it(provider: str, username: str, password: str) -> None:
    exit_ = exit_of(changed(provider=provider), "SESSION")
    assert (exit_.username, exit_.password) == (username, password)
    assert exit_.as_waha() == {"server": "gate.example:7000", "username": username, "password": password}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_identity_has_the_length_and_the_letters_that_the_provider_takes(provider: str) -> None:
    pool = changed(provider=provider)
    identifiers = [new_identifier(uuid4(), NOW) for _ in range(1000)]
    said = [identity(pool, identifier) for identifier in identifiers]
    assert len(set(said)) == 1000
    assert said == [identity(pool, identifier) for identifier in identifiers], "the same for the same lease"
    length = 8 if provider == "iproyal" else 16
    assert all(len(each) == length and re.fullmatch("[0-9a-z]+", each) for each in said)


def test_templates_of_ones_own_replace_the_providers() -> None:
    pool = changed(provider="generic", templates=("{user}.{session}.{COUNTRY}", "{password}-{minutes}"))
    exit_ = exit_of(pool, "abc")
    assert (exit_.username, exit_.password) == ("acme.abc.BR", "s3cr3t-30")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("provider", "nobody"),
        ("endpoint", "gate.example"),
        ("endpoint", "http://gate.example:7000"),
        ("endpoint", "socks5://gate.example:7000"),
        ("endpoint", "gate.example:0"),
        ("endpoint", "gate.example:70000"),
        ("endpoint", "a b:7000"),
        ("country", "BR"),
        ("country", "bra"),
        ("sticky_minutes", 0),
        ("sticky_minutes", 1_441),
        ("username", ""),
        ("username", "ac me"),
        ("username", "acme@x"),
        ("username", "acme:x"),
        ("username", "a" * 250),
        ("password", ""),
        ("password", "päss"),
        ("password", "a/b"),
        ("templates", ("{user}", "{password}")),
        ("templates", ("{user}-{session}-{more}", "{password}")),
        ("templates", ("{user}:{session}", "{password}")),
    ],
)
def test_a_pool_that_no_session_could_use_is_refused_by_its_field(field: str, value: object) -> None:
    with pytest.raises(BadInput) as caught:
        check_pool(changed(**{field: value}))
    assert caught.value.field == field
    assert "s3cr3t" not in str(caught.value)


def test_no_secret_is_in_a_repr() -> None:
    assert "s3cr3t" not in f"{POOL!r} {exit_of(POOL, 'abc')!r}"
    assert "acme" not in f"{POOL!r} {exit_of(POOL, 'abc')!r}"


@pytest.mark.parametrize(
    ("found", "before", "wrong"),
    [
        (Seen("203.0.113.7", "br"), None, None),
        (Seen("203.0.113.7", "br"), "203.0.113.7", None),
        (Seen("203.0.113.7", None), None, None),
        (Seen("203.0.113.7", "us"), None, "wrong_country"),
        (Seen("203.0.113.8", "us"), "203.0.113.7", "wrong_country"),
        (Seen("203.0.113.8", "br"), "203.0.113.7", "drift"),
    ],
)
def test_an_exit_is_where_it_was_and_where_it_should_be(
    found: Seen, before: str | None, wrong: str | None
) -> None:
    assert fault(found, before=before, country="br") == wrong


@pytest.mark.parametrize(
    ("provider", "sticky_minutes", "seconds"),
    [("decodo", 1440, 300), ("decodo", 30, 300), ("decodo", 3, 90), ("oxylabs", 30, 30), ("oxylabs", 1, 30)],
)
def test_an_exit_is_looked_at_twice_before_it_is_dropped_or_moves(
    provider: str, sticky_minutes: int, seconds: int
) -> None:
    pool = changed(provider=provider, sticky_minutes=sticky_minutes)
    assert look_every(pool) == timedelta(seconds=seconds)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_provider_drops_an_identity_between_two_looks(provider: str) -> None:
    its = PROVIDERS[provider]
    for minutes in its.minutes or (1, 1440):
        every = look_every(changed(provider=provider, sticky_minutes=minutes)).total_seconds()
        assert every < minutes * 60
        assert its.idle_seconds is None or every < its.idle_seconds
