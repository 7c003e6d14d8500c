"""Contacts that turn out to be one person, on a real PostgreSQL: what becomes of all that hangs on them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import psycopg
import pytest

from databases import Database as Urls
from outboxes import INDETERMINATE, SENT
from persons import ALT, ANA, BIA, EIGHT, HIDDEN, OLD_PHONE, PHONE, Persons
from shop import shop
from wsm.core.asks import Ask, Verb
from wsm.core.bot import Bot
from wsm.core.content import SendClass, Text
from wsm.core.events import Origin
from wsm.core.ids import DEFAULT_SERVER, ChatId, SessionAddress, SessionName
from wsm.core.moments import milliseconds
from wsm.core.notices import Manners
from wsm.core.outbox import Outcome
from wsm.store import fleet, reads
from wsm.telemetry import PEOPLE
from wsm.wire.waha import timer_command

STATES = ("start", "waiting", "served", "parked", "closed")
STANDS = ("served", "waiting", "parked")


@asynccontextmanager
async def persons(database: Urls, **founding: Any) -> AsyncIterator[Persons]:
    async with shop(database, **founding) as at:
        yield await Persons(at).opened()
        assert await Persons(at).wrong() == []


def seen(what: str) -> float:
    return float(PEOPLE.labels(what)._value.get())


async def test_who_was_known_by_each_of_his_ids_becomes_one_by_a_message_that_bears_both(
    database: Urls,
) -> None:
    async with persons(database) as room:
        await room.says(HIDDEN, "um", alt="")
        await room.says(PHONE, "dois")
        before = seen("merged")
        await room.says(HIDDEN, "três", alt=f"{ANA}:22@s.whatsapp.net")
        await room.says(PHONE, "quatro")
        assert (await room.people(), seen("merged") - before) == (1, 1)
        assert await room.texts() == ["um", "dois", "três", "quatro"]
        assert await room.tickets() == [("waiting", None), ("closed", "merged")]
        assert (await room.talk()).chat_id == PHONE, "answered under the id that was heard last"


async def test_the_ticket_that_stands_best_stays_and_of_two_alike_the_first(database: Urls) -> None:
    async with persons(database) as room:
        pairs = {
            (f"955119600001{number:02}@lid", f"55119600001{number:02}@c.us"): both
            for number, both in enumerate(product(STATES, STATES))
        }
        for both, states in pairs.items():
            for chat, where in zip(both, states, strict=True):
                await room.stands(chat, where)
        tickets = await room.rows(
            "select chat_id, tickets.id from tickets join conversations c on c.id = conversation_id"
        )
        had = {row.chat_id: row.id for row in tickets}
        await room.tell(*pairs)
        assert await room.people() == len(pairs)
        for (lid, phone), states in pairs.items():
            open_ = {
                had[chat]: state for chat, state in zip((lid, phone), states, strict=True) if state in STANDS
            }
            kept = min(open_, key=lambda ticket: (STANDS.index(open_[ticket]), ticket), default=None)
            state = open_[kept] if kept else "closed" if "closed" in states else "start"
            [talk] = await reads.conversations(room.at.database, room.at.tenant, [phone], None)
            assert (talk.state, talk.chat_id) == (state, phone), states
            rows = await room.rows(f"select id, state, ended from tickets where conversation_id = {talk.id}")
            assert {(row.id, row.state) for row in rows if row.state != "closed"} == {
                (kept, state) for _ in open_ if kept
            }
            merged = [row.id for row in rows if row.ended == "merged"]
            assert sorted(merged) == sorted(open_.keys() - {kept}), states
        line = [row for row in await reads.line(room.at.database, room.at.tenant) if row.place]
        assert [row.place for row in line] == list(range(1, len(line) + 1))
        assert [row.id for row in line] == sorted(row.id for row in line), "nobody lost his place"


async def test_a_long_history_stays_where_it_is_and_the_ticket_that_stays_comes_to_it(database: Urls) -> None:
    async with persons(database) as room:
        await room.stands(HIDDEN, "waiting")
        await room.stands(PHONE, "waiting")
        with psycopg.connect(database.owner_url, autocommit=True) as owner:
            owner.execute("set search_path = wsm")
            owner.execute(_MANY_MORE, [PHONE])
        await room.tell((HIDDEN, PHONE))
        [kept, went] = await room.rows("select state, ended, conversation_id from tickets order by id")
        assert (kept.state, went.ended, kept.conversation_id) == ("waiting", "merged", (await room.talk()).id)
        assert ((await room.talk()).state, len(await room.at.history(ANA))) == ("waiting", 2003)


_MANY_MORE = """
insert into messages (tenant_id, sent_at, session_id, conversation_id, author, kind, from_me, bare_id,
                      stamped_at_ms, entry_ms, entry_n)
