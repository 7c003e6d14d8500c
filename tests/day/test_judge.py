"""The judge's own line finds whatever breaks a rule, and nothing where none is broken."""

import itertools
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from day.journal import Note
from day.judge import Arrival, _check_notices, _check_window
from day.line import Truth, truths
from day.words import Word, read
from wsm.core.templates import DEFAULTS, render
from wsm.sandbox.waha.phones import Received

T0 = datetime(2026, 11, 23, 12, tzinfo=UTC)
SHOP = 77
QUEUES = [SimpleNamespace(tenant_id=SHOP, id=1, ageing_minutes=15, pull=False)]
LIA = {"id": 5, "name": "Lia", "capacity": 1, "online": True, "queues": None}
_numbers = itertools.count(1)


Row = tuple[str, dict[str, Any]]


def told(*transactions: list[Row], is_open: bool = True) -> tuple[list[Truth], dict[str, list[str]]]:
    """Follow transactions, each a list of (what, row)."""
    found: dict[str, list[str]] = defaultdict(list)
    notes = [
        Note(next(_numbers), tx, SHOP, what, row)
        for tx, together in enumerate(transactions, 1)
        for what, row in together
    ]
    truth = truths(notes, QUEUES, lambda _at: is_open, found)
    return truth, {word: what for word, what in found.items() if what}


def ticket(id_: int, state: str, *, minute: int = 0, level: int = 1, agent: int | None = None) -> Row:
    """A ticket's row, entered so many minutes after the first."""
    return "ticket", {
        "id": id_, "conversation_id": id_, "queue_id": 1, "state": state, "level": level, "seq": id_,
        "entered_at": (T0 + timedelta(minutes=minute)).isoformat(), "agent_id": agent,
    }  # fmt: skip


def did(id_: int | None, what: str) -> Row:
    return "audit", {"ticket_id": id_, "what": what, "at": T0.isoformat()}


def claimed(id_: int) -> Row:
    return "claim", {"ticket_id": id_, "claimed_at": T0.isoformat()}


AGENT: list[Row] = [("agent", LIA)]
A_SERVED = [ticket(1, "served", agent=5), did(1, "ticket.opened.served")]
B_WAITS = [ticket(2, "waiting", minute=1), did(2, "ticket.opened.waiting")]
C_WAITS = [ticket(3, "waiting", minute=2), did(3, "ticket.opened.waiting")]


def test_places_are_counted_by_level_ageing_and_entry() -> None:
    late_and_urgent = [ticket(4, "waiting", minute=10, level=0), did(4, "ticket.moved")]
    later_and_low = [ticket(5, "waiting", minute=3, level=2), did(5, "ticket.moved")]
    claims = [claimed(number) for number in (1, 2, 3, 4, 5)]
    truth, found = told(AGENT, A_SERVED, B_WAITS, C_WAITS, late_and_urgent, later_and_low, claims)
    assert [each.place for each in truth] == [None, 2, 3, 1, 4]
    assert [each.state for each in truth] == ["served", *["waiting"] * 4]
    assert truth[0].agent == "Lia"
    assert found == {}


def test_who_is_called_past_somebody_is_found() -> None:
    a_closed = [ticket(1, "closed"), did(1, "ticket.closed")]
    c_called = [ticket(3, "served", minute=2, agent=5), did(3, "ticket.served")]
    _, found = told(AGENT, A_SERVED, B_WAITS, C_WAITS, [*a_closed, *c_called])
    assert list(found) == ["fifo"]
    given = [ticket(3, "served", minute=2, agent=5), did(3, "ticket.given")]
    assert told(AGENT, A_SERVED, B_WAITS, C_WAITS, [*a_closed, *given])[1] == {}


def test_who_serves_too_many_and_who_is_forgotten_are_found() -> None:
    b_too = [ticket(2, "served", minute=1, agent=5), did(2, "ticket.served")]
    assert list(told(AGENT, A_SERVED, B_WAITS, b_too)[1]) == ["above_capacity"]
    a_closed = [ticket(1, "closed"), did(1, "ticket.closed")]
    assert list(told(AGENT, A_SERVED, B_WAITS, a_closed)[1]) == ["forgotten"]
    assert told(AGENT, A_SERVED, B_WAITS, a_closed, is_open=False)[1] == {}


def said(*texts: tuple[int, str, int]) -> dict[str, list[str]]:
    """Let one who waits be told texts, each at a second and with its place."""
    found: dict[str, list[str]] = defaultdict(list)
    arrivals = []
    for second, word, place in texts:
        at = T0 + timedelta(seconds=second)
        text = render(word, "pt-BR", {}, place=place)
        truth = Truth({"tenant_id": SHOP}, at, 1, "waiting", place, None, 1)
        received = Received("s", "c", str(second), text, "api", int(at.timestamp() * 1000))
        arrivals.append(Arrival("5511", received, read(text), truth))
    _check_notices(arrivals, found)
    return {word: what for word, what in found.items() if what}


def test_what_is_told_too_often_too_soon_or_worse_is_found() -> None:
    assert said((0, "entry", 9), (120, "update", 8), (130, "position", 8), (250, "next", 1)) == {}
    assert list(said((0, "entry", 9), (119, "update", 8))) == ["too_soon"]
    assert list(said((0, "entry", 3), (120, "update", 4))) == ["worse"]
    assert said((0, "entry", 3), (120, "position", 4)) == {}
    many = [(120 * number, "update", 20 - number) for number in range(1, 7)]
    assert list(said((0, "entry", 20), *many)) == ["too_often"]
    assert list(said((0, "entry", 3), (600, "silence", 3), (1700, "silence", 3))) == ["too_soon"]


def test_windows_are_counted() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    _check_window("s", [0, 10, 20, 60_000], 3, 60_000, found)
    assert found == {}
    _check_window("s", [0, 10, 20, 59_000], 3, 60_000, found)
    assert found["over_pace"]


@pytest.mark.parametrize(
    ("locale", "name"), [(locale, name) for locale in DEFAULTS for name in DEFAULTS[locale]]
)
def test_every_text_is_recognized_by_its_words(locale: str, name: str) -> None:
    found = read(render(name, locale, {}, place=7, agent="Lia", minutes=5, next_open="às 9h"))
    assert found is not None
    assert found.word == {"entry_next": Word.ENTRY}.get(name, name)
    assert found.place in {7, None}
    assert found.agent in {"Lia", None}


def test_what_people_write_is_nobody_elses() -> None:
    assert read("Lia: bom dia #1") is None
