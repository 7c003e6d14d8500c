"""What a turn decides, from values: order, lateness, own echoes, groups, the closing word."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lines import line_of
from wsm.core.aftermath import Arm
from wsm.core.conversation import State
from wsm.core.events import (
    ChatKind,
    CloseAsked,
    Event,
    MessageAcked,
    MessageEdited,
    MessageReacted,
    MessageReceived,
    MessageRevoked,
    Order,
    PollVoted,
    Source,
)
from wsm.core.ids import BareId, ChatId, EntryId, SessionName, TenantId
from wsm.core.tickets import Did, Effect
from wsm.core.timers import TimerKind
from wsm.core.turn import CLOSING_WORD, Conversation, Known, Record, Step, decide

SESSION = SessionName("user_1")
ANA, BIA, GROUP = ChatId("ana@c.us"), ChatId("bia@c.us"), ChatId("familia@g.us")
KINDS = {ANA: ChatKind.DIRECT, BIA: ChatKind.DIRECT, GROUP: ChatKind.GROUP}
NUMBERS = {ANA: 1, BIA: 2, GROUP: 3}
START = Order(0, 0, (0, 0))
_numbers = itertools.count(1)


def common(chat: ChatId, at: int) -> dict[str, Any]:
    """The fields of an event of a second, each with a stream entry of its own."""
    number = next(_numbers)
    return {
        "tenant": TenantId(1),
        "session": SESSION,
        "key": f"key-{number}",
        "order": Order(at * 1000, at * 1000, (at * 1000, number)),
        "name": "message.any",
        "entry": EntryId(f"{at * 1000}-{number}"),
        "raw": b"{}",
        "chat": chat,
    }


def says(chat: ChatId, body: str, at: int, *, from_me: bool = False, **more: Any) -> MessageReceived:
    """A message of a second."""
    given: dict[str, Any] = {"id": BareId(f"id-{body}-{at}"), "source": None, "kind": "text", **more}
    return MessageReceived(**common(chat, at), from_me=from_me, body=body, **given)


def asks_to_close(chat: ChatId, at: int) -> CloseAsked:
    """A command of a second."""
    return CloseAsked(**common(chat, at), by="cli")


class Case:
    """A tenant's chats and line, and turns one after the other."""

    def __init__(self, *, capacity: int = 1) -> None:
        self.line = line_of(capacity=capacity)
        self.chats = {
            (SESSION, chat): Conversation(NUMBERS[chat], kind, State.START, START)
            for chat, kind in KINDS.items()
        }

    def turn(self, *events: Event, own: frozenset[BareId] = frozenset(), answer_since: int = 0) -> list[Step]:
        return decide(events, self.chats, self.line, own, answer_since_ms=answer_since * 1000)

    def state(self, chat: ChatId) -> State:
        return self.chats[SESSION, chat].state


def told(steps: list[Step]) -> list[tuple[str, int]]:
    """The effects on conversations, as (what, conversation)."""
    return [(step.did, step.conversation) for step in steps if isinstance(step, Effect) and step.conversation]


def without_moves(steps: list[Step]) -> list[Step]:
    """Without what is said of the line once a turn."""
    return [
        step
        for step in steps
        if not (isinstance(step, Effect) and step.did is Did.LINE_MOVED)
        and not (isinstance(step, Arm) and step.kind is TimerKind.PULSE)
    ]


def recorded(steps: list[Step]) -> list[tuple[str, str, bool]]:
    """The rows of history, as (author, text, late)."""
    return [
        (step.author, getattr(step.event, "body", ""), step.late)
        for step in steps
        if isinstance(step, Record)
    ]


def test_events_are_taken_in_their_order_however_they_came() -> None:
    case = Case()
    steps = case.turn(says(BIA, "segunda", 2), says(ANA, "terceira", 3), says(ANA, "primeira", 1))
    assert told(steps) == [
        ("ticket.opened.served", 1),
        ("tell.turn", 1),
        ("ticket.opened.waiting", 2),
        ("tell.place", 2),
    ]
    assert [text for _, text, _ in recorded(steps)] == ["primeira", "segunda", "terceira"]


