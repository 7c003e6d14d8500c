"""The provider of exits: who passes, from where he is seen, what is written down, and what goes wrong."""

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest

from behind_exits import PASSWORD, needs_exits
from certificates import Certificate
from scripted_gateway import cuts, cuts_in_mid_answer, gateway, hangs, says, speaks_something_else
from waiting import wait_for
from wsm.core.exits import Exit
from wsm.gateway.client import build, tls_context
from wsm.sandbox.exits import (
    Answers502,
    Claims,
    CutsIdle,
    Dead,
    Dies,
    Drifts,
    Ending,
    ExitProxy,
    Fault,
    Hangs,
    Identity,
    Passage,
    Refuses,
    Slow,
    Whoami,
    direct,
)
from wsm.sandbox.waha.server import WahaSandbox

pytestmark = needs_exits

ANNA = "user-acme-country-br-session-anna-sessionduration-30"
BIA = "user-acme-country-pt-session-bia"
NOTHING_IS_SENT: list[Fault] = [Dead(), Refuses(), Hangs(), Answers502()]


@asynccontextmanager
async def stage(certificate: Certificate | None = None) -> AsyncIterator[tuple[ExitProxy, Whoami]]:
    """A proxy, and a target that tells who asked it; over TLS with a certificate."""
    tls = certificate.shown() if certificate else None
    async with (
        ExitProxy(password=PASSWORD) as proxy,
        Whoami(proxy.country_of, tls=tls) as whoami,
    ):
        yield proxy, whoami


def client(
    proxy: ExitProxy, user: str, url: str, *, password: str = PASSWORD, tls: ssl.SSLContext | None = None
) -> httpx.AsyncClient:
    """wsm's own client, for one exit."""
    return build(url, api_key="k", way=exit_(proxy, user, password), tls=tls or tls_context())


def exit_(proxy: ExitProxy, user: str, password: str = PASSWORD) -> Exit:
    return Exit(host="127.0.0.1", port=proxy.port, username=user, password=password)


async def asked(
    proxy: ExitProxy, user: str, whoami: Whoami, certificate: Certificate | None = None
) -> dict[str, str | None]:
    """Ask who this user is, in a connection of its own."""
    tls = certificate.trusted() if certificate else None
    async with client(proxy, user, whoami.url, tls=tls) as http:
        answer = await http.get("/")
        said: dict[str, str | None] = answer.raise_for_status().json()
        return said


