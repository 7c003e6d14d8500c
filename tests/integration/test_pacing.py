"""The pace of a session in the real store: what the core decides, and nothing else."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from databases import Database as Urls
from outboxes import INDETERMINATE, PENDING, Outbox, fresh_id
from paced import MONDAY, Paced
from postoffice import PostOffice, post_office
from shop import Shop, shop
from unpaced import PACING, QUICK
from wsm.core.content import SendClass, Text
from wsm.core.errors import GatewayRefused
from wsm.core.ids import ChatId
from wsm.core.outbox import Claimed, Composing, Lock, Outcome, after_error
from wsm.core.pacing import Pace
from wsm.sandbox.waha.faults import Wrong
from wsm.store import fleet, outbox, reads
from wsm.store.paces import Pacing

ANA, BIA, CAIO = "5511900000001", "5511900000002", "5511900000003"
BOT, CAMPAIGN, AGENT = SendClass.BOT, SendClass.CAMPAIGN, SendClass.AGENT
_TALKS = """
with people as (
    insert into contacts (tenant_id) select {tenant} from generate_series(1, {count}) returning id),
named as (select id, row_number() over (order by id) - 1 as n from people)
insert into conversations (tenant_id, session_id, contact_id, chat_id, kind, heard_at)
select {tenant}, s.id, named.id, '55119' || lpad(n::text, 8, '0') || '@c.us', 'direct',
       case when n < {warm} then now() end
from named, (select id from sessions limit 1) s
"""
_INTENTS = """
insert into outbox (tenant_id, session_id, conversation_id, class, kind, args, body, intent_key, not_before,
                    expires_at, created_at, cold)
select {tenant}, c.session_id, c.id, '{urgency}', 'text', '{{"kind": "text", "text": "t"}}',
       repeat('t', 80), 'k{key}', '{now}', '{now}'::timestamptz + interval '30 days', '{now}', {cold}
