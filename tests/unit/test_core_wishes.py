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