def authorization(user: str = ANNA, password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Tunnel:
    """A tunnel with nothing in it but what a test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, *lines: str) -> bytes:
        """Write a head; return the head that comes back, or what there was of it."""
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as exc:
            return exc.partial


@asynccontextmanager
async def connection(proxy: ExitProxy) -> AsyncIterator[Tunnel]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Tunnel(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def tunnel(proxy: ExitProxy, port: int, user: str = ANNA) -> AsyncIterator[Tunnel]:
    async with connection(proxy) as made:
        answer = await made.say(
            f"CONNECT 127.0.0.1:{port} HTTP/1.1", f"Proxy-Authorization: {authorization(user)}"
        )
        assert answer.startswith(b"HTTP/1.1 200 ")
        yield made


async def ended(proxy: ExitProxy, count: int = 1) -> list[Passage]:
    """Wait until so many passages have been and ended; return them."""
    await wait_for(lambda: len(proxy.seen) >= count and all(each.ended_at for each in proxy.seen))
    assert len(proxy.seen) == count
    return list(proxy.seen)


# Who leaves from where


async def test_a_forwarded_request_leaves_from_its_identitys_address() -> None:
    async with stage() as (proxy, whoami):
        assert await asked(proxy, ANNA, whoami) == {"ip": proxy.exit_of(ANNA), "country": "BR"}
        assert await asked(proxy, BIA, whoami) == {"ip": proxy.exit_of(BIA), "country": "PT"}
        assert [host for host, _ in whoami.peers] == [proxy.exit_of(ANNA), proxy.exit_of(BIA)]
        assert direct(whoami.peers, proxy) == []


async def test_so_does_what_is_inside_a_tunnel(certificate: Certificate) -> None:
    async with stage(certificate) as (proxy, whoami):
        said = await asked(proxy, ANNA, whoami, certificate)
        assert said == {"ip": proxy.exit_of(ANNA), "country": "BR"}
        assert proxy.seen[0].is_tunnel
        assert direct(whoami.peers, proxy) == []


async def test_an_exit_stays_whatever_happens_in_between() -> None:
    async with stage() as (proxy, whoami):
        before = await asked(proxy, ANNA, whoami)
        await asked(proxy, BIA, whoami)
        await proxy.down()
        await proxy.up()
        async with tunnel(proxy, whoami.port) as inside:
            await inside.say("GET / HTTP/1.1")
        assert await asked(proxy, ANNA, whoami) == before
        assert {host for host, _ in whoami.peers if proxy.identity_at(host) == ANNA} == {before["ip"]}
    assert ExitProxy().exit_of(ANNA) == before["ip"], "it depends on the name alone"
    assert ExitProxy(name="another provider").exit_of(ANNA) != before["ip"]


def test_no_two_identities_share_an_address() -> None:
    proxy = ExitProxy()
    addresses = {proxy.exit_of(f"session-{number}") for number in range(20_000)}
    assert len(addresses) == 20_000
    assert not any(address.startswith("127.0.0.") for address in addresses)


async def test_who_a_user_name_is_may_be_said_otherwise() -> None:
    def identify(username: str, password: str) -> Identity | None:
        return Identity(username.rsplit("-", maxsplit=1)[-1], country="AR") if password == "open" else None

    async with ExitProxy(identify) as proxy, Whoami(proxy.country_of) as whoami:
        for user in ("a-duration-5-anna", "a-duration-9-anna"):
            async with client(proxy, user, whoami.url, password="open") as http:
                assert (await http.get("/")).json() == {"ip": proxy.exit_of("anna"), "country": "AR"}
        assert {passage.identity for passage in proxy.seen} == {"anna"}


async def test_a_direct_connection_is_told_from_the_others() -> None:
    async with stage() as (proxy, whoami):
        await asked(proxy, ANNA, whoami)
        async with build(whoami.url, api_key="k", way=None, tls=tls_context()) as http:
            assert (await http.get("/")).json() == {"ip": "127.0.0.1", "country": None}
        assert [host for host, _ in direct(whoami.peers, proxy)] == ["127.0.0.1"]


async def test_the_sandboxs_waha_is_reached_through_it() -> None:
    async with stage() as (proxy, _), WahaSandbox() as waha:
        through = exit_(proxy, ANNA)
        async with build(waha.base_url, api_key=waha.api_key, way=through, tls=tls_context()) as http:
            for _ in range(3):
                assert (await http.get("/api/sessions")).json() == []
        assert [passage.ending for passage in await ended(proxy, 3)] == [Ending.ANSWERED] * 3


# Who may pass


@pytest.mark.parametrize(
    "header",
    [None, authorization(password="wrong"), "Basic ????", "Basic", "Bearer " + authorization()[6:]],
)
@pytest.mark.parametrize("method", ["CONNECT {}", "GET http://{}/"])
async def test_without_the_password_nobody_passes(method: str, header: str | None) -> None:
    async with stage() as (proxy, whoami):
        async with connection(proxy) as made:
            first = f"{method} HTTP/1.1".format(f"127.0.0.1:{whoami.port}")
            answer = await made.say(first, *([f"Proxy-Authorization: {header}"] if header else []))
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert b"\r\nProxy-Authenticate: Basic " in answer
        (passage,) = await ended(proxy)
        assert (passage.ending, passage.identity, passage.leaves_from) == (Ending.UNAUTHORIZED, None, None)
        assert not whoami.peers


async def test_a_refusal_reaches_who_is_still_writing() -> None:
    async with stage() as (proxy, whoami), connection(proxy) as made:
        head = [*asking(whoami, "POST", password="wrong"), "Content-Length: 5000000", "", ""]
        made.writer.write("\r\n".join(head).encode() + b"x" * 5_000_000)
        await made.writer.drain()
        assert (await made.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 407 ")


async def test_wsms_client_sees_a_407_in_either_way(certificate: Certificate) -> None:
    async with stage(certificate) as (proxy, whoami):
        async with client(proxy, ANNA, "http://127.0.0.1:9", password="wrong") as http:
            assert (await http.post("/", json={"text": "x" * 300_000})).status_code == 407
        tls = certificate.trusted()
        async with client(proxy, ANNA, whoami.url, password="wrong", tls=tls) as http:
            with pytest.raises(httpx.ProxyError, match="407"):
                await http.get("/")
        assert not whoami.peers


async def test_credentials_are_neither_passed_on_nor_logged_nor_shown(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with gateway() as (target, _), ExitProxy(password=PASSWORD) as proxy:
        for password in (PASSWORD, "CANARY-wrong"):
            async with client(proxy, ANNA, target.url, password=password) as http:
                await http.get("/")
        passages = await ended(proxy, 2)
        assert [set(each.headers) & {"proxy-authorization", "proxy-connection"} for each in target.asked] == [
            set()
        ]
        assert target.asked[0].headers["connection"] == "close", "what it answers is its last word"
        printed = "".join(capfd.readouterr())
        shown = f"{proxy!r} {passages!r} {printed} {caplog.text}"
    for secret in (PASSWORD, "CANARY", authorization()[6:]):
        assert secret not in shown


# What passes


@pytest.mark.parametrize("size", [0, 1, 300_000])
async def test_bodies_arrive_whole_framed_either_way(size: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 70_000):
            yield body[start : start + 70_000]

    body = bytes(i % 251 for i in range(size))
    async with gateway() as (target, _), ExitProxy(password=PASSWORD) as proxy:
        target.reply = says(200, body)
        async with client(proxy, ANNA, target.url) as http:
            for _ in range(2):
                answer = await http.post("/a/b?c=d&e", content=body)
                assert answer.content == body
        assert [(each.method, each.path, each.body) for each in target.asked] == [
            ("POST", "/a/b?c=d&e", body)
        ] * 2
        assert len(proxy.peers) == 1, "the client's connection was kept"
    async with whole_reader() as (port, read), ExitProxy(password=PASSWORD) as proxy:
        async with client(proxy, ANNA, f"http://127.0.0.1:{port}") as http:
            assert (await http.post("/", content=chunks())).content == b"twotwo"
        assert read[0].count(b"\r\n\r\n") >= 2
        assert len(read[0]) >= size


@asynccontextmanager
async def whole_reader() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A target that reads to the last chunk, and answers in chunks after 100 Continue."""
    read: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = b""
        while not said.endswith(b"\r\n0\r\n\r\n"):
            said += await reader.read(65536)
        read.append(said)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"3;x=y\r\ntwo\r\n3\r\ntwo\r\n0\r\nTrailer: t\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], read
    finally:
        server.close()
        await server.wait_closed()


async def unframed(_: object, writer: asyncio.StreamWriter) -> None:
    """Answer without a length."""
    writer.write(b"HTTP/1.0 200\r\n\r\nto the end")
    await writer.drain()
    writer.close()


async def unchanged(_: object, writer: asyncio.StreamWriter) -> None:
    """Tell the length of what is not sent."""
    writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
    await writer.drain()


async def test_answers_without_a_body_and_without_a_length_end_where_they_end() -> None:
    async with gateway() as (target, _), ExitProxy(password=PASSWORD) as proxy:
        async with client(proxy, ANNA, target.url) as http:
            target.reply = says(200, b"12345")
            assert (await http.get("/")).content == b"12345"
            target.reply = unchanged
            assert (await http.get("/")).status_code == 304
            assert (await http.get("/")).status_code == 304
            assert len(proxy.peers) == 1
            target.reply = unframed
            assert (await http.get("/")).content == b"to the end"
        async with stage() as (other, whoami), client(other, ANNA, whoami.url) as http:
            head = await http.head("/")
            assert (head.status_code, head.content) == (200, b"")
            assert (await http.get("/")).json()["ip"] == other.exit_of(ANNA)
            assert len(other.peers) == 1


async def test_an_answer_without_a_length_that_breaks_off_does_not_look_whole() -> None:
    async with gateway() as (target, _), ExitProxy(password=PASSWORD) as proxy:
        target.reply = unframed
        proxy.fault(Dies(after_bytes=42))
        async with client(proxy, ANNA, target.url) as http:
            with pytest.raises(httpx.TransportError):
                await http.get("/")


def asking(whoami: Whoami, method: str = "GET", password: str = PASSWORD) -> list[str]:
    head = f"{method} http://127.0.0.1:{whoami.port}/ HTTP/1.1"
    return [head, f"Proxy-Authorization: {authorization(password=password)}"]


async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    async with stage() as (proxy, whoami), connection(proxy) as made:
        lines = asking(whoami)
        answer = await made.say(*lines, "", *lines, "Connection: close")
        answer += await made.reader.read()
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert answer.count(b"connection: close") == 1
        assert len(await ended(proxy, 2)) == 2
    async with stage() as (proxy, whoami), connection(proxy) as made:
        made.writer.write("\r\n".join([*asking(whoami), "", *asking(whoami), "", ""]).encode())
        made.writer.write_eof()
        with suppress(ConnectionResetError):
            await made.reader.read()
        await wait_for(lambda: not proxy.connected)


async def test_an_answer_before_the_end_of_the_request_arrives() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with ExitProxy(password=PASSWORD) as proxy:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with client(proxy, ANNA, url) as http:
            assert (await http.post("/", content=b"x" * 10_000_000)).status_code == 413
    server.close()
    await server.wait_closed()


async def test_everything_that_passed_is_written_down() -> None:
    async with stage() as (proxy, whoami):
        async with client(proxy, ANNA, whoami.url) as http:
            lengths = [len((await http.post("/", content=b"x" * 1000)).content) for _ in range(2)]
        async with tunnel(proxy, whoami.port, BIA) as inside:
            question = ("GET / HTTP/1.1", "Host: x")
            answer = await inside.say(*question)
            body = await inside.reader.readexactly(length_of(answer))
        passages = await ended(proxy, 3)
        assert [passage.leaves_from for passage in passages] == list(whoami.peers)
        assert [(passage.identity, passage.is_tunnel) for passage in passages] == [
            (ANNA, False),
            (ANNA, False),
            (BIA, True),
        ]
        assert {(passage.host, passage.port) for passage in passages} == {("127.0.0.1", whoami.port)}
        assert [passage.ending for passage in passages] == [Ending.ANSWERED, Ending.ANSWERED, Ending.CLIENT]
        assert passages[2].sent_bytes == len("\r\n".join([*question, "", ""]))
        assert passages[2].received_bytes == len(answer) + len(body)
        for passage, length in zip(passages[:2], lengths, strict=True):
            assert passage.sent_bytes > 1000
            assert passage.received_bytes > length
        for passage in passages:
            assert passage.ended_at
            assert passage.started_at <= passage.moved_at <= passage.ended_at


def length_of(head: bytes) -> int:
    (line,) = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    return int(line.partition(b":")[2])


async def test_one_side_may_end_before_the_other() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"all: " + await reader.read())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with ExitProxy(password=PASSWORD) as proxy:
        async with tunnel(proxy, server.sockets[0].getsockname()[1]) as inside:
            inside.writer.write(b"this")
            inside.writer.write_eof()
            assert await inside.reader.read() == b"all: this"
        (passage,) = await ended(proxy)
        assert (passage.sent_bytes, passage.received_bytes) == (4, 9)
        assert passage.ending is Ending.CLIENT
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "lines",
    [
        ["nonsense"],
        ["GET / HTTP/1.1", "Host: x"],
        ["GET https://127.0.0.1/ HTTP/1.1"],
        ["GET ftp://127.0.0.1/ HTTP/1.1"],
        ["GET http:// HTTP/1.1"],
        ["CONNECT 127.0.0.1 HTTP/1.1"],
        ["CONNECT 127.0.0.1:99999 HTTP/1.1"],
        ["GET http://127.0.0.1/ HTTP/1.1", "no colon"],
        ["GET http://127.0.0.1/ HTTP/1.1", "X: " + "x" * 200_000],
    ],
)
async def test_what_a_proxy_cannot_do_is_a_400(lines: list[str]) -> None:
    async with ExitProxy(password=PASSWORD) as proxy:
        async with connection(proxy) as made:
            assert (await made.say(*lines)).startswith(b"HTTP/1.1 400 ")
        assert not proxy.seen


