"""The line, on its own: no server, no clock."""

from datetime import timedelta

import pytest

from lines import NOON, QUEUE, line_of, minutes, spot, told, waiting
from wsm.core.attendance import GONE_AFTER, PARKED_AT_MOST, RETURN_WITHIN, Line
from wsm.core.conversation import TRANSITIONS, State, Trigger, diagram, may, step, ticket_diagram
from wsm.core.notices import Pace
from wsm.core.tickets import MICROSECOND, Agent, Did, Effect, Ended, Level, Queue


def test_the_first_customer_is_served_at_once() -> None:
    line = line_of()
    assert line.wrote(1) == [Effect(Did.OPENED_SERVED, 1), Effect(Did.TELL_TURN, 1)]


def test_the_others_are_told_their_place_at_entry() -> None:
    line = line_of()
    line.wrote(1)
    assert line.wrote(2) == [Effect(Did.OPENED_WAITING, 2), Effect(Did.TELL_PLACE, 2)]
    assert line.wrote(3) == [Effect(Did.OPENED_WAITING, 3), Effect(Did.TELL_PLACE, 3)]
    assert waiting(line) == [2, 3]


def test_writing_again_keeps_the_place_and_says_nothing() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING))
    assert line.wrote(2) == []
    assert line.wrote(1) == []


def test_closing_calls_the_next_and_moves_everyone_behind() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING), (3, State.WAITING), (4, State.WAITING))
    assert line.closed(1, "cli") == [
        Effect(Did.CLOSED, 1, "cli"),
        Effect(Did.SERVED, 2),
        Effect(Did.TELL_TURN, 2),
    ]
    assert line.lines_moved() == [Effect(Did.LINE_MOVED, None, queue=QUEUE, behind=(NOON, 2))]
    assert waiting(line) == [3, 4]


def test_who_leaves_the_line_moves_only_those_behind() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING), (3, State.WAITING), (4, State.WAITING))
    assert line.closed(3, "cli") == [Effect(Did.CLOSED, 3, "cli")]
    assert line.lines_moved() == [Effect(Did.LINE_MOVED, None, queue=QUEUE, behind=(NOON, 3))]


def test_a_line_that_moved_often_in_a_turn_says_so_once_from_the_first_on() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING), (3, State.WAITING), (4, State.WAITING))
    line.closed(4, "cli")
    line.closed(1, "cli")
    assert line.lines_moved() == [Effect(Did.LINE_MOVED, None, queue=QUEUE, behind=(NOON, 2))]
    assert line.lines_moved() == []


def test_closing_twice_does_nothing_the_second_time() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING))
    line.closed(1, "cli")
    assert line.closed(1, "cli") == []
    assert line.closed(9, "cli") == []


def test_more_capacity_serves_more() -> None:
    line = line_of((1, State.SERVED), (2, State.WAITING), (3, State.WAITING), capacity=2)
    assert line.refilled()[:2] == [Effect(Did.SERVED, 2), Effect(Did.TELL_TURN, 2)]
    assert waiting(line) == [3]


def test_a_newcomer_does_not_overtake_who_waits_for_a_free_place() -> None:
    line = line_of((2, State.WAITING), capacity=1)
    assert line.wrote(5)[0] == Effect(Did.OPENED_WAITING, 5)


def test_nobody_is_served_in_a_queue_without_capacity() -> None:
    line = line_of(capacity=0)
    assert line.wrote(1)[0].did is Did.OPENED_WAITING
    assert line.refilled() == []


def test_the_table_has_one_row_per_state_and_trigger() -> None:
    pairs = [(row.state, row.trigger) for row in TRANSITIONS]
    assert len(set(pairs)) == len(pairs)
    never_asked = {state: {trigger for trigger in Trigger if not may(state, trigger)} for state in State}
    assert never_asked[State.SERVED] == {
        Trigger.CAME_BACK_PLACE_FREE, Trigger.CAME_BACK_ALL_BUSY, Trigger.CALLED, Trigger.OVERDUE
    }  # fmt: skip
    assert all(Trigger.CALLED in never for state, never in never_asked.items() if state is not State.WAITING)
    assert not any(Trigger.CLOSED in never for never in never_asked.values())
    with pytest.raises(KeyError):
        step(State.CLOSED, Trigger.CALLED)


