"""What somebody asks to send becomes an intent of its chat: once, with what it needs, or with a reason."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from databases import Database as Urls
from outboxes import Outbox
from shop import START, Shop, shop
from wsm.core.content import (
    Content,
    Edit,
    Poll,
    Reaction,
    Revoke,
    Seen,
    SendClass,
    Text,
    Typing,
)
from wsm.core.events import Origin
from wsm.core.ids import BareId
from wsm.core.moments import milliseconds

ANA, BIA = "5511900000001", "5511900000002"
THEIRS, OURS = BareId("3EB0AAAA0001"), BareId("3EB0BBBB0001")


async def rows(at: Shop, query: str) -> list[Any]:
    return await Outbox(at).rows(query)


async def intents(at: Shop) -> list[Any]:
    """The intents that were asked for."""
    return await rows(
        at,
        "select o.kind, o.args, o.body, o.state, o.reason, o.ticket_id, o.not_before, o.expires_at,"
        " o.settled_at, c.chat_id as at from outbox o join conversations c on c.id = o.conversation_id"
        " where class not in ('turn', 'place') order by o.id",
    )


async def met(at: Shop) -> None:
    """Ana has written, and was answered from the phone."""
    await at.turn(at.says(ANA, "oi", id=THEIRS))
    await at.turn(at.message(f"{ANA}@c.us", "olá", id=OURS, from_me=True))


async def test_what_is_asked_for_becomes_an_intent_of_the_chat(database: Urls) -> None:
    async with shop(database) as at:
        await met(at)
        content = Text(text="Já olhamos 👀", reply_to=THEIRS)
        settled = await at.asks_to_send(f"{ANA}@c.us", content)
        assert settled.deliver
        [intent] = await intents(at)
        assert (intent.at, intent.kind, intent.body, intent.state) == (
            f"{ANA}@c.us", "text", "Já olhamos 👀", "pending",
        )  # fmt: skip
        assert intent.ticket_id is not None
        assert msgspec.convert(intent.args, Content) == content
        assert intent.not_before == START
        assert intent.expires_at == START + timedelta(hours=24)
        assert await at.line() == [(ANA, None)], "nothing of the line has moved"


async def test_the_same_key_counts_once_in_one_turn_and_in_another(database: Urls) -> None:
    async with shop(database) as at:
        await met(at)
        for text in ("a", "b", "c"):
            await at.asks_to_send(f"{ANA}@c.us", Text(text=text), id="order 7")
        await at.asks_to_send(f"{ANA}@c.us", Text(text="d"), id="order 8")
        assert [intent.body for intent in await intents(at)] == ["a", "d"]


async def test_it_may_leave_between_two_times(database: Urls) -> None:
    async with shop(database) as at:
        early, late = START + timedelta(hours=2), START + timedelta(hours=5)
        await at.asks_to_send(
            f"{ANA}@c.us", Text(text="a"), not_before_ms=milliseconds(early), expires_ms=milliseconds(late)
        )
        await at.asks_to_send(f"{ANA}@c.us", Text(text="b"), not_before_ms=milliseconds(early))
        await at.asks_to_send(f"{ANA}@c.us", Text(text="c"), not_before_ms=0, send_class=SendClass.BOT)
        assert [(each.not_before, each.expires_at) for each in await intents(at)] == [
            (early, late),
            (early, early + timedelta(hours=24)),
            (START, START + timedelta(hours=6)),
        ]


async def test_who_never_wrote_gets_a_conversation_for_a_message_and_for_nothing_else(database: Urls) -> None:
    async with shop(database) as at:
        for content in (Seen(), Typing(), Reaction(target=THEIRS, emoji="👍")):
            await at.asks_to_send(f"{BIA}@c.us", content)
        assert await intents(at) == []
        assert await at.count("contacts") == 0
        await at.asks_to_send(f"{BIA}@c.us", Poll(question="?", options=("a", "b")))
        [intent] = await intents(at)
        assert (intent.at, intent.kind, intent.state) == (f"{BIA}@c.us", "poll", "pending")
        [conversation] = await rows(at, "select kind, state, handled_sent_ms from conversations")
        assert conversation == ("direct", "start", 0)
        assert await at.line() == []
        await at.asks_to_send(f"{BIA}@c.us", Seen())
        assert [each.kind for each in await intents(at)] == ["poll", "seen"]
        await at.turn(at.says(BIA, "quem é?"))
        assert await at.count("conversations") == 1
        assert await at.line() == [(BIA, None)]


async def test_what_is_acted_on_is_in_the_chat_and_an_own_one_where_it_must_be(database: Urls) -> None:
    async with shop(database) as at:
        await met(at)
        await at.turn(at.says(BIA, "oi"))
        asked: list[tuple[str, Content, str | None]] = [
            (ANA, Reaction(target=THEIRS, emoji="👍"), None),
            (ANA, Reaction(target=OURS, emoji=""), None),
            (ANA, Edit(target=OURS, text="olá!"), None),
            (ANA, Revoke(target=OURS), None),
            (ANA, Text(text="a", reply_to=OURS), None),
            (ANA, Edit(target=THEIRS, text="x"), "target: is not an own message"),
            (ANA, Revoke(target=THEIRS), "target: is not an own message"),
            (ANA, Revoke(target=BareId("3EB0CCCC")), "target: there is no such message"),
            (BIA, Reaction(target=THEIRS, emoji="👍"), "target: there is no such message"),
            (BIA, Text(text="a", reply_to=THEIRS), "reply_to: there is no such message"),
        ]
        for chat, content, _ in asked:
            await at.asks_to_send(f"{chat}@c.us", content)
        for intent, (_, content, reason) in zip(await intents(at), asked, strict=True):
            assert intent.state == ("pending" if reason is None else "failed"), content
            assert (intent.reason or "").startswith(reason or "")
            assert (intent.settled_at is not None) == (reason is not None)


async def test_a_message_that_was_edited_is_still_the_one_that_is_acted_on(database: Urls) -> None:
    async with shop(database) as at:
        await met(at)
        edited = {"id": f"true_{ANA}@c.us_{OURS}", "from": f"{ANA}@c.us", "fromMe": True, "body": "olá!",
                  "editedMessageId": OURS, "timestamp": int(at.now.timestamp())}  # fmt: skip
        await at.turn(at.body("message.edited", edited))
        await at.asks_to_send(f"{ANA}@c.us", Edit(target=OURS, text="olá?"))
        assert [intent.state for intent in await intents(at)] == ["pending"]


async def test_an_engine_that_cannot_is_a_reason(database: Urls) -> None:
    async with shop(database) as at:
        status = {"name": at.address.session, "status": "WORKING", "statuses": []}
        whole = msgspec.json.decode(at.body("session.status", status))
        await at.turn(msgspec.json.encode({**whole, "engine": "VENOM"}))
        await at.asks_to_send(f"{ANA}@c.us", Poll(question="?", options=("a", "b")))
        await at.asks_to_send(f"{ANA}@c.us", Text(text="a"))
        await at.asks_to_send("status@broadcast", Text(text="a"))
        poll, text, status_update = await intents(at)
        assert (poll.state, poll.reason) == (
            "failed", "kind: the session's engine, VENOM, cannot send poll",
        )  # fmt: skip
        assert text.state == "pending"
        assert status_update.reason == "chat: is nobody one can write to"


async def test_an_ask_does_not_change_under_which_id_somebody_is_answered(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.message("111@lid", "oi", alt=f"{ANA}@s.whatsapp.net"))
        await at.asks_to_send(f"{ANA}@c.us", Text(text="a"))
        assert [intent.at for intent in await intents(at)] == ["111@lid"]
        assert await at.count("conversations") == 1


@pytest.mark.parametrize(
    "payload",
    [
        {"content": {"kind": "sticker"}},
        {"content": {"kind": "text", "text": ""}},
        {"content": {"kind": "text", "text": "a\0"}},
        {"class": "urgent"},
        {"not_before_ms": -1},
        {"expires_ms": 10**15},
        {"chat": "nobody"},
    ],
)
async def test_a_command_that_fits_nothing_is_kept_and_nothing_follows(
    database: Urls, payload: dict[str, Any]
) -> None:
    async with shop(database) as at:
        whole = {
            "chat": f"{ANA}@c.us",
            "by": "cli",
            "class": "agent",
            "content": {"kind": "text", "text": "a"},
        }
        command = {
            "event": "command.send", "session": at.address.session, "id": "1", "payload": whole | payload,
        }  # fmt: skip
        settled = await at.turn(msgspec.json.encode(command), origin=Origin.CLI)
        assert len(settled.handled) == 1
        assert await intents(at) == []
        assert await at.count("session_events") == 1


async def test_a_command_of_wahas_is_none(database: Urls) -> None:
    async with shop(database) as at:
        whole = {
            "chat": f"{ANA}@c.us",
            "by": "cli",
            "class": "agent",
            "content": {"kind": "text", "text": "a"},
        }
        command = {"event": "command.send", "session": at.address.session, "id": "1", "payload": whole}
        await at.turn(msgspec.json.encode(command))
        assert await intents(at) == []


async def test_asks_and_messages_of_one_turn_keep_their_order(database: Urls) -> None:
    async with shop(database) as at:
        await met(at)
        entries = []
        for number in range(3):
            at.later(1)
            entries.append(at.says(ANA, f"{number}"))
        await at.turn(*entries)
        for number in range(3):
            await at.asks_to_send(f"{ANA}@c.us", Text(text=f"{number}"))
        assert [intent.body for intent in await intents(at)] == ["0", "1", "2"]
