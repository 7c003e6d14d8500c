"""The gateway's calls against a server that does whatever a gateway may do: what was sent, what was not,
and what nobody knows.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from waiting import wait_for
from wsm.config import WahaServer
from wsm.core.errors import BadInput, GatewayRefused, GatewayUnavailable, OutcomeUnknown, WsmError
from wsm.core.ids import BareId, ChatId, ServerName, SessionAddress, SessionName, TenantId
from wsm.gateway.waha import Gateways, WahaSession, webhook_config
from wsm.telemetry import GATEWAY_REQUESTS

SERVER = ServerName("default")
ADDRESS = SessionAddress(TenantId(1460561546), SessionName("user_1460561546"))
CHAT = ChatId("5511977776666@c.us")
KEY = "CANARY-api-key"
TEXT = "CANARY-text olá"
SENT = {"id": "true_5511977776666@c.us_3EB0", "_data": {}}


class Asked(msgspec.Struct):
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Reply = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class Gateway:
    """Speaks just enough HTTP/1.1 to say anything, or nothing, at any moment."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.reply: Reply = says(201, SENT)
        self.status = ""
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (asked := await _request(reader)) is not None:
                self.asked.append(asked)
                await self.reply(asked, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> Asked | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode().strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body)


def says(status: int, content: object, *headers: str) -> Reply:
    """Answer, JSON or bytes."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()

    async def reply(_: Asked, writer: asyncio.StreamWriter) -> None:
        extra = "".join(f"{header}\r\n" for header in headers)
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\n{extra}\r\n".encode() + raw)

    return reply


async def cuts(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Break the connection after the request."""
    writer.transport.abort()


