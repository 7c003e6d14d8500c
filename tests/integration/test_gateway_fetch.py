"""Files fetched from URLs that strangers chose: through a real exit with a password, from nobody near us.

The exit stands for the internet: it takes a public address to a server of this machine.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from behind_exits import PASSWORD, needs_exits
from certificates import Certificate
from scripted_gateway import Asked, Gateway, Reply, breaks_tls, hangs, says
from wsm.core.errors import (
    BadInput,
    ExitFailed,
    NotFound,
    Refused,
    SourceUnavailable,
    TooLarge,
    WsmError,
)
from wsm.core.exits import Exit
from wsm.gateway.client import tls_context
from wsm.gateway.fetch import Fetched, Fetching
from wsm.sandbox.exits import Answers502, Dead, ExitProxy, Fault, Hangs, Refuses

pytestmark = needs_exits

PUBLIC, OTHER = "93.184.216.34", "93.184.216.35"
ANN = "acme-country-br-session-ann0000000000000"
JPEG = b"\xff\xd8\xff" + bytes(100)
TLS = tls_context()


class Names:
    """A name server that says what it was told to, in turn, and then the last again."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Internet(msgspec.Struct):
    """A host of files, the exit that leads to it, and a name server that names it."""

    host: Gateway
    port: int
    proxy: ExitProxy
    way: Exit
    names: Names
    tls: ssl.SSLContext

    async def fetch(
        self, path: str = "/a.jpg", *, url: str = "", direct: bool = False, **more: object
    ) -> Fetched:
        limits = {"limit_bytes": 1_000, "seconds": 5.0, "resolve": self.names, **more}
        where = url or f"http://files.example:{self.port}{path}"
        way = None if direct else self.way
        return await Fetching(**limits).fetch(where, way=way, tls=self.tls)  # type: ignore[arg-type]


@asynccontextmanager
async def internet(
    *names: Sequence[str], reply: Reply | None = None, certificate: Certificate | None = None
) -> AsyncIterator[Internet]:
    host = Gateway()
    host.reply = reply or says(200, JPEG, "Content-Type: image/jpeg; charset=x")
    shown = certificate.shown() if certificate else None
    listener = await asyncio.start_server(host.serve, "127.0.0.1", 0, ssl=shown)
    port: int = listener.sockets[0].getsockname()[1]
    async with ExitProxy(password=PASSWORD, hosts={PUBLIC: "127.0.0.1", OTHER: "127.0.0.1"}) as proxy:
        way = Exit(host="127.0.0.1", port=proxy.port, username=ANN, password=PASSWORD)
        tls = certificate.trusted() if certificate else TLS
        try:
            yield Internet(host, port, proxy, way, Names(*(names or ([PUBLIC],))), tls)
        finally:
            await host.stop()
            listener.close()
            await listener.wait_closed()


async def test_a_file_comes_through_the_exit_from_the_address_that_was_judged() -> None:
    async with internet() as at:
        assert await at.fetch("/fotos/a%20b.jpg?x=1") == Fetched(JPEG, "image/jpeg", "a b.jpg")
        [passage] = at.proxy.seen
        assert (passage.host, passage.port, passage.is_tunnel, passage.identity) == (
            PUBLIC,
            at.port,
            True,
            ANN,
        )
        [asked] = at.host.asked
        assert (asked.method, asked.path) == ("GET", "/fotos/a%20b.jpg?x=1")
        assert asked.headers["host"] == f"files.example:{at.port}"
        assert asked.headers["accept-encoding"] == "identity"
        assert PASSWORD not in str(asked.headers)
        assert "proxy-authorization" not in asked.headers


async def test_tls_proves_the_name_and_not_the_address(certificate: Certificate) -> None:
    async with internet(certificate=certificate) as at:
        found = await at.fetch(url=f"https://files.example:{at.port}/a.jpg")
        assert found.content == JPEG
        with pytest.raises(SourceUnavailable, match="ConnectError"):
            await at.fetch(url=f"https://other.example:{at.port}/a.jpg")
        assert [passage.host for passage in at.proxy.seen] == [PUBLIC, PUBLIC]
        assert len(at.host.asked) == 1


async def test_a_name_that_means_another_address_later_changes_nothing() -> None:
    async with internet([PUBLIC], ["127.0.0.1"]) as at:
        assert (await at.fetch()).content == JPEG
        assert at.names.asked == ["files.example"]
        assert [passage.host for passage in at.proxy.seen] == [PUBLIC]
        with pytest.raises(BadInput, match="no public address"):
            await at.fetch()
        assert len(at.proxy.seen) == 1


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        ["192.168.0.1", PUBLIC],
        ["::1"],
        ["::ffff:93.184.216.34"],
        ["64:ff9b::5db8:d822"],
        ["fe80::1%lo"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        [],
        ["no address"],
    ],
)
@pytest.mark.parametrize("direct", [True, False])
async def test_a_name_that_leads_near_us_is_refused_before_anything_is_connected_to(
    addresses: list[str], direct: bool
) -> None:
    async with internet(addresses) as at:
        with pytest.raises(BadInput, match="address"):
            await at.fetch(direct=direct)
        assert list(at.proxy.seen) == []
        assert at.host.connections == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://2130706433:{port}/", "file:///a"]
)
async def test_the_machine_itself_is_refused_with_the_machines_own_resolver(url: str) -> None:
    async with internet() as at:
        with pytest.raises(BadInput):
            await Fetching(limit_bytes=1_000).fetch(url.format(port=at.port), way=None, tls=TLS)
        assert at.host.connections == 0


