"""Signed webhooks at an ingest all the time, each sent once, and what became of them."""

import asyncio
import time
from typing import NamedTuple

from ingesting import Connection, connected, event, to
from waiting import wait_for
from wsm.core.ids import SessionAddress, SessionName, TenantId

SEATS = tuple(SessionAddress(TenantId(number), SessionName(f"user_{number}")) for number in range(1, 9))
SENDERS = 32
PAUSE_SECONDS = 0.1
NO_ANSWER = 0


class Answer(NamedTuple):
    """What became of one webhook; at is a monotonic time."""

    number: int
    status: int
    at: float


class Load:
    """Webhooks that go to an ingest all the time, each once, and their answers."""

    def __init__(self, port: int) -> None:
        self.answers: list[Answer] = []
        self._port = port
        self._number = 0

    async def send(self) -> None:
        """Send until cancelled, on a connection that is kept."""
        while True:
            try:
                async with connected(self._port) as connection:
                    while True:
                        await self._one(connection)
                        await asyncio.sleep(PAUSE_SECONDS)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(PAUSE_SECONDS)

    async def _one(self, connection: Connection) -> None:
        self._number = number = self._number + 1
        seat = SEATS[number % len(SEATS)]
        status = NO_ANSWER
        try:
            await connection.send(to(seat, event(seat.session, number=number)))
            status = (await connection.reply()).status
        finally:
            self.answers.append(Answer(number, status, time.monotonic()))

    def accepted(self) -> set[int]:
        """The numbers of what was answered 2xx."""
        return {answer.number for answer in self.answers if answer.status == 200}

    async def accepts(self, more: int, timeout_seconds: float = 40) -> None:
        """Wait until so many more are accepted."""
        goal = len(self.accepted()) + more
        await wait_for(lambda: len(self.accepted()) >= goal, timeout_seconds)

    async def goes_on(self, seconds: float) -> None:
        """Let time pass under load."""
        until = time.monotonic() + seconds
        await wait_for(lambda: time.monotonic() > until, seconds + 5)
