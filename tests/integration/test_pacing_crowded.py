"""A session with thousands of messages before it: what a claim costs, what a run of refusals holds up."""

import asyncio
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY

from databases import Database as Urls
from outboxes import Outbox
from postoffice import post_office
from shop import Shop, shop
from unpaced import PACING
from wsm.core.content import SendClass
from wsm.core.pacing import Pace
from wsm.store.paces import Pacing
from wsm.store.queries import QUERIES
from wsm.worker import deliver

_TALKS = """
with people as (
    insert into contacts (tenant_id) select {tenant} from generate_series(1, {count}) returning id),
named as (select id, row_number() over (order by id) - 1 as n from people)
insert into conversations (tenant_id, session_id, contact_id, chat_id, kind, heard_at)
select {tenant}, s.id, named.id, '55119' || lpad(n::text, 8, '0') || '@c.us', 'direct', now()
from named, (select id from sessions limit 1) s
"""
_INTENTS = """
insert into outbox (tenant_id, session_id, conversation_id, class, kind, args, body, intent_key, not_before,
                    expires_at, created_at, cold)
select {tenant}, c.session_id, c.id, '{urgency}', 'text', '{{"kind": "text", "text": "t"}}', 't', 'k' || c.id,
       '{now}'::timestamptz + interval '{later}', '{now}'::timestamptz + interval '{lasts}', '{now}', {cold}
from conversations c
"""
_DUE = "insert into pace (tenant_id, session_id, due_at) select {tenant}, id, '{now}' from sessions"


async def run(at: Shop, *statements: str, **values: Any) -> None:
    """Run statements of this tenant."""
    filled = {"tenant": at.tenant, "now": at.now, "later": "0 s", "lasts": "1 day", "cold": False, **values}
    for statement in statements:
        async with at.database.transaction(at.tenant, at.now) as transaction:
            await transaction._connection.execute(statement.format(**filled).encode())


async def crowded(at: Shop, urgency: SendClass, count: int, **values: Any) -> Outbox:
    """A session that has something to say to each of so many people."""
    await run(at, _TALKS, _DUE, _INTENTS, urgency=urgency, count=count, **values)
    return Outbox(at)


async def pages_read(at: Shop, box: Outbox) -> int:
    """How many pages it takes to say what is next."""
    name, values = PACING.asked((await box.session())[0])
    async with at.database.transaction(at.tenant, at.now) as transaction:
        await transaction.begin()
        asked = b"explain (analyze, buffers, format json) " + QUERIES[name]
        cursor = await transaction._connection.execute(asked, transaction._filled(values))
        [[[plan]]] = await cursor.fetchall()
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


async def test_a_claim_reads_as_much_where_ten_wait_as_where_thousands_do(database: Urls) -> None:
    async with shop(database) as at:
        box = await crowded(at, SendClass.CAMPAIGN, 5_000)
        async with await psycopg.AsyncConnection.connect(database.owner_url, autocommit=True) as owner:
            await owner.execute("analyze wsm.outbox")
        assert await pages_read(at, box) < 300


async def test_thousands_of_refusals_hold_nobody_up_and_are_kept_on_the_way(database: Urls) -> None:
    async with shop(database) as at:
        box = await crowded(at, SendClass.CAMPAIGN, 150, cold=True)
        box.pacing = Pacing(Pace(first_contacts=False), lambda: 0.5)
        claiming = asyncio.create_task(box.claim())
        seen = set()
        while not claiming.done():
            [row] = await box.rows("select count(*) as waits from outbox where state = 'pending'")
            seen.add(row.waits)
        assert await claiming is None
        assert seen - {150, 0}, "in one transaction none would be kept where it is cut off, and none ever is"
        assert {row.reason for row in await box.intents()} == {"first_off"}


async def test_what_expired_ends_in_parts_and_nothing_of_it_is_sent(database: Urls) -> None:
    async with shop(database) as at:
        box = await crowded(at, SendClass.CAMPAIGN, 2_500, lasts="1 s")
        at.later(2)
        labels = {"intent": "campaign", "kind": "text", "outcome": "expired"}
        counted = REGISTRY.get_sample_value("wsm_sends_total", labels) or 0
        assert await box.claim() is None, "also where nobody has looked for what expired yet"
        surveying = asyncio.create_task(box.survey())
        seen = set()
        while not surveying.done():
            [row] = await box.rows("select count(*) as waits from outbox where state = 'pending'")
            seen.add(row.waits)
        assert await surveying == []
        assert seen - {2_500, 0}
        [row] = await box.rows("select count(*) as ended from outbox where reason = 'expired'")
        assert row.ended == 2_500
        assert REGISTRY.get_sample_value("wsm_sends_total", labels) == counted + 2_500


async def test_who_has_ten_thousand_to_send_gives_his_place_back_after_a_few(
    database: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deliver.MESSAGES_PER_BELL == 50, "a neighbour waits for no more, where one worker has one slot"
    monkeypatch.setattr(deliver, "MESSAGES_PER_BELL", 4)
    async with post_office(database) as office:
        office.clock()
        await crowded(office.at, SendClass.AGENT, 10_000)
        assert await office.deliver(), "the bell goes to the tail"
        [row] = await office.rows("select count(*) as left_, count(claimed_at) as claimed from outbox")
        assert (row.left_, row.claimed) == (10_000, 4)
        assert await office.states() == [("agent", "sent")] * 4 + [("agent", "pending")] * 9_996
