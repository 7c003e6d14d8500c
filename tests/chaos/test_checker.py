"""The checker sees what is planted, and nothing where nothing is."""

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from chaos.__main__ import verdict
from chaos.checker import Report, check
from chaos.records import Arrival, Asked, Fact, Intent, Line, Pause, Records, Row, Told, fact_of

FIRST, SECOND = (Fact("message", "user_1", f"False/3A0{number}") for number in (1, 2))
ECHO = Fact("message", "user_1", "True/3EB01")
BOUNDS = ("lost", "duplicated", "reordered", "indeterminate", "excluded")


def row(fact: Fact, place: int, author: str = "customer") -> Row:
    """A row of the one conversation."""
    return Row(fact, 7, author, place)


def told(fact: Fact, at: float, *, order: int | None = None, accepted: bool = True) -> Told:
    """A fact told `at` a time, and accepted half a second later."""
    stamp = int(at) if order is None else order
    return Told(fact, (stamp, stamp * 1000), at, at + 0.5 if accepted else None)


def audit(*steps: tuple[str, int]) -> list[Any]:
    """The audit's rows, as (what, ticket)."""
    detail = {"by": "cli", "place": 1, "word": "turn"}
    return [
        SimpleNamespace(what=what, conversation_id=ticket, ticket_id=ticket, detail=detail)
        for what, ticket in steps
    ]


GOOD = Records(
    told=[told(FIRST, 1), told(SECOND, 3), told(ECHO, 5)],
    kept=[row(FIRST, 1), row(SECOND, 2), row(ECHO, 3, "bot")],
    intents=[Intent(1, "user_1", "turn", 1, "sent", "3EB01", "your turn", (100.0,))],
    arrivals=[Arrival("user_1", "551", "3EB01", "your turn", 100.2)],
    lines=[Line(1, 1, audit(("ticket.opened.served", 1), ("claimed.turn", 1), ("ticket.closed", 1)))],
)


def found(report: Report) -> dict[str, int]:
    """How much of each was found."""
    counted = {name: len(getattr(report, name)) for name in BOUNDS}
    return {name: number for name, number in counted.items() if number}


def test_a_good_run_is_clean() -> None:
    report = check(GOOD)
    assert report.clean, report.findings
    assert (report.acked, report.facts, report.sent, report.pairs) == (3, 3, 1, 1)


def test_an_accepted_message_that_is_nowhere_is_lost() -> None:
    assert found(check(replace(GOOD, kept=[GOOD.kept[0], GOOD.kept[2]]))) == {"lost": 1}


def test_a_message_that_was_never_accepted_is_not_lost() -> None:
    refused = told(Fact("message", "user_1", "False/3A09"), 2, accepted=False)
    assert check(replace(GOOD, told=[*GOOD.told, refused])).clean


def test_a_dead_letter_is_lost() -> None:
    assert found(check(replace(GOOD, dead=["dead letters in wsm:1:dead"]))) == {"lost": 1}


def test_a_fact_kept_twice_is_duplicated() -> None:
    assert found(check(replace(GOOD, kept=[*GOOD.kept, row(SECOND, 9)]))) == {"duplicated": 1}


def test_a_fact_that_nobody_told_is_duplicated() -> None:
    stranger = row(Fact("message", "user_1", "False/3A77"), 9)
    assert found(check(replace(GOOD, kept=[*GOOD.kept, stranger]))) == {"duplicated": 1}


def test_two_that_were_swapped_are_reordered_once() -> None:
    swapped = [row(FIRST, 2), row(SECOND, 1), GOOD.kept[2]]
    assert found(check(replace(GOOD, kept=swapped))) == {"reordered": 1}


def test_the_same_in_two_conversations_is_no_order() -> None:
    apart = [replace(row(FIRST, 2), conversation=8), row(SECOND, 1), GOOD.kept[2]]
    assert check(replace(GOOD, kept=apart)).clean


@pytest.mark.parametrize(
    "first",
    [
        told(FIRST, 2.8),  # its 2xx came after the second was sent
        told(FIRST, 1, order=4),  # it is the younger by its signed time
        told(FIRST, 1, accepted=False),
    ],
)
def test_two_in_flight_or_younger_or_refused_may_be_handled_in_any_order(first: Told) -> None:
    swapped = [row(FIRST, 2), row(SECOND, 1), GOOD.kept[2]]
    assert check(replace(GOOD, told=[first, *GOOD.told[1:]], kept=swapped)).clean


def test_a_repeat_that_came_earlier_makes_a_fact_accepted_earlier() -> None:
    swapped = [row(FIRST, 2), row(SECOND, 1), GOOD.kept[2]]
    late = told(FIRST, 8, order=1)
    assert found(check(replace(GOOD, told=[*GOOD.told, late], kept=swapped))) == {"reordered": 1}


def test_an_intent_that_left_twice_is_duplicated() -> None:
    again = replace(GOOD.arrivals[0], at=104.0)
    assert found(check(replace(GOOD, arrivals=[*GOOD.arrivals, again]))) == {"duplicated": 1}


def test_a_text_under_an_id_that_no_intent_bears_is_duplicated() -> None:
    blind = replace(GOOD.arrivals[0], id="3EB0FF")
    assert found(check(replace(GOOD, arrivals=[*GOOD.arrivals, blind]))) == {"duplicated": 1}


def test_a_turn_that_is_told_twice_is_duplicated() -> None:
    second = replace(GOOD.intents[0], id=2, bare_id="3EB02")
    came = replace(GOOD.arrivals[0], id="3EB02")
    run = replace(GOOD, intents=[*GOOD.intents, second], arrivals=[*GOOD.arrivals, came])
    assert found(check(run)) == {"duplicated": 1}


