"""What a customer asks for with one word alone: no more automatic messages, or to have them again.

A word counts when it is all of a direct text, in any case, with or without accents and punctuation. What is
remembered belongs to the contact, in all of a tenant's numbers.
"""

import unicodedata
from enum import StrEnum


class Wish(StrEnum):
    """The words of the audit, and the names of the texts that confirm them."""

    OUT = "opted_out"
    IN = "opted_in"


_WORDS = {
    **dict.fromkeys(
        ("sair", "parar", "pare", "cancelar", "descadastrar", "stop", "unsubscribe", "quit"), Wish.OUT
    ),
    **dict.fromkeys(("voltar", "start"), Wish.IN),
}


def wish_of(text: str) -> Wish | None:
    """Read a wish out of a text; None when it is anything else, also when there is more in it."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    kept = "".join(each if each.isalnum() else " " for each in plain if not unicodedata.combining(each))
    return _WORDS.get(kept.strip())
