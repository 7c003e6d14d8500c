"""The texts that customers read, in Brazilian Portuguese and English; a tenant may replace each.

A template is plain text with variables from a closed list, `{place}` and `{ahead}`. An unknown variable or
a text that is too long is refused when it is set, and a default stands in when a stored one does not render.
"""

import string
from collections.abc import Mapping

from wsm.core.errors import BadInput

VARIABLES = frozenset({"place", "ahead"})
LIMIT_CHARACTERS = 300
DEFAULT_LOCALE = "pt-BR"

DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "pt-BR": {
        "entry": "Recebemos sua mensagem. Você é o nº {place} na fila. "
        "Pode enviar mais detalhes enquanto espera.",
        "update": "A fila andou: agora você é o nº {place}.",
        "next": "A fila andou: você é o próximo (nº {place}). Fique por perto, por favor.",
        "turn": "Chegou a sua vez! Você está sendo atendido agora.",
        "opted_out": "Pronto: você não receberá mais mensagens automáticas. Para voltar a receber, "
        "responda VOLTAR.",
        "opted_in": "Pronto: você voltará a receber nossas mensagens. Para parar, responda SAIR.",
    },
    "en": {
        "entry": "We have received your message. You are number {place} in line. "
        "Feel free to send more details while you wait.",
        "update": "The line has moved: you are now number {place}.",
        "next": "The line has moved: you are next (number {place}). Please stay close.",
        "turn": "It is your turn! You are being served now.",
        "opted_out": "Done: you will get no more automatic messages. To get them again, reply START.",
        "opted_in": "Done: you will get our messages again. To stop them, reply STOP.",
    },
}


def check(name: str, text: object) -> None:
    """Refuse a tenant's template that could not be sent. Raises BadInput with its name and the reason."""
    if name not in DEFAULTS[DEFAULT_LOCALE]:
        raise BadInput(f"templates.{name}", "no such text")
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"templates.{name}", "must be a text that says something")
    if len(text) > LIMIT_CHARACTERS:
        raise BadInput(f"templates.{name}", f"longer than {LIMIT_CHARACTERS} characters")
    try:
        used = {field for _, field, spec, conversion in string.Formatter().parse(text) if field is not None}
        plain = all(not spec and not conversion for _, _, spec, conversion in string.Formatter().parse(text))
    except ValueError as exc:
        raise BadInput(f"templates.{name}", str(exc)) from None
    if not plain or not used <= VARIABLES:
        raise BadInput(
            f"templates.{name}", f"only plain {{{'}, {'.join(sorted(VARIABLES))}}} may stand in it"
        )


def render(name: str, locale: str, own: Mapping[str, str], *, place: int = 0) -> str:
    """Write the text `name` for a customer.

    own  the tenant's own texts; one that does not pass `check` is passed over
    """
    text = own.get(name)
    if text is not None:
        try:
            check(name, text)
        except BadInput:
            text = None
    if text is None:
        text = DEFAULTS.get(locale, DEFAULTS[DEFAULT_LOCALE])[name]
    return text.format(place=place, ahead=max(0, place - 1))
