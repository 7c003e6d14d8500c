"""The line on a real PostgreSQL: queues, agents, what comes back, and what a look costs."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from databases import Database as Urls
from outboxes import Outbox
from shop import START, Shop, shop
from wsm.core.asks import Ask, SetAgent, Verb
from wsm.core.errors import BadInput
from wsm.core.events import Origin
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName
from wsm.core.tickets import Level
from wsm.store import fleet, reads
from wsm.store.queries import QUERIES

ANA, BIA, CAIO, DUDA = "5511900000001", "5511900000002", "5511900000003", "5511900000004"


async def hired(at: Shop, **capacities: int) -> None:
    """Let agents come."""
    for name, capacity in capacities.items():
        await at.asks(SetAgent(agent=name, capacity=capacity))
        await at.asks(Ask(verb=Verb.ONLINE, agent=name))


async def standing(at: Shop) -> dict[str, tuple[str, str | None, int | None]]:
    """Who is in line: (state, agent, place) by phone."""
    rows = await reads.line(at.database, at.tenant)
    return {row.chat_id.partition("@")[0]: (row.state, row.agent, row.place) for row in rows}


async def ended(at: Shop) -> list[tuple[str, str]]:
    """The tickets that have ended, in order: (phone, how)."""
    query = (
        "select c.chat_id, t.ended from tickets t join conversations c on c.id = t.conversation_id"
        " where t.state = 'closed' order by t.id"
    )
    return [(row.chat_id.partition("@")[0], row.ended) for row in await Outbox(at).rows(query)]


async def test_agents_serve_up_to_their_capacity_and_who_waited_is_called(database: Urls) -> None:
    async with shop(database) as at:
        await hired(at, lia=1, leo=2)
        for who in (ANA, BIA, CAIO, DUDA):
            await at.turn(at.says(who, "oi"))
        assert await standing(at) == {
            ANA: ("served", "lia", None),
            BIA: ("served", "leo", None),
            CAIO: ("served", "leo", None),
            DUDA: ("waiting", None, 1),
        }
        await at.close(ANA)
        assert (await standing(at))[DUDA] == ("served", "lia", None)


async def test_an_ask_counts_once_and_what_is_not_possible_is_refused_and_said(database: Urls) -> None:
    async with shop(database) as at:
        await hired(at, lia=1)
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"))
        give = at.ask(Ask(verb=Verb.GIVE, agent="lia"), BIA)
        for _ in range(2):
            await at.turn(give, origin=Origin.CLI)
        rows = [row for row in await reads.audit(at.database, at.tenant) if row.what == "line.refused"]
        assert [row.detail["by"] for row in rows] == ["cli"]
        why = await reads.refusal(at.database, at.tenant, rows[0].detail["ask"])
        assert why == "lia has no room"
        assert await reads.is_handled(at.database, at.tenant, at.address.session, rows[0].detail["ask"])
        assert (await standing(at))[BIA] == ("waiting", None, 1)


async def refused(at: Shop, ask: Ask, chat: str | None = None) -> str | None:
    """Ask, and return why it was refused."""
    await at.asks(ask, chat)
    last = (await reads.audit(at.database, at.tenant))[-1]
    return last.detail["why"] if last.what == "line.refused" else None


async def test_a_refusal_says_why(database: Urls) -> None:
    async with shop(database) as at:
        await hired(at, lia=1)
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"))
        assert await refused(at, Ask(verb=Verb.RETURN), BIA) == "the ticket is waiting"
        assert await refused(at, Ask(verb=Verb.MOVE, queue="x"), BIA) == "there is no such queue"
        assert await refused(at, Ask(verb=Verb.GIVE, agent="leo"), BIA) == "there is no such agent"
        assert await refused(at, Ask(verb=Verb.NEXT, agent="lia")) == "lia has no room"
        await at.asks(Ask(verb=Verb.OFFLINE, agent="lia"))
        assert await refused(at, Ask(verb=Verb.GIVE, agent="lia", force=True), BIA) == "lia is not online"


async def test_who_must_may_be_given_beyond_an_agents_capacity(database: Urls) -> None:
    async with shop(database) as at:
        await hired(at, lia=1)
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"), at.says(CAIO, "oi"))
        await at.asks(Ask(verb=Verb.GIVE, agent="lia", force=True), CAIO)
        assert (await standing(at))[CAIO] == ("served", "lia", None)
        await at.close(ANA)
        assert (await standing(at))[BIA] == ("waiting", None, 1), "he still has more than he can"
        await at.close(CAIO)
        assert (await standing(at))[BIA] == ("served", "lia", None)


async def test_an_agent_who_is_removed_keeps_his_customers_no_longer_than_one_who_goes(
    database: Urls,
) -> None:
    async with shop(database) as at:
        await hired(at, lia=1, leo=1)
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"))
        await at.asks(Ask(verb=Verb.REMOVE, agent="lia"))
        assert [row.name for row in await reads.agents(at.database, at.tenant)] == ["leo", "lia"]
        assert await refused(at, Ask(verb=Verb.ONLINE, agent="lia")) == "there is no such agent"
        at.later(121)
        await at.asks(Ask(verb=Verb.TEND))
        assert (await standing(at))[ANA] == ("waiting", None, 1)
        assert [row.name for row in await reads.agents(at.database, at.tenant)] == ["leo"]
        await at.asks(Ask(verb=Verb.REMOVE, agent="leo"))
        at.later(121)
        await at.asks(Ask(verb=Verb.TEND))
        await at.asks(Ask(verb=Verb.TEND))
        assert (await standing(at))[ANA] == ("served", None, None), "without agents the queue serves"
        await hired(at, lia=1)
        assert [row.name for row in await reads.agents(at.database, at.tenant)] == ["lia"]


async def test_an_ask_that_waha_sends_moves_nothing(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi"))
        await at.turn(at.ask(Ask(verb=Verb.PARK), ANA))
        assert (await standing(at))[ANA][0] == "served"


async def test_a_transfer_keeps_the_entry_and_a_return_has_the_old_place(database: Urls) -> None:
    async with shop(database) as at:
        await fleet.set_queue(at.system, at.tenant, "suporte")
        for who in (ANA, BIA, CAIO):
            await at.turn(at.says(who, "oi"))
            at.later(60)
        await at.asks(Ask(verb=Verb.MOVE, queue="suporte"), BIA)
        await at.asks(Ask(verb=Verb.MOVE, queue="suporte"), CAIO)
        assert await standing(at) == {
            ANA: ("served", None, None), BIA: ("served", None, None), CAIO: ("waiting", None, 1),
        }  # fmt: skip
        await at.asks(Ask(verb=Verb.RETURN), BIA)
        assert (await standing(at))[BIA] == ("waiting", None, 1), "he entered before, and CAIO is called"
        assert (await standing(at))[CAIO] == ("served", None, None)
        rows = {row.chat_id[:13]: row.entered_at for row in await reads.line(at.database, at.tenant)}
        assert rows[BIA] == START + timedelta(seconds=60)


async def test_the_urgent_stand_before_and_keep_their_level(database: Urls) -> None:
    async with shop(database) as at:
        for who in (ANA, BIA, CAIO):
            await at.turn(at.says(who, "oi"))
        await at.asks(Ask(verb=Verb.MOVE, level=Level.URGENT), CAIO)
        assert await at.line() == [(ANA, None), (CAIO, 1), (BIA, 2)]
        await at.close(ANA)
        assert await at.line() == [(CAIO, None), (BIA, 1)]


async def test_each_session_has_its_entrance(database: Urls) -> None:
    async with shop(database) as at:
        other = SessionAddress(at.tenant, SessionName(f"user_{at.tenant}_b"))
        await fleet.add_session(at.system, other, server=DEFAULT_SERVER, alias="b", kid="k1")
        await fleet.set_queue(at.system, at.tenant, "vendas", [other.session])
        await at.turn(at.says(ANA, "oi"))
        await at.turn(at.says(BIA, "oi"), session=other.session)
        assert await at.line() == [(ANA, None), (BIA, None)], "each queue has a place of its own"
        rows = await reads.queues(at.database, at.tenant)
        assert [(row.name, row.served, row.sessions) for row in rows] == [
            ("default", 1, None), ("vendas", 1, [other.session]),
        ]  # fmt: skip


async def test_what_a_queue_is_told_is_kept_and_bad_values_are_named(database: Urls) -> None:
    async with shop(database) as at:
        await fleet.set_queue(at.system, at.tenant, "default", max_length=3, max_wait_minutes=9, pull=True)
        await fleet.set_queue(at.system, at.tenant, "default", max_length=0, keeps=False)
        [row] = await reads.queues(at.database, at.tenant)
        assert (row.capacity, row.max_length, row.max_wait_minutes, row.pull, row.keeps) == (
            1,
            None,
            9,
            True,
            False,
        )
        bad = {"capacity": -1, "ageing_minutes": 0, "max_length": 10_001, "reopen_hours": 721}
        for name, value in bad.items():
            with pytest.raises(BadInput, match=name):
                await fleet.set_queue(at.system, at.tenant, "default", (), **{name: value})
        with pytest.raises(BadInput, match="session"):
            await fleet.set_queue(at.system, at.tenant, "nova", ["nobody's"])
        assert len(await reads.queues(at.database, at.tenant)) == 1, "all of it or nothing"


async def test_who_comes_back_within_the_window_has_his_ticket_and_thanks_open_nothing(
    database: Urls,
) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi"))
        await at.close(ANA)
        at.later(60)
        await at.turn(at.says(ANA, "ok, obrigada!"))
        assert await at.line() == []
        await at.turn(at.says(BIA, "oi"), at.says(CAIO, "oi"))
        at.later(60)
        await at.turn(at.says(ANA, "mais uma coisa"))
        assert await at.line() == [(BIA, None), (ANA, 1), (CAIO, 2)], "before who came later"
        assert await at.count("tickets") == 3
        await at.close(BIA)
        await at.close(ANA)
        at.later(25 * 3600)
        await at.turn(at.says(ANA, "bom dia"))
        assert await at.count("tickets") == 4, "a day later it is another matter"


async def test_a_ticket_that_is_opened_again_is_told_of_anew(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"))
        await at.close(ANA)
        await at.close(BIA)
        while claimed := await box.claim():
            await box.sent(claimed)
        await at.turn(at.says(CAIO, "oi"))
        at.later(10)
        await at.turn(at.says(BIA, "voltei"))
        texts = []
        while claimed := await box.claim():
            texts.append((claimed.chat[:13], claimed.text))
            await box.sent(claimed)
        assert [who for who, _ in texts] == [CAIO, BIA]
        assert "nº 1." in texts[1][1]
        await at.close(CAIO)
        assert "sua vez" in (await box.must_claim()).text


async def test_two_calls_before_the_first_is_told_are_told_once(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        at.later(1)
        await at.asks(Ask(verb=Verb.RETURN), ANA)
        assert await at.line() == [(ANA, 1)], "who gave him back is not given him at once"
        at.later(1)
        await at.asks(Ask(verb=Verb.TEND))
        assert await at.line() == [(ANA, None)]
        await box.sent(await box.must_claim())
        assert await box.claim() is None


async def test_who_finds_the_line_full_leaves_a_message_that_agents_see(database: Urls) -> None:
    async with shop(database) as at:
        await fleet.set_queue(at.system, at.tenant, "default", max_length=1)
        for who in (ANA, BIA, CAIO):
            await at.turn(at.says(who, "oi"))
        await at.turn(at.says(CAIO, "é sobre o boleto"))
        assert await at.line() == [(ANA, None), (BIA, 1)]
        assert await ended(at) == [(CAIO, "overflow")]
        [left] = await reads.left_messages(at.database, at.tenant)
        assert left.chat_id == f"{CAIO}@c.us"
        said = await Outbox(at).rows(f"select body from messages where ticket_id = {left.id} order by id")
        assert [row.body for row in said] == ["oi", "é sobre o boleto"]
        await hired(at, lia=2)
        await at.asks(Ask(verb=Verb.GIVE, agent="lia"), CAIO, by="lia")
        assert await reads.left_messages(at.database, at.tenant) == []
        assert (await standing(at))[CAIO] == ("served", "lia", None)


async def test_what_time_does_is_done_in_the_clocks_turn(database: Urls) -> None:
    async with shop(database) as at:
        await fleet.set_queue(at.system, at.tenant, "default", max_wait_minutes=10)
        await hired(at, lia=2)
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"), at.says(CAIO, "oi"), at.says(DUDA, "oi"))
        await at.asks(Ask(verb=Verb.PARK), BIA)
        await at.asks(Ask(verb=Verb.OFFLINE, agent="lia"))
        at.later(121)
        await at.turn(at.ask(Ask(verb=Verb.TEND), by="clock"), origin=Origin.CLOCK)
        assert await standing(at) == {
            ANA: ("waiting", None, 1), CAIO: ("waiting", None, 2), DUDA: ("waiting", None, 3),
            BIA: ("parked", "lia", None),
        }  # fmt: skip
        at.later(600)
        await at.turn(at.ask(Ask(verb=Verb.TEND), by="clock"), origin=Origin.CLOCK)
        assert {how for who, how in await ended(at) if who != BIA} == {"overflow"}
        at.later(86_400)
        await at.turn(at.ask(Ask(verb=Verb.TEND), by="clock"), origin=Origin.CLOCK)
        assert (BIA, "no_show") in await ended(at)
        assert await at.line() == []


async def test_more_than_one_look_shows_are_called_in_one_turn_and_in_order(database: Urls) -> None:
    async with shop(database, capacity=0) as at:
        crowded(database, 260)
        await fleet.set_queue(at.system, at.tenant, "default", capacity=250)
        await at.asks(Ask(verb=Verb.TEND))
        rows = await reads.line(at.database, at.tenant)
        assert [row.state for row in rows].count("served") == 250
        waiting = [row.chat_id for row in rows if row.state == "waiting"]
        assert waiting == [f"crowd{number}@c.us" for number in range(251, 261)]
        page = await reads.line(at.database, at.tenant, first=3, many=2)
        assert [(row.chat_id, row.place) for row in page if row.place] == [
            ("crowd253@c.us", 3), ("crowd254@c.us", 4),
        ]  # fmt: skip


def crowded(urls: Urls, people: int) -> None:
    """Let so many people wait, one after another."""
    with psycopg.connect(urls.owner_url, options="-c search_path=wsm") as owner:
        owner.execute(
            """
            with people as (
                insert into contacts (tenant_id, name)
                select tenant_id, 'crowd' || n from tenants, generate_series(1, %(n)s) n order by n
                returning tenant_id, id, name),
            talks as (
                insert into conversations (tenant_id, session_id, contact_id, chat_id, kind, state)
                select p.tenant_id, s.id, p.id, p.name || '@c.us', 'direct', 'waiting'
                from people p join sessions s using (tenant_id) order by p.id
                returning tenant_id, id)
            insert into tickets (tenant_id, queue_id, conversation_id, state, entered_at, rank_at)
            select t.tenant_id, q.id, t.id, 'waiting', at, at
            from talks t
            join (select tenant_id, min(id) as id from queues group by tenant_id) q using (tenant_id)
            cross join lateral (select %(start)s::timestamptz + t.id * interval '1 ms' as at) a
            """,
            {"n": people, "start": START - timedelta(days=1)},
        )
        owner.execute("analyze tickets")


LOOKS: Mapping[str, dict[str, Any]] = {
    "open_line": {"limit": 7},
    "due_tickets": {"limit": 100, "now": START, "parked_before": START, "gone_before": START},
    "known_tickets": {"names": [f"user_{1460561546}"], "aliases": [f"{ANA}@c.us"]},
    "line_agents": {},
    "tell_moved": {
        "queue": 1, "many": 5, "near": 5, "step": 3, "at_most": 5, "every": timedelta(minutes=2), "mark": "x",
        "now": START, "expires_at": START, "tenant": 1460561546,
    },
    "tend_next": {
        "open": '[{"queue": 1, "since": null}]', "parked": timedelta(days=1), "gone": timedelta(minutes=2),
        "now": START, "tenant": 1460561546,
    },
    "take_timers": {"timers": [1], "now": START},
    "set_timers": {
        "timers": '[{"place": 0, "kind": "pulse", "queue": 1, "due": "2026-11-20T12:00:00Z", "args": {}}]',
        "sooner": True, "tenant": 1460561546,
    },
    "measure_queue": {"queue": 1, "since": START - timedelta(days=7)},
}  # fmt: skip


async def test_no_look_at_the_line_reads_all_of_it(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi"))
        await fleet.set_queue(at.system, at.tenant, "default", max_length=50, max_wait_minutes=5)
        crowded(database, 20_000)
    with psycopg.connect(database.app_url, options="-c search_path=wsm") as app:
        app.execute("select set_config('wsm.tenant', '1460561546', false)")
        for name, values in LOOKS.items():
            [(plan,)] = app.execute(b"explain (analyze, format json) " + QUERIES[name], values).fetchall()
            read = [*rows_read(plan[0]["Plan"])]
            assert all("Seq Scan" not in node or rows < 50 for node, rows in read), (name, read)
            assert sum(rows for _, rows in read) < 1000, (name, read)


async def test_however_many_timers_ask_for_places_a_queue_is_walked_once(database: Urls) -> None:
    async with shop(database) as at:
        crowded(database, 5_000)
        room = Outbox(at)
        async with at.database.transaction(at.tenant) as transaction:
            await transaction._connection.execute(
                b"insert into timers (tenant_id, kind, ticket_id, due_at)"
                b" select tenant_id, 'silence', id, entered_at from tickets order by id desc limit 50"
            )
        timers = [row.id for row in await room.rows("select id from timers")]
    with psycopg.connect(database.app_url, options="-c search_path=wsm") as app:
        app.execute("select set_config('wsm.tenant', '1460561546', false)")
        asked = {"timers": timers, "now": START}
        [(plan,)] = app.execute(b"explain (analyze, format json) " + QUERIES["take_timers"], asked).fetchall()
        assert sum(rows for _, rows in rows_read(plan[0]["Plan"])) < 15_000, "50 walks are 250,000"
        app.rollback()
        app.execute("select set_config('wsm.tenant', '1460561546', false)")
        rows = app.execute(QUERIES["take_timers"], asked)
        place = [column.name for column in rows.description or ()].index("place")
        assert sorted(row[place] for row in rows) == [*range(4_951, 5_001)]


def rows_read(plan: dict[str, Any]) -> Any:
    """Each scan of a plan, and how many rows it has read."""
    if "Scan" in plan["Node Type"]:
        removed = plan.get("Rows Removed by Filter", 0)
        yield (
            f"{plan['Node Type']} of {plan.get('Index Name') or plan.get('Relation Name')}",
            (plan["Actual Rows"] + removed) * plan["Actual Loops"],
        )
    for part in plan.get("Plans", []):
        yield from rows_read(part)
