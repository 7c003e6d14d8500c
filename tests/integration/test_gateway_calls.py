"""The gateway's calls against a server that does whatever a gateway may do: what was sent, what was not,
and what nobody knows.
"""

import asyncio
import json
from typing import Any

import pytest

from certificates import Certificate
from scripted_gateway import (
    ADDRESS,
    CHAT,
    KEY,
    NOT_FOUND,
    NOT_WORKING,
    SENT,
    SERVER,
    TEXT,
    Asked,
    Gateway,
    Reply,
    breaks_tls,
    cuts,
    cuts_in_mid_answer,
    failure,
    gateway,
    hangs,
    over,
    says,
    speaks_something_else,
    trickles,
)
from waiting import wait_for
from wsm.core.content import Target, Text
from wsm.core.errors import GatewayRefused, GatewayUnavailable, OutcomeUnknown, WsmError
from wsm.core.ids import BareId, ServerName
from wsm.gateway.history import ALL_CHATS

# What a send has come to


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (says(422, NOT_WORKING), GatewayUnavailable, "gateway answered 422: session_not_working"),
        (says(422, NOT_FOUND), GatewayUnavailable, "gateway answered 422: session_not_working"),
        (says(301, b"", "Location: /CANARY"), GatewayUnavailable, "gateway answered 301: redirected"),
        (says(307, b"", "Location: /CANARY"), GatewayUnavailable, "gateway answered 307: redirected"),
        (says(422, {"statusCode": 422}), GatewayRefused, "gateway answered 422: unprocessable"),
        (says(400, {"message": ["CANARY"]}), GatewayRefused, "gateway answered 400: bad_request"),
        (says(401, {"message": "CANARY"}), GatewayRefused, "gateway answered 401: unauthorized"),
        (says(403, b"<html>CANARY"), GatewayRefused, "gateway answered 403: forbidden"),
        (says(404, {"message": "CANARY"}), GatewayRefused, "gateway answered 404: not_found"),
        (says(429, b""), GatewayRefused, "gateway answered 429: rate_limited"),
        (says(501, {"message": "CANARY"}), GatewayRefused, "gateway answered 501: not_implemented"),
        (failure(500, "returned error 463"), GatewayRefused, "gateway answered 500: reachout_timelock"),
        (failure(500, "info query timed out"), OutcomeUnknown, "gateway answered 500: engine_timeout"),
        (failure(500, "CANARY"), OutcomeUnknown, "gateway answered 500: engine_error"),
        (says(500, b"CANARY"), OutcomeUnknown, "gateway answered 500: engine_error"),
        (says(503, b""), OutcomeUnknown, "gateway answered 503: gateway_away"),
        (says(504, b"<html>CANARY"), OutcomeUnknown, "gateway answered 504: gateway_timeout"),
        (says(201, b"CANARY not json"), OutcomeUnknown, "unreadable answer"),
        (says(201, b""), OutcomeUnknown, "unreadable answer"),
        (says(201, b"null"), OutcomeUnknown, "unreadable answer"),
        (says(201, {"sent": True}), OutcomeUnknown, "unreadable answer"),
        (says(201, b"[" * 100_000), OutcomeUnknown, "unreadable answer"),
        (says(201, b" " * (17 * 1024 * 1024)), OutcomeUnknown, "answer too long"),
        (cuts, OutcomeUnknown, "connection broken: "),
        (cuts_in_mid_answer, OutcomeUnknown, "connection broken: RemoteProtocolError"),
        (speaks_something_else, OutcomeUnknown, "connection broken: RemoteProtocolError"),
    ],
)  # fmt: skip
async def test_a_send_is_refused_or_not_made_or_unknown(
    reply: Reply, kind: type[WsmError], text: str
) -> None:
    async with gateway() as (behind, session):
        behind.reply = reply
        with pytest.raises(WsmError) as caught:
            await session.send_text(CHAT, TEXT, id=BareId("3EB0"))
        assert isinstance(caught.value, kind)
        assert str(caught.value).startswith(text)
        assert [asked.path for asked in behind.asked] == ["/api/sendText"], "once, whatever came of it"


