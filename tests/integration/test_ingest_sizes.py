"""Bodies by their size and framing: declared, chunked, lying, endless."""

import asyncio

import pytest

from ingesting import (
    ANN,
    BODY_LIMIT,
    Connection,
    connected,
    event,
    path_of,
    refused,
    request,
    secret_of,
    site,
    to,
)
from wsm.wire.signature import sign

BODY = event(ANN.session)
SIGNED = ("x-webhook-hmac", sign(secret_of(ANN), BODY))


async def pour(connection: Connection, chunk: bytes) -> None:
    for _ in range(2000):
        await connection.send(chunk)


async def test_a_body_up_to_the_limit_is_taken_and_one_byte_more_is_not(redis_url: str) -> None:
    def sized(size: int) -> bytes:
        empty = event(ANN.session, x="")
        return event(ANN.session, x="x" * (size - len(empty)))

    async with site(redis_url) as ingest:
        assert (await ingest.say(to(ANN, sized(BODY_LIMIT)))).status == 200
        reply = await ingest.say(to(ANN, sized(BODY_LIMIT + 1)))
        assert refused(reply, "too_large", 413)
        assert reply.headers["connection"] == "close"
        assert len(await ingest.entries(ANN)) == 1


async def test_who_reads_only_after_he_wrote_everything_reads_his_413(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for size in (BODY_LIMIT + 1, 2 * BODY_LIMIT):
            # Small pieces: the server has answered long before the last of them.
            async with connected(ingest.port) as client:
                whole = to(ANN, b"x" * size)
                for start in range(0, len(whole), 1000):
                    await client.send(whole[start : start + 1000])
                    await asyncio.sleep(0)
                assert refused(await client.reply(), "too_large", 413)
                assert await client.ended() == b""
        assert await ingest.nothing_written()


async def test_a_declared_giant_is_refused_before_it_comes(redis_url: str) -> None:
    async with site(redis_url) as ingest, connected(ingest.port) as connection:
        head = request(
            path_of(ANN), secret="x", length=200 * 1024 * 1024, headers=[("expect", "100-continue")]
        )
        await connection.send(head)
        reply = await connection.reply()
        assert refused(reply, "too_large", 413)
        assert reply.headers["connection"] == "close"
        assert await connection.ended() == b""


async def test_an_endless_chunked_body_is_cut_after_a_bounded_part(redis_url: str) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    async with site(redis_url) as ingest, connected(ingest.port) as connection:
        await connection.send(
            f"POST {path_of(ANN)} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(2 + BODY_LIMIT // 0x4000):
            await connection.send(chunk)
        assert refused(await connection.reply(), "too_large", 413)
        with pytest.raises(ConnectionError):
            await pour(connection, chunk)
        assert ingest.bodies.held_bytes == 0


async def test_a_chunked_body_is_a_body(redis_url: str) -> None:
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    head = f"POST {path_of(ANN)} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    async with site(redis_url) as ingest:
        assert (
            await ingest.say(f"{head}x-webhook-hmac: {SIGNED[1]}\r\n\r\n".encode() + pieces)
        ).status == 200
        assert [entry[b"body"] for entry in await ingest.entries(ANN)] == [BODY]


async def test_a_content_length_that_is_none_is_answered_4xx(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for length in ("-1", "abc", "1e3", "9" * 40, "5, 6", "+5", "0x10"):
            head = f"POST {path_of(ANN)} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{{}}"
            assert 400 <= (await ingest.say(head.encode())).status < 500, length
        assert await ingest.nothing_written()


async def test_two_framings_at_once_are_refused(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        smuggled = request(path_of(ANN), BODY, headers=[SIGNED, ("transfer-encoding", "chunked")])
        assert (await ingest.say(smuggled)).status == 400
        doubled = request(path_of(ANN), BODY, headers=[SIGNED, ("content-length", "5")])
        assert (await ingest.say(doubled)).status == 400
        assert await ingest.nothing_written()
