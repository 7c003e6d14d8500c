"""From an ask to the customer's phone: every kind, on every engine; and what cannot leave says why."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from databases import Database as Urls
from integration.test_media import a_host
from postoffice import PostOffice, post_office
from scripted_gateway import hangs
from unit.test_core_content import GOOD
from wsm.core.content import (
    Content,
    Edit,
    File,
    Image,
    MediaSource,
    Poll,
    Reaction,
    Revoke,
    SendClass,
    Text,
    Video,
    Voice,
    is_message,
    needs_media,
)
from wsm.core.events import Origin
from wsm.core.ids import BareId, ChatAddress, ChatId
from wsm.gateway.fetch import Fetching
from wsm.sandbox.waha import Engine
from wsm.sandbox.waha.control import Phone
from wsm.sandbox.waha.faults import Wrong
from wsm.store import media
from wsm.streams.handover import Bell
from wsm.streams.keys import Kind
from wsm.wire.waha import send_command
from wsm.worker.media import Files

ANA = "5511900000001"
CHAT = f"{ANA}@c.us"
FILES = {
    "image": b"\xff\xd8\xff" + bytes(5_000),
    "file": b"%PDF-1.7 nota",
    "voice": b"OggS" + bytes(40),
    "video": b"\x00\x00\x00\x20ftypisom" + bytes(40),
}
SAID = [kind for kind, content in GOOD.items() if is_message(content)]


async def ask(office: PostOffice, content: Content, chat: str = CHAT) -> None:
    office.clock()
    await office.at.asks_to_send(chat, content)


async def this_machine(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


async def writes(office: PostOffice) -> BareId:
    """Let the customer write, and be told that it is his turn. Returns his message's id."""
    async with Phone(office.waha.base_url) as phone:
        said = await phone.say(office.at.address.session, ANA, "oi")
    await delivered(office)
    await delivered(office)
    return BareId(said)


async def delivered(office: PostOffice) -> list[Any]:
    """Deliver until nothing waits, let WAHA's webhooks in, and return the intents that were asked for."""
    while await office.deliver():
        pass
    assert await office.waha.idle()
    office.clock()
    await office.at.turn(*(got.body for got in office.hook.got if got.body))
    return await office.rows(
        "select kind, state, reason, reserved_id from outbox where class not in ('turn', 'place') order by id"
    )


def with_file(content: Content, number: int | None) -> Content:
    if number is None:
        return content
    assert isinstance(content, Image | File | Voice | Video)
    return msgspec.structs.replace(content, media=MediaSource(stored=number, filename="a.bin"))


@pytest.mark.parametrize("engine", Engine)
async def test_every_kind_that_is_asked_for_arrives_once(database: Urls, engine: Engine) -> None:
    async with post_office(database, engine=engine) as office:
        asked = await writes(office)
        for kind in SAID:
            number = None
            if needs_media(GOOD[kind]) is not None:
                number = await media.put(
                    office.at.database,
                    office.at.tenant,
                    FILES[kind],
                    mimetype="application/octet-stream",
                    filename=None,
                    now=office.at.now,
                )
            content = with_file(GOOD[kind], number)
            if isinstance(content, Text):
                content = Text(text=content.text, reply_to=asked)
            await ask(office, content)
        intents = await delivered(office)
        assert [(each.kind, each.state) for each in intents] == [(kind, "sent") for kind in SAID], intents
        inbox = office.waha.world.phone(ANA).inbox[1:]  # after the notice
        assert [message.kind for message in inbox] == SAID
        assert [message.id for message in inbox] == [each.reserved_id for each in intents]
        assert inbox[0].reply_to == f"false_{CHAT}_{asked}"
        history = await office.rows("select kind, body from messages where from_me order by id")
        assert [row.kind for row in history[1:]] == ["document" if kind == "file" else kind for kind in SAID]


@pytest.mark.parametrize("engine", Engine)
async def test_what_acts_on_messages_is_done_once_and_stands_in_the_history(
    database: Urls, engine: Engine
) -> None:
    async with post_office(database, engine=engine) as office:
        theirs = await writes(office)
        await ask(office, Text(text="olá"))
        await delivered(office)
        [ours] = await office.rows("select bare_id from messages where body = 'olá'")
        for content in (
            Reaction(target=theirs, emoji="👍"),
            Edit(target=ours.bare_id, text="olá!"),
            GOOD["seen"],
            GOOD["typing"],
            Revoke(target=ours.bare_id),
        ):
            await ask(office, content)
            assert (await delivered(office))[-1].state == "sent"
        phone = office.waha.world.phone(ANA)
        [message] = [each for each in phone.inbox if each.id == ours.bare_id]
        assert (message.text, message.deleted) == ("olá!", True)
        assert [act.kind for act in phone.acts] == ["reaction", "edit", "revoke"]
        kinds = await office.rows("select kind from messages where kind <> 'text' order by id")
        assert [row.kind for row in kinds] == ["reaction", "edit", "revoke"]


async def test_a_file_that_is_gone_ends_its_intent_and_nothing_else(database: Urls) -> None:
    async with post_office(database) as office:
        await writes(office)
        await ask(office, Image(media=MediaSource(stored=999)))
        await ask(office, Image(media=MediaSource(url="https://10.example.invalid./x.jpg")))
        await ask(office, Text(text="olá"))
        gone, waiting, text = await delivered(office)
        assert (gone.state, gone.reason) == ("failed", "media: the store has no such file, or has it no more")
        assert waiting.state in {"pending", "failed"}
        assert waiting.reason
        assert text.state == "sent"


