"""Connections whose service answers when it is told to, on both kinds of loop. Raw sockets, no Redis."""

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
import structlog
import uvloop

from ingesting import Connection, connected
from waiting import wait_for
from wsm.core.errors import NotFound, Unavailable, WsmError
from wsm.ingest.exchange import Answer, BodyBudget, Bounds, Crowd, Request
from wsm.ingest.ops import Ops
from wsm.ingest.server import listen, serve
from wsm.telemetry import Page

UPGRADE = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
EXPECTS = "expect: 100-continue\r\n"
KEPT = "connection: keep-alive\r\n"


class Told:
    """A service: what it saw, and what it was not yet told to answer."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.held: list[Request] = []
        self.crowd = Crowd(self, Bounds(), BodyBudget(0))

    def begins(self, request: Request) -> None:
        self.crowd = request._connection.crowd
        if request.path == b"/no":
            raise NotFound("path")

    def ends(self, request: Request) -> None:
        self.seen.append(request.body or b"")
        if request.path.endswith(b"/hold"):
            self.held.append(request)
            return
        if request.path == b"/boom":
            raise RuntimeError("as told")
        if request.path == b"/odd":
            raise Unavailable("odd")
        request.answer(Answer(200, request.body or b""))

    def refuse(self, _request: Request, exc: WsmError) -> Answer:
        if str(exc) == "odd":
            raise RuntimeError("as told")
        return Answer(404 if isinstance(exc, NotFound) else 503, str(exc).encode())

    def tell(self, body: bytes = b"held") -> None:
        """Answer all that wait."""
        while self.held:
            self.held.pop().answer(Answer(200, body))


class House(msgspec.Struct):
    """A server with such a service."""

    port: int
    service: Told
    bodies: BodyBudget
    stop: asyncio.Event
    serving: "asyncio.Task[None]"

    @property
    def crowd(self) -> Crowd:
        return self.service.crowd

    async def holds(self, number: int = 1) -> None:
        """Wait until so many requests wait for what they are told."""
        await wait_for(lambda: len(self.service.held) == number)

    def turns_away(self) -> bool:
        """Whether it is dropping a body."""
        reading = [each._reading for each in self.crowd.connections]
        return any(request is not None and request.is_turned_away for request in reading)

    def is_empty(self) -> bool:
        """Whether nobody is there and nothing is counted."""
        return not (self.bodies.held_bytes or self.crowd.in_flight or self.crowd.connections)

    async def a_silent_one_was_cut(self) -> None:
        """Wait for as long as the deadline of a header takes."""
        async with connected(self.port) as silent:
            assert await silent.ended() == b""


@asynccontextmanager
async def house(**bounds: float) -> AsyncIterator[House]:
    service, stop, bodies = Told(), asyncio.Event(), BodyBudget(1 << 20)
    sock = listen("127.0.0.1", 0)
    its = msgspec.structs.replace(Bounds(body_bytes=1000, linger_seconds=0.5), **bounds)
    task = asyncio.create_task(serve(service, sock, stop=stop, bounds=its, bodies=bodies, drain_seconds=0.5))
    try:
        yield House(sock.getsockname()[1], service, bodies, stop, task)
    finally:
        stop.set()
        await task
        service.tell()
        assert bodies.held_bytes == 0
        assert service.crowd.in_flight == 0


def on_both_loops(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on asyncio's loop, and on the one that production has."""

    @pytest.mark.parametrize(
        "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    def run(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(asyncio.wait_for(test(), 60))

    run.__doc__ = test.__doc__
    return run


def asked(
    path: str, body: bytes = b"", more: str = "", *, version: str = "1.1", method: str = "POST"
) -> bytes:
    """Write a request."""
    return (
        f"{method} {path} HTTP/{version}\r\nhost: x\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode()
        + body
    )


def half(path: str, more: str = "") -> bytes:
    """Write a request without the second half of its body."""
    return asked(path, b"123456", more)[:-3]


@on_both_loops
async def test_who_offers_another_protocol_is_answered_in_this_one() -> None:
    """As Java's client does with its first request."""
    chunked = f"POST /a HTTP/1.1\r\nhost: x\r\n{UPGRADE}transfer-encoding: chunked\r\n\r\n".encode()
    offers = (asked("/a", b"body", UPGRADE), chunked + b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n")
    async with house() as here:
        for offer in offers:
            for cut in (len(offer), len(offer) - 1, offer.index(b"\r\n\r\n") + 4):
                async with connected(here.port) as client:
                    await client.send(offer[:cut])
                    await asyncio.sleep(0.01)
                    await client.send(offer[cut:] + asked("/behind"))
                    reply = await client.reply()
                    assert (reply.status, reply.body) == (200, b"body")
                    assert reply.headers["connection"] == "close"
                    assert await client.ended() == b""
        assert set(here.service.seen) == {b"body"}


@on_both_loops
async def test_an_offer_is_held_to_the_bounds_of_all() -> None:
    async with house() as here:
        for offer, status in (
            (asked("/a", b"x" * 1001, UPGRADE), 503),  # this service has one answer for all of them
            (asked("/no", b"x" * 900, UPGRADE), 404),
            (asked("/a", b"", UPGRADE), 200),
            (asked("/a", b"", method="CONNECT"), 200),
            (asked("/a", b"", UPGRADE).replace(b"content-length: 0", b"content-length: x"), 400),
        ):
            async with connected(here.port) as client:
                await client.send(offer)
                reply = await client.reply()
                assert (reply.status, reply.headers["connection"]) == (status, "close")
                assert await client.ended() == b""
        async with connected(here.port) as gone:
            await gone.send(half("/a", UPGRADE))
            await wait_for(lambda: here.bodies.held_bytes == 3)
        await wait_for(here.is_empty)


@on_both_loops
async def test_who_waits_to_be_asked_for_his_body_is_asked_in_his_turn() -> None:
    async with house() as here, connected(here.port) as client:
        await client.send(asked("/hold") + asked("/a", b"body", EXPECTS)[:-4])
        await here.holds()
        here.service.tell()
        assert (await client.reply()).body == b"held"
        assert (await client.reply()).status == 100
        await client.send(b"body")
        assert (await client.reply()).body == b"body"


@on_both_loops
async def test_an_old_client_is_never_told_to_go_on() -> None:
    async with house() as here, connected(here.port) as client:
        await client.send(asked("/a", b"body", EXPECTS, version="1.0"))
        assert (await client.reply()).status == 200
        assert await client.ended() == b""


@on_both_loops
async def test_nothing_is_taken_behind_the_last_request_of_a_connection() -> None:
    """A connection of HTTP/1.0 ends with its first answer, whatever the client asks for."""
    async with house() as here, connected(here.port) as client:
        await client.send(asked("/hold", b"1", KEPT, version="1.0") + asked("/a", b"2", KEPT, version="1.0"))
        await here.holds()
        here.service.tell()
        assert (await client.reply()).headers["connection"] == "close"
        assert await client.ended() == b""
        assert here.service.seen == [b"1"]


@on_both_loops
async def test_half_a_request_behind_one_that_waits_does_not_take_its_answer() -> None:
    async with house(header_seconds=0.2, body_seconds=0.2) as here:
        for tail in (b"POST /a", half("/a"), b"\0\0"):
            async with connected(here.port) as client:
                client.writer.write(asked("/hold") + tail)
                client.writer.write_eof()
                await here.holds()
                await here.a_silent_one_was_cut()
                here.service.tell()
                reply = await client.reply()
                assert (reply.status, reply.headers["connection"]) == (200, "close")
                assert await client.ended() == b""


@on_both_loops
async def test_a_last_answer_may_be_read_slowly() -> None:
    async with house(header_seconds=0.2) as here, deaf(here) as sock:
        await here.holds()
        here.service.tell(b"x" * 20_000_000)
        await here.a_silent_one_was_cut()
        said = 0
        while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
            said += len(data)
        assert said > 20_000_000


@on_both_loops
async def test_a_last_answer_is_not_kept_for_ever_for_who_does_not_read_it() -> None:
    async with house(header_seconds=0.2, body_seconds=0.2) as here, deaf(here):
        await here.holds()
        here.service.tell(b"x" * 20_000_000)
        await wait_for(here.is_empty)


@asynccontextmanager
async def deaf(here: House) -> AsyncIterator[socket.socket]:
    """Ask for a last answer, and read nothing of it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", here.port))
        await loop.sock_sendall(sock, asked("/hold", b"", "connection: Close\r\n"))
        yield sock


@on_both_loops
async def test_who_is_turned_away_does_not_keep_others_out() -> None:
    async with house(requests=1) as here, connected(here.port) as inside, connected(here.port) as late:
        await inside.send(asked("/webhooks/hold"))
        await here.holds()
        await late.send(half("/webhooks/a"))
        await wait_for(here.turns_away)
        here.service.tell()
        assert (await inside.reply()).status == 200
        await inside.send(asked("/webhooks/a", b"good"))
        assert (await inside.reply()).status == 200
        await late.send(b"456")
        reply = await late.reply()
        assert (reply.status, reply.body) == (503, b"requests_in_flight")
        assert here.service.seen == [b"", b"good"]


@on_both_loops
async def test_who_does_not_end_his_body_keeps_nobody_out() -> None:
    """And who ends it when it is full is one too many then."""
    async with house(requests=1) as here, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected(here.port)) for _ in range(3)]
        for client in slow:
            await client.send(half("/webhooks/a"))
        await wait_for(lambda: here.bodies.held_bytes == 9)
        async with connected(here.port) as good:
            await good.send(asked("/webhooks/hold", b"good"))
            await here.holds()
            for client in slow:
                await client.send(b"456" + asked("/other"))
                reply = await client.reply()
                assert (reply.status, reply.body) == (503, b"requests_in_flight")
                assert (await client.reply()).status == 200
            here.service.tell()
            assert (await good.reply()).status == 200
        assert here.service.seen == [b"good", b"", b"", b""]


@on_both_loops
async def test_one_too_many_who_waits_to_be_asked_for_his_body_is_not_asked() -> None:
    async with house(requests=1) as here, connected(here.port) as inside, connected(here.port) as late:
        await inside.send(asked("/webhooks/hold"))
        await here.holds()
        await late.send(half("/webhooks/a", EXPECTS)[:-3])
        reply = await late.reply()
        assert (reply.status, reply.body) == (503, b"requests_in_flight")
        assert reply.headers["connection"] == "close"
        assert await late.ended() == b""


@on_both_loops
async def test_what_a_service_raises_is_answered_500_and_said_once() -> None:
    async with house() as here, connected(here.port) as client:
        for path in ("/boom", "/odd"):
            with structlog.testing.capture_logs() as lines:
                await client.send(asked(path) + asked("/a", b"next"))
                assert [(await client.reply()).status for _ in range(2)] == [500, 200]
            assert [line["event"] for line in lines] == ["request_failed"]


@on_both_loops
async def test_a_page_that_fails_is_answered_500_and_said_once() -> None:
    async def pages(_path: str) -> Page:
        raise RuntimeError("as told")

    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))
    stop, sock = asyncio.Event(), listen("127.0.0.1", 0)
    serving = asyncio.create_task(
        serve(Ops(pages), sock, stop=stop, bounds=Bounds(), bodies=BodyBudget(0), drain_seconds=1)
    )
    with structlog.testing.capture_logs() as lines:
        async with connected(sock.getsockname()[1]) as client:
            await client.send(asked("/healthz", method="GET"))
            assert (await client.reply()).status == 500
    stop.set()
    await serving
    gc.collect()
    assert [line["event"] for line in lines] == ["page_failed"]
    assert said == []


STATES = {
    "silent": b"",
    "head": b"POST /a",
    "body": half("/a"),
    "waiting": asked("/hold", b"123"),
    "ahead": asked("/hold", b"123") * 3 + half("/a"),
    "lingering": half("/no"),
    "lingering behind": asked("/hold") + half("/no"),
    "malformed behind": asked("/hold", b"123") + b"\0\0",
    "offering": half("/a", UPGRADE),
    "expecting": asked("/hold") + half("/a", EXPECTS),
}


@on_both_loops
async def test_who_leaves_leaves_nothing_behind() -> None:
    async with house() as here:
        for name, said in STATES.items():
            for leave in (abort, close, half_close):
                holds = said.count(b"/hold")
                async with connected(here.port) as client:
                    await client.send(said)
                    await here.holds(holds)
                    if not holds:
                        await asyncio.sleep(0.02)
                    leave(client)
                    here.service.tell()
                    await wait_for(here.is_empty)
                    assert here.is_empty(), name


def abort(client: Connection) -> None:
    client.writer.transport.abort()


def close(client: Connection) -> None:
    client.writer.close()


def half_close(client: Connection) -> None:
    with suppress(OSError):
        client.writer.write_eof()


@on_both_loops
async def test_who_is_unanswered_at_the_end_is_told_so_and_the_end_comes() -> None:
    told = {"body": 1, "waiting": 1, "ahead": 4, "malformed behind": 1, "offering": 1, "expecting": 2}
    async with house() as here, asyncio.TaskGroup() as group:
        found = {name: group.create_task(all_said(here.port, said)) for name, said in STATES.items()}
        await here.holds(sum(said.count(b"/hold") for said in STATES.values()))
        await asyncio.sleep(0.05)
        here.stop.set()
        await here.serving
    for name, task in found.items():
        replies = task.result()
        assert replies.count(b"stopping") == told.get(name, 1 if name == "lingering behind" else 0), name
        assert replies.count(b"connection: close") == (name not in ("silent", "head")), name


async def all_said(port: int, said: bytes) -> bytes:
    """Say something, and return all that comes back."""
    async with connected(port) as client:
        await client.send(said)
        return await client.ended()


@on_both_loops
async def test_a_connection_that_ended_is_gone_without_the_collector() -> None:
    async with house() as here, connected(here.port):  # whoever is looked at last is known to the timer
        for said in (asked("/hold"), asked("/hold") + half("/a")):
            async with connected(here.port) as client:
                await client.send(said)
                await here.holds()
                left = weakref.ref(here.service.held[0]._connection)
                gc.disable()
                here.service.tell()
                assert (await client.reply()).status == 200
            try:
                await gone(left)
            finally:
                gc.enable()


async def gone(left: "weakref.ref[Any]") -> None:
    await wait_for(lambda: left() is None)


@on_both_loops
async def test_no_request_is_read_out_of_an_ambiguous_one() -> None:
    chunked = b"5\r\nhello\r\n0\r\n\r\n"
    ambiguous = (
        asked("/a", b"hello", "content-length: 5\r\n"),
        asked("/a", b"hello", "content-length: 2\r\n"),
        asked("/a", chunked, "transfer-encoding: chunked\r\n"),
        asked("/a", b"hello", "transfer-encoding: identity\r\n"),
        asked("/a", b"hello").replace(b"content-length:", b"content-length :"),
        asked("/a", b"hello").replace(b"content-length: ", b"content-length:\r\n "),
        asked("/a", b"hello", "x: a\r\n folded\r\n"),
        asked("/a", b"hello", "x: a\rb: c\r\n"),
        asked("/a", b"hello", "x: \0\r\n"),
        asked("/a\0b", b"hello"),
        asked("/a", b"hello").replace(b"\r\n", b"\n"),
        *(
            f"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: {coding}\r\n\r\n".encode() + body
            for coding, body in (
                ("chunked\r\ntransfer-encoding: chunked", chunked),
                ("chunked, gzip", chunked),
                ("xchunked", chunked),
                ("chunked", chunked.replace(b"\r\n", b"\n")),
                ("chunked", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
                ("chunked", b"0x5\r\nhello\r\n0\r\n\r\n"),
                ("chunked", b"5\r\nhello\r\n0\r\ncontent-length: 9\r\n\r\n"),
            )
        ),
    )
    async with house() as here:
        for said in ambiguous:
            replies = await all_said(here.port, said + asked("/a", b"smuggled"))
            assert replies.count(b"HTTP/1.1 400 ") == replies.count(b"HTTP/1.1 ") == 1, said
        assert here.service.seen == []


@on_both_loops
async def test_a_trailer_named_like_a_header_is_none() -> None:
    head = b"POST /hold HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n"
    trailers = (
        b"x-forwarded-for: 1.2.3.4\r\nexpect: 100-continue\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
    )
    async with house() as here, connected(here.port) as client:
        await client.send(head + trailers + asked("/a", b"next"))
        await here.holds()
        assert here.service.held[0].values(b"x-forwarded-for") == []
        here.service.tell()
        assert [(await client.reply()).body for _ in range(2)] == [b"held", b"next"]


@on_both_loops
async def test_the_letter_of_the_protocol() -> None:
    """HEAD has no body, a target may be a whole URL, and `close` is said in any case."""
    async with house() as here, connected(here.port) as client:
        await client.send(asked("/a", method="HEAD") + asked("http://x:1/a?b", b"1"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert (await client.reply()).body == b"1"
        await client.send(asked("/a", b"2", "Connection: foo, CLOSE\r\n") + asked("/a", b"3"))
        assert (await client.reply()).headers["connection"] == "close"
        assert await client.ended() == b""
        assert here.service.seen == [b"", b"1", b"2"]
