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


def confirms(intent_key: str) -> bool:
    """Whether an intent of this key says that a wish was heard: that is no talk of the bot's."""
    return intent_key.partition(":")[0] in _CONFIRMING


_CONFIRMING = frozenset(Wish)
"""How the keys of confirmations begin (`store.intents.wished`), and no others."""
_CHARACTERS = 64
"""Of a text that may be a word alone. To take a long one apart could cost seconds: the time grows with the
square of the marks on one letter, and any customer may send 65,536 of them."""
_UNSEEN = frozenset({"Mn", "Me", "Cf"})
"""Marks on letters, and what nobody sees: keyboards put joiners and directions into words."""


def wish_of(text: str) -> Wish | None:
    """Read a wish out of a text; None when it is anything else, also when there is more in it."""
    if len(text) > _CHARACTERS:
        return None
    plain = unicodedata.normalize("NFKD", text).casefold()
    seen = (each for each in plain if unicodedata.category(each) not in _UNSEEN)
    return _WORDS.get("".join(each if each.isalnum() else " " for each in seen).strip())
