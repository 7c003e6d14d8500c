"""The outbox on a real PostgreSQL: every order of claim, answer, echo, ack, crash and look-up."""

from datetime import timedelta

import pytest

from databases import Database as Urls
from outboxes import INDETERMINATE, PENDING, SENT, Outbox, fresh_id
from shop import shop
from wsm.core.errors import GatewayRefused, GatewayUnavailable, OutcomeUnknown
from wsm.core.ids import BareId
from wsm.core.outbox import IntentState, Outcome, after_error, after_look_up

ANA, BIA, CAIO, DUDA = "5511900000001", "5511900000002", "5511900000003", "5511900000004"
EVIDENCE = timedelta(seconds=180)


@pytest.mark.parametrize(
    "order",
    [
        ("answer", "echo", "ack"),
        ("echo", "answer", "ack"),
        ("ack", "echo", "answer"),
        ("ack", "answer", "echo"),
        ("echo", "ack"),
        ("ack",),
        ("answer",),
        ("crash", "echo"),
        ("crash", "ack", "echo"),
        ("crash", "look-up", "echo"),
        ("unknown", "look-up", "ack"),
        ("crash", "echo", "answer"),
    ],
)
async def test_a_message_is_in_the_history_once_whichever_evidence_came_first(
    database: Urls, order: tuple[str, ...]
) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        claimed = await box.must_claim()
        for what in order:
            at.later(3)
            if what == "answer":
                await box.sent(claimed)
            elif what == "echo":
                await box.echo(claimed)
            elif what == "ack":
                await box.ack(claimed)
            elif what == "crash":
                await box.survey("b")
            elif what == "unknown":
                error = OutcomeUnknown("no answer in time")
                await box.settle(claimed, after_error(error, attempt=1, now=at.now))
            else:
                [doubt] = await box.doubts()
                found = after_look_up(claimed.reserved_id, doubt, working=True, evidence=EVIDENCE, now=at.now)
                await box.settle_doubt(doubt, found)
        assert await box.states() == [("turn", "sent")]
        assert await box.said() == [claimed.text]
        assert await box.claim("c") is None