async def test_a_send_whose_answer_breaks_tls_is_unknown(certificate: Certificate) -> None:
    behind = Gateway()
    behind.reply = breaks_tls
    async with await asyncio.start_server(behind.serve, "127.0.0.1", 0, ssl=certificate.shown()) as listener:
        gateways = over(f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        gateways._tls = certificate.trusted()
        session = gateways.session(SERVER, ADDRESS, None)
        with pytest.raises(OutcomeUnknown, match="connection broken: SSLError"):
            await session.send_text(CHAT, TEXT)
        await gateways.aclose()
        await behind.stop()


@pytest.mark.parametrize("reply", [hangs, trickles])
async def test_a_send_without_an_answer_in_time_is_unknown(
    reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsm.gateway.server.CONNECT_SECONDS", 0.3)
    async with gateway(send_timeout_seconds=0.2) as (behind, session):
        behind.reply = reply
        with pytest.raises(OutcomeUnknown, match="no answer in time"):
            await session.send_text(CHAT, TEXT)
        assert len(behind.asked) == 1


async def test_without_a_connection_nothing_was_sent() -> None:
    async with gateway() as (behind, _):
        unused = behind.url
    gateways = over(unused)
    with pytest.raises(GatewayUnavailable, match="not reached: ConnectError"):
        await gateways.session(SERVER, ADDRESS, None).send_text(CHAT, TEXT)
    await gateways.aclose()


async def test_a_server_that_is_not_configured_is_unavailable() -> None:
    gateways = over("http://127.0.0.1:1")
    with pytest.raises(GatewayUnavailable, match="no such server"):
        await gateways.session(ServerName("other"), ADDRESS, None).send_text(CHAT, TEXT)
    await gateways.aclose()


async def test_a_send_says_what_it_was_told() -> None:
    async with gateway() as (behind, session):
        answer, answered = Text(text=TEXT, reply_to=BareId("X")), Target(BareId("X"), from_me=False)
        assert await session.send(CHAT, answer, id=BareId("ABC"), target=answered) == "3EB0"
        (asked,) = behind.asked
        assert json.loads(asked.body) == {
            "session": "user_1460561546",
            "chatId": CHAT,
            "text": TEXT,
            "id": "ABC",
            "reply_to": f"false_{CHAT}_X",
        }
        assert asked.headers["x-api-key"] == KEY
        await session.send_text(CHAT, TEXT)
        assert set(json.loads(behind.asked[-1].body)) == {"session", "chatId", "text"}


async def test_a_call_given_up_by_its_caller_frees_its_slot() -> None:
    async with gateway(concurrent_calls=1) as (behind, session):
        behind.reply = hangs
        sending = asyncio.create_task(session.send_text(CHAT, TEXT))
        await wait_for(lambda: behind.asked)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        behind.reply = says(201, SENT)
        assert await session.send_text(CHAT, TEXT) == "3EB0"


# Looking


async def test_a_look_is_repeated_when_the_answer_did_not_come() -> None:
    async with gateway() as (behind, session):
        replies = iter([cuts, failure(500, "x"), says(200, {"id": "3EB0"})])

        async def one_after_the_other(asked: Asked, writer: asyncio.StreamWriter) -> None:
            await next(replies)(asked, writer)

        behind.reply = one_after_the_other
        assert await session.new_message_id() == "3EB0"
        assert len(behind.asked) == 3


async def test_a_look_is_repeated_a_few_times_only() -> None:
    async with gateway() as (behind, session):
        behind.reply = failure(500, "x")
        with pytest.raises(GatewayUnavailable, match="gateway answered 500"):
            await session.get()
        assert len(behind.asked) == 3


@pytest.mark.parametrize("reply", [says(422, NOT_WORKING), says(401, b""), says(302, b"", "Location: /")])
async def test_a_look_that_was_answered_is_not_repeated(reply: Reply) -> None:
    async with gateway() as (behind, session):
        behind.reply = reply
        with pytest.raises(WsmError):
            await session.new_message_id()
        assert len(behind.asked) == 1


async def test_a_look_without_an_answer_is_unavailable_and_never_unknown() -> None:
    async with gateway(look_timeout_seconds=0.05) as (behind, session):
        behind.reply = hangs
        with pytest.raises(GatewayUnavailable, match="no answer in time"):
            await session.find_message(BareId("3EB0"))


@pytest.mark.parametrize(
    "reply",
    [
        says(501, {"message": "not implemented", "statusCode": 501}),
        says(404, {"message": "Cannot GET /api/s/new-message-id", "statusCode": 404}),
    ],
)
async def test_an_engine_without_own_ids_has_none(reply: Reply) -> None:
    async with gateway() as (behind, session):
        behind.reply = reply
        assert await session.new_message_id() is None


async def test_only_wahas_own_word_says_that_a_message_is_not_there() -> None:
    async with gateway() as (behind, session):
        behind.reply = says(404, {"message": "Message not found", "statusCode": 404})
        assert await session.find_message(BareId("3EB0")) is None
        for no_proof in (b'{"message":"Session not found","statusCode":404}', b"{}", b"[]", b"<html>"):
            behind.reply = says(404, no_proof)
            with pytest.raises(GatewayRefused):
                await session.find_message(BareId("3EB0"))
        for unreadable in (b"null", b"{}", b'{"id":"true_1@c.us_OTHER"}', b"[]", b""):
            behind.reply = says(200, unreadable)
            with pytest.raises(GatewayUnavailable):
                await session.find_message(BareId("3EB0"))


async def test_a_message_is_found_by_its_bare_id_without_its_media() -> None:
    async with gateway() as (behind, session):
        behind.reply = says(200, {"id": "true_1@c.us_A/B", "ack": 2, "body": "oi"})
        found = await session.find_message(BareId("A/B"))
        assert found is not None
        assert (found.id, found.ack, found.body) == ("A/B", 2, "oi")
        assert behind.asked[0].path == "/api/user_1460561546/chats/all/messages/A%2FB?downloadMedia=false"


async def test_own_messages_are_listed_to_the_end() -> None:
    pages: list[list[Any]] = [
        [{"id": "true_1@c.us_A", "body": "a"}, {"odd": 1}],
        [{"id": "true_1@c.us_B", "body": "b"}],
        [],
    ]
    async with gateway() as (behind, session):

        async def page(asked: Asked, writer: asyncio.StreamWriter) -> None:
            await says(200, pages[len(behind.asked) - 1])(asked, writer)

        behind.reply = page
        assert [found.id for found in await session.own_messages(CHAT, 1_700_000_000)] == ["A", "B"]
        first = behind.asked[0].path
        assert first.startswith("/api/user_1460561546/chats/5511977776666%40c.us/messages?")
        assert "filter.fromMe=true" in first
        assert "filter.timestamp.gte=1700000000" in first
        assert "downloadMedia=false" in first
        assert [asked.path.rpartition("=")[2] for asked in behind.asked] == ["0", "100", "200"]


async def test_what_was_said_is_listed_from_the_oldest_on_without_its_media() -> None:
    async with gateway() as (behind, session):
        behind.reply = says(200, [SENT, {"odd": 1}])
        assert await session.history.messages(ALL_CHATS, 1_700_000_000, 2) == [SENT, {"odd": 1}]
        assert behind.asked[0].path == (
            "/api/user_1460561546/chats/all/messages?sortOrder=asc&filter.timestamp.gte=1700000000"
            "&downloadMedia=false&limit=100&offset=200"
        )
        behind.reply = says(200, {"messages": []})
        with pytest.raises(GatewayUnavailable, match="unreadable"):
            await session.history.messages(CHAT, 0, 0)


async def test_chats_are_listed_with_the_times_of_their_last_messages() -> None:
    async with gateway() as (behind, session):
        behind.reply = says(200, [{"id": CHAT, "lastMessage": {"timestamp": 7}}, {"id": 5}])
        assert await session.history.chats(3) == [(CHAT, 7)]
        assert behind.asked[0].path == "/api/user_1460561546/chats/overview?limit=20&offset=60"
        behind.reply = says(200, b"null")
        with pytest.raises(GatewayUnavailable, match="unreadable"):
            await session.history.chats(0)


async def test_half_a_list_proves_nothing() -> None:
    async with gateway() as (behind, session):
        behind.reply = says(200, [SENT])
        with pytest.raises(GatewayUnavailable, match="too many"):
            await session.own_messages(CHAT, 0)
        behind.reply = says(200, {"messages": []})
        with pytest.raises(GatewayUnavailable, match="unreadable"):
            await session.own_messages(CHAT, 0)


async def test_a_started_session_may_be_started_again() -> None:
    async with gateway() as (behind, session):

        async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
            running = {"name": "s", "status": behind.status}
            refused = {"message": "Session is already started.", "statusCode": 422}
            await (says(200, running) if asked.method == "GET" else says(422, refused))(asked, writer)

        behind.reply = reply
        behind.status = "WORKING"
        await session.start()
        behind.status = "STOPPED"
        with pytest.raises(GatewayRefused):
            await session.start()