async def cuts_in_mid_answer(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 201 X\r\nContent-Length: 999\r\n\r\n{")
    await writer.drain()
    writer.transport.abort()


async def speaks_something_else(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def hangs(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Hold the request for ever."""
    await asyncio.Event().wait()


async def trickles(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer a byte now and then: no read ever takes too long, and the answer never ends."""
    writer.write(b"HTTP/1.1 201 X\r\nContent-Length: 99999\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def gateway(**limits: Any) -> AsyncIterator[tuple[Gateway, WahaSession]]:
    """Run the server, and bind a session to it."""
    behind = Gateway()
    listener = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    behind.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    gateways = over(behind.url, **limits)
    try:
        yield behind, gateways.session(SERVER, ADDRESS)
    finally:
        await gateways.aclose()
        await behind.stop()
        listener.close()
        await listener.wait_closed()


def over(url: str, **limits: Any) -> Gateways:
    seconds = {"send_timeout_seconds": 5.0, "look_timeout_seconds": 5.0}
    return Gateways({SERVER: WahaServer(url=url, api_key=KEY)}, **(seconds | limits))


def failure(status: int, message: str) -> Reply:
    """Answer as WAHA does when its engine fails: with a stack and everything that was asked."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        echo = {
            "statusCode": status,
            "exception": {"message": message, "name": "Error", "stack": f"Error: {message} CANARY-stack"},
            "request": {"path": asked.path, "method": asked.method, "body": json.loads(asked.body or b"{}")},
            "secret": "CANARY-hmac",
        }
        await says(status, echo)(asked, writer)

    return reply


NOT_WORKING = {"error": "CANARY not as expected", "session": "s", "status": "FAILED", "expected": ["WORKING"]}
NOT_FOUND = {"error": "We didn't find a session with name 'CANARY'", "session": "CANARY"}


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
        await gateways.session(SERVER, ADDRESS).send_text(CHAT, TEXT)
    await gateways.aclose()


async def test_a_server_that_is_not_configured_is_unavailable() -> None:
    gateways = over("http://127.0.0.1:1")
    with pytest.raises(GatewayUnavailable, match="no such server"):
        await gateways.session(ServerName("other"), ADDRESS).send_text(CHAT, TEXT)
    await gateways.aclose()


async def test_a_send_says_what_it_was_told() -> None:
    async with gateway() as (behind, session):
        assert await session.send_text(CHAT, TEXT, id=BareId("ABC"), reply_to="false_1@c.us_X") == "3EB0"
        (asked,) = behind.asked
        assert json.loads(asked.body) == {
            "session": "user_1460561546",
            "chatId": CHAT,
            "text": TEXT,
            "id": "ABC",
            "reply_to": "false_1@c.us_X",
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
        assert "filter.fromMe=true&filter.timestamp.gte=1700000000" in first
        assert "downloadMedia=false" in first
        assert [asked.path.rpartition("=")[2] for asked in behind.asked] == ["0", "100", "200"]


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


# A server that hangs, or is away


async def test_a_hung_server_fails_fast_and_is_asked_again_later() -> None:
    now = 1000.0
    async with gateway(send_timeout_seconds=0.1, clock=lambda: now) as (behind, session):
        behind.reply = hangs
        for _ in range(5):
            with pytest.raises(OutcomeUnknown):
                await session.send_text(CHAT, TEXT)
        for _ in range(3):
            with pytest.raises(GatewayUnavailable, match="does not answer"):
                await session.send_text(CHAT, TEXT)
        assert len(behind.asked) == 5, "nothing reached it while the circuit was open"
        now += 1.0
        behind.reply = says(201, SENT)
        assert await session.send_text(CHAT, TEXT) == "3EB0"


async def test_refusals_and_engine_errors_open_no_circuit() -> None:
    async with gateway() as (behind, session):
        for reply in (says(400, {}), failure(500, "x"), says(422, NOT_WORKING)) * 3:
            behind.reply = reply
            with pytest.raises(WsmError):
                await session.send_text(CHAT, TEXT)
        behind.reply = says(201, SENT)
        assert await session.send_text(CHAT, TEXT) == "3EB0"


async def test_a_full_server_refuses_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsm.gateway.server._SLOT_SECONDS", 0.05)
    async with gateway(concurrent_calls=2) as (behind, session):
        behind.reply = hangs
        held = [asyncio.create_task(session.send_text(CHAT, TEXT)) for _ in range(2)]
        await wait_for(lambda: len(behind.asked) == 2)
        with pytest.raises(GatewayUnavailable, match="too many calls"):
            await session.send_text(CHAT, TEXT)
        assert len(behind.asked) == 2
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_one_servers_trouble_is_not_anothers() -> None:
    async with gateway() as (away, _), gateway() as (well, _):
        servers = {
            "away": WahaServer(url=away.url, api_key=KEY),
            "well": WahaServer(url=well.url, api_key=KEY),
        }
        gateways = Gateways(servers, send_timeout_seconds=0.05)
        away.reply = hangs
        for _ in range(6):
            with pytest.raises(WsmError):
                await gateways.session(ServerName("away"), ADDRESS).send_text(CHAT, TEXT)
        assert await gateways.session(ServerName("well"), ADDRESS).send_text(CHAT, TEXT) == "3EB0"
        await gateways.aclose()


# Exits and secrets


async def test_no_proxy_of_the_environment_is_ever_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as (elsewhere, _), gateway() as (behind, _):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, elsewhere.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        gateways = over(behind.url)
        await gateways.session(SERVER, ADDRESS).send_text(CHAT, TEXT)
        await gateways.aclose()
        assert elsewhere.connections == 0
        assert len(behind.asked) == 1


async def test_sessions_do_not_share_connections() -> None:
    async with gateway() as (behind, _):
        gateways = over(behind.url)
        other = SessionAddress(TenantId(2), ADDRESS.session)
        await gateways.session(SERVER, ADDRESS).send_text(CHAT, TEXT)
        await gateways.session(SERVER, ADDRESS).send_text(CHAT, TEXT)
        assert behind.connections == 1
        await gateways.session(SERVER, other).send_text(CHAT, TEXT)
        assert behind.connections == 2
        await gateways.aclose()


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


async def test_no_secret_and_no_text_is_in_errors_or_logs(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = [
        says(400, {"message": "CANARY"}),
        failure(500, "CANARY"),
        says(201, b"CANARY"),
        says(302, b"CANARY", "Location: http://CANARY/"),
    ]
    async with gateway(send_timeout_seconds=0.05) as (behind, session):
        for reply in (*answered, cuts, cuts_in_mid_answer, *[hangs] * 4):
            behind.reply = reply
            with pytest.raises(WsmError) as caught:
                await session.send_text(CHAT, TEXT)
            for exc in chain(caught.value):
                assert "CANARY" not in f"{exc} {exc!r} {exc.args}"
                assert "5511977776666" not in f"{exc} {exc!r} {exc.args}"
    printed = capsys.readouterr()
    assert "gateway_circuit" in printed.out + printed.err
    assert "CANARY" not in printed.out + printed.err + caplog.text
    assert "5511977776666" not in printed.out + printed.err + caplog.text
    assert "CANARY" not in repr(webhook_config("http://x/", "CANARY"))


@pytest.mark.parametrize(
    ("url", "key", "field"),
    [
        ("ftp://x", "k", "waha.default.url"),
        ("//x", "k", "waha.default.url"),
        ("http://", "k", "waha.default.url"),
        ("http://user:CANARY@x", "k", "waha.default.url"),
        ("http://x/?CANARY", "k", "waha.default.url"),
        ("http://x", "", "waha.default.api_key"),
        ("http://x", "CANARY é", "waha.default.api_key"),
        ("http://x", "CANARY\r\nX: y", "waha.default.api_key"),
    ],
)
def test_an_impossible_server_is_refused_by_its_field(url: str, key: str, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        Gateways({SERVER: WahaServer(url=url, api_key=key)}, send_timeout_seconds=1)
    assert caught.value.field == field
    assert "CANARY" not in str(caught.value)


async def test_a_gateway_may_stand_under_a_path() -> None:
    async with gateway() as (behind, _):
        gateways = over(behind.url + "/waha/")
        await gateways.session(SERVER, ADDRESS).send_text(CHAT, TEXT)
        await gateways.aclose()
        assert behind.asked[0].path == "/waha/api/sendText"


async def test_calls_are_counted_by_what_they_came_to() -> None:
    def count(result: str) -> float:
        return float(GATEWAY_REQUESTS.labels("send_seen", result)._value.get())

    before = {result: count(result) for result in ("ok", "refused", "unavailable", "unknown")}
    async with gateway() as (behind, session):
        for reply in (says(201, {}), says(400, {}), says(422, NOT_WORKING), failure(500, "x")):
            behind.reply = reply
            try:
                await session.send_seen(CHAT)
            except WsmError as exc:
                assert "gateway answered" in str(exc)  # noqa: PT017 (the first call has none)
    assert {result: count(result) - before[result] for result in before} == dict.fromkeys(before, 1.0)