async def test_nothing_is_said_to_be_sent_before_it_was(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        await box.must_claim()
        assert await box.said() == []
        assert await box.states() == [("turn", "sending")]
        await box.survey("b")
        assert await box.states() == [("turn", "indeterminate")]
        assert await box.said() == []


async def test_without_evidence_of_absence_nothing_is_sent_again_and_with_it_under_the_same_id(
    database: Urls,
) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        first = await box.must_claim()
        await box.survey("b")
        for seconds, working in ((10, True), (120, True), (60, False)):
            at.later(seconds)
            [doubt] = await box.doubts()
            outcome = after_look_up(None, doubt, working=working, evidence=EVIDENCE, now=at.now)
            await box.settle_doubt(doubt, outcome)
            assert await box.claim("b") is None
        at.later(3)
        [doubt] = await box.doubts()
        await box.settle_doubt(doubt, after_look_up(None, doubt, working=True, evidence=EVIDENCE, now=at.now))
        again = await box.must_claim("b", id=fresh_id())
        assert (again.id, again.reserved_id, again.attempt) == (first.id, first.reserved_id, 2)


async def test_an_ack_that_comes_when_nothing_had_been_found_keeps_it_from_being_sent_again(
    database: Urls,
) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        claimed = await box.must_claim()
        await box.settle(claimed, Outcome(PENDING, "nothing was sent", not_before=at.now))
        await box.ack(claimed)
        assert await box.claim("b") is None
        assert await box.states() == [("turn", "sent")]
        assert await box.said() == [claimed.text]


async def test_an_ack_of_what_was_given_up_brings_it_into_the_history(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        claimed = await box.must_claim()
        await box.settle(claimed, Outcome(IntentState.FAILED, "outcome unknown"))
        assert await box.said() == []
        await box.ack(claimed)
        assert await box.said() == [claimed.text]


async def test_an_error_ack_is_no_evidence_that_it_left(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        claimed = await box.must_claim()
        await box.ack(claimed, level=-1)
        assert await box.states() == [("turn", "sending")]


async def test_in_order_per_chat_one_in_flight_per_session_and_others_pass_a_doubt(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        for who in (ANA, BIA, CAIO):
            await at.turn(at.says(who, "oi"))
        at.later(1)
        await at.close(ANA)
        first = await box.must_claim()
        assert (first.chat.partition("@")[0], first.intent) == (BIA, "turn"), "a turn before places"
        assert await box.claim() is None, "one in flight"
        await box.settle(first, Outcome(INDETERMINATE, "?", not_before=at.now + timedelta(seconds=2)))
        at.later(1)
        await at.close(BIA)
        await at.turn(at.says(BIA, "voltei"))
        second = await box.must_claim()
        assert second.chat.startswith(CAIO), "a doubt holds up its own chat alone"
        await box.sent(second)
        assert await box.claim() is None, "what BIA is told next waits for the doubt"
        await box.sent(first)
        third = await box.must_claim()
        assert (third.chat.partition("@")[0], third.intent) == (BIA, "place")


async def test_moves_of_the_line_before_the_first_is_told_are_told_once_and_truly(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        for who in (ANA, BIA, CAIO, DUDA):
            await at.turn(at.says(who, "oi"))
        at.later(1)
        await at.close(BIA)
        at.later(1)
        await at.close(CAIO)
        told = []
        while claimed := await box.claim():
            told.append((claimed.chat.partition("@")[0], claimed.text))
            await box.sent(claimed)
        assert [who for who, _ in told] == [ANA, DUDA]
        assert "nº 1 " in told[1][1]
        assert [state for _, state in await box.states()] == ["sent", "dropped", "dropped", "sent"]


@pytest.mark.parametrize(
    "error", [GatewayUnavailable("not reached"), GatewayRefused(401, "unauthorized"), OutcomeUnknown("?")]
)
async def test_a_place_that_could_not_be_told_and_a_newer_one_are_told_as_one(
    database: Urls, error: GatewayUnavailable
) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        for who in (ANA, BIA, CAIO):
            await at.turn(at.says(who, "oi"))
        await box.sent(await box.must_claim())
        await box.sent(await box.must_claim())
        claimed = await box.must_claim()
        assert "nº 2 " in claimed.text
        at.later(1)
        await at.close(BIA)  # CAIO is the first now: a second intent of his, while the first is under way
        await box.settle(claimed, after_error(error, attempt=1, now=at.now))
        at.later(EVIDENCE.total_seconds())
        for doubt in await box.doubts():
            outcome = after_look_up(None, doubt, working=True, evidence=EVIDENCE, now=at.now)
            await box.settle_doubt(doubt, outcome)
        again = await box.must_claim()
        assert (again.id, again.reserved_id) == (claimed.id, claimed.reserved_id)
        assert "nº 1 " in again.text
        await box.sent(again)
        assert await box.claim() is None
        assert (await box.states())[-1] == ("place", "sent"), "what he does not know yet is told once"


async def test_what_became_untrue_is_dropped_and_what_is_too_old_is_not_sent(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        await at.turn(at.says(BIA, "oi"))
        await at.close(BIA)
        await box.sent(await box.must_claim())
        assert await box.claim() is None
        await at.turn(at.says(CAIO, "oi"))
        at.later(86400)
        assert await box.survey("b") == []
        assert await box.claim("b") is None
        assert [state for _, state in await box.states()] == ["sent", "dropped", "failed"]


async def test_a_stale_bell_changes_nothing_but_the_knowledge_that_it_was_sent(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        stale = await box.must_claim("a")
        await box.survey("b")
        at.later(EVIDENCE.total_seconds())
        [doubt] = await box.doubts()
        nothing = after_look_up(None, doubt, working=True, evidence=EVIDENCE, now=at.now)
        await box.settle_doubt(doubt, nothing)
        fresh = await box.must_claim("b")
        for late in (
            Outcome(IntentState.FAILED, "refused"),
            Outcome(PENDING, "away", not_before=at.now),
            Outcome(INDETERMINATE, "?", not_before=at.now),
        ):
            await box.settle(stale, late)
            assert await box.states() == [("turn", "sending")]
        await box.survey("c")
        await box.settle_doubt(doubt, nothing)
        assert await box.states() == [("turn", "indeterminate")], "that look-up was of the first attempt"
        await box.sent(stale)
        await box.settle(fresh, Outcome(IntentState.FAILED, "refused"))
        assert await box.states() == [("turn", "sent")]
        assert await box.said() == [stale.text]


async def test_an_engine_without_own_ids_is_believed_by_its_texts(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        await at.turn(at.says(BIA, "oi"))
        answered = await box.must_claim(own_ids=False)
        await box.echo(answered, BareId("3EB0E1"))
        await box.sent(answered, BareId("3EB0E1"))
        lost = await box.must_claim(own_ids=False)
        await box.survey("b")
        await box.echo(lost, BareId("3EB0E2"))
        assert await box.states() == [("turn", "sent"), ("place", "sent")]
        assert await box.said() == [answered.text, lost.text]


async def test_an_agent_who_types_what_the_bot_says_is_no_evidence_where_there_are_ids(
    database: Urls,
) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        claimed = await box.must_claim()
        await at.turn(at.message(claimed.chat, claimed.text, from_me=True, source="app"))
        assert await box.states() == [("turn", "sending")]


async def test_a_session_is_listed_only_when_there_is_something_to_do(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        assert len(await box.survey()) == 1
        claimed = await box.must_claim()
        at.later(1)
        await at.close(ANA)
        await at.turn(at.says(ANA, "voltei"))
        assert len(await box.survey()) == 0, "the second intent waits for the first"
        await box.settle(claimed, Outcome(INDETERMINATE, "?", not_before=at.now + timedelta(seconds=2)))
        assert len(await box.survey()) == 0
        at.later(2)
        assert len(await box.survey()) == 1, "there is a doubt to look up"
        await box.settle(claimed, Outcome(PENDING, "away", not_before=at.now + timedelta(seconds=5)))
        assert len(await box.survey()) == 0


async def test_what_is_sent_in_a_new_month_is_kept_although_nobody_has_made_it_yet(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        claimed = await box.must_claim()
        at.later(20 * 86400)
        await box.ack(claimed)
        assert await box.said() == [claimed.text]


async def test_place_told_is_the_one_that_was_sent(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        for who in (ANA, BIA, CAIO):
            await at.turn(at.says(who, "oi"))
        await box.sent(await box.must_claim())
        for wanted in ("nº 1 ", "nº 2 "):
            claimed = await box.must_claim()
            assert wanted in claimed.text
            await box.sent(claimed)
        at.later(120)
        await at.close(ANA)
        told = []
        while claimed := await box.claim():  # type: ignore[assignment]
            told.append(claimed.text)
            await box.sent(claimed)
        assert told == [
            "Chegou a sua vez! Você está sendo atendido agora.",
            "A fila andou: você é o próximo (nº 1). Fique por perto, por favor.",
        ]
        assert SENT in {state for _, state in await box.states()}
