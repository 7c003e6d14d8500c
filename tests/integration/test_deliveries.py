"""Deliveries to a WAHA that fails before, after and in the middle: nothing twice, nothing lost, no lie."""

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from databases import Database as Urls
from postoffice import PostOffice, opened_again, post_office
from waiting import wait_for
from wsm.core.errors import StoreUnavailable
from wsm.sandbox.waha import Engine
from wsm.sandbox.waha.faults import Wrong
from wsm.worker import deliver

ANA, BIA, CAIO = "5511900000001", "5511900000002", "5511900000003"
TURN = "Chegou a sua vez! Você está sendo atendido agora."
FAULTS = {f"55119000001{number:02}": kind for number, kind in enumerate(Wrong) if kind.passes}
SECONDS = {Wrong.HANG: 0.6, Wrong.HANG_AFTER: 0.6, Wrong.FAIL_THEN_SEND: 1.2}


@pytest.mark.parametrize("engine", [Engine.GOWS, Engine.NOWEB, Engine.WEBJS])
async def test_whatever_goes_wrong_every_notice_arrives_once_and_is_kept_once(
    database: Urls, engine: Engine
) -> None:
    async with post_office(database, engine=engine) as office:
        for phone, kind in FAULTS.items():
            office.fault(kind, phone, seconds=SECONDS.get(kind, 0.0))
        await office.write(*FAULTS, ANA)
        await office.deliver_all()
        inboxes = {phone: office.inbox(phone) for phone in (*FAULTS, ANA)}
        assert inboxes == {phone: [TURN] for phone in inboxes}
        assert await office.states() == [("turn", "sent")] * len(inboxes)
        assert await office.said() == [TURN] * len(inboxes)


async def test_the_gateways_own_webhooks_settle_what_its_answers_left_open(database: Urls) -> None:
    async with post_office(database) as office:
        office.fault(Wrong.FAIL_AFTER, ANA)
        office.fault(Wrong.CUT_AFTER, BIA)
        await office.write(ANA, BIA)
        await office.deliver()
        assert [state for _, state in await office.states()] == ["indeterminate"] * 2
        assert await office.said() == []
        assert await office.waha.idle()
        office.clock()
        await office.at.turn(*(got.body for got in office.hook.got if got.body))
        assert [state for _, state in await office.states()] == ["sent"] * 2
        assert await office.said() == [TURN] * 2
        await office.deliver()
        assert [office.inbox(ANA), office.inbox(BIA)] == [[TURN], [TURN]]


async def test_what_whatsapp_forbids_is_ended_and_not_said_to_be_sent(database: Urls) -> None:
    async with post_office(database) as office:
        office.fault(Wrong.ERROR_463, ANA)
        await office.write(ANA, BIA)
        await office.deliver_all()
        assert await office.states() == [("turn", "failed"), ("turn", "sent")]
        assert "reachout_timelock" in (await office.intents())[0].reason
        assert (office.inbox(ANA), office.inbox(BIA)) == ([], [TURN])
        assert await office.said() == [TURN]


async def test_a_gateway_that_is_away_postpones_with_a_reason_and_loses_nothing(database: Urls) -> None:
    async with post_office(database) as office:
        await office.write(ANA, BIA)
        await office.waha.stop()
        assert not await office.deliver()
        for intent in await office.intents():
            assert (intent.state, intent.attempts) == ("pending", 0)
            assert intent.reason.startswith("not reached")
        assert await away(office) == ("away", 5)
        assert await office.said() == []
        await office.waha.start()
        await office.open(office.at.address.session)
        office.ahead += timedelta(seconds=31)
        await office.deliver_all()
        assert (office.inbox(ANA), office.inbox(BIA)) == ([TURN], [TURN])


async def test_a_session_that_does_not_work_waits_and_the_others_do_not(database: Urls) -> None:
    async with post_office(database) as office:
        two = await office.second_session()
        await office.write(ANA)
        await office.write(BIA, session=two)
        await office.waha.lifecycle.stop(office.waha.session(office.at.address.session))
        await office.deliver()
        first, second = await office.intents()
        assert (first.state, second.state) == ("pending", "sent")
        assert "session_not_working" in first.reason


