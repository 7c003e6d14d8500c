"""Who may speak: the bot, a person on the phone, and when an answer is wanted, on a real database."""

from typing import Any

import pytest

from clockroom import ANA, BIA, CAIO, DUDA, ClockRoom
from databases import Database as Urls
from outboxes import INDETERMINATE, SENT
from shop import Shop, shop
from wsm.core.asks import Ask, SetAgent, Verb
from wsm.core.bot import Bot
from wsm.core.outbox import Outcome
from wsm.store import fleet


async def wanted(at: Shop) -> int:
    """How many answers have been wanted."""
    return [what for what, _ in await at.audit()].count("answer.wanted")


async def bot_says(room: ClockRoom, text: str = "posso ajudar?") -> None:
    """Write an intent of the bot, as who answers by himself would."""
    at = room.at
    statement = """
        insert into outbox (tenant_id, session_id, conversation_id, class, args, body, intent_key, not_before,
                            expires_at, created_at)
        select tenant_id, session_id, id, 'bot', '{"kind": "text", "text": "x"}', %(text)s, %(key)s, %(now)s,
               %(now)s + interval '1 day', %(now)s
        from conversations order by id limit 1"""
    async with at.database.transaction(at.tenant, at.now) as transaction:
        values = {"text": text, "key": f"bot:{at.now.isoformat()}", "now": at.now}
        await transaction._connection.execute(statement.encode(), values)


async def state_of(room: ClockRoom) -> tuple[str, str]:
    [row] = await room.rows("select state, reason from outbox where class = 'bot' order by id desc limit 1")
    return row.state, row.reason


async def test_a_burst_is_one_wish_for_an_answer(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        room = ClockRoom(at)
        await fleet.set_bot(at.system, at.tenant, Bot(debounce=6, longest=45))
        await room.write(ANA, text="oi")
        at.later(3)
        await room.write(ANA, text="preciso")
        await room.later(0.05, step=3)
        await room.write(ANA, text="da segunda via")
        assert await wanted(at) == 0
        await room.later(0.2, step=3)
        assert await wanted(at) == 1
        await room.later(5)
        assert await wanted(at) == 1, "one for each burst"
        await room.write(ANA, text="obrigada")
        await room.later(1)
        assert await wanted(at) == 1, "thanks want no answer"


async def test_who_never_pauses_is_answered_all_the_same(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        room = ClockRoom(at)
        await fleet.set_bot(at.system, at.tenant, Bot(debounce=6, longest=45))
        for _ in range(12):
            await room.write(ANA, text="e mais")
            await room.later(0.05, step=3)
        assert await wanted(at) == 1


@pytest.mark.parametrize("bot", [None, Bot(debounce=0, longest=0)])
async def test_without_a_bot_nothing_is_wanted_and_without_a_pause_each_message(
    database: Urls, bot: Bot | None
) -> None:
    async with shop(database, capacity=5) as at:
        room = ClockRoom(at)
        await fleet.set_bot(at.system, at.tenant, bot)
        await room.write(ANA, text="um")
        await room.write(ANA, text="dois")
        assert await wanted(at) == (0 if bot is None else 2)
        assert "burst" not in await room.timers()


async def test_what_ends_a_talk_or_gives_it_to_somebody_ends_the_wish_for_an_answer(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        room = ClockRoom(at)
        await fleet.set_bot(at.system, at.tenant, Bot())
        await fleet.set_queue(at.system, at.tenant, "two", pull=True)
        await room.write(ANA, text="oi")
        await at.close(ANA)
        await room.write(BIA, text="oi")
        await at.asks(Ask(verb=Verb.MOVE, queue="two"), BIA)
        await room.write(CAIO, text="oi")
        await at.asks(SetAgent(agent="lia"))
        await at.asks(Ask(verb=Verb.ONLINE, agent="lia"))
        await at.asks(Ask(verb=Verb.GIVE, agent="lia"), CAIO)
        await at.turn(at.says(DUDA, "oi"), at.message(f"{DUDA}@c.us", "#fim", from_me=True))
        await room.later(2)
        assert "burst" not in await room.timers()
        assert await wanted(at) == 0


async def test_what_was_wanted_before_is_wanted_though_the_ticket_before_was_closed(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        room = ClockRoom(at)
        await fleet.set_bot(at.system, at.tenant, Bot())
        await fleet.set_queue(at.system, at.tenant, "default", reopen_hours=0)
        await room.write(ANA, text="oi")
        await at.close(ANA)
        await room.write(ANA, text="outra coisa")
        await room.later(1)
        assert await wanted(at) == 1


async def test_who_waits_in_line_hears_no_chatter(database: Urls) -> None:
    async with shop(database) as at:
        room = ClockRoom(at)
        await fleet.set_bot(at.system, at.tenant, Bot())
        await room.write(ANA, BIA)
        await room.write(BIA, text="alô?")
        await room.later(1)
        assert await wanted(at) == 1, "ANA's"


async def test_a_person_on_the_phone_silences_the_bot_until_the_ticket_is_closed(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        room = ClockRoom(at)
        await fleet.set_bot(at.system, at.tenant, Bot(pause_hours=12))
        await room.write(ANA, text="oi")
        await bot_says(room)
        await at.turn(at.message(f"{ANA}@c.us", "deixa comigo", from_me=True))
        assert await state_of(room) == ("dropped", "a person has spoken")
        await room.later(1)
        assert await wanted(at) == 0, "what he had written is answered by a person"
        await room.write(ANA, text="e aí?")
        await room.later(1)
        assert await wanted(at) == 0
        await bot_says(room)
        assert await room.claim() is None
        assert await state_of(room) == ("dropped", "a person has spoken")
        await room.close(ANA)
        await room.write(ANA, text="outra coisa")
        await room.later(1)
        assert await wanted(at) == 1


async def test_a_person_who_says_nothing_more_gives_the_talk_back_after_hours(database: Urls) -> None:
    async with shop(database, capacity=5) as at:
        room = ClockRoom(at)
        await fleet.set_bot(at.system, at.tenant, Bot(pause_hours=2))
        await room.write(ANA)
        await room.type(ANA)
        at.later(7201)
        await room.write(ANA, text="alguém?")
        await room.later(1)
        assert await wanted(at) == 1


@pytest.mark.parametrize("own_ids", [True, False])
@pytest.mark.parametrize("source", ["api", None])
@pytest.mark.parametrize("first", ["answer", "echo"])
async def test_an_own_echo_is_no_person(database: Urls, own_ids: bool, source: Any, first: str) -> None:
    async with shop(database, capacity=5) as at:
        room = ClockRoom(at)
        await at.turn(at.says(ANA, "oi"))
        at.later(1)
        claimed = await room.must_claim(own_ids=own_ids)
        bare = claimed.reserved_id or "3EB0ABCD"
        echo = at.message(claimed.chat, claimed.text, id=bare, from_me=True, source=source)
        if first == "answer":
            await room.settle(claimed, Outcome(SENT, bare_id=bare))  # type: ignore[arg-type]
            await at.turn(echo)
        else:
            await at.turn(echo)
            await room.settle(claimed, Outcome(INDETERMINATE, "?", not_before=at.now))
        assert "bot.silent" not in [what for what, _ in await at.audit()]
        assert [row.author for row in await at.history(ANA)] == ["customer", "bot"]