def test_every_state_can_be_reached_and_left() -> None:
    moves = [row for row in TRANSITIONS if row.next is not row.state]
    assert {row.next for row in moves} | {State.START} == {*State} == {row.state for row in moves}


def test_the_diagrams_name_every_state() -> None:
    assert all(state in diagram() for state in State)
    assert all(state in ticket_diagram() for state in State if state is not State.START)
    assert "start" not in ticket_diagram()


# Levels


def test_the_more_urgent_stand_before_and_who_has_waited_long_beside_them() -> None:
    line = line_of(
        (9, State.SERVED),
        spot(1, State.WAITING, 0, level=Level.LOW),
        spot(2, State.WAITING, 10),
        spot(3, State.WAITING, 20, level=Level.URGENT),
        spot(4, State.WAITING, 40, level=Level.URGENT),
    )
    assert waiting(line) == [3, 2, 1, 4], "15 minutes for each level"


def test_a_new_level_is_a_new_place_and_the_entry_stays() -> None:
    line = line_of((9, State.SERVED), *(spot(who, State.WAITING, who) for who in (1, 2, 3)))
    assert told(line.moved(3, "cli", level=Level.URGENT)) == [("ticket.moved", 3), ("tell.place", 3)]
    assert waiting(line) == [3, 1, 2]
    line.moved(1, "cli", level=Level.LOW)
    assert waiting(line) == [3, 2, 1]
    assert line.queues[QUEUE].heads[2].entered_at == minutes(1)


def test_an_entry_is_behind_everyone_also_when_a_clock_went_back() -> None:
    line = line_of((9, State.SERVED), spot(1, State.WAITING, 5), now=minutes(3))
    line.wrote(2)
    line.wrote(3)
    assert waiting(line) == [1, 2, 3]


# A part of the line


def seen(*standing: tuple[int, State], more: bool = True) -> Line:
    """A line of which more stands behind these."""
    line = line_of(*standing)
    line.queues[QUEUE].more = more
    return line


def test_who_enters_behind_what_is_seen_waits_and_is_not_called_before_it() -> None:
    line = seen((1, State.SERVED), (2, State.WAITING))
    line.wrote(7)
    line.closed(1, "cli")
    line.closed(2, "cli")
    assert (line.state(7), waiting(line), line.short) == (State.WAITING, [], True)


def test_a_line_of_which_all_is_seen_is_never_short() -> None:
    line = seen((1, State.SERVED), (2, State.WAITING), more=False)
    line.closed(1, "cli")
    line.closed(2, "cli")
    assert line.short is False


def test_a_line_is_short_only_if_somebody_could_be_called() -> None:
    line = seen((1, State.SERVED))
    line.wrote(1)
    assert line.refilled() == []
    assert line.short is False


# Agents


def test_each_is_given_to_who_serves_the_fewest_then_to_who_is_idle_longest() -> None:
    agents = [
        Agent(1, "ana", 3, online=True, busy_at=minutes(2)),
        Agent(2, "bia", 3, online=True, busy_at=NOON),
    ]
    line = line_of(agents=agents, now=minutes(5))
    given = [line.wrote(who)[0].agent for who in range(1, 7)]
    assert given == [2, 1, 1, 2, 1, 2]
    assert told(line.wrote(7))[0] == ("ticket.opened.waiting", 7)


def test_without_an_agent_who_is_online_everybody_waits() -> None:
    line = line_of(agents=[Agent(1, "ana", 3)], capacity=5)
    assert told(line.wrote(1))[0] == ("ticket.opened.waiting", 1)
    assert told(line.present("ana", online=True)) == [
        ("agent.online", None),
        ("ticket.served", 1),
        ("tell.turn", 1),
    ]
    assert line.present("ana", online=True) == []


def test_who_was_served_before_goes_to_the_same_agent_if_he_has_room() -> None:
    agents = [Agent(1, "ana", 1, online=True), Agent(2, "bia", 2, online=True)]
    line = line_of(spot(5, State.SERVED, agent=2), agents=agents)
    line.closed(5, "bia")
    assert line.wrote(6)[0].agent == 1
    assert line.wrote(5)[0].agent == 2
    line.closed(6, "ana")
    line.closed(5, "bia")
    assert [line.wrote(who)[0].agent for who in (5, 6)] == [2, 1]