async def away(office: PostOffice) -> tuple[str, int]:
    """Why the first session waits, and for how many seconds."""
    [row] = await office.rows("select waits, due_at from pace order by session_id limit 1")
    return row.waits, int((row.due_at - office.at.now) / timedelta(seconds=1.15))  # the mean of its jitter


async def test_a_session_that_does_not_work_is_left_alone_for_longer_each_time(database: Urls) -> None:
    async with post_office(database) as office:
        await office.write(ANA)
        await office.deliver()
        await office.waha.lifecycle.stop(office.waha.session(office.at.address.session))
        await office.write(*FAULTS)
        waits = []
        for _ in range(5):
            await office.deliver()
            waits.append(await away(office))
            await office.deliver()
            attempts = [intent.attempts for intent in await office.intents()]
            assert sum(attempts) == 2, "one was tried, with an id that was at hand"
            office.ahead += timedelta(seconds=40)
        assert [seconds for _, seconds in waits] == pytest.approx([5, 10, 20, 30, 30], abs=1)
        [row] = await office.rows("select replies, total from pace")
        assert tuple(row) == (1, 1), "nobody heard of it"
        office.ahead -= timedelta(seconds=39)
        office.clock()
        works = {"name": office.at.address.session, "status": "WORKING"}
        await office.at.turn(office.at.body("session.status", works))
        [row] = await office.rows("select due_at from pace")
        assert row.due_at <= office.at.now, "it is back"


async def test_a_session_that_hangs_delays_no_other_one_of_its_tenant(
    database: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "MESSAGES_PER_BELL", 1)
    async with post_office(database, send_seconds=30) as office:
        two = await office.second_session()
        office.fault(Wrong.HANG, ANA, seconds=30)
        await office.write(ANA)
        await office.write(BIA, CAIO, session=two)
        delivering = asyncio.create_task(office.deliver())
        await wait_for(lambda: office.inbox(BIA) and office.inbox(CAIO))
        assert not delivering.done()
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
        await office.waha.kill()


@pytest.mark.parametrize("kind", [Wrong.HANG, Wrong.HANG_AFTER])
async def test_a_worker_that_dies_in_mid_call_leaves_a_doubt_that_evidence_settles(
    database: Urls, kind: Wrong
) -> None:
    async with post_office(database, send_seconds=30) as office:
        office.fault(kind, ANA, seconds=0.2)
        await office.write(ANA)
        dying = asyncio.create_task(office.deliver())
        await wait_for(lambda: not office.waha.world.faults.coming)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        assert await office.states() == [("turn", "sending")]
        assert await office.waha.idle()
        await office.deliver_all()
        assert office.inbox(ANA) == [TURN]
        assert await office.said() == [TURN]


async def test_an_answer_that_the_database_did_not_hear_is_found_again(database: Urls) -> None:
    async with post_office(database, send_seconds=30) as office, opened_again(database) as at:
        office.fault(Wrong.HANG_AFTER, ANA, seconds=0.2)
        await office.write(ANA)
        delivering = asyncio.create_task(office.deliver())
        await wait_for(lambda: office.inbox(ANA))
        await office.at.database.close()
        with pytest.raises(StoreUnavailable):
            await delivering
        next_one = PostOffice(at, office.waha, office.hook, office.gateways)
        assert await next_one.states() == [("turn", "sending")]
        await next_one.deliver_all()
        assert office.inbox(ANA) == [TURN]
        assert await next_one.said() == [TURN]


async def test_a_bell_without_its_lease_claims_nothing_and_ends(database: Urls) -> None:
    async with post_office(database) as office:
        await office.write(ANA)
        assert not await office.deliver(is_mine=lambda: False)
        assert await office.states() == [("turn", "pending")]
        assert office.inbox(ANA) == []


