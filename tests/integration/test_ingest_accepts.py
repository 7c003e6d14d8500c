"""A crowd that knocks at once is let in at once, though libuv lets one in for each turn of its loop."""

import asyncio
import socket
from contextlib import ExitStack

import uvloop

from ingesting import request
from wsm.core.errors import WsmError
from wsm.ingest.exchange import Answer, BodyBudget, Bounds, Request
from wsm.ingest.server import listen, serve

CROWD = 200
ANSWER = Answer(200, b"")


class Counting:
    """A service that answers at once and knows when it was asked so often."""

    def __init__(self, all_heard: asyncio.Event) -> None:
        self._all_heard = all_heard
        self._heard = 0

    def begins(self, request: Request) -> None:
        """Let everybody in."""

    def ends(self, request: Request) -> None:
        """Count and answer."""
        self._heard += 1
        if self._heard == CROWD:
            self._all_heard.set()
        request.answer(ANSWER)

    def refuse(self, request: Request, exc: WsmError) -> Answer:
        """Never comes to it."""
        raise AssertionError(exc)


async def crowded() -> int:
    """Let a crowd connect and ask while nothing turns; count the turns until all have been heard."""
    turns = 0
    all_heard, stop = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not all_heard.is_set():
            loop.call_soon(turn)

    sock = listen("127.0.0.1", 0)
    address = sock.getsockname()
    serving = asyncio.create_task(
        serve(Counting(all_heard), sock, stop=stop, bounds=Bounds(), bodies=BodyBudget(0), drain_seconds=1)
    )
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
