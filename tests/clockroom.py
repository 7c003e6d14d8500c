"""A shop whose clock rings: timers fire as the clock would put them into the mailbox, and notices leave."""

from datetime import timedelta
from typing import Any

from outboxes import Outbox
from shop import Shop
from wsm.core.events import Origin
from wsm.core.moments import milliseconds
from wsm.store import rules
from wsm.store.rules import Rules
from wsm.wire.waha import timer_command

ANA, BIA, CAIO, DUDA = "5511900000001", "5511900000002", "5511900000003", "5511900000004"


class ClockRoom(Outbox):
    """Moves time on, and lets happen what is due on the way."""

    def __init__(self, at: Shop) -> None:
        super().__init__(at)
        self.heard: list[tuple[str, str]] = []

    async def set(self, *said: Rules) -> None:
        """Give the shop's queue rules."""
        for each in said:
            await rules.change(self.at.database, self.at.tenant, "default", each, self.at.now)

    async def write(self, *phones: str, text: str = "oi") -> None:
        """Let customers write, one after the other, and what is due leave."""
        for phone in phones:
            self.at.later(1)
            await self.at.turn(self.at.says(phone, text))
        await self.send()

    async def type(self, phone: str, text: str = "bom dia") -> None:
        """Let a person type on the session's phone."""
        self.at.later(1)
        await self.at.turn(self.at.message(f"{phone}@c.us", text, from_me=True))
        await self.send()

    async def close(self, *phones: str) -> None:
        """Close tickets, and let what is due leave."""
        for phone in phones:
            self.at.later(1)
            await self.at.close(phone)
        await self.send()

    async def later(self, minutes: float, *, step: float = 15) -> None:
        """Let time pass, with the clock ringing every `step` seconds."""
        until = self.at.now + timedelta(minutes=minutes)
        while self.at.now < until:
            self.at.now = min(until, self.at.now + timedelta(seconds=step))
            await self.ring()
            await self.send()

    async def ring(self) -> int:
        """Run a turn of the timers that are due, the oldest first; return how many there were."""
        due = await self.rows(
            "select id, kind, due_at from timers"
            f" where due_at <= '{self.at.now.isoformat()}' order by due_at, id"
        )
        commands = [
            timer_command(self.at.address.session, row.id, row.kind, milliseconds(row.due_at)) for row in due
        ]
        if commands:
            await self.at.turn(*commands, origin=Origin.CLOCK)
        return len(commands)

    async def send(self) -> None:
        """Let everything leave that is due."""
        while claimed := await self.claim():
            await self.sent(claimed)
            self.heard.append((claimed.chat.partition("@")[0], claimed.text))

    def said_to(self, phone: str) -> list[str]:
        """What somebody has been told since the last time that this was asked."""
        found = [text for who, text in self.heard if who == phone]
        self.heard = [each for each in self.heard if each[0] != phone]
        return found

    async def timers(self) -> list[Any]:
        """The timers that are set, by kind."""
        return [row.kind for row in await self.rows("select kind from timers order by kind, id")]