select tenant_id, sent_at, session_id, conversation_id, author, kind, from_me, bare_id, 1, 1, n
from (select * from messages where conversation_id = (select id from conversations where chat_id = %s)) m,
     generate_series(1, 2001) n"""


async def test_who_comes_back_after_a_merge_comes_back_to_what_ended_last(database: Urls) -> None:
    async with persons(database) as room:
        await fleet.set_queue(room.at.system, room.at.tenant, "default", reopen_hours=24)
        await room.stands(HIDDEN, "served")
        await room.at.turn(room.about(HIDDEN, Ask(verb=Verb.GIVE, agent="rui")), origin=Origin.CLI)
        await room.stands(PHONE, "waiting")
        await room.tell((HIDDEN, PHONE))
        await room.close(ANA)
        await room.says(PHONE, "de novo")
        assert await room.tickets() == [("served", None), ("closed", "merged")], "and to whom he had"


async def test_what_a_ticket_that_goes_was_told_counts_for_the_one_that_stays(database: Urls) -> None:
    async with persons(database) as room:
        for number in range(4):
            await room.stands(f"551198000000{number}@c.us", "waiting")
        await room.stands(HIDDEN, "waiting")
        await room.stands(PHONE, "waiting")
        await room.send()
        assert len(room.said_to(ANA)) == len(room.said_to(HIDDEN.partition("@")[0])) == 1
        await room.says("5511980000000@c.us", "sair")
        await room.tell((HIDDEN, PHONE))
        [told] = await room.rows("select told_place, told_updates from tickets where told_place = 5")
        assert told.told_updates == 0
        pending = await room.rows("select ticket_id from outbox where state = 'pending' and class = 'place'")
        assert len({row.ticket_id for row in pending}) == len(pending)
        await room.later(3)
        assert [text for text in room.said_to(ANA) if "5" in text] == [], (
            "no place that he knew, or a worse one"
        )


async def test_a_ticket_that_went_is_told_of_no_more_asked_of_no_more_and_never_opens_again(
    database: Urls,
) -> None:
    async with persons(database) as room:
        await fleet.set_queue(room.at.system, room.at.tenant, "default", reopen_hours=24)
        await room.set(Manners(survey=True, nudge=60, release=120, remind=300, end=300))
        await room.stands(HIDDEN, "served")
        await room.says(HIDDEN, "pode falar?", from_me=True)
        await room.stands(PHONE, "served")
        await room.says(PHONE, "bom dia", from_me=True)
        await room.send()
        room.heard.clear()
        await room.tell((HIDDEN, PHONE))
        await room.send()
        assert room.heard == [], "nobody hears of it"
        [kept, went] = await room.rows("select id, state, ended, survey_asked_at from tickets order by id")
        assert (kept.state, went.ended, went.survey_asked_at) == ("served", "merged", None)
        await room.says(PHONE, "obrigado")
        await room.close(ANA)
        surveys = await room.rows("select ticket_id from outbox where class = 'survey'")
        assert [row.ticket_id for row in surveys] == [kept.id], "asked once, of the ticket that stayed"
        await room.says(PHONE, "mais uma coisa")
        assert (await room.tickets())[1] == ("closed", "merged")
        assert (await room.tickets())[0][0] != "closed", "it is this one that opens again"


async def test_what_is_to_be_said_goes_to_who_stays_and_what_is_on_its_way_is_settled(database: Urls) -> None:
    async with persons(database) as room:
        await room.says(PHONE, "oi")
        await room.says(HIDDEN, "oi")
        await room.send()
        await room.at.asks_to_send(HIDDEN, Text(text="indo"))
        claimed = await room.must_claim()
        await room.at.asks_to_send(HIDDEN, Text(text="esperando"))
        await room.tell((HIDDEN, PHONE))
        talk = await room.talk()
        assert {row.conversation_id for row in await room.intents()} == {talk.id}
        assert await room.claim() is None, "one on its way in a session"
        await room.sent(claimed)
        after = await room.must_claim()
        assert (after.text, after.chat) == ("esperando", HIDDEN), "under the id that was heard last"
        await room.settle(after, Outcome(INDETERMINATE))
        await room.echo(after)
        assert [(each.intent, each.state) for each in await room.intents()][-2:] == [("agent", SENT)] * 2
        assert [text for text in await room.texts() if text in {"indo", "esperando"}] == ["indo", "esperando"]


async def test_an_echo_without_an_id_finds_what_was_sent_before_the_merge(database: Urls) -> None:
    async with persons(database) as room:
        await room.says(PHONE, "oi")
        await room.says(HIDDEN, "oi")
        await room.send()
        await room.at.asks_to_send(HIDDEN, Text(text="indo"))
        claimed = await room.must_claim(own_ids=False)
        await room.settle(claimed, Outcome(INDETERMINATE))
        body = room.at.message(HIDDEN, "indo", from_me=True, source="api", alt="")
        await room.turn(room.at.entry(room.told((HIDDEN, PHONE)), Origin.CLOCK), room.at.entry(body))
        assert (await room.intents())[-1].state == SENT
        assert [text for text in await room.texts() if text == "indo"] == ["indo"]


@pytest.mark.parametrize("who", [HIDDEN, PHONE])
async def test_an_opt_out_under_either_id_holds(database: Urls, who: str) -> None:
    async with persons(database) as room:
        await room.says(HIDDEN, "oi")
        await room.says(PHONE, "oi")
        await room.says(who, "parar")
        await room.send()
        await room.tell((HIDDEN, PHONE))
        await room.at.asks_to_send(PHONE, Text(text="promoção"), send_class=SendClass.CAMPAIGN)
        assert await room.claim() is None
        assert (await room.intents())[-1].state in {"dropped", "failed"}


async def test_what_is_known_of_either_is_known_of_both(database: Urls) -> None:
    async with persons(database) as room:
        await room.says(HIDDEN, "bom dia", from_me=True)
        await room.says(PHONE, "oi")
        [first, second] = await room.rows("select id, human_until, heard_at from conversations order by id")
        await room.tell((HIDDEN, PHONE))
        talk = await room.talk()
        assert (talk.human_until, talk.heard_at) == (first.human_until, second.heard_at)
        assert talk.human_until is not None
        assert talk.heard_at is not None
        await room.at.asks_to_send(HIDDEN, Text(text="x"))
        [last] = await room.rows("select cold from outbox order by id desc limit 1")
        assert not last.cold


async def test_a_brazilian_number_with_and_without_its_nine_is_one_person(database: Urls) -> None:
    async with persons(database) as room:
        await room.says(OLD_PHONE, "um")
        await room.says(PHONE, "dois")
        await room.says(f"{EIGHT}:3@s.whatsapp.net", "três")
        assert await room.texts(ANA) == await room.texts(EIGHT) == ["um", "dois", "três"]
        assert (await room.people(), len(await room.tickets())) == (1, 1)
        for chat in (PHONE, OLD_PHONE):
            [standing] = await reads.standing(room.at.database, room.at.tenant, ChatId(chat))
            assert (standing.place, standing.state, standing.chat_id) == (1, "waiting", OLD_PHONE)
        await room.at.turn(room.about(PHONE, Ask(verb=Verb.LEAVE)), origin=Origin.CLI)
        assert (await room.talk()).state == "closed"
        assert await reads.standing(room.at.database, room.at.tenant, ChatId(PHONE)) == []
        await room.says("551130000001@c.us", "um telefone fixo")
        await room.says("5511930000001@c.us", "não é dele")
        assert await room.people() == 3


async def test_two_contacts_that_were_there_before_the_rule_become_one(database: Urls) -> None:
    async with persons(database) as room:
        await room.says(PHONE, "um")
        await room.says(f"{BIA}@c.us", "dois")
        with psycopg.connect(database.owner_url, autocommit=True) as owner:
            owner.execute("set search_path = wsm")
            owner.execute(
                "update contact_aliases set alias = %s where alias = %s", [OLD_PHONE, f"{BIA}@c.us"]
            )
        await room.says(PHONE, "três")
        assert await room.texts() == ["um", "dois", "três"]


async def test_a_hidden_id_that_belongs_to_another_phone_is_a_conflict_and_nothing_follows(
    database: Urls,
) -> None:
    async with persons(database) as room:
        await room.says(HIDDEN, "um", alt=ALT)
        await room.says(f"{BIA}@c.us", "dois")
        before = (seen("merged"), seen("conflict"))
        await room.says(HIDDEN, "três", alt=f"{BIA}@s.whatsapp.net")
        await room.tell((HIDDEN, f"{BIA}@c.us"), ("77@lid", PHONE))
        await room.says("78@lid", "quatro", alt=ALT)
        assert (seen("merged") - before[0], seen("conflict") - before[1]) == (0, 4)
        assert await room.people() == 3
        assert (await room.texts(ANA), await room.texts(BIA)) == (["um", "três"], ["dois"])
        known = {row.alias for row in await room.rows("select alias from contact_aliases")}
        assert known == {HIDDEN, PHONE, f"{BIA}@c.us", "78@lid"}


async def test_what_a_gateway_tells_of_nobody_makes_nobody_and_is_learned_of_who_is_known(
    database: Urls,
) -> None:
    async with persons(database) as room:
        await room.tell((HIDDEN, PHONE), ("7@lid", None))
        assert await room.people() == 0
        await room.says(HIDDEN, "oi")
        await room.tell((HIDDEN, PHONE), ("7@lid", None))
        await room.says(PHONE, "sou eu")
        assert (await room.people(), await room.texts()) == (1, ["oi", "sou eu"])


async def test_twenty_messages_of_one_new_person_under_all_his_ids_at_once(database: Urls) -> None:
    async with persons(database) as room:
        ids = ((PHONE, ""), (HIDDEN, ALT), (OLD_PHONE, ""), (ALT, ""), (HIDDEN, ""))
        bodies = [
            room.at.message(ids[number % 5][0], f"{number:02}", ago=20 - number, alt=ids[number % 5][1])
            for number in range(20)
        ]
        await asyncio.gather(*(room.at.turn(*bodies[first::5]) for first in range(5)), room.at.turn(*bodies))
        assert await room.texts() == [f"{number:02}" for number in range(20)]
        assert (
            await room.people(),
            len(await room.rows("select id from conversations where merged_into is null")),
        ) == (1, 1)
        assert [state for state, _ in await room.tickets()].count("waiting") == 1


async def test_the_same_in_one_turn_is_one_from_the_first_on(database: Urls) -> None:
    async with persons(database) as room:
        bodies = [
            room.at.message(chat, f"{number:02}", ago=20 - number, alt=alt)
            for number, (chat, alt) in enumerate(
                [(PHONE, ""), (OLD_PHONE, ""), (HIDDEN, ""), (HIDDEN, ALT)] * 5
            )
        ]
        await room.at.turn(*reversed(bodies))
        assert await room.texts() == [f"{number:02}" for number in range(20)]
        assert (await room.at.count("contacts"), await room.at.count("conversations")) == (1, 1)
        assert (await room.talk()).chat_id == HIDDEN


async def test_a_merge_that_is_not_committed_has_not_happened(database: Urls) -> None:
    async with persons(database) as room:
        for chat in (HIDDEN, PHONE):
            await room.stands(chat, "served")
            await room.at.asks_to_send(chat, Text(text="olá"))
        tables = (
            "contacts",
            "contact_aliases",
            "conversations",
            "tickets",
            "messages",
            "outbox",
            "timers",
            "audit",
        )
        before = [
            await room.rows(f"select to_jsonb(t)::text as row from {table} t order by 1") for table in tables
        ]
        with psycopg.connect(database.owner_url, autocommit=True) as owner:
            owner.execute("set search_path = wsm")
            owner.execute("alter table outbox add constraint broken check (conversation_id < 2) not valid")
            settled = await room.at.turn(room.told((HIDDEN, PHONE)), origin=Origin.CLOCK)
            assert [parking.reason for parking in settled.parked] == ["CheckViolation"]
            assert [
                await room.rows(f"select to_jsonb(t)::text as row from {table} t order by 1")
                for table in tables
            ] == before
            owner.execute("alter table outbox drop constraint broken")
        await room.tell((HIDDEN, PHONE))
        assert await room.people() == 1


async def test_one_person_in_two_sessions_has_one_conversation_in_each(database: Urls) -> None:
    async with persons(database) as room:
        other = SessionName(f"{room.at.address.session}_2")
        await fleet.add_session(
            room.at.system,
            SessionAddress(room.at.tenant, other),
            server=DEFAULT_SERVER,
            alias="2",
            kid="k",
        )
        await room.says(HIDDEN, "um")
        for chat, text in ((PHONE, "dois"), (HIDDEN, "três")):
            room.at.later(1)
            await room.at.turn(room.at.message(chat, text), session=other)
        await room.tell((HIDDEN, PHONE))
        rows = await reads.conversations(room.at.database, room.at.tenant, [PHONE], None)
        assert [row.session for row in rows] == [room.at.address.session, other]
        texts = [
            [m.body for m in (await reads.history(room.at.database, room.at.tenant, row.id))[0]]
            for row in rows
        ]
        assert texts == [["um"], ["dois", "três"]]
        assert [state for state, _ in await room.tickets()].count("waiting") == 2


async def test_groups_and_channels_are_nobody(database: Urls) -> None:
    async with persons(database) as room:
        for chat in ("1203@g.us", "1203@newsletter", "1203@broadcast"):
            await room.says(chat, "oi", alt=ALT)
        await room.says(PHONE, "oi")
        assert await room.people() == 4


async def test_a_timer_that_fires_while_its_talk_becomes_another_is_about_that_one(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        room = Persons(at)
        await fleet.set_bot(at.system, at.tenant, Bot(debounce=6, longest=45))
        await room.says(PHONE, "um", from_me=True, source="api")
        await room.says(HIDDEN, "dois")
        await room.says(PHONE, "três")
        [_, timer] = await room.rows("select id, kind, due_at from timers where kind = 'burst' order by id")
        at.now = timer.due_at
        rung = timer_command(at.address.session, timer.id, timer.kind, milliseconds(timer.due_at))
        await room.turn(at.entry(room.told((HIDDEN, PHONE)), Origin.CLOCK), at.entry(rung, Origin.CLOCK))
        wanted = [who for what, who in await at.audit() if what == "answer.wanted"]
        assert wanted == [(await room.talk()).id]
        assert await room.wrong() == []


async def test_the_audit_tells_who_became_whom_and_names_no_phone(database: Urls) -> None:
    async with persons(database) as room:
        await room.stands(HIDDEN, "waiting")
        await room.stands(PHONE, "served")
        await room.tell((HIDDEN, PHONE))
        rows = await reads.audit(room.at.database, room.at.tenant)
        closed, talk, became = rows[-3:]
        assert (closed.what, closed.detail) == ("ticket.closed", {"by": "merge"})
        assert (talk.what, talk.conversation_id) == ("conversation.merged", closed.conversation_id)
        assert talk.detail == {"from": closed.conversation_id, "into": (await room.talk()).id}
        assert (became.what, became.detail) == ("contact.merged", {"from": 2, "into": 1})
        assert "551196" not in str(rows)


async def test_who_is_put_aside_under_one_id_is_put_aside_under_the_other_too(database: Urls) -> None:
    async with persons(database) as room:
        await room.says(HIDDEN, "um")
        await room.says(PHONE, "dois")
        await room.tell((HIDDEN, PHONE))
        place = ChatId(f"{room.at.address.session}/{HIDDEN}")
        entries = (room.at.message(OLD_PHONE, "três"), room.at.says(BIA, "oi"))
        settled = await room.at.turn(*entries, parked=frozenset({place}))
        assert [(each.chat, len(each.entries)) for each in settled.parked] == [(place, 1)]
        assert len(settled.handled) == 1


async def test_somebodys_phone_may_be_unknown_for_ever(database: Urls) -> None:
    async with persons(database) as room:
        for text in ("um", "dois"):
            await room.says(HIDDEN, text)
            await room.tell((HIDDEN, None))
        await room.at.asks_to_send(HIDDEN, Text(text="olá"))
        assert (await room.must_claim()).chat == HIDDEN
        assert await room.people() == 1
