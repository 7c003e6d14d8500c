"""More webhooks than may be answered at once: one too many comes again, and keeps its connection."""

import asyncio
from contextlib import AsyncExitStack

from prometheus_client import REGISTRY

from ingesting import ANN, connected, event, request, site, to
from waiting import wait_for
from wsm.ingest.exchange import Bounds

GOOD = to(ANN, event(ANN.session))


def turned_away() -> float:
    labels = {"reason": "requests_in_flight"}
    return REGISTRY.get_sample_value("wsm_ingest_refused_total", labels) or 0


async def test_one_too_many_comes_again_on_the_same_connection(redis_url: str) -> None:
    bounds = Bounds(requests=3)
    async with site(redis_url, bounds=bounds) as ingest, AsyncExitStack() as stack:
        *inside, late = [await stack.enter_async_context(connected(ingest.port)) for _ in range(4)]
        await ingest.redis.client_pause(1000, all=False)
        for client in inside:
            await client.send(GOOD)
        await wait_for(lambda: ingest.bodies.held_bytes >= 3 * len(event(ANN.session)))
        before = turned_away()
        for cut in (len(GOOD), len(GOOD) - 1, GOOD.index(b"\r\n\r\n") + 4):
            await late.send(GOOD[:cut])
            await asyncio.sleep(0)
            await late.send(GOOD[cut:])
            reply = await late.reply()
            assert (reply.status, reply.json["reason"]) == (503, "requests_in_flight")
            assert (reply.headers["retry-after"], reply.headers.get("connection")) == ("20", None)
        await late.send(request("/healthz", method="GET"))
        assert (await late.reply()).status == 200
        assert turned_away() == before + 3
        assert ingest.bodies.held_bytes == 3 * len(event(ANN.session)), "nobody kept what was turned away"
        for client in inside:
            assert (await client.reply()).status == 200
        await late.send(GOOD)
        assert (await late.reply()).status == 200
        assert len(await ingest.entries(ANN)) == 4


async def test_what_was_sent_ahead_is_answered_in_its_turn(redis_url: str) -> None:
    """A request behind one that is being answered is not turned away before that has its answer."""
    async with site(redis_url, bounds=Bounds(requests=1)) as ingest, connected(ingest.port) as client:
        await ingest.redis.client_pause(300, all=False)
        await client.send(GOOD * 3)
        assert [(await client.reply()).status for _ in range(3)] == [200, 200, 200]


async def test_who_asks_to_close_and_is_turned_away_is_let_go(redis_url: str) -> None:
    async with site(redis_url, bounds=Bounds(requests=1)) as ingest, AsyncExitStack() as stack:
        inside, late = [await stack.enter_async_context(connected(ingest.port)) for _ in range(2)]
        await ingest.redis.client_pause(500, all=False)
        await inside.send(GOOD)
        await wait_for(lambda: ingest.bodies.held_bytes)
        await late.send(to(ANN, event(ANN.session), headers=[("connection", "close")]))
        assert (await late.reply()).headers["connection"] == "close"
        assert await late.ended() == b""
        assert (await inside.reply()).status == 200