def test_equal_times_are_told_apart_by_their_arrival() -> None:
    first, second = says(ANA, "a", 1), says(BIA, "b", 1)
    assert told(Case().turn(second, first))[0] == ("ticket.opened.served", 1)


def test_a_ticket_is_open_before_the_message_that_opened_it_is_recorded() -> None:
    steps = Case().turn(says(ANA, "oi", 1))
    assert [type(step).__name__ for step in steps] == ["Effect", "Effect", "Record"]
    end = says(ANA, CLOSING_WORD, 2, from_me=True)
    case = Case()
    case.turn(says(ANA, "oi", 1))
    assert [type(step).__name__ for step in case.turn(end)] == ["Record", "Effect"], (
        "and still open for its last"
    )


@pytest.mark.parametrize("closed_before", [True, False])
def test_a_late_message_is_recorded_and_starts_and_rewinds_nothing(closed_before: bool) -> None:
    case = Case()
    case.turn(says(ANA, "segunda", 20))
    if closed_before:
        case.turn(asks_to_close(ANA, 30))
    steps = case.turn(says(ANA, "primeira", 10))
    assert (told(steps), recorded(steps)) == ([], [("customer", "primeira", True)])
    assert case.state(ANA) is (State.CLOSED if closed_before else State.SERVED)


def test_a_late_closing_word_closes_nothing() -> None:
    case = Case()
    case.turn(says(ANA, "ainda aqui", 20))
    steps = case.turn(says(ANA, CLOSING_WORD, 10, from_me=True))
    assert (told(steps), recorded(steps)) == ([], [("agent", CLOSING_WORD, True)])


def test_a_late_change_is_late_and_moves_no_mark() -> None:
    case = Case()
    edit = MessageEdited(**common(ANA, 30), id=BareId("e"), target=BareId("x"), from_me=False, body="novo")
    case.turn(says(ANA, "oi", 20))
    assert recorded(case.turn(edit)) == [("customer", "novo", False)]
    assert recorded(case.turn(says(ANA, "e mais", 25))) == [("customer", "e mais", False)]
    older = MessageRevoked(**common(ANA, 5), id=BareId("r"), target=BareId("x"), from_me=True)
    assert recorded(case.turn(older)) == [("agent", "", True)]


def test_a_close_that_is_asked_for_has_no_order_to_keep() -> None:
    case = Case()
    case.turn(says(ANA, "oi", 20))
    assert told(case.turn(asks_to_close(ANA, 10))) == [("ticket.closed", 1)]
    assert case.state(ANA) is State.CLOSED
    assert told(case.turn(says(ANA, "mais uma coisa", 21)))[0] == ("ticket.opened.served", 1)


@pytest.mark.parametrize(
    ("more", "own", "author"),
    [
        ({"source": Source.API}, frozenset(), "bot"),
        ({"source": Source.APP}, frozenset({BareId("own")}), "bot"),
        ({"source": None}, frozenset({BareId("own")}), "bot"),
        ({"source": Source.APP}, frozenset(), "agent"),
        ({"source": None}, frozenset(), "agent"),
    ],
)
def test_own_messages_are_the_bots_or_the_agents_and_never_join_the_line(
    more: dict[str, Any], own: frozenset[BareId], author: str
) -> None:
    case = Case()
    steps = case.turn(says(ANA, "olá", 1, from_me=True, id=BareId("own"), **more), own=own)
    assert (told(steps), recorded(steps)) == ([], [(author, "olá", False)])
    assert case.state(ANA) is State.START


def test_a_customer_who_knows_an_id_of_ours_is_still_a_customer() -> None:
    steps = Case().turn(says(ANA, "oi", 1, id=BareId("own")), own=frozenset({BareId("own")}))
    assert recorded(steps) == [("customer", "oi", False)]


