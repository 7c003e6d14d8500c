"""Turns on a real PostgreSQL: history, line, dedupe, order, and failing entries among others."""

import asyncio
import os
import signal
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from databases import Database as Urls
from shop import SESSION, START, Shop, shop
from wsm.core.errors import LaneBusy, StoreUnavailable
from wsm.core.ids import ChatId
from wsm.store import fleet, watch
from wsm.store.database import Database
from wsm.streams.handover import Bell
from wsm.streams.keys import Kind

ANA, BIA, CAIO, DUDA = "5511900000001", "5511900000002", "5511900000003", "5511900000004"


async def test_the_first_is_served_and_the_others_wait_in_the_order_in_which_they_wrote(
    database: Urls,
) -> None:
    async with shop(database) as at:
        settled = await at.turn(
            at.says(BIA, "oi", ago=2), at.says(ANA, "oi", ago=3), at.says(CAIO, "oi", ago=1)
        )
        assert settled.deliver
        assert await at.line() == [(ANA, None), (BIA, 1), (CAIO, 2)]
        assert await at.count("outbox") == 3


async def test_a_redelivered_webhook_counts_once(database: Urls) -> None:
    async with shop(database) as at:
        body = at.says(ANA, "oi")
        await at.turn(body, body)
        settled = await at.turn(body)
        assert len(settled.handled) == 1
        assert settled.deliver, "a turn that finds only duplicates may be the second half of a crashed one"
        assert len(await at.history(ANA)) == 1
        assert await at.count("outbox") == 1