@pytest.mark.parametrize("host", ["192.0.2.1", "waha.example", "0.0.0.0"])
async def test_nothing_outside_this_machine_is_reached(host: str) -> None:
    async with stage() as (proxy, whoami):
        async with client(proxy, ANNA, f"http://{host}:{whoami.port}") as http:
            assert (await http.get("/")).status_code == 502
        (passage,) = await ended(proxy)
        assert (passage.ending, passage.leaves_from) == (Ending.UNREACHABLE, None)


async def test_a_name_that_the_proxy_alone_knows_is_reached_through_it_alone() -> None:
    async with (
        ExitProxy(password=PASSWORD, hosts={"whoami.example": "127.0.0.1"}) as proxy,
        Whoami(proxy.country_of) as whoami,
    ):
        url = f"http://whoami.example:{whoami.port}"
        async with client(proxy, ANNA, url) as http:
            assert (await http.get("/")).json()["ip"] == proxy.exit_of(ANNA)
        assert proxy.seen[0].host == "whoami.example"


async def test_a_target_that_fails_is_a_502_or_a_broken_answer() -> None:
    async with gateway() as (target, _), ExitProxy(password=PASSWORD) as proxy:
        async with client(proxy, ANNA, target.url) as http:
            for reply in (cuts, speaks_something_else):
                target.reply = reply
                assert (await http.get("/")).status_code == 502
            target.reply = cuts_in_mid_answer
            with pytest.raises(httpx.TransportError):
                await http.get("/")
        assert [passage.ending for passage in await ended(proxy, 3)] == [Ending.TARGET] * 3