def test_an_echo_moves_no_mark_so_an_earlier_customer_is_not_late() -> None:
    case = Case()
    case.turn(says(ANA, "oi", 1))
    case.turn(says(ANA, "aviso", 9, from_me=True, source=Source.API))
    assert recorded(case.turn(says(ANA, "sim", 5))) == [("customer", "sim", False)]


@pytest.mark.parametrize("text", [CLOSING_WORD, f" {CLOSING_WORD.upper()}\n"])
def test_the_closing_word_alone_from_the_phone_closes(text: str) -> None:
    case = Case()
    case.turn(says(ANA, "oi", 1), says(BIA, "oi", 2))
    steps = case.turn(says(ANA, text, 3, from_me=True, source=Source.APP))
    assert told(steps) == [("ticket.closed", 1), ("ticket.served", 2), ("tell.turn", 2)]
    assert [step.by for step in steps if isinstance(step, Effect) and step.did is Did.CLOSED] == ["agent"]
    assert (case.state(ANA), case.state(BIA)) == (State.CLOSED, State.SERVED)


@pytest.mark.parametrize(
    "event",
    [
        says(ANA, CLOSING_WORD, 3),
        says(ANA, f"até logo {CLOSING_WORD}", 3, from_me=True),
        says(ANA, CLOSING_WORD, 3, from_me=True, source=Source.API),
        says(GROUP, CLOSING_WORD, 3, from_me=True),
    ],
)
def test_nobody_else_and_nothing_else_closes(event: Event) -> None:
    case = Case()
    case.turn(says(ANA, "oi", 1))
    assert told(case.turn(event)) == []
    assert case.state(ANA) is State.SERVED


def test_groups_are_recorded_and_nothing_follows() -> None:
    case = Case()
    steps = case.turn(says(GROUP, "oi, grupo", 2), says(GROUP, "antes", 1), asks_to_close(GROUP, 3))
    assert (told(steps), recorded(steps)) == (
        [],
        [("customer", "antes", False), ("customer", "oi, grupo", False)],
    )


def test_changes_of_messages_are_recorded_and_open_no_ticket() -> None:
    some: dict[str, Any] = {"id": BareId("x"), "target": BareId("t"), "from_me": False}
    steps = Case().turn(
        MessageReacted(**common(ANA, 1), **some, text="👍"),
        PollVoted(**common(ANA, 2), **some, options=("a",)),
        MessageRevoked(**common(ANA, 3), **some),
    )
    assert told(steps) == []
    assert len(recorded(steps)) == 3


def test_what_belongs_to_no_chat_that_is_known_is_passed_over() -> None:
    stranger = ChatId("ninguem@c.us")
    ack = MessageAcked(**common(ANA, 1), id=BareId("x"), from_me=True, level=1)
    assert Case().turn(asks_to_close(stranger, 1), ack) == []


def test_both_ids_of_one_person_are_one_conversation() -> None:
    case = Case()
    hidden = ChatId("oculto@lid")
    case.chats[SESSION, hidden] = case.chats[SESSION, ANA]
    steps = case.turn(says(hidden, "oi", 1), says(ANA, "sou eu", 2))
    assert told(steps) == [("ticket.opened.served", 1), ("tell.turn", 1)]


def test_a_line_that_moves_in_the_middle_of_a_turn_is_seen_by_the_rest_of_it() -> None:
    case = Case()
    steps = case.turn(
        says(ANA, "oi", 1),
        says(BIA, "oi", 2),
        asks_to_close(ANA, 3),
        says(ANA, "voltei", 4),
        says(BIA, "sim", 5),
    )
    assert told(steps) == [
        ("ticket.opened.served", 1), ("tell.turn", 1), ("ticket.opened.waiting", 2), ("tell.place", 2),
        ("ticket.closed", 1), ("ticket.served", 2), ("tell.turn", 2),
        ("ticket.opened.waiting", 1), ("tell.place", 1),
    ]  # fmt: skip


