"""Every kind that can be sent, through every engine, to a WAHA that answers as the real one does."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from integration.test_gateway_waha import CHAT, OWN_IDS, PHONE, waha
from scripted_gateway import failure, gateway, says
from unit.test_core_content import GOOD
from wsm.core.content import Content, Edit, Loaded, Reaction, Revoke, Seen, Target, Text, Typing, is_message
from wsm.core.engines import OwnId, takes_id
from wsm.core.errors import GatewayRefused, GatewayUnavailable, OutcomeUnknown, WsmError
from wsm.core.ids import BareId
from wsm.gateway.waha import WahaSession
from wsm.sandbox.waha import Engine, WahaSandbox
from wsm.sandbox.waha.control import Phone
from wsm.sandbox.waha.faults import Fault, Wrong

FILES = {
    "image": Loaded(b"\xff\xd8\xff" + bytes(2_000), "image/jpeg", "vitrine.jpg"),
    "file": Loaded(b"%PDF-1.7", "application/pdf", "nota fiscal.pdf"),
    "voice": Loaded(b"ID3", "audio/mpeg", "voz.mp3"),
    "video": Loaded(b"\x00\x00\x00\x20ftypisom", "video/mp4", "v.mp4"),
}
SAID = [kind for kind, content in GOOD.items() if is_message(content)]


@asynccontextmanager
async def asked(engine: Engine) -> AsyncIterator[tuple[WahaSandbox, WahaSession, Target]]:
    """A session in whose chat the customer has written."""
    async with waha(engine) as (sandbox, session), Phone(sandbox.base_url) as phone:
        bare = await phone.say(session.address.session, PHONE, "oi")
        yield sandbox, session, Target(BareId(bare), from_me=False)


@pytest.mark.parametrize("engine", Engine)
async def test_every_kind_arrives_as_it_was_meant_under_the_id_that_is_answered(engine: Engine) -> None:
    async with asked(engine) as (sandbox, session, target):
        sent = {}
        for kind in SAID:
            reserved = await session.new_message_id()
            content = GOOD[kind]
            answered = await session.send(CHAT, content, id=reserved, target=target, media=FILES.get(kind))
            assert answered is not None
            sent[kind] = answered
            if takes_id(engine, kind) is OwnId.DOCUMENTED:
                assert answered == reserved
        got = {message.id: message for message in sandbox.world.phone(PHONE).inbox}
        assert [got[sent[kind]].kind for kind in SAID] == SAID
        assert got[sent["text"]].text == "Olá 👋"
        assert got[sent["text"]].reply_to == f"false_{CHAT}_{target.bare}"
        for kind, file in FILES.items():
            media = got[sent[kind]].media
            assert media is not None
            assert (media.sha256, media.size, media.filename) == (
                hashlib.sha256(file.content).hexdigest(),
                len(file.content),
                file.filename,
            )
        voice = got[sent["voice"]].media
        assert voice is not None
        assert voice.converted
        assert got[sent["image"]].text == "a vitrine"
        location, poll = got[sent["location"]].location, got[sent["poll"]].poll
        assert location is not None
        assert (location.latitude, location.longitude, location.title) == (-23.5505, -46.6333, "A loja")
        assert poll is not None
        assert (poll.name, poll.options, poll.multiple) == ("Que dia?", ["sexta", "sábado"], True)
        [card] = got[sent["contact"]].vcards
        assert "waid=5511900000001:+5511900000001" in card


@pytest.mark.parametrize("engine", Engine)
async def test_what_acts_on_a_message_is_done_and_answers_no_id(engine: Engine) -> None:
    async with asked(engine) as (sandbox, session, theirs):
        own_id = await session.send(CHAT, Text(text="olá"))
        assert own_id is not None
        own = Target(own_id, from_me=True)
        acts: list[tuple[Content, Target | None]] = [
            (Reaction(target=theirs.bare, emoji="👍"), theirs),
            (Edit(target=own.bare, text="olá!"), own),
            (Seen(), None),
            (Typing(), None),
        ]
        for content, target in acts:
            assert await session.send(CHAT, content, target=target) is None
        [message] = sandbox.world.phone(PHONE).inbox
        assert message.text == "olá!"
        assert await session.send(CHAT, Revoke(target=own.bare), target=own) is None
        [message] = sandbox.world.phone(PHONE).inbox
        assert message.deleted
        assert [signal.kind for signal in sandbox.world.phone(PHONE).signals] == ["seen", "typing"]


@pytest.mark.parametrize("engine", OWN_IDS)
async def test_a_file_whose_engine_passes_no_id_on_is_answered_with_another_one(engine: Engine) -> None:
    async with waha(engine) as (sandbox, session):
        sandbox.world.media_ids = False
        reserved = await session.new_message_id()
        answered = await session.send(CHAT, GOOD["image"], id=reserved, media=FILES["image"])
        assert answered not in {None, reserved}


@pytest.mark.parametrize(
    ("fault", "error", "reason"),
    [
        (Fault(Wrong.ERROR_463), GatewayRefused, "reachout_timelock"),
        (Fault(Wrong.RATE_OVERLIMIT), GatewayRefused, "rate_limited"),
        (Fault(Wrong.TOO_MANY, retry_after="120"), GatewayRefused, "rate_limited"),
        (Fault(Wrong.NOT_IMPLEMENTED), GatewayRefused, "not_implemented"),
        (Fault(Wrong.FAIL_AFTER), OutcomeUnknown, "engine_timeout"),
        (Fault(Wrong.CUT_AFTER), OutcomeUnknown, "connection broken"),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Fault) else "",
)
@pytest.mark.parametrize("kind", ["text", "image", "poll"])
async def test_what_goes_wrong_is_told_apart_for_every_kind(
    kind: str, fault: Fault, error: type[WsmError], reason: str
) -> None:
    async with asked(Engine.GOWS) as (sandbox, session, target):
        sandbox.world.faults.add(fault)
        with pytest.raises(error, match=reason) as caught:
            await session.send(CHAT, GOOD[kind], target=target, media=FILES.get(kind))
        if isinstance(caught.value, GatewayRefused):
            assert caught.value.retry_after_seconds == (120.0 if fault.retry_after else None)
            assert caught.value.until is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (("Retry-After: 30",), 30.0),
        (("Date: Fri, 20 Nov 2026 12:00:00 GMT", "Retry-After: Fri, 20 Nov 2026 12:10:00 GMT"), 600.0),
        (("Date: Fri, 20 Nov 2026 12:00:00 GMT", "Retry-After: Fri, 20 Nov 2026 11:00:00 GMT"), 0.0),
        (("Retry-After: Fri, 20 Nov 2026 12:10:00 GMT",), None),
        (("Retry-After: soon",), None),
        (("Retry-After: -1",), None),
        (("Retry-After: 99999999999",), 604_800.0),
        ((), None),
    ],
)
async def test_how_long_to_wait_is_read_off_the_answer(
    headers: tuple[str, ...], seconds: float | None
) -> None:
    async with gateway() as (behind, session):
        behind.reply = says(429, b"", *headers)
        with pytest.raises(GatewayRefused) as caught:
            await session.send(CHAT, Text(text="oi"))
        assert caught.value.retry_after_seconds == seconds


async def test_the_words_of_a_message_are_in_no_error() -> None:
    async with gateway() as (behind, session):
        for status, words in ((500, "x"), (500, "server returned error 463"), (501, "x"), (400, "x")):
            behind.reply = failure(status, words)
            with pytest.raises(WsmError) as caught:
                await session.send(
                    CHAT, Edit(target=BareId("A"), text="CANARY"), target=Target(BareId("A"), True)
                )
            assert "CANARY" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"
        behind.reply = says(302, b"", "Location: http://127.0.0.1:9/")
        with pytest.raises(GatewayUnavailable):
            await session.send(CHAT, Revoke(target=BareId("A")), target=Target(BareId("A"), from_me=True))
