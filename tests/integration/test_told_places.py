"""What customers are told, on a real database: by moves of the line, by the clock, and when they ask."""

import pytest

from clockroom import ANA, BIA, CAIO, DUDA, ClockRoom
from databases import Database as Urls
from shop import shop
from wsm.core.asks import Ask, SetAgent, Verb
from wsm.core.errors import BadInput
from wsm.core.events import Origin
from wsm.core.hours import DAYS, Hours
from wsm.core.moments import milliseconds
from wsm.core.notices import Manners, Policy
from wsm.core.templates import minutes_range, render
from wsm.store import fleet, rules, tickets
from wsm.streams.handover import Bell
from wsm.streams.keys import Kind
from wsm.wire.waha import timer_command
from wsm.worker import turn

TURN = "Chegou a sua vez! Você está sendo atendido agora."


def text(name: str, **values: object) -> str:
    """A text as it is written in the templates."""
    return render(name, "pt-BR", {}, **values)


def entry(place: int) -> str:
    return text("entry_next" if place == 1 else "entry", place=place)


async def test_a_wait_from_entry_to_turn(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.write(ANA, BIA, CAIO, DUDA)
        assert room.heard == [(ANA, TURN), (BIA, entry(1)), (CAIO, entry(2)), (DUDA, entry(3))]
        room.heard.clear()
        await room.close(ANA)
        assert room.heard == [(BIA, TURN)], "the others have just been told"
        await room.close(BIA)
        await room.later(2)
        assert room.said_to(CAIO) == [TURN], "what he was to be told became untrue"
        assert room.said_to(DUDA) == ["A fila andou: você é o próximo (nº 1). Fique por perto, por favor."]


async def test_moves_in_one_second_are_told_once_with_the_last_number(database: Urls) -> None:
    async with shop(database, capacity=3) as at:
        room = ClockRoom(at)
        first, waiting = [f"551190000{n:04}" for n in range(3)], [f"551190001{n:04}" for n in range(6)]
        await room.write(*first, *waiting)
        await room.later(2)
        room.heard.clear()
        await at.turn(*(at.message(f"{who}@c.us", "#fim", from_me=True) for who in first))
        await room.send()
        places = [text for who, text in room.heard if who in waiting[3:]]
        assert places == [
            "A fila andou: você é o próximo (nº 1). Fique por perto, por favor.",
            "A fila andou: agora você é o nº 2.",
            "A fila andou: agora você é o nº 3.",
        ]


async def test_those_far_behind_are_told_by_one_timer_and_only_where_they_came_far(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        people = [f"551190001{n:04}" for n in range(10)]
        await room.write(ANA, *people)
        room.heard.clear()
        await at.close(ANA)
        intents = await room.rows("select ticket_id from outbox where class = 'place' and state = 'pending'")
        assert len(intents) == 5, "only the first five are looked at at once"
        for who in people[:2]:
            await at.close(who)
        assert (await room.timers()).count("pulse") == 1
        await room.later(2.5)
        assert room.said_to(people[9]) == ["A fila andou: agora você é o nº 7."]
        assert "pulse" not in await room.timers()
        await room.close(people[2])
        await room.later(5)
        assert room.said_to(people[9]) == [], "one step so far behind rings no phone"


async def test_silence_is_broken_with_an_offer_and_both_answers_are_understood(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.write(ANA, BIA, CAIO)
        room.heard.clear()
        await room.later(9.5)
        assert room.heard == []
        await room.later(1)
        assert room.heard == [(BIA, text("silence", place=1)), (CAIO, text("silence", place=2))]
        room.heard.clear()
        await room.write(BIA, text="1")
        await room.write(CAIO, text="2")
        assert room.heard == [(CAIO, text("overflow"))]
        assert await at.line() == [(ANA, None), (BIA, 1)]
        room.heard.clear()
        await room.later(19)
        assert room.heard == [], "not again before twenty minutes"
        await room.later(2)
        assert len(room.said_to(BIA)) == 1


async def test_who_asks_is_answered_at_once_and_not_again_and_again(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.write(ANA, BIA, CAIO)
        room.heard.clear()
        await room.write(CAIO, text="Posição?")
        await room.write(CAIO, text="posicao")
        assert room.heard == [(CAIO, "Você é o nº 2 na fila.")]
        room.heard.clear()
        await room.later(0.5)
        await room.write(CAIO, text="position")
        assert room.heard == [(CAIO, "Você é o nº 2 na fila.")]
        room.heard.clear()
        await room.later(9.5, step=60)
        assert room.said_to(CAIO) == [], "asking begins the silence anew"


async def test_who_leaves_is_told_so_once_and_who_writes_on_waits_on(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.write(ANA, BIA, CAIO)
        room.heard.clear()
        await room.write(BIA, text="Sair")
        assert room.said_to(BIA) == ["Você saiu da fila. Se precisar, é só escrever de novo."]
        await room.write(CAIO, text="é sobre um boleto")
        assert await at.line() == [(ANA, None), (CAIO, 1)]
        [ended] = await room.rows("select ended from tickets where state = 'closed'")
        assert ended.ended == "left"


async def test_who_is_called_and_says_nothing_is_asked_once_and_loses_his_turn(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.write(ANA, BIA, CAIO)
        await room.close(ANA)
        room.heard.clear()
        await room.later(5.5)
        assert room.said_to(BIA) == ["Continua aí? Guardamos seu lugar por mais 5 min."]
        await room.later(5.5)
        assert room.said_to(BIA)[0].startswith("Como não houve resposta")
        assert await at.line() == [(CAIO, None), (BIA, None)]
        await room.write(BIA, text="voltei!")
        assert await at.line() == [(CAIO, None), (BIA, 1)]
        assert room.said_to(BIA) == ["Você está de volta à fila: é o nº 1."]


async def test_a_timer_of_a_ticket_that_is_over_asks_nothing_of_the_next_one(database: Urls) -> None:
    async with shop(database, capacity=2) as at:
        room = ClockRoom(at)
        await fleet.set_queue(at.system, at.tenant, "default", reopen_hours=0)
        await room.write(ANA, BIA, CAIO)
        await room.close(ANA)
        assert "nudge" in await room.timers(), "of CAIO's turn"
        await room.close(CAIO)
        await room.write(CAIO, text="mais uma coisa")
        at.later(400)
        nudges = await room.rows("select id, kind, due_at from timers where kind = 'nudge'")
        commands = [
            timer_command(at.address.session, row.id, row.kind, milliseconds(row.due_at)) for row in nudges
        ]
        room.heard.clear()
        for command in commands:
            both = at.entry(command, Origin.CLOCK), at.entry(at.message(f"{CAIO}@c.us", "oi", from_me=True))
            await at.turns.run(Bell(Kind.TURN, at.tenant, "both", both, frozenset(), alone=False))
        await room.send()
        assert room.said_to(CAIO) == []


async def test_who_answers_his_turn_is_left_in_peace(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.write(ANA, BIA)
        await room.close(ANA)
        await room.write(BIA, text="estou aqui")
        room.heard.clear()
        await room.later(15)
        assert room.heard == []
        assert await at.line() == [(BIA, None)]


async def test_a_pile_after_an_outage_of_hours_is_worked_off_and_stale_notices_are_dropped(
    database: Urls,
) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.write(ANA, BIA, CAIO, DUDA)
        at.later(60)
        await at.close(ANA)
        await at.close(BIA)
        room.heard.clear()
        at.later(4 * 3600)
        assert await room.ring() > 0
        await room.send()
        assert room.said_to(BIA) == []
        assert room.said_to(CAIO) == [TURN]
        assert len(room.said_to(DUDA)) == 1, "one fresh notice at most"
        assert await room.ring() == 0, "each fires once"


async def test_the_wait_is_estimated_when_enough_was_seen_and_never_otherwise(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        for number in range(11):
            who = f"551198888{number:04}"
            await room.write(who)
            await room.later(8, step=240)
            await room.close(who)
        await room.write(ANA, BIA, CAIO)
        await room.close(ANA)
        await room.later(3)
        room.heard.clear()
        await room.write(DUDA)
        wait = minutes_range(20, 30, "pt-BR")
        assert room.said_to(DUDA) == [text("entry", place=2, eta=wait)]


OFFICE = Hours(week=dict.fromkeys(DAYS[:5], ("09:00-18:00",)))
"""The shop's clock begins on a Friday at nine in the morning of São Paulo."""


async def test_out_of_hours_he_is_told_when_it_opens_and_keeps_his_place(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(OFFICE)
        await room.later(10 * 60, step=3600)
        await room.write(ANA, BIA)
        assert room.said_to(ANA) == [text("closed", next_open="na segunda-feira às 9h")]
        assert await at.line() == [(ANA, 1), (BIA, 2)]
        room.heard.clear()
        await room.later(63 * 60, step=3600)
        assert await at.line() == [(ANA, None), (BIA, 1)], "it has opened"
        assert room.said_to(ANA)[0] == TURN


async def test_out_of_hours_a_message_may_be_left_instead(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(Hours(week=OFFICE.week, entering="message"))
        await room.later(10 * 60, step=3600)
        await room.write(ANA)
        assert room.said_to(ANA)[0].startswith("Estamos fora do horário. Voltamos na segunda-feira às 9h.")
        assert await at.line() == []


async def test_at_closing_time_who_waits_is_asked_to_come_again_where_places_are_not_kept(
    database: Urls,
) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(OFFICE, Policy(silence=0))
        async with at.system.transaction() as system:
            await system._connection.execute(b"update queues set keeps = false")
        await room.write(ANA, BIA)
        room.heard.clear()
        await room.later(9 * 60 + 5, step=300)
        assert room.said_to(BIA) == [text("closing", next_open="na segunda-feira às 9h")]
        assert await at.line() == [(ANA, None)]


async def test_a_shop_that_moves_to_another_time_zone_opens_and_closes_by_it(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(OFFICE, Policy(silence=0))
        await room.later(9 * 60 + 30, step=1800)
        await room.write(ANA)
        assert await at.line() == [(ANA, 1)], "it is half past six in the evening"
        with pytest.raises(BadInput, match="time_zone"):
            await fleet.set_zone(at.system, at.tenant, "America/Saopaulo")
        await fleet.set_zone(at.system, at.tenant, "America/New_York")
        await rules.look_again(at.database, at.tenant, at.now)
        await room.ring()
        assert await at.line() == [(ANA, None)], "half past four"
        [closes] = await room.rows("select due_at from timers where kind = 'hours'")
        assert closes.due_at.isoformat() == "2026-11-20T23:00:00+00:00"


async def test_however_many_wait_at_closing_time_all_are_sent_away(
    database: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "_LOOK_FAR", 1)
    monkeypatch.setattr(turn, "_LOOKS", 2)
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(OFFICE, Policy(silence=0))
        await fleet.set_queue(at.system, at.tenant, "default", keeps=False)
        await room.write(*(f"551190001{n:04}" for n in range(12)))
        at.later(9 * 3600 + 60)
        assert await room.ring() > 0
        assert len(await at.line()) > 1, "more than one turn takes"
        for _ in range(5):
            at.later(1)
            await room.ring()
        assert await at.line() == [("5511900010000", None)]
        assert (await room.timers()).count("hours") == 1
        [opens] = await room.rows("select due_at from timers where kind = 'hours'")
        assert opens.due_at.isoformat() == "2026-11-23T12:00:00+00:00"


async def test_however_many_have_waited_too_long_or_can_be_called_none_is_left_to_chance(
    database: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "_LOOK_FAR", 1)
    monkeypatch.setattr(tickets, "_LOOK_AHEAD", 1)
    monkeypatch.setattr(turn, "_LOOKS", 2)
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(Policy(silence=0))
        people = [f"551190001{n:04}" for n in range(25)]
        await room.write(*people[:13])
        await fleet.set_queue(at.system, at.tenant, "default", max_wait_minutes=10)
        at.later(3600)
        await at.asks(Ask(verb=Verb.TEND))
        assert len(await at.line()) > 1, "more than one turn takes"
        await room.later(0.2, step=1)
        assert await at.line() == [(people[0], None)]
        await room.write(*people[13:])
        await fleet.set_queue(at.system, at.tenant, "default", capacity=20)
        await at.asks(Ask(verb=Verb.TEND))
        assert {place for _, place in await at.line()} != {None}
        await room.later(0.2, step=1)
        assert [place for _, place in await at.line()] == [None] * 13


async def test_a_queue_that_is_closed_for_months_opens_all_the_same(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(Hours(holidays={"2027-03-01": ("09:00-18:00",)}), Policy(silence=0))
        await room.ring()
        await room.write(ANA)
        assert await at.line() == [(ANA, 1)]
        for _ in range(101):
            at.later(86_400)
            await room.ring()
        assert await at.line() == [(ANA, None)]


async def test_a_night_does_not_count_among_the_minutes_that_are_too_long(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(OFFICE, Policy(silence=0))
        await fleet.set_queue(at.system, at.tenant, "default", max_wait_minutes=30)
        await room.later(8 * 60 + 50, step=3600)
        await room.write(ANA, BIA, CAIO)
        await room.later(40, step=60)
        assert "tend" not in await room.timers(), "nothing can be too long before it opens"
        await room.later(62 * 60 + 35, step=3600)
        assert await at.line() == [(ANA, None), (BIA, 1), (CAIO, 2)]
        await room.later(31, step=60)
        assert await at.line() == [(ANA, None)]
        assert [how for how in await ended(room) if how != "overflow"] == []


async def test_near_closing_time_only_those_are_let_in_whose_turn_will_come(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(OFFICE, Policy(silence=0, sample=2), Manners(nudge=0))
        await fleet.set_queue(at.system, at.tenant, "default", keeps=False, reopen_hours=0)
        await room.write(ANA, BIA, CAIO, DUDA)
        for who in (ANA, BIA):
            await room.later(10)
            await room.close(who)
        await room.later(3)
        await room.later(8 * 60 + 5, step=1800)
        people = [f"551190001{n:04}" for n in range(4)]
        await room.write(*people)
        waiting = [who for who, place in await at.line() if place]
        assert waiting == [DUDA, people[0]], "each takes twelve minutes, and it closes in half an hour"
        assert room.said_to(people[1]) == [text("overflow")]


async def ended(room: ClockRoom) -> list[str]:
    return [row.ended for row in await room.rows("select ended from tickets where state = 'closed'")]


async def test_how_it_was_is_asked_once_only_after_a_person_and_read_only_while_that_is_open(
    database: Urls,
) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(Manners(survey=True))
        async with at.system.transaction() as system:
            await system._connection.execute(b"update queues set reopen_hours = 0")
        await room.write(ANA, BIA)
        await room.type(ANA)
        await room.close(ANA)
        assert room.said_to(ANA)[-1] == "De 1 a 5, como foi o atendimento?"
        await room.write(ANA, text=" 5 ")
        assert room.said_to(ANA) == ["Obrigado pela avaliação!"]
        await room.close(BIA)
        assert "De 1 a 5, como foi o atendimento?" not in room.said_to(BIA), "nobody has answered him"
        rows = await room.rows("select score, survey_until from tickets order by id")
        assert [(row.score, row.survey_until) for row in rows] == [(5, None), (None, None)]
        await room.write(ANA, text="5")
        assert (ANA, None) in await at.line(), "a digit is a message again"


async def test_a_survey_that_is_over_reads_no_digit(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(Manners(survey=True))
        await room.write(ANA)
        await room.type(ANA)
        await room.close(ANA)
        await room.later(11, step=300)
        await room.write(ANA, text="5")
        [row] = await room.rows("select score from tickets")
        assert row.score is None


async def test_who_owes_the_answer_is_reminded_and_then_ended_and_never_who_waits_for_one(
    database: Urls,
) -> None:
    async with shop(database, capacity=2) as at:
        room = ClockRoom(at)
        await room.set(Manners(remind=1800, end=600))
        await room.write(ANA, BIA)
        await room.type(ANA, "qual o número do pedido?")
        room.heard.clear()
        await room.later(31, step=60)
        assert room.said_to(ANA) == [
            "Estamos esperando a sua resposta. Sem ela, encerramos a conversa em 10 min."
        ]
        await room.later(11, step=60)
        assert room.said_to(ANA) == [
            "Encerramos a conversa por falta de resposta. Se precisar, é só escrever de novo."
        ]
        assert await at.line() == [(BIA, None)], "an agent owes BIA the answer"
        await room.later(120, step=600)
        assert await at.line() == [(BIA, None)]


@pytest.mark.parametrize("every", [0, 120])
async def test_a_queue_may_tell_more_often(database: Urls, every: int) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(Policy(every=every))
        await room.write(ANA, BIA, CAIO)
        room.heard.clear()
        await room.close(ANA)
        assert (CAIO in dict(room.heard)) is (every == 0)


async def test_who_waits_too_long_leaves_a_message(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await room.set(Policy(silence=0))
        async with at.system.transaction() as system:
            await system._connection.execute(b"update queues set max_wait_minutes = 10")
        await room.write(ANA, BIA)
        await room.later(5)
        await room.write(CAIO)
        room.heard.clear()
        await room.later(6)
        assert room.heard == [(BIA, text("overflow")), (CAIO, text("next", place=1))]
        await room.later(5)
        assert await at.line() == [(ANA, None)]
        assert "tend" not in await room.timers(), "nothing is left that could take long"


async def test_whose_agent_is_gone_for_two_minutes_waits_for_another_one_and_hears_nothing_worse(
    database: Urls,
) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await at.asks(SetAgent(agent="lia", capacity=1))
        await at.asks(Ask(verb=Verb.ONLINE, agent="lia"))
        await room.write(ANA, BIA)
        assert room.said_to(ANA) == ["Chegou a sua vez! lia vai atender você agora."]
        await at.asks(Ask(verb=Verb.OFFLINE, agent="lia"))
        await room.later(1)
        assert await at.line() == [(ANA, None), (BIA, 1)], "a moment away is no absence"
        await room.later(1.5)
        assert await at.line() == [(ANA, 1), (BIA, 2)], "he has his old place"
        assert [words for words in room.said_to(BIA) if "2" in words] == []
