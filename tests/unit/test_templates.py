"""The texts that customers read: whatever a tenant writes, what is sent is a text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsm.core.errors import BadInput
from wsm.core.templates import (
    DEFAULT_LOCALE,
    DEFAULTS,
    LIMIT_CHARACTERS,
    VARIABLES,
    check,
    minutes_range,
    render,
)

EVERYTHING = {
    "place": 100_000,
    "ahead": 99_999,
    "eta": minutes_range(170, 180, "pt-BR"),
    "agent": "Maximiliana Aparecida dos Santos Albuquerque e Silva",
    "minutes": 1440,
    "next_open": "na segunda-feira às 13h30",
}


@pytest.mark.parametrize("locale", DEFAULTS)
@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize(
    "values", [{}, EVERYTHING, dict.fromkeys(EVERYTHING)], ids=["none", "all", "unknown"]
)
def test_every_text_renders_in_every_language_with_and_without_its_values(
    locale: str, name: str, values: dict[str, Any]
) -> None:
    assert DEFAULTS[locale].keys() == VARIABLES.keys()
    check(name, DEFAULTS[locale][name])
    text = render(name, locale, {}, **values)
    assert "{" not in text
    assert "None" not in text
    assert 0 < len(text) <= LIMIT_CHARACTERS
    assert ("100000" in text) == (values is EVERYTHING and "{place}" in DEFAULTS[locale][name])


@pytest.mark.parametrize(
    "text",
    [
        "{nome}", "{0}", "{}", "{place.real}", "{place[0]}", "{place!r}", "{place:>9999999}",
        "{place:{ahead}}", "{", "}", "{pos", "x" * (LIMIT_CHARACTERS + 1), "", " \n\t", "{agent}", "{place}",
    ],
)  # fmt: skip
def test_a_text_that_could_not_be_sent_is_refused_and_passed_over(text: str) -> None:
    with pytest.raises(BadInput, match=r"templates\.turn"):
        check("turn", text)
    assert render("turn", "en", {"turn": text}) == DEFAULTS["en"]["turn"]


def test_a_text_that_a_long_name_would_make_too_long_is_refused() -> None:
    check("turn_by", "x" * 200 + "{agent}" * 2)
    with pytest.raises(BadInput, match="could become longer"):
        check("turn_by", "x" * 200 + "{agent}" * 3)


def test_a_text_of_no_known_name_is_refused() -> None:
    with pytest.raises(BadInput, match=r"templates\.hello"):
        check("hello", "hi")


@pytest.mark.parametrize("stored", [5, None, ["x"], {"x": 1}, True])
def test_what_is_no_text_at_all_is_passed_over(stored: Any) -> None:
    assert render("turn", "en", {"turn": stored}) == DEFAULTS["en"]["turn"]


def test_a_tenants_own_text_wins_and_an_unknown_locale_is_the_default() -> None:
    own = {"update": "Lugar {place}, {ahead} antes. {{chaves}}"}
    assert render("update", "en", own, place=4, ahead=3) == "Lugar 4, 3 antes. {chaves}"
    assert render("turn", "xx", {}) == DEFAULTS[DEFAULT_LOCALE]["turn"]


def test_what_a_name_says_is_never_read_as_a_template() -> None:
    assert render("turn_by", "en", {}, agent="{place} {0.__class__}").startswith(
        "It is your turn! {place} {0.__class__} is"
    )


@given(text=st.text(st.sampled_from("{}place ahead!:0.[]%ñ\n"), max_size=40), place=st.integers(0, 10**6))
def test_nothing_that_a_tenant_writes_breaks_a_delivery(text: str, place: int) -> None:
    assert render("update", "pt-BR", {"update": text}, place=place, ahead=place - 1).strip()