from conversations c where c.chat_id = '55119{chat:08d}@c.us'
"""


class Store(Outbox):
    """A session whose intents are written by number, and whose bells come when the store says."""

    async def talks(self, count: int, *, warm: int) -> None:
        await self.run(_TALKS.format(tenant=self.at.tenant, count=count, warm=warm))
        await self.run(f"insert into pace (tenant_id, session_id) select {self.at.tenant}, id from sessions")

    async def say(self, key: int, urgency: SendClass, chat: int, now: datetime, *, cold: bool) -> None:
        values = {"tenant": self.at.tenant, "urgency": urgency, "key": key, "chat": chat, "cold": cold}
        await self.run(_INTENTS.format(now=now, **values))

    async def bell(self) -> list[str]:
        """Serve the session as a worker does; the keys of what was sent."""
        sent = []
        session = await self.session()
        while found := await outbox.claim(
            self.at.database, session, "a", fresh_id(), self.at.now, self.pacing
        ):
            if isinstance(found, Claimed):
                [row] = await self.rows(f"select intent_key from outbox where id = {found.id}")
                sent.append(row.intent_key)
                await self.sent(found)
        return sent

    async def due_at(self) -> datetime | None:
        [row] = await self.rows("select due_at from pace")
        due_at: datetime | None = row.due_at
        return due_at

    async def run(self, statement: str) -> None:
        async with self.at.database.transaction(self.at.tenant, self.at.now) as transaction:
            await transaction._connection.execute(statement.encode())


SMALL = Pace(
    reply_per_minute=6, per_minute=5, per_hour=60, first_contacts=True, first_on_first_day=3,
    contact_automated_per_day=5, first_gap_seconds=(5, 20), same_text_contacts=1_000_000,
    loop_messages=1_000_000, loop_repeats=1_000_000,
)  # fmt: skip


@pytest.mark.deadline(120)
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_store_sends_what_the_core_says_and_when(database: Urls, seed: int) -> None:
    chance, writing = random.Random(seed), random.Random(seed)
    model = Paced(SMALL, random.Random(seed).random)
    async with shop(database) as at:
        store = Store(at)
        store.pacing = Pacing(SMALL, chance.random)
        at.now = now = MONDAY
        for month in (MONDAY, MONDAY + timedelta(days=20)):
            await fleet.ensure_month(at.system, month.date())
        await store.talks(60, warm=40)
        sent: list[tuple[str, datetime]] = []
        for _ in range(110):
            for _ in range(writing.choice((0, 2, 9))):
                urgency = writing.choice(list(SendClass))
                chat = writing.randrange(60)
                key = model.say(urgency, chat, now, cold=chat >= 40)
                await store.say(key, urgency, chat, now, cold=chat >= 40)
            until = now + timedelta(seconds=writing.choice((5, 40, 300, 4_000)))
            at.now = now
            while True:
                sent += [(key, at.now) for key in await store.bell()]
                due_at = await store.due_at()
                if due_at is None or due_at > until:
                    break
                at.now = due_at
            now = model.run(until, now)
        claims = [(f"k{claim.intent.id}", claim.at) for claim in model.claims]
        assert sent == claims
        assert len(sent) > 150


async def frozen(at: Shop) -> list[Any]:
    return await Outbox(at).rows("select frozen_until, frozen_why from pace where frozen_until is not null")


async def test_who_waits_costs_nothing_and_is_rung_for_when_its_time_has_come(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        box = Outbox(at)
        box.pacing = Pacing(Pace(typing=False), lambda: 0.5)
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"))
        assert [row.sessions for row in await fleet.due_tenants(at.system, at.now)] == [1]
        await box.sent(await box.must_claim())
        assert await box.claim() is None, "two seconds between two messages"
        assert await fleet.due_tenants(at.system, at.now) == []
        assert await box.survey() == [], "a bell that comes too early has nothing to do"
        assert await fleet.due_tenants(at.system, at.now + timedelta(seconds=1.9)) == []
        at.later(2)
        assert len(await fleet.due_tenants(at.system, at.now)) == 1
        await box.sent(await box.must_claim())
        assert await box.claim() is None
        [row] = await box.rows("select due_at, waits from pace")
        assert (row.due_at, row.waits) == (None, None), "nothing more to say"
        await at.asks_to_send(f"{ANA}@c.us", Text(text="olá"))
        assert len(await fleet.due_tenants(at.system, at.now)) == 1, "whoever adds says so"


async def test_who_was_forgotten_is_found(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        assert await fleet.forgotten_tenants(at.system) == []
        async with at.database.transaction(at.tenant, at.now) as transaction:
            await transaction._connection.execute(b"update pace set due_at = null")
        assert await fleet.forgotten_tenants(at.system) == [at.tenant]
        assert len(await box.survey()) == 1


async def test_a_message_put_off_for_its_person_lets_the_others_pass(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        box = Outbox(at)
        box.pacing = Pacing(Pace(typing=False, gap_seconds=0), lambda: 0.0)
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"))
        await box.sent(await box.must_claim())
        await at.asks_to_send(f"{ANA}@c.us", Text(text="Ana?"))
        claimed = await box.must_claim()
        assert claimed.chat == f"{BIA}@c.us"
        await box.sent(claimed)
        assert await box.claim() is None
        [row] = [row for row in await box.intents() if row.state == "pending"]
        assert (row.reason, row.not_before) == ("contact_gap", at.now + timedelta(seconds=6))
        [pace] = await box.rows("select due_at, waits from pace")
        assert (pace.due_at, pace.waits) == (row.not_before, "later")
        at.later(6)
        assert (await box.must_claim()).text == "Ana?"


async def test_people_who_never_wrote_are_not_written_to_unless_that_is_switched_on(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        box = Outbox(at)
        box.pacing = Pacing(Pace(typing=False, gap_seconds=0, contact_gap_seconds=0), lambda: 0.5)
        await at.asks_to_send(f"{ANA}@c.us", Text(text="prazer"))
        assert await box.claim() is None
        assert [(row.state, row.reason) for row in await box.intents()] == [("failed", "first_off")]
        box.pacing = Pacing(
            Pace(typing=False, gap_seconds=0, contact_gap_seconds=0, first_contacts=True), lambda: 0.5
        )
        await at.asks_to_send(f"{BIA}@c.us", Text(text="prazer"))
        await at.asks_to_send(f"{CAIO}@c.us", Text(text="prazer"))
        await box.sent(await box.must_claim())
        assert await box.claim() is None, "45 seconds between two new people"
        await at.turn(at.says(CAIO, "quem é?"))
        warm = await box.must_claim()
        assert (warm.chat, warm.text) == (f"{CAIO}@c.us", "prazer"), "he has written: it is a reply now"


async def test_463_freezes_new_people_until_a_time_and_replies_go_on(database: Urls) -> None:
    async with post_office(database) as office:
        office.fault(Wrong.ERROR_463, ANA)
        office.clock()
        await office.at.asks_to_send(f"{ANA}@c.us", Text(text="prazer"))
        await office.deliver()
        [intent] = await office.intents()
        assert intent.state == "failed"
        assert "reachout_timelock" in intent.reason
        [pace] = await frozen(office.at)
        day = timedelta(hours=24)
        assert abs(pace.frozen_until - (office.at.now + day)) < timedelta(seconds=30)
        await office.write(BIA)
        office.clock()
        await office.at.asks_to_send(f"{CAIO}@c.us", Text(text="prazer"))
        await office.deliver()
        assert office.inbox(BIA)
        assert office.inbox(CAIO) == []
        [row] = await office.rows("select waits, due_at from pace")
        assert row.waits in {"frozen", "later"}
        assert "session.frozen" in [what for what, _ in await office.at.audit()]
        office.ahead += day + timedelta(minutes=1)
        await office.deliver()
        assert [row.reason for row in await office.intents()][-1] == "expired", (
            "a day is all an agent's waits"
        )


@pytest.mark.parametrize(
    ("code", "until", "why", "lasts"),
    [
        ("463", "2026-11-26T12:00:00.000Z", "reachout_timelock", timedelta(days=6)),
        (463, None, "reachout_timelock", timedelta(days=1)),
        ("429", None, "rate_limited", timedelta(hours=1)),
    ],
)
async def test_an_error_ack_says_why_and_freezes(
    database: Urls, code: str | int, until: str | None, why: str, lasts: timedelta
) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        claimed = await box.must_claim()
        await box.sent(claimed)
        error = {"code": code, "blocked": True, "reason": "account_restricted", "until": until}
        bare = claimed.reserved_id
        payload = {
            "id": f"true_{claimed.chat}_{bare}", "from": claimed.chat, "fromMe": True, "ack": -1,
            "error": error,
        }  # fmt: skip
        await at.turn(at.body("message.ack", payload))
        await at.turn(at.body("message.ack", payload))
        assert [(row.frozen_why, row.frozen_until - at.now) for row in await frozen(at)] == [(why, lasts)]
        assert [row.error for row in await at.history(ANA) if row.author == "bot"] == [
            f"{code}: account_restricted"
        ]
        assert [what for what, _ in await at.audit()].count("session.frozen") == 1


async def test_a_status_that_tells_a_lock_freezes_and_is_no_return(database: Urls) -> None:
    async with shop(database) as at:
        working = {"name": at.address.session, "status": "WORKING"}
        stamp = int(at.now.timestamp() * 1000)
        statuses = [{"status": "WORKING", "timestamp": stamp}]
        await at.turn(at.body("session.status", {**working, "statuses": statuses}))
        lock = {"isActive": True, "enforcementType": "BIZ", "timeEnforcementEnds": stamp // 1000 + 7200}
        at.later(60)
        told = {**working, "statuses": statuses, "data": {"reachoutTimelock": lock}}
        await at.turn(at.body("session.status", told))
        [row] = await frozen(at)
        assert row.frozen_until == at.now + timedelta(seconds=7140)
        [session] = await Outbox(at).rows("select since_ms from sessions")
        assert session.since_ms == stamp, "it never was away"


async def test_each_that_waits_says_its_own_reason_and_time(database: Urls) -> None:
    async with shop(database, capacity=9) as at:
        store = Store(at)
        store.pacing = Pacing(Pace(typing=False, first_contacts=True), lambda: 0.5)
        at.now = now = MONDAY - timedelta(hours=2)
        for month in (now, now + timedelta(days=20)):
            await fleet.ensure_month(at.system, month.date())
        await store.talks(3, warm=2)
        await store.say(1, AGENT, 0, now, cold=False)
        await store.sent(await store.must_claim())
        await store.say(2, BOT, 1, now, cold=False)
        await store.say(3, CAMPAIGN, 0, now, cold=False)
        await store.say(4, AGENT, 2, now, cold=True)
        day = now + timedelta(days=1)
        await store.run(f"update pace set frozen_until = '{day}', frozen_why = 'reachout_timelock'")
        await store.claim()
        intents, _, waits = await reads.outbox(at.database, at.tenant, None, None, now, store.pacing)
        assert [(waits[row.id].why, waits[row.id].until - now) for row in intents] == [
            ("gap", timedelta(seconds=2)),
            ("hours", timedelta(hours=2)),
            ("frozen", timedelta(days=1)),
        ]


@pytest.mark.parametrize("why", ["reachout_timelock", "rate_limited"])
async def test_a_lock_ends_at_its_time_and_a_shorter_one_changes_nothing(database: Urls, why: str) -> None:
    pace = Pace(typing=False, first_contacts=True, gap_seconds=0)
    async with shop(database, capacity=9) as at:
        store = Store(at)
        store.pacing = Pacing(pace, lambda: 0.5)
        at.now = MONDAY
        for month in (MONDAY, MONDAY + timedelta(days=20)):
            await fleet.ensure_month(at.system, month.date())
        await store.talks(3, warm=1)
        session, _, *_ = await store.session()
        ends = at.now + timedelta(minutes=40)
        for until in (ends, at.now + timedelta(minutes=10)):
            lock = Lock(why, until)
            await outbox.freeze(at.database, at.address, session, store.pacing, lock, at.now)
        await store.say(1, AGENT, 1, at.now, cold=True)
        await store.say(2, AGENT, 0, at.now, cold=False)
        await store.sent(await store.must_claim())
        assert await store.claim() is None
        assert await store.due_at() == ends, "it is rung for when it ends"
        at.now = ends - timedelta(seconds=1)
        assert await store.claim() is None
        at.now = ends
        assert (await store.must_claim()).cold


async def waiting_words(at: Shop, who: str, *words: str) -> None:
    for word in words:
        at.later(60)
        await at.turn(at.says(who, word))


async def test_one_word_ends_automatic_messages_at_once_and_is_confirmed_once(database: Urls) -> None:
    async with shop(database, capacity=1) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        await at.turn(at.says(BIA, "oi"))
        for urgency in (BOT, CAMPAIGN, AGENT):
            await at.asks_to_send(f"{BIA}@c.us", Text(text=urgency), send_class=urgency)
        await waiting_words(at, BIA, " Sair! ", "PARAR", "stop")
        assert await at.line() == [(ANA, None)], "who waits leaves the line with it"
        told = []
        while claimed := await box.claim():
            told.append((claimed.chat, claimed.text))
            await box.sent(claimed)
        assert told[0] == (f"{BIA}@c.us", "agent"), "what people write goes on"
        assert [text for chat, text in told if chat == f"{BIA}@c.us"][1:] == [
            "Pronto: você não receberá mais mensagens automáticas. Para voltar a receber, responda VOLTAR.",
            "Você saiu da fila. Se precisar, é só escrever de novo.",
        ], "SAIR was offered to who waits, and says no more than that"
        states = {row.intent: (row.state, row.reason) for row in await box.intents() if row.reason}
        assert states["campaign"] == ("dropped", "opted_out")
        assert states["bot"] == ("dropped", "a person has spoken")
        await at.asks_to_send(f"{BIA}@c.us", Text(text="oferta"), send_class=CAMPAIGN)
        assert await box.claim() is None
        assert [(row.state, row.reason) for row in await box.intents()][-1] == ("failed", "opted_out")
        await waiting_words(at, BIA, "preciso de ajuda")
        assert [who for who, _ in await at.line()] == [ANA, BIA], "who writes again is answered"
        assert (await box.must_claim()).intent == "place"


async def test_a_word_takes_it_back_and_the_same_word_otherwise_says_nothing(database: Urls) -> None:
    async with shop(database, capacity=1, locale="en") as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "START"))
        assert await at.line() == [(ANA, None)], "a message like any other"
        await waiting_words(at, ANA, "stop", "START", "start")
        said = []
        while claimed := await box.claim():
            said.append(claimed.text)
            await box.sent(claimed)
        assert [text for text in said if text.startswith("Done")] == [
            "Done: you will get no more automatic messages. To get them again, reply START.",
            "Done: you will get our messages again. To stop them, reply STOP.",
        ]
        assert [what for what, _ in await at.audit()].count("contact.opted_out") == 1
        await at.asks_to_send(f"{ANA}@c.us", Text(text="oferta"), send_class=CAMPAIGN)
        assert (await box.must_claim()).text == "oferta"


def phones(count: int) -> Sequence[str]:
    return [f"55119000001{number:02}" for number in range(count)]


async def test_the_same_campaign_reaches_three_people_and_fails_for_the_fourth(database: Urls) -> None:
    pace = Pace(typing=False, gap_seconds=0, contact_gap_seconds=0, per_minute=99)
    async with shop(database, capacity=9) as at:
        box = Outbox(at)
        box.pacing = Pacing(pace, lambda: 0.5)
        await at.turn(*(at.says(phone, "oi") for phone in phones(5)))
        for phone in phones(5):
            await at.asks_to_send(f"{phone}@c.us", Text(text="Oferta!"), send_class=CAMPAIGN)
            await at.asks_to_send(f"{phone}@c.us", Text(text="Bom dia"))
        while claimed := await box.claim():
            await box.sent(claimed)
        ended = [(row.intent, row.state, row.reason) for row in await box.intents() if row.state != "sent"]
        assert ended == [("campaign", "failed", "same_text")] * 2


async def test_a_bot_that_repeats_itself_falls_silent_in_that_chat_alone(database: Urls) -> None:
    pace = Pace(typing=False, gap_seconds=0, contact_gap_seconds=0)
    async with shop(database, capacity=9) as at:
        box = Outbox(at)
        box.pacing = Pacing(pace, lambda: 0.5)
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"))
        for number in range(4):
            await at.asks_to_send(f"{ANA}@c.us", Text(text="Não entendi."), send_class=BOT)
            await at.asks_to_send(f"{BIA}@c.us", Text(text=f"Resposta {number}"), send_class=BOT)
        while claimed := await box.claim():
            await box.sent(claimed)
        ended = [(row.intent, row.state, row.reason) for row in await box.intents() if row.state != "sent"]
        assert ended == [("bot", "dropped", "bot_loop")] * 2
        paused = await box.rows(
            "select bot_paused_until, chat_id from conversations where bot_paused_until is not null"
        )
        assert [(row.chat_id, row.bot_paused_until - at.now) for row in paused] == [
            (f"{ANA}@c.us", timedelta(hours=1))
        ]
        assert [what for what, _ in await at.audit()].count("bot.paused") == 1


async def test_what_nobody_heard_of_takes_no_place_in_a_budget(database: Urls) -> None:
    async with shop(database, capacity=9) as at:
        box = Outbox(at)
        await at.turn(*(at.says(phone, "oi") for phone in phones(3)))

        async def counted() -> list[Any]:
            [pace] = await box.rows("select replies, total from pace")
            numbers = await box.rows("select number from outbox order by id")
            return [tuple(pace), [row.number for row in numbers]]

        away = Outcome(PENDING, "not reached", not_before=at.now, away=True)
        for _ in range(3):
            await box.settle(await box.must_claim(), away)
            assert await counted() == [(0, 0), [None] * 3]
        first = await box.must_claim()
        await box.settle(first, Outcome(INDETERMINATE, "no answer in time", not_before=at.now))
        second = await box.must_claim()
        await box.settle(first, away)
        assert await counted() == [(2, 2), [1, 2, None]], "another has been numbered since"
        await box.sent(second)
        await box.must_claim()
        [total, numbers] = await counted()
        assert total == (3, 3), "no two have one number"
        assert sorted(number or 0 for number in numbers) in ([0, 2, 3], [1, 2, 3])


async def test_whatsapp_is_asked_ever_more_rarely_when_it_says_too_fast(database: Urls) -> None:
    async with shop(database, capacity=9) as at:
        box = Outbox(at)
        await at.turn(*(at.says(phone, "oi") for phone in phones(3)))
        error, began, asked, looks = GatewayRefused(500, "rate_limited"), at.now, 0, 0
        while at.now < began + timedelta(hours=1):
            looks += 1
            if claimed := await box.claim():
                asked += 1
                await box.settle(claimed, after_error(error, attempt=claimed.attempt, now=at.now))
            else:
                [pace] = await box.rows("select due_at from pace")
                at.now = pace.due_at
        assert {row.attempts for row in await box.intents()} == {6}, "after 1, 2, 4, 8, 16 and 32 minutes"
        assert (asked, looks) == (18, 24), "and whoever waits is looked at when his time has come"


TYPES = Pacing(Pace(gap_seconds=0, contact_gap_seconds=0, ramp_seconds=0), lambda: 0.5)


async def test_a_chat_is_read_and_typed_in_before_it_is_answered_and_no_slot_is_held(database: Urls) -> None:
    async with post_office(database) as office:
        typist = PostOffice(office.at, office.waha, office.hook, office.gateways, TYPES)
        await typist.write(ANA)
        assert not await typist.deliver()
        assert typist.inbox(ANA) == []
        assert [each.kind for each in office.waha.world.phone(ANA).signals] == ["seen", "typing"]
        assert [(row.state, row.reason) for row in await typist.intents()] == [("pending", "typing")]
        assert not await typist.deliver(), "it is not yet time"
        assert typist.inbox(ANA) == []
        typist.ahead += timedelta(seconds=9)
        await typist.deliver()
        assert len(typist.inbox(ANA)) == 1
        assert [each.kind for each in office.waha.world.phone(ANA).signals] == ["seen", "typing", "paused"]
        assert await typist.states() == [("turn", "sent")]


async def test_that_nobody_can_be_shown_to_type_keeps_no_message_back(database: Urls) -> None:
    async with post_office(database) as office:
        typist = PostOffice(office.at, office.waha, office.hook, office.gateways, TYPES)
        for call in ("sendSeen", "startTyping", "stopTyping"):
            office.fault(Wrong.FAIL_BEFORE, call=call)
        await typist.write(ANA)
        await typist.deliver()
        typist.ahead += timedelta(seconds=9)
        await typist.deliver()
        assert len(typist.inbox(ANA)) == 1


async def test_a_session_types_in_three_chats_at_most_and_never_to_a_group(database: Urls) -> None:
    async with shop(database, capacity=9) as at:
        box = Outbox(at)
        await at.turn(*(at.says(phone, "oi") for phone in phones(5)))
        session = await box.session()
        found = [await outbox.claim(at.database, session, "a", fresh_id(), at.now, TYPES) for _ in range(4)]
        assert [type(each) for each in found[:3]] == [Composing] * 3
        assert found[3] is None
        [row] = await box.rows("select waits, due_at from pace")
        assert row.waits in {"typing", "later"}
        group = ChatId("123@g.us")
        await at.asks_to_send(group, Text(text="pessoal"))
        said = await outbox.claim(at.database, session, "a", fresh_id(), at.now, TYPES)
        assert isinstance(said, Claimed)
        assert said.chat == group


async def test_every_claim_is_numbered_and_counted(database: Urls) -> None:
    async with shop(database, capacity=9) as at:
        box = Outbox(at)
        await at.turn(*(at.says(phone, "oi") for phone in phones(4)))
        for _ in range(4):
            await box.sent(await box.must_claim())
        rows = await box.rows("select budget, number, total from outbox order by id")
        assert [tuple(row) for row in rows] == [("reply", n, n) for n in (1, 2, 3, 4)]
        [pace] = await box.rows("select replies, firsts, campaigns, total, picks from pace")
        assert tuple(pace) == (4, 0, 0, 4, 4)
        assert PACING.pace == QUICK
