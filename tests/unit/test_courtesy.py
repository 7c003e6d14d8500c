"""What is no more than a thank-you, and what is more."""

import pytest

from wsm.core.courtesy import is_thanks


@pytest.mark.parametrize(
    "text",
    [
        "obrigado", "Obrigada!", "Ok, obrigado", "ok", "OK 👍", "👍🏽", "🙏🙏", "❤️",
        "muito obrigado pela ajuda!", "valeu", "beleza, valeu!", "tudo certo, obrigada", "ok, thanks",
        "Ótimo, muito obrigada!!!", "perfeito", "obg",
        "Thank you so much!", "thanks, have a great day", "combinado", "tchau, obrigado",
    ],
)  # fmt: skip
def test_a_thank_you_is_one(text: str) -> None:
    assert is_thanks(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "...", "!", "?", "obrigado?", "oi", "bom dia", "sim", "tudo bem", "não", "👎", "😡", "1",
        "obrigado, mas não funcionou", "ok e o boleto", "ok, mais uma coisa", "obrigado. Qual o valor?",
        "sair", "ok 2", "posso passar amanhã", "thanks but no", "preciso de ajuda",
        "muito obrigado muito obrigado muito obrigado muito obrigado muito",
    ],
)  # fmt: skip
def test_what_says_more_is_a_message(text: str) -> None:
    assert not is_thanks(text)