def test_what_was_fetched_too_late_is_recorded_and_starts_nothing() -> None:
    case = Case()
    steps = case.turn(
        says(ANA, "ontem", 9, backfilled=True), says(BIA, "agora", 10, backfilled=True), answer_since=10
    )
    assert told(steps) == [("ticket.opened.served", 2), ("tell.turn", 2)]
    assert recorded(steps) == [("customer", "ontem", True), ("customer", "agora", False)]
    assert case.state(ANA) is State.START


def test_a_webhook_of_any_age_is_answered() -> None:
    assert told(Case().turn(says(ANA, "ontem", 9), answer_since=10))[0] == ("ticket.opened.served", 1)


def test_what_was_fetched_too_late_makes_nothing_after_it_late() -> None:
    case = Case()
    case.turn(says(ANA, "ontem", 9, backfilled=True), answer_since=10)
    steps = case.turn(says(ANA, "anteontem", 8), says(ANA, "e agora?", 12, backfilled=True), answer_since=10)
    assert recorded(steps) == [("customer", "anteontem", False), ("customer", "e agora?", False)]
    assert told(steps) == [("ticket.opened.served", 1), ("tell.turn", 1)]


def test_a_fetched_message_that_sorts_before_one_that_was_handled_is_late_however_young() -> None:
    case = Case()
    case.turn(says(ANA, "segunda", 20))
    steps = case.turn(says(ANA, "primeira", 15, backfilled=True), answer_since=10)
    assert (told(steps), recorded(steps)) == ([], [("customer", "primeira", True)])


def test_an_agent_who_closed_while_nobody_heard_has_closed() -> None:
    case = Case()
    case.turn(says(ANA, "oi", 1), says(BIA, "oi", 2))
    steps = case.turn(says(ANA, CLOSING_WORD, 3, from_me=True, backfilled=True), answer_since=10)
    assert told(steps) == [("ticket.closed", 1), ("ticket.served", 2), ("tell.turn", 2)]
    assert recorded(steps) == [("agent", CLOSING_WORD, False)]


EVENTS = st.lists(
    st.tuples(st.sampled_from([ANA, BIA, GROUP]), st.integers(1, 9), st.sampled_from(["oi", CLOSING_WORD]),
              st.booleans()), max_size=12,
)  # fmt: skip


@given(said=EVENTS, seed=st.randoms(use_true_random=False))
def test_one_turn_decides_the_same_whatever_order_its_events_came_in(said: list[Any], seed: Any) -> None:
    events = [says(chat, text, at, from_me=from_me) for chat, at, text, from_me in said]
    shuffled = [*events]
    seed.shuffle(shuffled)
    assert Case().turn(*events) == Case().turn(*shuffled)


@given(said=EVENTS, cut=st.integers(0, 12))
def test_what_comes_in_order_is_decided_the_same_in_one_turn_or_in_two(said: list[Any], cut: int) -> None:
    events = sorted(
        (says(chat, text, at, from_me=from_me) for chat, at, text, from_me in said),
        key=lambda event: event.order,
    )
    whole, parts = Case(), Case()
    in_two = [*parts.turn(*events[:cut]), *parts.turn(*events[cut:])]
    assert without_moves(whole.turn(*events)) == without_moves(in_two)
    assert {chat: whole.state(chat) for chat in KINDS} == {chat: parts.state(chat) for chat in KINDS}


def test_what_an_agent_sent_through_wsm_is_his_and_closes_nothing() -> None:
    case = Case()
    case.turn(says(ANA, "oi", 1))
    sent, bots = BareId("sent"), BareId("bots")
    steps = decide(
        [
            says(ANA, CLOSING_WORD, 2, from_me=True, id=sent, source=Source.API),
            says(ANA, "bot", 3, from_me=True, id=bots, source=Source.API),
        ],
        case.chats,
        case.line,
        frozenset({sent, bots}),
        known=Known(agents=frozenset({sent})),
    )
    assert told(steps) == []
    assert recorded(steps) == [("agent", CLOSING_WORD, False), ("bot", "bot", False)]
