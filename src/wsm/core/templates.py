"""The texts that customers read, in Brazilian Portuguese and English; a tenant may replace each.

A template is plain text with variables from its own closed list. An unknown variable, or a text that could
become too long, is refused when it is set; a default stands in when a stored one does not pass. A variable
that nobody knows a value for reads as a word that fits, so every text can always be sent. Nothing about any
other customer can be a variable.
"""

import string
from collections.abc import Mapping

from wsm.core.errors import BadInput

LIMIT_CHARACTERS = 300
"""Of a template, and of what is read in the end."""

DEFAULT_LOCALE = "pt-BR"

_VALUE_CHARACTERS = 40
"""Of one value: a name that is longer is cut."""

_PLACE = ("place", "ahead", "eta")
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "entry": _PLACE,
    "entry_next": _PLACE,
    "update": _PLACE,
    "next": _PLACE,
    "position": _PLACE,
    "silence": _PLACE,
    "silence_moved": (),
    "turn": (),
    "turn_by": ("agent",),
    "nudge": ("minutes",),
    "released": ("minutes",),
    "back": _PLACE,
    "closed": ("next_open",),
    "closed_message": ("next_open",),
    "closing": ("next_open",),
    "overflow": (),
    "left": (),
    "reminder": ("minutes",),
    "ended": (),
    "survey": (),
    "thanks": (),
    "opted_out": (),
    "opted_in": (),
}
"""Every text, and what may stand in it.

entry, entry_next   he has entered the line; as the next one
update, next        his place improved; he is the next one now
position            he asked
silence, silence_moved  nothing has moved for long; the second where somebody urgent was let in before him
turn, turn_by       it is his turn; the second where it is known who serves him
nudge, released     he does not answer although it is his turn; his turn was given on, he may come back
back                he was being served and waits again, or has come back after his ticket was closed
closed, closed_message  nobody is there: he waits; he leaves a message
closing             the queue closes, and he who waits is asked to come again
overflow            too many wait, or he has waited too long: he leaves a message
left                he left the line
reminder, ended     the answer is his to give; the talk was ended for want of one
survey, thanks      how it was; for the answer
opted_out, opted_in he wants no automatic messages any more; he wants them again
"""

DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "pt-BR": {
        "entry": "Recebemos sua mensagem. Você é o nº {place} na fila{eta}. "
        "Pode enviar mais detalhes enquanto espera. Para sair, responda SAIR.",
        "entry_next": "Recebemos sua mensagem. Você é o nº {place} na fila: o próximo{eta}. "
        "Pode enviar mais detalhes enquanto espera. Para sair, responda SAIR.",
        "update": "A fila andou: agora você é o nº {place}{eta}.",
        "next": "A fila andou: você é o próximo (nº {place}). Fique por perto, por favor.",
        "position": "Você é o nº {place} na fila{eta}.",
        "silence": "Ainda não chegou a sua vez, pedimos desculpas; você é o nº {place} na fila{eta}. "
        "Responda 1 para continuar esperando ou 2 para deixar um recado.",
        "silence_moved": "Ainda não chegou a sua vez, pedimos desculpas pela demora. "
        "Responda 1 para continuar esperando ou 2 para deixar um recado.",
        "turn": "Chegou a sua vez! Você está sendo atendido agora.",
        "opted_out": "Pronto: você não receberá mais mensagens automáticas. Para voltar a receber, "
        "responda VOLTAR.",
        "opted_in": "Pronto: você voltará a receber nossas mensagens. Para parar, responda SAIR.",
        "turn_by": "Chegou a sua vez! {agent} vai atender você agora.",
        "nudge": "Continua aí? Guardamos seu lugar por mais {minutes} min.",
        "released": "Como não houve resposta, atendemos a próxima pessoa. Se escrever nos próximos "
        "{minutes} min, você será o próximo.",
        "back": "Você está de volta à fila: é o nº {place}{eta}.",
        "closed": "Estamos fora do horário. Voltamos {next_open}. Sua mensagem ficou registrada e seu lugar "
        "na fila está guardado.",
        "closed_message": "Estamos fora do horário. Voltamos {next_open}. Sua mensagem ficou registrada; "
        "nossa equipe responderá depois.",
        "closing": "Nosso horário de hoje terminou, e não conseguimos atender você. Voltamos {next_open}; "
        "escreva de novo, por favor.",
        "overflow": "No momento não conseguimos atender você. Deixe seu recado aqui; nossa equipe responderá "
        "assim que puder.",
        "left": "Você saiu da fila. Se precisar, é só escrever de novo.",
        "reminder": "Estamos esperando a sua resposta. Sem ela, encerramos a conversa em {minutes} min.",
        "ended": "Encerramos a conversa por falta de resposta. Se precisar, é só escrever de novo.",
        "survey": "De 1 a 5, como foi o atendimento?",
        "thanks": "Obrigado pela avaliação!",
    },
    "en": {
        "entry": "We have received your message. You are number {place} in line{eta}. "
        "Feel free to send more details while you wait. To leave the line, reply SAIR.",
        "entry_next": "We have received your message. You are number {place} in line: the next one{eta}. "
        "Feel free to send more details while you wait. To leave the line, reply SAIR.",
        "update": "The line has moved: you are now number {place}{eta}.",
        "next": "The line has moved: you are next (number {place}). Please stay close.",
        "position": "You are number {place} in line{eta}.",
        "silence": "It is not your turn yet, and we are sorry; you are number {place} in line{eta}. "
        "Reply 1 to keep waiting or 2 to leave a message.",
        "silence_moved": "It is not your turn yet, and we are sorry that it takes so long. "
        "Reply 1 to keep waiting or 2 to leave a message.",
        "turn": "It is your turn! You are being served now.",
        "opted_out": "Done: you will get no more automatic messages. To get them again, reply START.",
        "opted_in": "Done: you will get our messages again. To stop them, reply STOP.",
        "turn_by": "It is your turn! {agent} is with you now.",
        "nudge": "Are you still there? We keep your place for {minutes} more minutes.",
        "released": "As there was no answer, we have called the next person. If you write within {minutes} "
        "minutes, you will be next.",
        "back": "You are back in line: number {place}{eta}.",
        "closed": "We are closed now and back {next_open}. Your message is kept, and so is your place in "
        "line.",
        "closed_message": "We are closed now and back {next_open}. Your message is kept; our team will "
        "answer later.",
        "closing": "We have closed for today and could not attend to you. We are back {next_open}; please "
        "write again.",
        "overflow": "We cannot attend to you at the moment. Leave your message here; our team will answer as "
        "soon as possible.",
        "left": "You have left the line. Write again whenever you need us.",
        "reminder": "We are waiting for your answer. Without one we end this conversation in {minutes} "
        "minutes.",
        "ended": "We have ended this conversation, as there was no answer. Write again whenever you need us.",
        "survey": "From 1 to 5, how was our service?",
        "thanks": "Thank you for your feedback!",
    },
}

