"""A crowd that knocks at once is let in at once, though libuv lets one in for each turn of its loop."""

import asyncio
import socket
from contextlib import ExitStack

import uvloop

from ingesting import request
from wsm.ingest.guard import Bounds
from wsm.ingest.server import listen, serve
from wsm.telemetry import Receive, Scope, Send

CROWD = 200


async def crowded() -> int:
    """Let a crowd connect and ask while nothing turns; count the turns until all have been heard."""
    heard = turns = 0
    all_heard, stop = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal heard
        heard += 1
        if heard == CROWD:
            all_heard.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not all_heard.is_set():
            loop.call_soon(turn)

    sock = listen("127.0.0.1", 0)
    address = sock.getsockname()
    serving = asyncio.create_task(serve(app, sock, stop=stop, bounds=Bounds(), drain_seconds=1))
    with ExitStack() as stack:
        await asyncio.sleep(0.1)
        for _ in range(CROWD):
            client = stack.enter_context(socket.create_connection(address))
            client.sendall(request("/"))
        turn()
        await all_heard.wait()
    stop.set()
    await serving
    return turns


def test_a_crowd_is_let_in_within_a_few_turns_of_the_loop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(asyncio.wait_for(crowded(), 30)) < CROWD / 4