async def test_a_bell_that_loses_its_lease_ends_with_the_call_that_it_is_in(database: Urls) -> None:
    async with post_office(database) as office:
        await office.write(ANA, BIA)
        assert not await office.deliver(is_mine=lambda: not office.inbox(ANA))
        assert await office.states() == [("turn", "sent"), ("turn", "pending")]


async def test_a_bell_ends_when_all_that_is_due_waits_for_a_doubt(database: Urls) -> None:
    async with post_office(database) as office:
        office.fault(Wrong.FAIL_BEFORE, ANA)
        await office.write(ANA)
        await office.deliver()
        await office.at.close(ANA)
        await office.write(ANA)
        async with asyncio.timeout(5):
            assert not await office.deliver()
        assert await office.states() == [("turn", "indeterminate"), ("turn", "pending")]


async def test_a_call_begins_only_while_the_claim_is_young(database: Urls) -> None:
    async with post_office(database) as office:
        await office.write(ANA)
        ticks = iter([0.0, 0.0, 4.1])  # the survey, the claim, the call
        office.monotonic = lambda: next(ticks, 5.0)
        await office.deliver()
        first, *_ = await office.intents()
        assert (first.state, first.attempts) == ("sent", 2), "claimed too slowly once, then in time"
        assert office.inbox(ANA) == [TURN]


async def test_a_slow_reservation_of_an_id_costs_no_claim(database: Urls) -> None:
    async with post_office(database) as office:
        await office.write(ANA, BIA)
        labels = {"op": "new_message_id", "result": "ok"}
        office.monotonic = lambda: 60 * (REGISTRY.get_sample_value("wsm_gateway_requests_total", labels) or 0)
        await office.deliver()
        assert [(row.state, row.attempts) for row in await office.intents()] == [("sent", 1)] * 2


async def test_without_own_ids_a_clock_ahead_of_whatsapps_finds_what_has_left(database: Urls) -> None:
    async with post_office(database, engine=Engine.WEBJS) as office:
        office.ahead = timedelta(seconds=30)
        office.fault(Wrong.FAIL_AFTER, ANA)
        await office.write(ANA)
        await office.deliver_all()
        assert office.inbox(ANA) == [TURN]
        assert await office.said() == [TURN]


async def test_without_own_ids_an_earlier_message_of_the_same_words_is_no_evidence(database: Urls) -> None:
    async with post_office(database, engine=Engine.WEBJS) as office:
        await office.write(ANA)
        await office.deliver()
        await office.at.close(ANA)
        office.fault(Wrong.FAIL_BEFORE, ANA)
        await office.write(ANA)
        await office.deliver_all()
        assert office.inbox(ANA) == [TURN, TURN]
        assert await office.said() == [TURN, TURN]


async def test_a_look_up_that_is_refused_for_a_wrong_key_gives_nothing_up(database: Urls) -> None:
    async with post_office(database) as office:
        office.fault(Wrong.FAIL_AFTER, ANA)
        await office.write(ANA)
        await office.deliver()
        key, office.waha.world.api_key = office.waha.world.api_key, "another"
        office.ahead += timedelta(seconds=300)
        await office.deliver()
        assert await office.states() == [("turn", "indeterminate")]
        office.waha.world.api_key = key
        office.ahead += timedelta(seconds=31)
        await office.deliver_all()
        assert await office.states() == [("turn", "sent")]
        assert office.inbox(ANA) == [TURN]


async def test_two_bells_of_one_tenant_in_one_worker_never_use_one_id_twice(database: Urls) -> None:
    async with post_office(database) as office:
        await office.write(ANA)
        await office.deliver()  # leaves an id at hand
        await office.write(BIA, CAIO)
        await asyncio.gather(office.deliver(), office.deliver())  # as after a lost lease
        await office.deliver_all()
        ids = [intent.reserved_id for intent in await office.intents()]
        assert len(set(ids)) == len(ids) == 3
        assert [office.inbox(phone) for phone in (ANA, BIA, CAIO)] == [[TURN]] * 3