async def test_a_host_that_hangs_for_days_is_asked_ever_more_rarely(database: Urls) -> None:
    async with post_office(database) as office, a_host(hangs) as (host, content, _):
        fetching = Fetching(limit_bytes=9, seconds=0.05, resolve=this_machine, may_reach=lambda _: True)
        office.deliveries._files = Files(
            office.at.database, office.gateways, fetching, clock=office.clock, in_flight_bytes=99
        )
        await writes(office)
        await ask(office, content)
        waits = []
        for _ in range(8):
            await office.deliver()
            [row] = await office.rows("select state, reason, not_before from outbox where kind = 'image'")
            assert (row.state, row.reason) == ("pending", "media: not fetched in time")
            waits.append(round((row.not_before - office.at.now).total_seconds()))
            office.ahead += timedelta(seconds=waits[-1] + 1)
        assert waits == [20, 40, 80, 160, 320, 600, 600, 600]
        assert len(host.asked) == len(waits)


async def test_what_the_engine_turns_out_not_to_have_is_a_reason_when_it_is_claimed(database: Urls) -> None:
    async with post_office(database) as office:
        await writes(office)
        await ask(office, Poll(question="?", options=("a", "b")))
        whole = msgspec.json.decode(
            office.at.body("session.status", {"name": office.at.address.session, "status": "WORKING"})
        )
        await office.at.turn(msgspec.json.encode({**whole, "engine": "VENOM"}))
        [poll] = await delivered(office)
        assert (poll.state, poll.reason) == ("failed", "kind: the session's engine, VENOM, cannot send poll")
        assert [message.kind for message in office.waha.world.phone(ANA).inbox] == ["text"]


async def test_a_target_is_named_in_full_and_an_id_that_is_taken_is_not_used_twice(database: Urls) -> None:
    async with post_office(database) as office:
        await writes(office)
        await ask(office, Reaction(target=BareId("3EB0NOWHERE"), emoji="👍"))
        [refused] = await delivered(office)
        assert (refused.state, refused.reserved_id) == ("failed", None)
        await asyncio.gather(*(ask(office, Text(text=str(number))) for number in range(5)))
        intents = await delivered(office)
        assert len({each.reserved_id for each in intents[1:]}) == 5


@pytest.mark.parametrize(
    ("engine", "first"),
    [(Engine.GOWS, "answer"), (Engine.GOWS, "echo"), (Engine.WEBJS, "answer"), (Engine.WEBJS, "echo")],
)
async def test_the_history_says_who_spoke_whichever_evidence_came_first(
    database: Urls, engine: Engine, first: str
) -> None:
    async with post_office(database, engine=engine) as office:
        await office.write(ANA)
        await office.deliver()
        for send_class in (SendClass.BOT, SendClass.AGENT):  # where a person has spoken the bot is silent
            await office.at.asks_to_send(CHAT, Text(text=send_class), send_class=send_class)
            if first == "echo":
                claimed = await office.must_claim(own_ids=engine is Engine.GOWS)
                id_ = claimed.reserved_id or BareId(f"3EB0{send_class.encode().hex().upper()}")
                await office.echo(claimed, id_)
                await office.sent(claimed, id_)
            else:
                await office.deliver()
        rows = await office.rows("select author, body from messages where from_me order by id")
        assert [(row.author, row.body) for row in rows[1:]] == [("bot", "bot"), ("agent", "agent")]


@pytest.mark.parametrize("engine", [Engine.WEBJS, Engine.WPP])
async def test_what_has_other_words_in_its_echo_is_known_by_its_kind_where_the_api_sent_it(
    database: Urls, engine: Engine
) -> None:
    async with post_office(database, engine=engine) as office:
        await writes(office)
        kinds = ["location", "contact", "poll"]
        for kind in kinds:
            office.fault(Wrong.FAIL_AFTER, ANA)
            await ask(office, GOOD[kind])
            await office.deliver()
            assert [(each.kind, each.state) for each in await delivered(office)][-1] == (kind, "sent")
        kept = await office.rows("select author, kind from messages where from_me order by id")
        assert [(row.author, row.kind) for row in kept[1:]] == [("agent", kind) for kind in kinds]


async def test_who_opts_out_gets_nothing_automatic_that_was_in_doubt_or_asked_for_in_the_same_moment(
    database: Urls,
) -> None:
    async with post_office(database) as office:
        await office.write(ANA)
        await office.deliver()
        office.fault(Wrong.FAIL_BEFORE, ANA)
        await office.at.asks_to_send(CHAT, Text(text="promoção"), send_class=SendClass.CAMPAIGN)
        await office.deliver()
        assert [state for _, state in await office.states()] == ["sent", "indeterminate"]
        office.clock()
        address = ChatAddress(office.at.tenant, office.at.address.session, ChatId(CHAT))
        late = send_command(address, Text(text="resposta"), id="1", by="cli", send_class=SendClass.BOT)
        written = office.at.entry(office.at.says(ANA, "SAIR", ago=5))
        asked = office.at.entry(late, Origin.CLI)
        bell = Bell(Kind.TURN, office.at.tenant, "turn-1", (written, asked), frozenset(), alone=False)
        await office.at.turns.run(bell)
        await office.deliver_all()
        assert [text for text in office.inbox(ANA) if text in {"promoção", "resposta"}] == []
        assert len(office.inbox(ANA)) == 2, "his turn, and that he is spared"
        assert sorted(state for _, state in await office.states()) == ["failed", "failed", "sent", "sent"]
