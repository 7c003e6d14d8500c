"""One word alone is a wish; anything else is a message."""

import pytest

from wsm.core.wishes import Wish, wish_of


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("SAIR", Wish.OUT),
        (" sair! ", Wish.OUT),
        ("Párar.", Wish.OUT),
        ("“STOP”", Wish.OUT),
        ("cancelar\n", Wish.OUT),
        ("Unsubscribe", Wish.OUT),
        ("quit?", Wish.OUT),
        ("VOLTAR", Wish.IN),
        ("start 👍", Wish.IN),
        ("sa\u200bir", Wish.OUT),
        ("\u200eSTOP\u2069", Wish.OUT),
        ("ＳＡＩＲ", Wish.OUT),
        ("🛑 sair 🛑", Wish.OUT),
        ("quero sair", None),
        ("não parar", None),
        ("sair sair", None),
        ("stopped", None),
        ("", None),
        ("👍", None),
    ],
)
def test_a_wish_is_one_word_alone(text: str, wish: Wish | None) -> None:
    assert wish_of(text) is wish


def test_no_text_costs_more_to_read_than_a_word() -> None:
    marks = "\u0315\u0300"
    assert wish_of("sair" + marks * 10) is Wish.OUT
    assert wish_of("sair" + marks * 32_000) is None, "it takes seconds to put so many marks in their order"