def leads(*locations: str) -> Reply:
    """Redirect to these in turn, then answer with the file."""
    left = list(locations)

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        answer = says(302, b"", f"Location: {left.pop(0)}") if left else says(200, JPEG)
        await answer(asked, writer)

    return reply


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/a",
        "http://10.0.0.1/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://0x7f.1:{port}/",
        "http://near.example:{port}/",
        "http://user:secret@files.example:{port}/",
        "gopher://files.example/",
        "http://files.example:25/",
        "http://[",
    ],
)
async def test_a_redirection_to_somebody_near_us_is_refused(location: str) -> None:
    async with internet([PUBLIC], ["10.0.0.7"]) as at:
        at.host.reply = leads(location.format(port=at.port))
        with pytest.raises(BadInput):
            await at.fetch()
        assert [passage.host for passage in at.proxy.seen] == [PUBLIC]


async def test_three_redirections_are_followed_each_judged_and_no_fourth() -> None:
    async with internet([PUBLIC], [OTHER]) as at:
        at.host.reply = leads("/b", "c.jpg", f"http://cdn.example:{at.port}/d.jpg")
        assert (await at.fetch()).filename == "d.jpg"
        assert [asked.path for asked in at.host.asked] == ["/a.jpg", "/b", "/c.jpg", "/d.jpg"]
        assert at.names.asked == ["files.example", "files.example", "files.example", "cdn.example"]
        assert [passage.host for passage in at.proxy.seen] == [PUBLIC, OTHER, OTHER, OTHER]
        at.host.reply = leads("/1", "/2", "/3", "/4")
        with pytest.raises(Refused, match="redirections"):
            await at.fetch()


async def endless(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Answer in chunks, and never end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"64\r\n" + bytes(100) + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("reply", [says(200, bytes(1_001)), endless], ids=["said", "unsaid"])
async def test_what_is_too_long_is_cut_off(reply: Reply) -> None:
    async with internet(reply=reply) as at:
        with pytest.raises(TooLarge):
            await at.fetch()


async def drips(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then: no read ever takes too long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("reply", [hangs, drips])
async def test_who_is_too_slow_is_left(reply: Reply) -> None:
    async with internet(reply=reply) as at:
        with pytest.raises(SourceUnavailable):
            await at.fetch(seconds=0.3, limit_bytes=10**6)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (says(404, b""), NotFound),
        (says(410, b""), NotFound),
        (says(403, b"secret"), Refused),
        (says(206, JPEG), Refused),
        (says(304, b""), Refused),
        (says(302, b""), Refused),
        (says(200, JPEG, "Content-Encoding: gzip"), Refused),
        (says(429, b""), SourceUnavailable),
        (says(503, b""), SourceUnavailable),
    ],
)
async def test_an_answer_without_a_file_says_whether_it_helps_to_ask_again(
    reply: Reply, error: type[WsmError]
) -> None:
    async with internet(reply=reply) as at:
        with pytest.raises(error) as caught:
            await at.fetch()
        assert "example" not in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Dead(), ExitFailed),
        (Refuses(), ExitFailed),
        (Hangs(), ExitFailed),
        (Answers502(), SourceUnavailable),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Fault) else "",
)
async def test_an_exit_that_fails_fetches_nothing_and_nothing_goes_around_it(
    fault: Fault, error: type[WsmError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsm.gateway.fetch.CONNECT_SECONDS", 0.5)
    async with internet() as at:
        at.proxy.fault(fault)
        with pytest.raises(error) as caught:
            await at.fetch()
        assert PASSWORD not in f"{caught.value!r}"
        await at.proxy.down()
        with pytest.raises(ExitFailed):
            await at.fetch()
        assert at.host.connections == 0
        await at.proxy.up()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0 200 x\r\n\r\n",
        b"HTTP/1.1 " + b"2" * 5_000 + b" x\r\n\r\n",
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        bytes(9_000),
        b"HTTP/1.1 200 OK\r\n",
    ],
    ids=lambda answer: repr(answer[:12]),
)
async def test_an_exit_that_makes_no_sense_has_failed(answer: bytes) -> None:
    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    names = Names([PUBLIC])
    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        way = Exit(host="127.0.0.1", port=port, username=ANN, password=PASSWORD)
        with pytest.raises(ExitFailed, match="no answer that makes sense"):
            await Fetching(limit_bytes=9, resolve=names).fetch("http://files.example/", way=way, tls=TLS)


async def test_what_breaks_tls_was_not_fetched(certificate: Certificate) -> None:
    async with internet(certificate=certificate, reply=breaks_tls) as at:
        with pytest.raises(SourceUnavailable, match="SSLError"):
            await at.fetch(url=f"https://files.example:{at.port}/a.jpg")


async def test_a_direct_session_connects_to_the_address_that_was_judged() -> None:
    async with internet(["127.0.0.1"], ["203.0.113.1"]) as at:
        found = await at.fetch(direct=True, may_reach=lambda address: str(address) == "127.0.0.1")
        assert found.content == JPEG
        assert at.names.asked == ["files.example"]
        assert list(at.proxy.seen) == []


async def test_a_list_of_hosts_is_all_that_is_asked_redirections_included() -> None:
    async with internet(reply=leads("http://other.example/")) as at:
        with pytest.raises(BadInput, match="media_hosts"):
            await at.fetch(hosts=("cdn.example",))
        assert at.names.asked == []
        with pytest.raises(BadInput, match="media_hosts"):
            await at.fetch(hosts=("*.example", "example"), url=f"http://files.test:{at.port}/")
        with pytest.raises(BadInput, match="media_hosts"):
            await at.fetch(hosts=("files.example",))
        assert at.names.asked == ["files.example"]
