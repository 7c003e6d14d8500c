"""What people recognize a text by: the words that stand on the phone, in both languages.

A text that says a place says it as a number; who reads it needs to know nothing else.
"""

import re
from enum import StrEnum

import msgspec


class Word(StrEnum):
    """What a text of wsm's own says. Everything else was written by a person."""

    ENTRY = "entry"
    UPDATE = "update"
    NEXT = "next"
    POSITION = "position"
    SILENCE = "silence"
    SILENCE_MOVED = "silence_moved"
    BACK = "back"
    CLOSED = "closed"
    TURN = "turn"
    TURN_BY = "turn_by"
    NUDGE = "nudge"
    RELEASED = "released"
    CLOSED_MESSAGE = "closed_message"
    CLOSING = "closing"
    OVERFLOW = "overflow"
    LEFT = "left"
    REMINDER = "reminder"
    ENDED = "ended"
    SURVEY = "survey"
    THANKS = "thanks"
    OPTED_OUT = "opted_out"
    OPTED_IN = "opted_in"


_N = r"(?P<place>\d+)"
_LOOKS = {
    Word.ENTRY: (
        rf"Recebemos sua mensagem\. Você é o nº {_N} ",
        rf"We have received .* You are number {_N} ",
    ),
    Word.UPDATE: (
        rf"A fila andou: agora você é o nº {_N}\b",
        rf"The line has moved: you are now number {_N}\b",
    ),
    Word.NEXT: (
        rf"A fila andou: você é o próximo \(nº {_N}\)",
        rf"The line has moved: you are next \(number {_N}\)",
    ),
    Word.POSITION: (rf"Você é o nº {_N} na fila", rf"You are number {_N} in line"),
    Word.SILENCE: (
        rf"Ainda não chegou a sua vez, .* você é o nº {_N} na fila",
        rf"It is not your turn yet, .* you are number {_N} in line",
    ),
    Word.SILENCE_MOVED: (
        r"Ainda não chegou a sua vez, .* pela demora",
        r"It is not your turn yet, .* so long",
    ),
    Word.BACK: (rf"Você está de volta à fila: é o nº {_N}\b", rf"You are back in line: number {_N}\b"),
    Word.CLOSED: (r"Estamos fora do horário\. .* está guardado", r"We are closed now .* your place in"),
    Word.CLOSED_MESSAGE: (
        r"Estamos fora do horário\. .* responderá depois",
        r"We are closed now .* answer later",
    ),
    Word.TURN: (
        r"Chegou a sua vez! Você está sendo atendido agora",
        r"It is your turn! You are being served now",
    ),
    Word.TURN_BY: (
        r"Chegou a sua vez! (?P<agent>.+) vai atender",
        r"It is your turn! (?P<agent>.+) is with you",
    ),
    Word.NUDGE: (r"Continua aí\?", r"Are you still there\?"),
    Word.RELEASED: (r"Como não houve resposta", r"As there was no answer, we have called"),
    Word.CLOSING: (r"Nosso horário de hoje terminou", r"We have closed for today"),
    Word.OVERFLOW: (r"No momento não conseguimos atender", r"We cannot attend to you at the moment"),
    Word.LEFT: (r"Você saiu da fila", r"You have left the line"),
    Word.REMINDER: (r"Estamos esperando a sua resposta", r"We are waiting for your answer"),
    Word.ENDED: (r"Encerramos a conversa", r"We have ended this conversation"),
    Word.SURVEY: (r"De 1 a 5, como foi", r"From 1 to 5, how was"),
    Word.THANKS: (r"Obrigado pela avaliação", r"Thank you for your feedback"),
    Word.OPTED_OUT: (r"Pronto: você não receberá", r"Done: you will get no more"),
    Word.OPTED_IN: (r"Pronto: você voltará a receber", r"Done: you will get our messages"),
}
_PATTERNS = [(word, re.compile(look, re.DOTALL)) for word, looks in _LOOKS.items() for look in looks]

PLACES = frozenset({Word.ENTRY, Word.UPDATE, Word.NEXT, Word.POSITION, Word.SILENCE, Word.BACK})
"""Those that say a place."""

TURNS = frozenset({Word.TURN, Word.TURN_BY})


class Read(msgspec.Struct, frozen=True):
    """A text, as who reads it understands it."""

    word: Word
    place: int | None = None
    agent: str | None = None


def read(text: str) -> Read | None:
    """Recognize a text of wsm's own; None for what a person wrote."""
    for word, pattern in _PATTERNS:
        if found := pattern.match(text):
            named = found.groupdict()
            place = named.get("place")
            return Read(word, int(place) if place else None, named.get("agent"))
    return None
