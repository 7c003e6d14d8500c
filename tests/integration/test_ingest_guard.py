"""Clients that are slow, silent, greedy or gone, while a good one is served beside them. Raw sockets."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

import pytest
from prometheus_client import REGISTRY

from ingesting import (
    ANN,
    BODY_LIMIT,
    Connection,
    Site,
    connected,
    event,
    path_of,
    request,
    secret_of,
    site,
    to,
)
from waiting import wait_for
from wsm.ingest.exchange import Bounds
from wsm.wire.signature import sign

BODY = event(ANN.session)
GOOD = to(ANN, BODY)
HASTY = Bounds(header_seconds=0.25, body_seconds=0.25)
HALF_HEAD = f"POST {path_of(ANN)} HTTP/1.1\r\nhost: x\r\n".encode()
CHUNKED = HALF_HEAD + b"transfer-encoding: chunked\r\n\r\n"


def cuts(reason: str) -> float:
    return REGISTRY.get_sample_value("wsm_ingest_connections_cut_total", {"reason": reason}) or 0.0


async def trickle(connection: Connection, byte: bytes) -> None:
    """Send a byte now and then until the server has enough of it."""
    while not connection.reader.at_eof():
        try:
            await connection.send(byte)
            await asyncio.wait_for(connection.reader.read(1), 0.01)
        except TimeoutError:
            continue
        except ConnectionError:
            return


async def good_one_is_served(ingest: Site) -> None:
    assert (await ingest.say(GOOD)).status == 200


async def test_a_silent_connection_is_cut(redis_url: str) -> None:
    before = cuts("silent")
    async with site(redis_url, bounds=HASTY) as ingest, connected(ingest.port) as silent:
        await good_one_is_served(ingest)
        assert await silent.ended() == b""
    assert cuts("silent") == before + 1


@pytest.mark.parametrize(
    ("reason", "begin", "byte"),
    [
        ("header", HALF_HEAD, b"x"),
        ("header", HALF_HEAD + b"x-more: ", b"y"),
        ("header", b"POST /", b"x"),
        ("silent", b"\r\n", b"\r\n"),
        ("body", request(path_of(ANN), b"{", length=1000), b"x"),
        ("body", CHUNKED, b"1\r\nx\r\n"),
        ("body", CHUNKED + b"0\r\n", b"x-trailer: y\r\n"),
        ("body", CHUNKED + b"5;", b"ext"),
    ],
)
async def test_a_trickle_is_cut(redis_url: str, reason: str, begin: bytes, byte: bytes) -> None:
    before = cuts(reason)
    async with site(redis_url, bounds=HASTY) as ingest, connected(ingest.port) as slow:
        await slow.send(begin)
        await good_one_is_served(ingest)
        await trickle(slow, byte)
        await wait_for(lambda: cuts(reason) == before + 1)
        assert ingest.bodies.held_bytes == 0


async def test_many_slow_ones_do_not_keep_a_good_one_waiting(redis_url: str) -> None:
    async with site(redis_url, bounds=Bounds()) as ingest:
        slow = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", ingest.port) for _ in range(300)))
        for number, (_, writer) in enumerate(slow):
            writer.write((b"", HALF_HEAD, request(path_of(ANN), b"{", length=1000))[number % 3])
        await asyncio.wait_for(good_one_is_served(ingest), 5)
        for _, writer in slow:
            writer.transport.abort()


async def test_an_idle_connection_is_kept_and_then_closed(redis_url: str) -> None:
    bounds = Bounds(header_seconds=0.25, body_seconds=0.25, keep_alive_seconds=1)
    async with site(redis_url, bounds=bounds) as ingest, connected(ingest.port) as idle:
        await idle.send(GOOD)
        assert (await idle.reply()).status == 200
        # Idle is not silent: this is far beyond the deadline of a header.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(idle.reader.read(1), 0.5)
        await idle.send(GOOD)
        assert (await idle.reply()).status == 200
        assert await idle.ended() == b""


async def test_empty_lines_do_not_keep_an_answered_connection_for_ever(redis_url: str) -> None:
    async with site(redis_url, bounds=HASTY) as ingest, connected(ingest.port) as odd:
        await odd.send(GOOD)
        assert (await odd.reply()).status == 200
        await odd.send(b"\r\n")
        assert await odd.ended() == b""


async def test_a_body_after_its_answer_does_not_keep_the_connection_for_ever(redis_url: str) -> None:
    async with site(redis_url, bounds=HASTY) as ingest, connected(ingest.port) as odd:
        await odd.send(request("/healthz", b"", length=3))
        assert (await odd.reply()).status == 404
        await odd.send(b"abc")
        assert await odd.ended() == b""


async def test_pipelined_requests_are_answered_in_their_order(redis_url: str) -> None:
    async with site(redis_url) as ingest, connected(ingest.port) as client:
        wrong = to(ANN, BODY, secret="wrong")
        await client.send((GOOD + wrong) * 15)
        assert [(await client.reply()).status for _ in range(30)] == [200, 403] * 15
        assert len(await ingest.entries(ANN)) == 15


async def test_more_pipelined_requests_than_the_bound_are_cut(redis_url: str) -> None:
    async with site(redis_url, bounds=Bounds(pipelined=8)) as ingest, connected(ingest.port) as client:
        before = cuts("pipelined")
        await client.send(GOOD * 50)
        await client.ended()
        assert cuts("pipelined") == before + 1
        await good_one_is_served(ingest)


async def test_what_follows_an_early_answer_is_not_read_as_a_request(redis_url: str) -> None:
    async with site(redis_url) as ingest, connected(ingest.port) as client:
        await client.send(request("/nowhere", b"") + GOOD)
        assert (await client.reply()).status == 404
        assert await client.ended() == b""
        assert await ingest.entries(ANN) == []


async def test_garbage_is_answered_400_and_counted(redis_url: str) -> None:
    before = cuts("malformed")
    garbage = (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\x00" * 100, GOOD.replace(b" HTTP/1.1", b" HTTP/9"))
    async with site(redis_url) as ingest:
        for nonsense in garbage:
            async with connected(ingest.port) as client:
                await client.send(nonsense)
                assert (await client.ended()).startswith(b"HTTP/1.1 400 ")
        await good_one_is_served(ingest)
    assert cuts("malformed") == before + len(garbage)


async def test_garbage_behind_a_request_does_not_take_its_answer(redis_url: str) -> None:
    async with site(redis_url) as ingest, connected(ingest.port) as client:
        await client.send(GOOD + b"\x00\x00 nonsense\r\n\r\n")
        assert (await client.reply()).status == 200
        assert await client.ended() == b""
        assert len(await ingest.entries(ANN)) == 1


async def test_broken_chunks_are_never_taken_for_a_body(redis_url: str) -> None:
    signed = HALF_HEAD + f"x-webhook-hmac: {sign(secret_of(ANN), BODY)}\r\n".encode()
    whole = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    async with site(redis_url) as ingest, connected(ingest.port) as client:
        await client.send(signed + b"transfer-encoding: chunked\r\n\r\n" + whole + b"zz\r\n")
        assert (await client.ended()).startswith(b"HTTP/1.1 400 ")
        assert await ingest.entries(ANN) == []


@pytest.mark.parametrize("more", [b"x-more: y\r\n", b"x" * 1000])
async def test_endless_headers_are_cut_by_their_bytes(redis_url: str, more: bytes) -> None:
    before = cuts("header_bytes")
    async with site(redis_url, bounds=Bounds(header_bytes=4096)) as ingest, connected(ingest.port) as greedy:
        await greedy.send(HALF_HEAD)
        await pour(greedy, more, lambda: cuts("header_bytes") > before)
        assert cuts("header_bytes") == before + 1
        await good_one_is_served(ingest)


@pytest.mark.parametrize("more", [b"x-trailer: y\r\n" * 20, b"x" * 1000])
async def test_endless_trailers_are_cut_by_their_bytes(redis_url: str, more: bytes) -> None:
    before = cuts("request_bytes")
    async with (
        site(redis_url, bounds=Bounds(request_bytes=50_000)) as ingest,
        connected(ingest.port) as greedy,
    ):
        await greedy.send(CHUNKED + b"1\r\nx\r\n0\r\n")
        await pour(greedy, more, lambda: cuts("request_bytes") > before)
        assert cuts("request_bytes") == before + 1
        await good_one_is_served(ingest)


async def pour(connection: Connection, data: bytes, until: Callable[[], bool]) -> None:
    """Send as fast as it is taken."""
    while not until():
        try:
            await connection.send(data)
        except ConnectionError:
            return
        await asyncio.sleep(0)


async def test_a_client_that_half_closes_gets_its_answer(redis_url: str) -> None:
    async with site(redis_url) as ingest, connected(ingest.port) as client:
        client.writer.write(GOOD * 2)
        client.writer.write_eof()
        assert [(await client.reply()).status for _ in range(2)] == [200, 200]
        assert await client.ended() == b""


async def test_a_client_that_half_closes_in_its_body_gets_none(redis_url: str) -> None:
    async with site(redis_url) as ingest, connected(ingest.port) as client:
        client.writer.write(GOOD[:-1])
        client.writer.write_eof()
        assert await client.ended() == b""
        await wait_for(lambda: ingest.bodies.held_bytes == 0)
        assert await ingest.nothing_written()


async def test_a_client_that_is_gone_harms_nobody(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        await ingest.redis.client_pause(500, all=False)
        for _ in range(10):
            async with connected(ingest.port) as gone:
                await gone.send(GOOD)
                gone.writer.transport.abort()
        await wait_for(lambda: ingest.bodies.held_bytes == 0)
        await good_one_is_served(ingest)
        assert len(await ingest.entries(ANN)) <= 11


async def test_who_does_not_read_the_answers_is_cut(redis_url: str) -> None:
    before = cuts("unread")
    bounds = Bounds(header_seconds=0.5, body_seconds=0.5, pipelined=1_000_000, connections=1)
    async with site(redis_url, bounds=bounds) as ingest, connected(ingest.port) as deaf:
        deaf.writer.transport.set_write_buffer_limits(0)
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
        sending = asyncio.create_task(
            pour(deaf, request("/metrics", method="GET") * 8, lambda: cuts("unread") > before)
        )
        await wait_for(lambda: cuts("unread") > before)
        # What was not read is dropped: the only place is free again, though the deaf one is still there.
        await answered(ingest, times=1)
        deaf.writer.transport.abort()
        await sending


async def answered(ingest: Site, *, times: int) -> None:
    """Send until so many webhooks were taken."""
    async with asyncio.timeout(15):
        while times:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                times -= (await ingest.say(GOOD)).status == 200


async def test_bodies_in_flight_are_bounded_over_all_connections(redis_url: str) -> None:
    big = event(ANN.session, x="x" * (BODY_LIMIT // 2))
    async with site(redis_url, bodies_bytes=3 * len(big)) as ingest, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected(ingest.port)) for _ in range(3)]
        for client in slow:
            await client.send(to(ANN, big)[:-1])
        await wait_for(lambda: ingest.bodies.held_bytes == 3 * (len(big) - 1))
        async with connected(ingest.port) as another:
            await another.send(to(ANN, big))
            reply = await another.reply()
            assert (reply.status, reply.json["reason"]) == (503, "bodies_in_flight")
            assert (reply.headers["retry-after"], reply.headers["connection"]) == ("20", "close")
            assert await another.ended() == b""
        for client in slow:
            await client.send(b"}")
            assert (await client.reply()).status == 200
        assert ingest.bodies.held_bytes == 0
        assert (await ingest.say(to(ANN, big))).status == 200


async def test_connections_are_bounded(redis_url: str) -> None:
    async with (
        site(redis_url, bounds=Bounds(connections=2)) as ingest,
        connected(ingest.port) as first,
        connected(ingest.port) as second,
    ):
        for client in (first, second):
            await client.send(GOOD)
            assert (await client.reply()).status == 200
        async with connected(ingest.port) as third:
            assert (await third.reply()).status == 503
            assert await third.ended() == b""
        await first.send(GOOD)
        assert (await first.reply()).status == 200


async def test_a_place_that_became_free_is_given_again(redis_url: str) -> None:
    async with site(redis_url, bounds=Bounds(connections=1)) as ingest:
        await answered(ingest, times=3)


async def test_an_old_client_is_answered_and_closed(redis_url: str) -> None:
    async with site(redis_url) as ingest, connected(ingest.port) as client:
        await client.send(GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await client.reply()).status == 200
        assert await client.ended() == b""


async def test_an_expected_100_is_said_before_the_body(redis_url: str) -> None:
    headers = [("expect", "100-continue"), ("x-webhook-hmac", sign(secret_of(ANN), BODY))]
    async with site(redis_url) as ingest, connected(ingest.port) as client:
        await client.send(request(path_of(ANN), headers=headers, length=len(BODY)))
        assert (await client.reply()).status == 100
        await client.send(BODY)
        assert (await client.reply()).status == 200
