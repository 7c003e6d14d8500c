"""The texts that customers read: whatever a tenant writes, what is sent is a text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsm.core.errors import BadInput
from wsm.core.templates import DEFAULT_LOCALE, DEFAULTS, LIMIT_CHARACTERS, check, render

NAMES = sorted(DEFAULTS[DEFAULT_LOCALE])


@pytest.mark.parametrize("locale", DEFAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_default_passes_its_own_check_and_renders(locale: str, name: str) -> None:
    assert sorted(DEFAULTS[locale]) == NAMES
    check(name, DEFAULTS[locale][name])
    text = render(name, locale, {}, place=3)
    assert "{" not in text
    assert ("3" in text) == ("{place}" in DEFAULTS[locale][name])


@pytest.mark.parametrize(
    "text",
    [
        "{nome}", "{0}", "{}", "{place.real}", "{place[0]}", "{place!r}", "{place:>9999999}",
        "{place:{ahead}}", "{", "}", "{place", "x" * (LIMIT_CHARACTERS + 1), "", " \n\t",
    ],
)  # fmt: skip
def test_a_text_that_could_not_be_sent_is_refused_and_passed_over(text: str) -> None:
    with pytest.raises(BadInput, match=r"templates\.turn"):
        check("turn", text)
    assert render("turn", "en", {"turn": text}) == DEFAULTS["en"]["turn"]


def test_a_text_of_no_known_name_is_refused() -> None:
    with pytest.raises(BadInput, match=r"templates\.hello"):
        check("hello", "hi")


@pytest.mark.parametrize("stored", [5, None, ["x"], {"x": 1}, True])
def test_what_is_no_text_at_all_is_passed_over(stored: Any) -> None:
    assert render("turn", "en", {"turn": stored}) == DEFAULTS["en"]["turn"]


def test_a_tenants_own_text_wins_and_an_unknown_locale_is_the_default() -> None:
    own = {"update": "Lugar {place}, {ahead} antes. {{chaves}}"}
    assert render("update", "en", own, place=4) == "Lugar 4, 3 antes. {chaves}"
    assert render("turn", "xx", {}) == DEFAULTS[DEFAULT_LOCALE]["turn"]
    assert render("update", "en", {"update": "{ahead} antes"}, place=0) == "0 antes"


@given(text=st.text(st.sampled_from("{}place ahead!:0.[]%ñ\n"), max_size=40), place=st.integers(0, 10**6))
def test_nothing_that_a_tenant_writes_breaks_a_delivery(text: str, place: int) -> None:
    assert render("update", "pt-BR", {"update": text}, place=place).strip()