async def test_message_and_message_any_are_one_message(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi", id="3EB0AA", event="message"), at.says(ANA, "oi", id="3EB0AA"))
        assert len(await at.history(ANA)) == 1


async def test_the_hidden_id_and_the_phone_are_one_conversation(database: Urls) -> None:
    async with shop(database) as at:
        lid = "95511900000001@lid"
        await at.turn(at.message(lid, "oi", id="3EB0AB", alt=f"{ANA}@s.whatsapp.net"))
        await at.turn(at.says(ANA, "oi", id="3EB0AB"))
        await at.turn(at.says(ANA, "alguém aí?"))
        assert [row.body for row in await at.history(ANA)] == ["oi", "alguém aí?"]
        assert len(await at.line()) == 1


async def test_a_late_message_takes_its_place_in_the_history_and_starts_nothing(database: Urls) -> None:
    async with shop(database) as at:
        late = at.says(ANA, "primeira", ago=5)
        await at.turn(at.says(ANA, "segunda"))
        await at.close(ANA)
        await at.turn(late)
        assert [(row.body, row.late) for row in await at.history(ANA)] == [
            ("primeira", True),
            ("segunda", False),
        ]
        assert await at.line() == []


async def test_a_customer_who_writes_in_the_second_of_the_closing_is_not_lost(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi"))
        at.later(0.7)
        await at.close(ANA)
        at.later(0.1)
        await at.turn(at.says(ANA, "mais uma coisa"))
        assert await at.line() == [(ANA, None)]


async def test_closing_calls_the_next(database: Urls) -> None:
    async with shop(database) as at:
        for who in (ANA, BIA, CAIO, DUDA):
            await at.turn(at.says(who, "oi"))
        await at.close(ANA)
        assert await at.line() == [(BIA, None), (CAIO, 1), (DUDA, 2)]
        await at.close(CAIO)
        assert await at.line() == [(BIA, None), (DUDA, 1)]


async def test_an_agent_closes_from_the_phone(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi"))
        await at.turn(at.says(BIA, "oi"))
        at.later(1)
        await at.turn(at.message(f"{ANA}@c.us", " #FIM ", from_me=True))
        assert await at.line() == [(BIA, None)]
        assert [row.author for row in await at.history(ANA)] == ["customer", "agent"]


async def test_who_comes_back_in_the_turn_of_his_closing_stands_before_later_ones(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"))
        at.later(10)
        await at.turn(
            at.message(f"{BIA}@c.us", "#fim", from_me=True, ago=3),
            at.says(BIA, "mais uma coisa", ago=2),
            at.says(CAIO, "oi", ago=1),
        )
        assert await at.line() == [(ANA, None), (BIA, 1), (CAIO, 2)]


async def test_own_messages_never_join_the_line(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.message(f"{ANA}@c.us", "olá, tudo bem?", from_me=True))
        await at.turn(at.message(f"{BIA}@c.us", "#fim", from_me=True, source="api"))
        assert await at.line() == []
        assert [row.author for row in await at.history(BIA)] == ["bot"]


@pytest.mark.parametrize("chat", ["120363000000000001@g.us", "status@broadcast", "120363111@newsletter"])
async def test_groups_status_and_newsletters_are_kept_and_never_answered(database: Urls, chat: str) -> None:
    async with shop(database) as at:
        await at.turn(at.message(chat, "oi, grupo"))
        assert await at.count("messages") == 1
        assert await at.line() == []
        assert await at.count("outbox") == 0


async def test_labels_presence_and_status_go_to_session_events(database: Urls) -> None:
    async with shop(database) as at:
        status = {
            "name": SESSION,
            "status": "WORKING",
            "statuses": [{"status": "WORKING", "timestamp": 1795176000000}],
        }
        await at.turn(
            at.body("label.upsert", {"id": "10", "name": "vip"}),
            at.body("presence.update", {"id": f"{ANA}@c.us", "presences": []}),
            at.body("session.status", status),
            at.body("a.name.from.the.future", {"x": 1}),
        )
        assert await at.count("session_events") == 4
        assert await at.count("messages") == 0


async def test_a_session_that_came_back_was_away_though_nobody_saw_it_go(database: Urls) -> None:
    async with shop(database) as at:

        async def told(status: str, at_ms: int) -> Any:
            shown = {"name": SESSION, "status": status, "statuses": [{"status": status, "timestamp": at_ms}]}
            await at.turn(at.body("session.status", shown))
            [row] = await watch.every(at.system)
            return row

        assert (await told("WORKING", 1795176000000)).since_ms == 1795176000000
        assert (await told("WORKING", 1795176060000)).since_ms == 1795176060000
        assert (await told("STARTING", 1795176050000)).since_ms == 1795176060000, "it was over by then"
        [row] = await watch.every(at.system)
        await watch.observe(at.database, at.address, row.id, "WORKING", None, START + timedelta(hours=1))
        [row] = await watch.every(at.system)
        assert (row.observed, row.since_ms, row.dropped_ms) == ("WORKING", 1795176060000, [])
        dropped = await told("STARTING", int((START + timedelta(hours=2)).timestamp() * 1000))
        assert len(dropped.dropped_ms) == 1


async def test_what_is_older_than_any_dedupe_row_is_kept_as_stale_and_changes_nothing(database: Urls) -> None:
    async with shop(database) as at:
        old = at.says(ANA, "de outro tempo", ago=61 * 86400)
        await at.turn(old)
        await at.turn(old)
        assert await at.count("session_events") == 1
        assert await at.line() == []
        assert await at.count("messages") == 0


async def test_a_failing_entry_stops_its_own_chat_and_nobody_else(database: Urls) -> None:
    async with shop(database) as at:
        _refuse_texts_of(database, "veneno")
        bodies = [
            at.says(ANA, "antes", ago=5),
            at.says(ANA, "veneno", ago=4),
            at.says(ANA, "depois", ago=3),
            at.says(BIA, "oi", ago=2),
        ]
        settled = await at.turn(*bodies)
        assert [entry.body for entry in settled.handled] == [bodies[0], bodies[3]]
        (parking,) = settled.parked
        assert [entry.body for entry in parking.entries] == bodies[1:3]
        assert parking.culprit == parking.entries[0].id
        assert parking.chat == f"{SESSION}/{ANA}@c.us"
        assert [row.body for row in await at.history(ANA)] == ["antes"]
        assert await at.line() == [(ANA, None), (BIA, 1)]


async def test_a_turn_that_is_taken_apart_keeps_the_order_of_who_writes_under_two_ids(database: Urls) -> None:
    async with shop(database) as at:
        hidden = f"9{ANA}@lid"
        await at.turn(at.message(hidden, "um", alt=f"{ANA}@s.whatsapp.net", ago=9))
        _refuse_texts_of(database, "veneno")
        settled = await at.turn(
            at.message(hidden, "dois", alt=f"{ANA}@s.whatsapp.net", ago=8),
            at.says(ANA, "três", ago=7),
            at.message(hidden, "quatro", alt=f"{ANA}@s.whatsapp.net", ago=6),
            at.says(BIA, "veneno", ago=5),
        )
        assert len(settled.handled) == 3
    with psycopg.connect(database.owner_url) as owner:
        rows = owner.execute("select body, late from wsm.messages order by id").fetchall()
    assert rows == [("um", False), ("dois", False), ("três", False), ("quatro", False)]


async def test_entries_of_a_parked_chat_join_it(database: Urls) -> None:
    async with shop(database) as at:
        settled = await at.turn(
            at.says(ANA, "oi"), at.says(BIA, "oi"), parked=frozenset({ChatId(f"{SESSION}/{ANA}@c.us")})
        )
        assert [(parking.chat, parking.culprit) for parking in settled.parked] == [
            (f"{SESSION}/{ANA}@c.us", None)
        ]
        assert await at.line() == [(BIA, None)]


PARKED = ChatId(f"{SESSION}/{ANA}@c.us")
HIDDEN = f"9{ANA}@lid"
ALT = f"{ANA}@s.whatsapp.net"


async def test_who_is_parked_under_one_id_waits_under_the_other(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.message(HIDDEN, "oi", alt=ALT))
        settled = await at.turn(
            at.message(HIDDEN, "oi?"), at.says(BIA, "oi"), at.says(ANA, "alô"), parked=frozenset({PARKED})
        )
        assert [(each.chat, each.culprit, len(each.entries)) for each in settled.parked] == [
            (PARKED, None, 2)
        ]
        assert len(settled.handled) == 1


async def test_an_id_that_a_message_reveals_is_parked_with_the_other(database: Urls) -> None:
    async with shop(database) as at:
        revealing = at.message(HIDDEN, "oi?", alt=ALT)
        settled = await at.turn(at.message(HIDDEN, "oi"), revealing, parked=frozenset({PARKED}))
        assert [(each.chat, len(each.entries)) for each in settled.parked] == [(PARKED, 2)]


async def test_a_failing_entry_stops_its_writer_under_both_ids(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.message(HIDDEN, "oi", alt=ALT, ago=9))
        _refuse_texts_of(database, "veneno")
        settled = await at.turn(
            at.message(HIDDEN, "veneno", ago=8), at.says(ANA, "depois", ago=7), at.says(BIA, "oi", ago=6)
        )
        assert len(settled.handled) == 1
        (parking,) = settled.parked
        assert parking.chat == f"{SESSION}/{HIDDEN}"
        assert parking.culprit == parking.entries[0].id
        assert len(parking.entries) == 2


@pytest.mark.parametrize("neighbours", [0, 1])
async def test_what_fails_again_goes_back_to_where_it_came_from(database: Urls, neighbours: int) -> None:
    async with shop(database) as at:
        _refuse_texts_of(database, "veneno")
        again = msgspec.structs.replace(at.entry(at.message(HIDDEN, "veneno", ago=8)), from_parked=PARKED)
        others = [at.entry(at.says(BIA, "oi")) for _ in range(neighbours)]
        settled = await at.turns.run(
            Bell(Kind.TURN, at.tenant, "turn-1", (again, *others), frozenset(), alone=False)
        )
        assert [(each.chat, each.culprit) for each in settled.parked] == [(PARKED, again.id)]
        assert len(settled.handled) == neighbours


async def test_a_member_of_a_group_does_not_stop_the_group(database: Urls) -> None:
    async with shop(database) as at:
        group = "120363000000000001@g.us"
        settled = await at.turn(at.message(group, "oi", alt=ALT), parked=frozenset({PARKED}))
        assert len(settled.handled) == 1


async def test_a_database_that_is_away_is_held_against_nobody(database: Urls) -> None:
    async with shop(database) as at:
        await at.database.close()
        with pytest.raises(StoreUnavailable):
            await at.turn(at.says(ANA, "oi"))


async def test_two_turns_of_one_tenant_commit_once(database: Urls) -> None:
    async with shop(database) as at:
        body = at.says(ANA, "oi")
        await asyncio.gather(*(at.turn(body) for _ in range(4)))
        assert len(await at.history(ANA)) == 1
        assert await at.count("tickets") == 1


async def test_a_held_lock_hands_the_bell_back(database: Urls) -> None:
    async with shop(database) as at:
        async with await psycopg.AsyncConnection.connect(database.app_url) as holder:
            await holder.execute("select pg_advisory_xact_lock(%s)", [at.tenant])
            with pytest.raises(LaneBusy):
                await at.turn(at.says(ANA, "oi"))
        await at.turn(at.says(ANA, "oi"))
        assert len(await at.line()) == 1


async def test_texts_that_postgresql_cannot_store_are_stored_readable(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "nul \0 aqui"))
        (row,) = await at.history(ANA)
        assert row.body == "nul \ufffd aqui"


async def test_a_turn_sees_its_own_tenant_alone(database: Urls) -> None:
    async with shop(database) as one:
        await one.turn(one.says(ANA, "oi"))
        other = await Shop(one.database, one.system, tenant=type(one.tenant)(77)).founded()
        assert await other.count("messages") == 0
        assert await other.line() == []
        await other.turn(other.says(ANA, "oi"))
        assert await one.count("messages") == 1


async def test_dedupe_rows_end_when_no_repeat_can_come(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi"))
        assert await fleet.purge_dedupe(at.system, at.now - timedelta(days=60)) == 0
        assert await fleet.purge_dedupe(at.system, at.now + timedelta(seconds=1)) == 1


def _refuse_texts_of(urls: Urls, text: str) -> None:
    """Make PostgreSQL refuse one text, as a bug of ours would."""
    with psycopg.connect(urls.owner_url, autocommit=True) as owner:
        owner.execute(f"alter table wsm.messages add constraint poison check (body <> '{text}')")


async def test_a_body_that_cannot_be_read_is_put_aside_with_its_reason(database: Urls) -> None:
    async with shop(database) as at:
        body = b'{"event":"message","session":"s","payload":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        settled = await at.turn(at.says(ANA, "oi"), body)
        assert len(settled.handled) == 1
        assert [(parking.reason, len(parking.entries)) for parking in settled.parked] == [("BadInput", 1)]


async def test_a_phone_whose_clock_runs_ahead_makes_nobody_late(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.message(f"{ANA}@c.us", "olá", from_me=True, phone_ahead=3600))
        at.later(1)
        await at.turn(at.says(ANA, "oi"))
        assert await at.line() == [(ANA, None)]


async def test_a_deaf_database_is_cut_off(database: Urls) -> None:
    deaf = Database(database.app_url, connections=1, deaf_seconds=0.5)
    await deaf.open()
    try:
        with pytest.raises(StoreUnavailable):
            await _ask_a_stopped_backend(deaf)
        await deaf.ping()
    finally:
        await deaf.close()


async def _ask_a_stopped_backend(database: Database) -> None:
    async with database.transaction() as transaction:
        backend = transaction._connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            await transaction.row("ping")
        finally:
            os.kill(backend, signal.SIGCONT)


async def test_what_no_index_can_hold_is_no_database_that_is_away(database: Urls) -> None:
    async with shop(database) as at:
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            await _add_an_endless_alias(at)


async def _add_an_endless_alias(at: Shop) -> None:
    async with at.database.transaction(at.tenant, at.now) as transaction:
        noise = "".join(f"{number:x}" for number in range(10_000, 60_000))
        await transaction.run("add_aliases", aliases=[noise], contacts=[1])
