"""The phone of the sandbox does what it is told: customers, agents, faults and forgeries."""

import asyncio
import socket
from typing import Any

import httpx
import pytest

from receiver import Reply
from wahastage import KEY, stage
from waiting import wait_for
from wsm.core.errors import BadInput, Forbidden
from wsm.core.events import (
    Event,
    MessageAcked,
    MessageEdited,
    MessageReacted,
    MessageReceived,
    MessageRevoked,
    Origin,
    SessionStatusReported,
    Source,
)
from wsm.core.ids import EntryId, SessionName, TenantId
from wsm.wire.signature import Verifier
from wsm.wire.waha import read

CUSTOMER = "5511977776666"
CHAT = f"{CUSTOMER}@c.us"
GROUP = "120363000000000001@g.us"


def as_read(body: bytes) -> Event:
    return read(
        body,
        tenant=TenantId(1),
        session=SessionName("main"),
        origin=Origin.WAHA,
        entry=EntryId("1-0"),
        received_at_ms=1,
    )


@pytest.mark.parametrize("engine", ["WEBJS", "WPP", "NOWEB", "GOWS"])
async def test_what_the_sandbox_says_is_read_as_what_it_is(engine: str) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[on.webhook("*")])
        asked = await on.phone.say("main", CUSTOMER, "oi", as_lid=True, push_name="Maria")
        in_group = await on.phone.say("main", CUSTOMER, "oi all", group=GROUP, media=True)
        typed = await on.phone.type_as_agent("main", CUSTOMER, "#fim")
        answered = await on.send("Custa R$ 10")
        assert await on.phone.wait_idle()
        sent = (await on.phone.inbox(CUSTOMER))[-1]["id"]
        await on.phone.react("main", sent, "👍")
        await on.phone.edit("main", asked, "olá")
        await on.phone.revoke("main", asked)
        await on.phone.ack("main", sent, -1)
        await on.phone.emit("main", "call.received", {"id": "call", "from": CHAT})
        assert await on.phone.wait_idle()
        assert answered.status_code == 201

        events = [as_read(got.body) for got in on.hook.got]
        messages = {str(event.id): event for event in events if isinstance(event, MessageReceived)}
        assert set(messages) == {asked, in_group, typed, sent}
        assert (messages[asked].chat, messages[asked].body) == (f"9{CUSTOMER}@lid", "oi")
        assert messages[in_group].chat == GROUP
        assert messages[in_group].participant == CHAT
        assert messages[in_group].media is not None
        assert [messages[own].source for own in (typed, sent)] == [Source.APP, Source.API]
        assert all(messages[own].chat == CHAT and messages[own].from_me for own in (typed, sent))
        if engine in {"NOWEB", "GOWS"}:
            assert messages[asked].twin == CHAT
            assert messages[asked].push_name == "Maria"
        acks = {(event.id, event.level) for event in events if isinstance(event, MessageAcked)}
        assert acks == {(typed, 1), (typed, 2), (sent, 1), (sent, 2), (sent, -1)}
        (reacted,) = [event for event in events if isinstance(event, MessageReacted)]
        assert (reacted.target, reacted.text, reacted.from_me) == (sent, "👍", False)
        (edited,) = [event for event in events if isinstance(event, MessageEdited)]
        assert (edited.target, edited.body) == (asked, "olá")
        (revoked,) = [event for event in events if isinstance(event, MessageRevoked)]
        assert revoked.target == asked
        assert [event.name for event in events if event.name == "call.received"] == ["call.received"]
        statuses = {event.status for event in events if isinstance(event, SessionStatusReported)}
        assert statuses == {"STARTING", "SCAN_QR_CODE", "WORKING"}


@pytest.mark.parametrize(
    ("kind", "status", "text", "sent"),
    [
        ("fail_before", 500, "info query timed out", 0),
        ("error_463", 500, "server returned error 463", 0),
        ("fail_after", 500, "info query timed out", 1),
        ("fail_then_send", 500, "Maximum execution time", 1),
        ("hang", 201, "", 1),
        ("hang_after", 201, "", 1),
        ("cut_before", None, "", 0),
        ("cut_after", None, "", 1),
    ],
)
async def test_a_send_goes_wrong_and_whether_it_left_is_seen_on_the_phone(
    kind: str, status: int | None, text: str, sent: int
) -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.any")])
        await on.phone.fault(kind, seconds=0.05)
        if status is None:
            with pytest.raises(httpx.RemoteProtocolError):
                await on.send("once")
        else:
            response = await on.send("once")
            assert response.status_code == status
            assert text in response.text
        assert await on.phone.wait_idle()
        assert len(await on.phone.inbox(CUSTOMER)) == sent
        assert len(on.hook.events("message.any")) == sent
        assert (await on.send("the next one is right")).status_code == 201


async def test_a_hanging_send_leaves_although_the_caller_has_gone() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        await on.phone.fault("hang", seconds=0.3)
        with pytest.raises(httpx.ReadTimeout):
            await on.api.post(
                "/api/sendText", json={"session": "main", "chatId": CHAT, "text": "late"}, timeout=0.05
            )
        assert not await on.phone.inbox(CUSTOMER)
        await wait_for(lambda: on.waha.world.phone(CUSTOMER).inbox)


async def test_faults_are_counted_addressed_and_can_be_taken_back() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        await on.phone.fault("fail_before", times=2, session="main", phone=CUSTOMER)
        assert (await on.send("to another", "5511933332222@c.us")).status_code == 201
        assert [(await on.send("x")).status_code for _ in range(3)] == [500, 500, 201]
        await on.phone.fault("fail_before")
        await on.phone.clear_faults()
        assert (await on.send("x")).status_code == 201