async def test_a_client_that_gives_up_leaves_no_request_behind() -> None:
    async with gateway() as (target, _), ExitProxy(password=PASSWORD) as proxy:
        target.reply = hangs
        async with client(proxy, ANNA, target.url) as http:
            asking = asyncio.create_task(http.get("/", timeout=None))
            await wait_for(lambda: target.asked)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert (await ended(proxy))[0].ending is Ending.CLIENT


# No other way out


@pytest.fixture
def misleading(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that sends everything directly."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.usefixtures("misleading")
async def test_a_proxy_that_is_away_is_an_error_and_never_a_direct_call(certificate: Certificate) -> None:
    async with stage() as (proxy, plain), Whoami(proxy.country_of, tls=certificate.shown()) as secret:
        tls = certificate.trusted()
        async with client(proxy, ANNA, plain.url) as one, client(proxy, ANNA, secret.url, tls=tls) as two:
            await one.get("/")
            await two.get("/")
            await proxy.down()
            before = len(plain.peers), len(secret.peers)
            for http in (one, two):
                for _ in range(2):
                    with pytest.raises(httpx.TransportError):
                        await http.get("/")
            assert (len(plain.peers), len(secret.peers)) == before, "nobody came by any way"
            await proxy.up()
            await one.get("/")
            await two.get("/")
        assert direct([*plain.peers, *secret.peers], proxy) == []


@pytest.mark.usefixtures("misleading")
@pytest.mark.parametrize("fault", NOTHING_IS_SENT, ids=repr)
async def test_no_fault_of_a_proxy_lets_anything_out(fault: Fault, certificate: Certificate) -> None:
    async with stage() as (proxy, plain), Whoami(proxy.country_of, tls=certificate.shown()) as secret:
        proxy.fault(fault)
        tls = certificate.trusted()
        for whoami in (plain, secret):
            async with client(proxy, ANNA, whoami.url, tls=tls) as http:
                http.timeout = httpx.Timeout(0.2 if isinstance(fault, Hangs) else 30.0)
                with pytest.raises((httpx.TransportError, httpx.HTTPStatusError)):
                    (await http.get("/")).raise_for_status()
            assert not whoami.peers
        wanted = {"Dead": "dead", "Refuses": "refused", "Hangs": "hung", "Answers502": "bad_gateway"}
        passages = await ended(proxy, 2)
        assert {passage.ending for passage in passages} == {wanted[type(fault).__name__]}
        assert {passage.leaves_from for passage in passages} == {None}
        proxy.mend()
        await asked(proxy, ANNA, plain)
        await asked(proxy, ANNA, secret, certificate)


# What goes wrong on command


async def test_a_fault_is_one_identitys_and_for_as_often_as_was_said() -> None:
    async with stage() as (proxy, whoami):
        proxy.fault(Refuses(), of=ANNA, times=2)
        async with client(proxy, ANNA, whoami.url) as anna, client(proxy, BIA, whoami.url) as bia:
            got = [(await http.get("/")).status_code for http in (anna, bia, anna, bia, anna)]
        assert got == [407, 200, 407, 200, 200]
        proxy.fault(Answers502(), times=1)
        async with client(proxy, ANNA, whoami.url) as anna, client(proxy, BIA, whoami.url) as bia:
            assert [(await http.get("/")).status_code for http in (bia, anna)] == [502, 200]


async def test_mending_takes_back_what_it_names() -> None:
    async with stage() as (proxy, whoami):
        proxy.fault(Answers502(), of=ANNA)
        proxy.fault(Answers502(), of=BIA)
        proxy.fault(Claims("AR"))
        proxy.fault(Claims("US"))
        proxy.mend(Answers502, of=ANNA)
        assert (await asked(proxy, ANNA, whoami))["country"] == "US"
        async with client(proxy, BIA, whoami.url) as http:
            assert (await http.get("/")).status_code == 502
        proxy.mend()
        assert (await asked(proxy, BIA, whoami))["country"] == "PT"


async def test_a_tunnel_dies_in_mid_talk(certificate: Certificate) -> None:
    async with stage(certificate) as (proxy, whoami):
        for after_bytes in (0, 1, 1200):
            proxy.fault(Dies(after_bytes), times=1)
            with pytest.raises(httpx.TransportError):
                await asked(proxy, ANNA, whoami, certificate)
        passages = await ended(proxy, 3)
        assert [passage.ending for passage in passages] == [Ending.DIED] * 3
        assert [passage.received_bytes for passage in passages] == [0, 1, 1200]
        await asked(proxy, ANNA, whoami, certificate)


async def test_what_is_ordered_for_the_next_leaves_open_ones_alone() -> None:
    async with stage() as (proxy, whoami), tunnel(proxy, whoami.port) as before:
        proxy.fault(Dies(), times=1)
        assert b" 200 OK" in await before.say("GET / HTTP/1.1", "Host: x")
        async with tunnel(proxy, whoami.port) as after:
            with pytest.raises(ConnectionResetError):
                await after.say("GET / HTTP/1.1", "Host: x")


async def test_an_answer_breaks_off() -> None:
    async with gateway() as (target, _), ExitProxy(password=PASSWORD) as proxy:
        target.reply = says(200, b"x" * 10_000)
        proxy.fault(Dies(after_bytes=5_000))
        async with client(proxy, ANNA, target.url) as http:
            with pytest.raises(httpx.TransportError):
                await http.get("/")
        (passage,) = await ended(proxy)
        assert (passage.ending, passage.received_bytes) == (Ending.DIED, 5_000)


async def test_open_tunnels_are_reset_at_a_word() -> None:
    async with stage() as (proxy, whoami):
        async with tunnel(proxy, whoami.port, ANNA) as annas, tunnel(proxy, whoami.port, BIA) as bias:
            proxy.cut(of=ANNA)
            with pytest.raises(ConnectionResetError):
                await annas.reader.read()
            assert b" 200 OK" in await bias.say("GET / HTTP/1.1", "Host: x")
        endings = {passage.identity: passage.ending for passage in await ended(proxy, 2)}
        assert endings == {ANNA: Ending.CUT, BIA: Ending.CLIENT}


async def test_a_slow_tunnel_passes_bytes_little_by_little_until_it_is_mended() -> None:
    async with stage() as (proxy, whoami):
        async with tunnel(proxy, whoami.port) as inside:
            proxy.fault(Slow(bytes_per_second=200), of=ANNA)
            answer = asyncio.create_task(inside.say("GET / HTTP/1.1", "Host: x", "X: " + "x" * 10_000))
            (passage,) = proxy.seen
            await wait_for(lambda: passage.sent_bytes)
            assert passage.sent_bytes <= 100
            assert not answer.done()
            proxy.mend(Slow)
            assert b" 200 OK" in await answer
        assert passage.sent_bytes > 10_000


async def test_an_exit_drifts_once_and_stays_there_or_goes_on_drifting() -> None:
    async with stage() as (proxy, whoami):
        first = (await asked(proxy, ANNA, whoami))["ip"]
        proxy.fault(Drifts(), of=ANNA, times=1)
        second, third = [(await asked(proxy, ANNA, whoami))["ip"] for _ in range(2)]
        assert first != second == third == proxy.exit_of(ANNA)
        proxy.fault(Drifts())
        further = {(await asked(proxy, ANNA, whoami))["ip"] for _ in range(3)}
        assert len(further | {first, second}) == 5
        assert direct(whoami.peers, proxy) == []


async def test_two_identities_share_an_exit_when_that_is_ordered() -> None:
    async with stage() as (proxy, whoami):
        proxy.fault(Drifts(onto=BIA), of=ANNA, times=1)
        assert (await asked(proxy, ANNA, whoami))["ip"] == (await asked(proxy, BIA, whoami))["ip"]
        assert proxy.identity_at(whoami.peers[0][0]) == BIA
        assert proxy.seen[0].identity == ANNA


async def test_the_country_is_what_the_provider_claims() -> None:
    async with stage() as (proxy, whoami):
        proxy.fault(Claims("US"), of=ANNA, times=1)
        proxy.countries[BIA] = "MZ"
        got = [(await asked(proxy, user, whoami))["country"] for user in (ANNA, ANNA, BIA)]
        assert got == ["US", "BR", "MZ"]
        assert [passage.country for passage in proxy.seen] == got
        question = ("GET / HTTP/1.1", "Host: x", "Connection: close")
        async with tunnel(proxy, whoami.port, ANNA) as annas, tunnel(proxy, whoami.port, BIA) as bias:
            for inside, country in ((bias, b"MZ"), (annas, b"BR")):
                await inside.say(*question)
                assert country in await inside.reader.read()


async def test_idle_tunnels_are_cut_also_those_that_are_open() -> None:
    async with stage() as (proxy, whoami):
        async with tunnel(proxy, whoami.port) as before:
            proxy.fault(CutsIdle(0.05))
            assert await before.reader.read() == b""
            async with tunnel(proxy, whoami.port) as after:
                assert await after.reader.read() == b""
            proxy.mend(CutsIdle)
            async with tunnel(proxy, whoami.port) as mended:
                assert b" 200 OK" in await mended.say("GET / HTTP/1.1", "Host: x")
        endings = [passage.ending for passage in await ended(proxy, 3)]
        assert endings == [Ending.IDLE, Ending.IDLE, Ending.CLIENT]


# The proxy's own bounds


async def test_there_are_as_many_connections_as_was_said() -> None:
    async with ExitProxy(password=PASSWORD, connections=2) as proxy, Whoami(proxy.country_of) as whoami:
        async with tunnel(proxy, whoami.port), tunnel(proxy, whoami.port), connection(proxy) as third:
            with pytest.raises(ConnectionResetError):
                await third.say("GET http://127.0.0.1/ HTTP/1.1")
        assert proxy.turned_away == 1
        await ended(proxy, 2)
        await wait_for(lambda: not proxy.connected)
        await asked(proxy, ANNA, whoami)


async def test_it_leaves_nothing_behind_whatever_it_is_doing() -> None:
    others = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        async with stage() as (proxy, whoami):
            await stack.enter_async_context(tunnel(proxy, whoami.port))
            hung = await stack.enter_async_context(connection(proxy))
            await stack.enter_async_context(connection(proxy))
            proxy.fault(Hangs(), times=1)
            hung.writer.write(
                f"CONNECT 127.0.0.1:1 HTTP/1.1\r\nProxy-Authorization: {authorization()}\r\n\r\n".encode()
            )
            await wait_for(lambda: len(proxy.seen) == 2)
            await proxy.down()
        assert asyncio.all_tasks() == others
        assert [passage.ending for passage in proxy.seen] == [Ending.STOPPED, Ending.HUNG]
        assert all(passage.ended_at for passage in proxy.seen)


async def test_a_mistake_in_the_proxy_is_raised_at_its_end() -> None:
    def identify(username: str, password: str) -> Identity | None:
        raise LookupError(username)

    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 (it is raised on leaving)
        async with ExitProxy(identify) as proxy:
            async with client(proxy, ANNA, "http://127.0.0.1:1") as http:
                with pytest.raises(httpx.TransportError):
                    await http.get("/")
            await ended(proxy)
    assert caught.group_contains(LookupError)