def test_an_agent_serves_his_queues_and_takes_the_first_of_them_all() -> None:
    queues = [Queue(1, "vendas"), Queue(2, "suporte"), Queue(3, "outra")]
    ana = Agent(1, "ana", 1, online=True, queues=frozenset({1, 2}))
    line = line_of(
        spot(9, State.SERVED, agent=1),
        spot(1, State.WAITING, 2),
        spot(2, State.WAITING, 1, queue=2),
        spot(3, State.WAITING, 0, queue=3),
        queues=queues,
        agents=[ana],
    )
    assert told(line.closed(9, "ana"))[1:] == [("ticket.served", 2), ("tell.turn", 2)]
    assert told(line.closed(2, "ana"))[1:] == [("ticket.served", 1), ("tell.turn", 1)]
    assert told(line.closed(1, "ana"))[1:] == []


def test_in_a_queue_that_pulls_nobody_is_called_until_an_agent_asks() -> None:
    line = line_of(queues=[Queue(1, pull=True)], agents=[Agent(1, "ana", 1, online=True)])
    assert told(line.wrote(1))[0] == ("ticket.opened.waiting", 1)
    line.wrote(2)
    assert told(line.next_for("ana")) == [("ticket.served", 1), ("tell.turn", 1)]
    assert told(line.next_for("ana")) == [("line.refused", None)]
    assert told(line.next_for("bia")) == [("line.refused", None)]
    line.closed(1, "ana")
    assert waiting(line) == [2]


def test_a_ticket_is_given_to_an_agent_only_if_he_has_room() -> None:
    agents = [Agent(1, "ana", 1, online=True), Agent(2, "bia", 1, online=True), Agent(3, "caio", 1)]
    line = line_of(spot(1, State.SERVED, agent=1), (2, State.WAITING), agents=agents)
    assert told(line.given(1, "ana", agent="caio")) == [("line.refused", 1)]
    assert told(line.given(1, "ana", agent="nobody")) == [("line.refused", 1)]
    assert told(line.given(1, "ana", agent="bia")) == [
        ("ticket.given", 1),
        ("ticket.served", 2),
        ("tell.turn", 2),
    ]
    assert told(line.given(1, "bia", agent="ana")) == [("line.refused", 1)]
    assert line.given(1, "bia", agent="bia") == []


def test_what_is_moved_to_another_queue_keeps_the_time_of_its_entry() -> None:
    line = line_of(
        spot(1, State.SERVED, 0),
        spot(2, State.WAITING, 1),
        spot(3, State.SERVED, 2, queue=2),
        spot(4, State.WAITING, 3, queue=2),
        queues=[Queue(1, "vendas"), Queue(2, "suporte")],
    )
    assert told(line.moved(1, "cli", queue="suporte")) == [
        ("ticket.moved", 1), ("tell.place", 1), ("ticket.served", 2), ("tell.turn", 2)
    ]  # fmt: skip
    assert (waiting(line, 1), waiting(line, 2)) == ([], [1, 4])
    assert told(line.moved(1, "cli", queue="nenhuma")) == [("line.refused", 1)]


def test_who_is_returned_has_his_old_place_and_another_agent() -> None:
    agents = [Agent(1, "ana", 1, online=True), Agent(2, "bia", 1, online=True)]
    line = line_of(
        spot(1, State.SERVED, 0, agent=1),
        spot(2, State.SERVED, 1, agent=2),
        spot(3, State.WAITING, 2),
        agents=agents,
    )
    assert told(line.returned(1, "ana")) == [("ticket.returned", 1), ("ticket.served", 3), ("tell.turn", 3)]
    assert waiting(line) == [1]
    assert told(line.closed(2, "bia"))[1:] == [("ticket.served", 1), ("tell.turn", 1)]


def test_who_is_returned_where_nobody_else_is_waits_until_the_next_turn() -> None:
    line = line_of(spot(1, State.SERVED))
    assert told(line.returned(1, "cli")) == [("ticket.returned", 1)]
    assert told(line.returned(1, "cli")) == [("line.refused", 1)]
    again = line_of(*line.queues[QUEUE].heads)
    assert told(again.refilled()) == [("ticket.served", 1), ("tell.turn", 1)]