async def test_a_waha_that_is_away_refuses_connections_and_comes_back_on_its_port() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        await on.phone.refuse(0.5)

        port = int(on.waha.base_url.rpartition(":")[2])

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except ConnectionRefusedError:
                return True
            return False

        await wait_for(refused)
        with pytest.raises(httpx.TransportError):
            await on.api.get("/ping")  # over the connection that was open, and broke
        with pytest.raises(httpx.ConnectError):
            await on.api.get("/ping")
        await wait_for(lambda: not refused())
        assert (await on.phone.status())["pending"] == 0
        assert await on.status() == "WORKING"


async def test_a_send_in_flight_breaks_when_waha_is_killed() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        await on.phone.fault("hang", seconds=600)
        sending = asyncio.create_task(on.send("never"))
        await wait_for(lambda: not on.waha.world.faults.coming)
        await on.phone.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            await sending
        assert not await on.phone.inbox(CUSTOMER)


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("wrong", "signature_mismatch"),
        ("missing", "signature_missing"),
        ("short", "signature_malformed"),
        ("non_ascii", "signature_malformed"),
        ("twice", "signature_repeated"),
        ("right", None),
    ],
)
async def test_a_forged_webhook_returns_what_was_answered(signature: str, reason: str | None) -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.any")])
        on.hook.usual = Reply(403)
        assert await on.phone.forge("main", signature=signature) == 403
        (forged,) = on.hook.got
        assert forged.json["payload"]["body"] == "forged"
        if reason is None:
            Verifier([KEY]).check(forged.values("x-webhook-hmac"), [], forged.body)
        else:
            with pytest.raises(Forbidden, match=reason):
                Verifier([KEY]).check(forged.values("x-webhook-hmac"), [], forged.body)
        assert await on.phone.deliveries() == []


async def test_the_levels_of_a_phone_are_chosen() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.ack")])
        await on.phone.set_acks([])
        await on.phone.set_acks([0, 1, 2, 3], CUSTOMER)
        await on.send("to one who reads")
        await on.send("to one who is away", "5511933332222@c.us")
        assert await on.phone.wait_idle()
        told = sorted((event["payload"]["from"], event["payload"]["ack"]) for event in on.hook.events())
        assert told == [(CHAT, 0), (CHAT, 1), (CHAT, 2), (CHAT, 3)]


async def test_a_group_is_acked_by_each_reader() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.ack.group")])
        await on.phone.set_acks([])
        sent = (await on.send("oi all", GROUP)).json()["id"]
        for reader in (CUSTOMER, "5511933332222"):
            await on.phone.ack("main", sent, 3, reader)
        assert await on.phone.wait_idle()
        readers = {event["payload"]["participant"] for event in on.hook.events("message.ack.group")}
        assert readers == {CHAT, "5511933332222@c.us"}


async def test_the_status_tells_of_every_delivery_and_every_inbox() -> None:
    async with stage() as on:
        on.hook.replies.append(Reply(500))
        await on.session(webhooks=[on.webhook("message.any")])
        bare = await on.phone.say("main", CUSTOMER, "hi", delay_seconds=0.01)
        assert await on.phone.wait_idle()
        await on.send("oi")
        assert await on.phone.wait_idle()
        status = await on.phone.status()
        first = status["deliveries"][0]
        assert (first["message"], first["answers"], first["state"]) == (bare, [500, 200], "delivered")
        assert status["phones"][CUSTOMER][0]["text"] == "oi"
        assert (status["pending"], status["unfinished"]) == (0, 0)
        assert len(await on.phone.deliveries(event="message.any", state="delivered", session="main")) == 2


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("say", {"phone": CUSTOMER, "text": "x"}, "session"),
        ("say", {"session": "none", "phone": CUSTOMER, "text": "x"}, "session"),
        ("say", {"session": "main", "phone": "nobody", "text": "x"}, "phone"),
        ("say", {"session": "main", "phone": GROUP, "text": "x"}, "phone"),
        ("say", {"session": "main", "phone": CUSTOMER, "text": 7}, "text"),
        ("say", {"session": "main", "phone": CUSTOMER, "text": "x", "duplicates": 0}, "duplicates"),
        ("say", {"session": "main", "phone": CUSTOMER, "text": "x", "group": CHAT}, "group"),
        ("say", {"session": "main", "phone": CUSTOMER, "text": "x", "twins": True}, "twins"),
        ("type", {"session": "idle", "chat": CHAT, "text": "x"}, "session"),
        ("ack", {"session": "main", "id": "unknown", "level": 1}, "id"),
        ("acks", {"levels": [5]}, "levels"),
        ("faults", {"kind": "explode"}, "kind"),
        ("faults", {"kind": "hang", "times": 0}, "times"),
        ("forge", {"session": "main", "signature": "nice"}, "signature"),
        ("forge", {"session": "main"}, "session"),
        ("emit", {"session": "main", "event": "mesage", "payload": {}}, "event"),
        ("sessions/main/scan", {}, "session"),
        ("sessions/none/drop", {}, "session"),
    ],
)
async def test_bad_input_is_answered_with_the_field_and_the_reason(
    path: str, body: dict[str, Any], field: str
) -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        await on.post("/api/sessions", name="idle")
        refused = await on.post(f"/sandbox/{path}", 400, **body)
        assert refused["field"] == field
        assert refused["reason"]


async def test_the_client_raises_what_the_sandbox_refuses() -> None:
    async with stage() as on:
        with pytest.raises(BadInput, match="session"):
            await on.phone.say("none", CUSTOMER, "x")
        broken = await on.api.post("/sandbox/say", content=b"{")
        assert broken.json()["field"] == "body"