@pytest.mark.parametrize(
    ("pause", "word"),
    [
        (Pause("worker-1", 100.1, 106.0), "excluded"),
        (Pause("ingest", 100.1, 106.0), "duplicated"),
        (Pause("worker-1", 99.0, 106.0), "duplicated"),  # stopped before the claim
        (Pause("worker-1", 105.0, 106.0), "duplicated"),  # stopped after the deadline
        (Pause("worker-1", 100.1, 107.0), "duplicated"),  # it left while the worker stood still
    ],
)
def test_only_a_worker_stopped_between_deadline_check_and_write_is_excluded(pause: Pause, word: str) -> None:
    again = replace(GOOD.arrivals[0], at=106.1)
    run = replace(GOOD, arrivals=[*GOOD.arrivals, again], pauses=[pause])
    assert found(check(run)) == {word: 1}


def test_what_is_said_to_be_sent_and_never_arrived_is_lost() -> None:
    unsent = Intent(2, "user_1", "place", 2, "sent", "3EB02", "you are no. 2")
    assert found(check(replace(GOOD, intents=[*GOOD.intents, unsent]))) == {"lost": 1}


@pytest.mark.parametrize("state", ["pending", "sending", "indeterminate"])
def test_an_intent_that_is_not_settled_is_indeterminate(state: str) -> None:
    open_ = Intent(2, "user_1", "place", 2, state)
    assert found(check(replace(GOOD, intents=[*GOOD.intents, open_]))) == {"indeterminate": 1}


@pytest.mark.parametrize("state", ["failed", "dropped"])
def test_an_intent_that_is_given_up_and_arrived_is_indeterminate(state: str) -> None:
    given_up = replace(GOOD.intents[0], state=state)
    assert found(check(replace(GOOD, intents=[given_up]))) == {"indeterminate": 1}


ASKED = replace(
    GOOD,
    told=[*GOOD.told, told(Fact("message", "user_1", "True/3EB07"), 6)],
    kept=[*GOOD.kept, row(Fact("message", "user_1", "True/3EB07"), 4, "bot")],
    asked=[Asked("k1", "user_1", "551", "5ha"), Asked("k2", "user_1", "551")],
    intents=[
        *GOOD.intents,
        Intent(7, "user_1", "agent", 1, "sent", "3EB07", "nota", (101.0,), "k1", 200.0),
        Intent(8, "user_1", "bot", 1, "failed", key="k2", expires_at=200.0),
    ],
    arrivals=[*GOOD.arrivals, Arrival("user_1", "551", "3EB07", "nota", 101.2, "5ha")],
)


def with_intent(number: int, **changed: Any) -> Records:
    """What was asked for, with another end of an intent."""
    return replace(
        ASKED,
        intents=[replace(each, **changed) if each.id == number else each for each in ASKED.intents],
    )


def test_what_was_asked_for_and_left_once_is_clean() -> None:
    report = check(ASKED)
    assert report.clean, report.findings
    assert (report.asked, report.sent) == (2, 2)


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (replace(ASKED, intents=ASKED.intents[:-1]), "lost"),
        (replace(ASKED, asked=[Asked("k1", "user_1", "551", "0ther")]), "lost"),
        (replace(ASKED, asked=[Asked("k1", "user_1", "552", "5ha")]), "lost"),
        (with_intent(8, key="k1"), "duplicated"),
        (with_intent(7, expires_at=100.5), "duplicated"),
        (with_intent(8, claimed_at=(102.0,), opted_out_at=101.0), "duplicated"),
        (replace(ASKED, arrivals=[*ASKED.arrivals, ASKED.arrivals[-1]]), "duplicated"),
    ],
)
def test_what_was_asked_for_and_is_not_as_asked_is_found(run: Records, word: str) -> None:
    assert word in found(check(run))


def test_who_speaks_in_his_own_name_may_write_to_who_opted_out() -> None:
    assert check(with_intent(7, opted_out_at=100.0)).clean


def test_of_two_asks_of_a_class_the_first_leaves_first() -> None:
    swapped = with_intent(8, state="sent", bare_id="3EB08", what="agent")
    late = replace(ASKED.arrivals[-1], id="3EB08", sha256=None)
    run = replace(swapped, arrivals=[ASKED.arrivals[0], late, ASKED.arrivals[-1]])
    assert found(check(run))["reordered"] == 1


def test_a_ticket_closed_twice_is_duplicated() -> None:
    twice = audit(("ticket.opened.served", 1), ("ticket.closed", 1), ("ticket.closed", 1))
    assert found(check(replace(GOOD, lines=[Line(1, 1, twice)]))) == {"duplicated": 1}


def test_a_message_and_its_twin_are_one_fact() -> None:
    bodies = [
        {
            "id": f"evt_{number}", "event": event, "session": "user_1",
            "payload": {"id": f"false_{chat}_3A01", "fromMe": False},
        }
        for number, (event, chat) in enumerate([("message", "55@c.us"), ("message.any", "955@lid")])
    ]  # fmt: skip
    assert fact_of(bodies[0]) == fact_of(bodies[1]) == FIRST


def test_the_last_line_adds_up_and_the_exit_code_tells() -> None:
    good, bad = check(GOOD), check(replace(GOOD, kept=GOOD.kept[1:]))
    assert verdict([good]) == ("acked=3 sends=0 lost=0 duplicated=0 reordered=0 indeterminate=0 seeds=1", 0)
    assert verdict([good, bad]) == (
        "acked=6 sends=0 lost=1 duplicated=0 reordered=0 indeterminate=0 seeds=2",
        1,
    )