# Aside, and back


def test_who_was_put_aside_has_his_old_place_within_half_an_hour() -> None:
    for late, order in ((RETURN_WITHIN - MICROSECOND, [1, 3]), (RETURN_WITHIN, [3, 1])):
        line = line_of(
            spot(1, State.SERVED, 0), spot(2, State.WAITING, 1), spot(3, State.WAITING, 2), now=minutes(5)
        )
        assert told(line.parked(1, "cli")) == [("ticket.parked", 1), ("ticket.served", 2), ("tell.turn", 2)]
        assert told(line.wrote(1, at=minutes(5) + late)) == [("ticket.returned", 1), ("tell.place", 1)]
        assert waiting(line) == order


def test_who_was_put_aside_is_served_at_once_if_there_is_room() -> None:
    line = line_of(spot(1, State.SERVED))
    line.parked(1, "cli")
    assert told(line.wrote(1)) == [("ticket.served", 1), ("tell.turn", 1)]


def reopening(hours: int = 24) -> Line:
    """A line of two agents, one of whom has just closed 1; 2 and 3 came later, and 3 waits."""
    agents = [Agent(1, "ana", 1, online=True), Agent(2, "bia", 1, online=True)]
    line = line_of(
        spot(1, State.SERVED, 0, agent=1),
        spot(2, State.SERVED, 1, agent=2),
        queues=[Queue(1, reopen=timedelta(hours=hours))],
        agents=agents,
        now=minutes(5),
    )
    line.closed(1, "ana")
    return line


def test_who_writes_within_the_window_comes_back_to_his_ticket_and_his_agent() -> None:
    line = reopening()
    before = line.changed[0]
    assert told(line.wrote(1, at=minutes(24 * 60))) == [("ticket.reopened.served", 1), ("tell.turn", 1)]
    assert before.agent == 1
    assert line.changed == [before], "the same ticket"
    assert (before.ended, before.closed_at, before.again) == (None, None, True)


def test_who_comes_back_while_all_are_busy_stands_before_who_came_later() -> None:
    line = reopening()
    line.wrote(3)
    line.wrote(4)
    assert told(line.wrote(1)) == [("ticket.reopened.waiting", 1), ("tell.place", 1)]
    assert waiting(line) == [1, 4]


def test_later_or_where_nothing_opens_again_it_is_a_new_ticket() -> None:
    assert told(reopening().wrote(1, at=minutes(24 * 60 + 6)))[0] == ("ticket.opened.served", 1)
    assert told(reopening(hours=0).wrote(1))[0] == ("ticket.opened.served", 1)


def test_who_was_never_served_gave_up_his_place() -> None:
    line = line_of(
        (1, State.SERVED),
        (2, State.WAITING),
        (3, State.WAITING),
        queues=[Queue(1, reopen=timedelta(hours=24))],
    )
    line.closed(2, "cli")
    assert told(line.wrote(2))[0] == ("ticket.opened.waiting", 2)
    assert waiting(line) == [3, 2]


def test_thanks_open_nothing_again_and_in_the_line_they_say_nothing() -> None:
    line = reopening()
    assert line.wrote(1, thanks=True) == []
    assert line.state(1) is State.CLOSED
    assert told(line.wrote(9, thanks=True))[0] == ("ticket.opened.served", 9), (
        "who begins with ok is a customer"
    )


# Too long


def test_who_finds_the_line_full_leaves_a_message_and_is_told_once() -> None:
    line = line_of((1, State.SERVED), queues=[Queue(1, max_length=1)])
    line.wrote(2)
    assert told(line.wrote(3)) == [("ticket.opened.overflown", 3), ("tell.message", 3)]
    assert line.changed[-1].ended is Ended.OVERFLOW
    assert line.wrote(3) == []
    line.closed(1, "cli")
    assert told(line.wrote(3))[0] == ("ticket.opened.waiting", 3), "there is room again"