_UNKNOWN: Mapping[str, Mapping[str, str]] = {
    "pt-BR": {
        "place": "…",
        "ahead": "…",
        "eta": "",
        "agent": "Nossa equipe",
        "minutes": "alguns",
        "next_open": "em breve",
    },
    "en": {
        "place": "…",
        "ahead": "…",
        "eta": "",
        "agent": "Our team",
        "minutes": "a few",
        "next_open": "soon",
    },
}
"""What a variable reads as when its value is not known."""

_RANGE: Mapping[str, str] = {
    "pt-BR": ", espera de {low} a {high} minutos",
    "en": ", about {low} to {high} minutes",
}


def check(name: str, text: object) -> None:
    """Refuse a tenant's template that could not be sent. Raises BadInput with its name and the reason.

    The longest that its variables can become counts.
    """
    if name not in VARIABLES:
        raise BadInput(f"templates.{name}", "no such text")
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"templates.{name}", "must be a text that says something")
    if len(text) > LIMIT_CHARACTERS:
        raise BadInput(f"templates.{name}", f"longer than {LIMIT_CHARACTERS} characters")
    try:
        fields = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError as exc:
        raise BadInput(f"templates.{name}", str(exc)) from None
    used = [str(field) for _, field, spec, conversion in fields if not spec and not conversion]
    if len(used) < len(fields) or not set(used) <= set(VARIABLES[name]):
        allowed = ", ".join(f"{{{each}}}" for each in VARIABLES[name]) or "no variable"
        raise BadInput(f"templates.{name}", f"only plain {allowed} may stand in it")
    if len(text.format(**dict.fromkeys(used, "x" * _VALUE_CHARACTERS))) > LIMIT_CHARACTERS:
        raise BadInput(f"templates.{name}", f"could become longer than {LIMIT_CHARACTERS} characters")


def render(name: str, locale: str, own: Mapping[str, object], **values: object) -> str:
    """Write the text `name` for a customer.

    own     the tenant's own texts; one that does not pass `check` is passed over
    values  of its variables; one that is missing or None reads as a word that fits
    """
    locale = locale if locale in DEFAULTS else DEFAULT_LOCALE
    text = own.get(name)
    try:
        check(name, text)
    except BadInput:
        text = DEFAULTS[locale][name]
    given = {each: str(value)[:_VALUE_CHARACTERS] for each, value in values.items() if value is not None}
    return str(text).format(**{**_UNKNOWN[locale], **given})


def minutes_range(low: int, high: int, locale: str) -> str:
    """Write an estimated wait, to stand in `{eta}`."""
    return _RANGE.get(locale, _RANGE[DEFAULT_LOCALE]).format(low=low, high=high)