def test_a_message_that_was_left_is_taken_up_by_an_agent() -> None:
    line = line_of(queues=[Queue(1, max_length=1)], agents=[Agent(1, "ana", 1, online=True)])
    for who in (1, 2, 3):
        line.wrote(who)
    line.present("ana", online=False)
    line.closed(1, "ana")
    assert told(line.given(3, "cli", agent="ana")) == [("line.refused", 3)]
    line.closed(2, "cli")
    line.present("ana", online=True)
    assert told(line.given(3, "cli", agent="ana")) == [("ticket.reopened.served", 3), ("tell.turn", 3)]


def test_who_waits_too_long_is_asked_to_leave_a_message() -> None:
    queue = Queue(1, max_wait=timedelta(minutes=10))
    line = line_of(
        (1, State.SERVED),
        spot(2, State.WAITING, 0),
        spot(3, State.WAITING, 1),
        queues=[queue],
        now=minutes(10),
    )
    assert told(line.tended()) == [("ticket.overflown", 2), ("tell.message", 2)]
    assert line.tended() == []


def test_the_tickets_of_an_agent_who_is_gone_go_to_another_or_wait_in_their_old_places() -> None:
    agents = [Agent(1, "ana", 2, online=True), Agent(2, "bia", 1, online=True)]
    standing = (
        spot(1, State.SERVED, 0, agent=1),
        spot(2, State.SERVED, 1, agent=1),
        spot(3, State.WAITING, 2),
    )
    line = line_of(*standing, agents=agents, now=minutes(5))
    line.present("ana", online=False)
    assert line.tended() == []
    line.now += GONE_AFTER
    assert told(line.tended())[:2] == [("ticket.returned", 1), ("ticket.returned", 2)]
    assert waiting(line) == [1, 2], "before the one who came later, who had the other agent's room"


def test_who_was_put_aside_and_never_came_back_has_not_shown_up() -> None:
    line = line_of(spot(1, State.SERVED))
    line.parked(1, "cli")
    line.now += PARKED_AT_MOST
    assert told(line.tended()) == [("ticket.closed", 1)]
    assert line.changed[0].ended is Ended.NO_SHOW


def test_a_wait_overnight_counts_from_the_opening() -> None:
    """Whoever keeps his place until the morning is not told then that he has waited too long."""
    waits = spot(2, State.WAITING, -14 * 60)
    for opened, says in ((0, []), (-10, [("ticket.overflown", 2), ("tell.message", 2)])):
        queue = Queue(1, max_wait=timedelta(minutes=10), opened_at=minutes(opened))
        assert told(line_of((1, State.SERVED), waits, queues=[queue]).tended()) == says
    shut = Queue(1, max_wait=timedelta(minutes=10), shut=True)
    assert told(line_of((1, State.SERVED), waits, queues=[shut], now=minutes(99)).tended()) == []


@pytest.mark.parametrize(
    ("closes", "sample", "keeps", "enters"),
    [
        (36, 10, False, True),  # ten minutes each and a fifth more; he is the third
        (35, 10, False, False),
        (35, 10, True, True),  # his place is kept
        (35, 9, False, True),  # nobody knows
    ],
)
def test_whose_turn_would_come_after_closing_time_leaves_a_message(
    closes: int, sample: int, keeps: bool, enters: bool
) -> None:
    pace = Pace(1, 1, 600, sample)
    queue = Queue(1, keeps=keeps, opened_at=minutes(-99), closes_at=minutes(closes), pace=pace)
    line = line_of((1, State.SERVED), (2, State.WAITING), (3, State.WAITING), queues=[queue])
    opened = ("ticket.opened.waiting", 4) if enters else ("ticket.opened.overflown", 4)
    assert told(line.wrote(4))[0] == opened


def test_who_finds_room_is_served_however_late_it_is() -> None:
    queue = Queue(1, keeps=False, opened_at=minutes(-99), closes_at=minutes(1), pace=Pace(1, 1, 600, 10))
    assert told(line_of(queues=[queue]).wrote(1))[0] == ("ticket.opened.served", 1)


def test_at_closing_time_those_who_wait_keep_their_places_or_not() -> None:
    for keeps in (True, False):
        line = line_of((1, State.SERVED), (2, State.WAITING), queues=[Queue(1, keeps=keeps)])
        assert told(line.hours_ended("default")) == ([] if keeps else [("ticket.closed", 2)])
        assert line.state(1) is State.SERVED
