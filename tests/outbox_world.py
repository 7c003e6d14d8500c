"""A shop's outbox with two workers on it, a gateway that answers as it likes, and time that the test moves.

What the gateway really sent is kept here and compared with what wsm did and believes. A send that goes wrong
may leave later, within the time after which a look-up is evidence.
"""

import re
from datetime import datetime, timedelta
from typing import Any

import msgspec

from outboxes import PENDING, SENT, Outbox, fresh_id
from shop import Shop
from wsm.core.errors import GatewayRefused, GatewayUnavailable, OutcomeUnknown, WsmError
from wsm.core.outbox import TRANSITIONS, Claimed, Doubtful, Outcome, after_error, after_look_up

BACK = "Você está de volta"
"""How who waits again is greeted: what he was told before is over."""
CALLS = ("ok", "lost", "left", "leaves later", "away", "unauthorized", "refused")
PHONES = ("5511900000001", "5511900000002", "5511900000003")
EVIDENCE = timedelta(seconds=180)
YOUNG = timedelta(seconds=4)
MOVES = {(row.state, row.next) for row in TRANSITIONS}
UNSETTLED = {"pending", "sending", "indeterminate"}
ERRORS: dict[str, WsmError] = {
    "refused": GatewayRefused(400, "bad_request"),
    "unauthorized": GatewayRefused(401, "unauthorized"),
    "away": GatewayUnavailable("not reached"),
}


class Sent(msgspec.Struct):
    """A message that left."""

    claimed: Claimed
    at: datetime


class Flight(msgspec.Struct):
    """A claim in a worker's hands; `outcome` once it has made its call."""

    claimed: Claimed
    at: datetime
    outcome: Outcome | None = None


class World(Outbox):
    """What happened, and what may happen next. Every move checks what must hold always."""

    def __init__(self, at: Shop) -> None:
        super().__init__(at)
        self.flights: dict[str, Flight] = {}
        self.looks: dict[str, list[tuple[Doubtful, Outcome]]] = {"a": [], "b": []}
        self.leaving: list[Sent] = []
        self.sent_ones: list[Sent] = []
        self.reserved: dict[int, str | None] = {}
        self.tickets: dict[int, int] = {}
        self.states_before: dict[int, str] = {}

    async def do(self, move: str, number: int) -> None:
        """Make a move; one that is not possible now does nothing."""
        bell, phone = "ab"[number % 2], PHONES[number % len(PHONES)]
        self.at.later(0.001)
        if move in CALLS and bell not in self.flights:
            await self._claim(bell)
        match move:
            case "write":
                await self.at.turn(self.at.says(phone, "oi"))
            case "close":
                await self.at.close(phone)
            case "survey":
                own = f"select id from outbox where state = 'sending' and bell = '{bell}'"
                before = await self.rows(own)
                await self.survey(bell)
                assert await self.rows(own) == before, "a bell doubts its own claim"
            case "claim" if bell not in self.flights:
                await self._claim(bell)
            case "settle" if bell in self.flights and self.flights[bell].outcome is not None:
                flight = self.flights.pop(bell)
                assert flight.outcome is not None
                await self.settle(flight.claimed, flight.outcome)
            case "tell":
                for doubt, outcome in self.looks[bell]:
                    await self.settle_doubt(doubt, outcome)
                self.looks[bell] = []
            case "crash":
                self.flights.pop(bell, None)
                self.looks[bell] = []
            case "echo" | "ack" if self.sent_ones:
                sent = self.sent_ones[number % len(self.sent_ones)]
                await (self.echo(sent.claimed) if move == "echo" else self.ack(sent.claimed, number % 4 + 1))
            case "look":
                self.looks[bell] = await self._look(working=number % 5 != 0)
            case "later":
                self.later((1, 3, 5, 40, 100, 185)[number % 6])
            case _ if bell in self.flights and self.flights[bell].outcome is None:
                self._call(self.flights[bell], move, number)
        await self._check()

    def later(self, seconds: int) -> None:
        """Let time pass; what is on its way leaves in between."""
        self.at.later(seconds)
        for sent in [each for each in self.leaving if each.at <= self.at.now]:
            self.leaving.remove(sent)
            self._leave(sent.claimed)

    async def settle_everything(self) -> None:
        """Let a healthy worker bring everything to its end."""
        self.flights.clear()
        for round_ in range(60):
            self.later(31)
            await self.survey(f"z{round_}")
            for doubt, outcome in await self._look(working=True):
                await self.settle_doubt(doubt, outcome)
            while await self._claim(f"z{round_}"):
                flight = self.flights.pop(f"z{round_}")
                self._call(flight, "ok", 0)
                assert flight.outcome is not None
                await self.settle(flight.claimed, flight.outcome)
            if not {state for _, state in await self.states()} & UNSETTLED and not self.leaving:
                return
        raise AssertionError(f"never settled: {await self.intents()}")

    async def check_the_end(self) -> None:
        """Compare what wsm believes and keeps with what was sent."""
        believed = {row.id for row in await self.intents() if row.state == "sent"}
        assert believed == {sent.claimed.id for sent in self.sent_ones}
        kept = await self.rows("select bare_id from messages where author = 'bot'")
        assert sorted(row.bare_id for row in kept) == sorted(
            str(sent.claimed.reserved_id) for sent in self.sent_ones
        )

    async def _claim(self, bell: str) -> bool:
        claimed = await self.claim(bell, id=fresh_id())
        if claimed is None:
            return False
        if claimed.intent == "place":
            places = {f"{who}@c.us": place for who, place in await self.at.line()}
            assert f"nº {places[claimed.chat]}" in claimed.text, "true when it is claimed"
            await self._check_place(claimed)
        reserved = self.reserved.setdefault(claimed.id, claimed.reserved_id)
        assert claimed.reserved_id == reserved, "sent again under another id"
        self.flights[bell] = Flight(claimed, self.at.now)
        return True

    def _call(self, flight: Flight, how: str, number: int) -> None:
        """Make the call of a claim, as a worker does: not at all when the claim is old."""
        claimed, now = flight.claimed, self.at.now
        if now - flight.at > YOUNG:
            flight.outcome = Outcome(PENDING, "claimed too slowly", not_before=now)
        elif how in ERRORS:
            flight.outcome = after_error(ERRORS[how], attempt=claimed.attempt, now=now)
        elif how == "ok":
            self._leave(claimed)
            flight.outcome = Outcome(SENT, bare_id=claimed.reserved_id)
        else:
            flight.outcome = after_error(OutcomeUnknown("?"), attempt=claimed.attempt, now=now)
            if how == "left":
                self._leave(claimed)
            elif how == "leaves later":
                self.leaving.append(Sent(claimed, now + timedelta(seconds=number * 20 % 150)))

    def _leave(self, claimed: Claimed) -> None:
        assert claimed.id not in {sent.claimed.id for sent in self.sent_ones}, "sent twice"
        earlier = [sent.claimed.id for sent in self.sent_ones if sent.claimed.chat == claimed.chat]
        assert all(id_ < claimed.id for id_ in earlier), "out of order in its chat"
        self.sent_ones.append(Sent(claimed, self.at.now))

    async def _check_place(self, claimed: Claimed) -> None:
        """Whoever has been told a place is told a better one, and welcomed once."""
        [row] = await self.rows(f"select ticket_id from outbox where id = {claimed.id}")
        known = [
            sent.claimed for sent in self.sent_ones if self.tickets.get(sent.claimed.id) == row.ticket_id
        ]
        self.tickets[claimed.id] = row.ticket_id
        if claimed.text.startswith(BACK):
            return
        backs = [place for place, earlier in enumerate(known) if earlier.text.startswith(BACK)]
        known = known[backs[-1] :] if backs else known
        assert claimed.text.startswith("Recebemos") == (not known)
        assert all(_place(claimed) < _place(earlier) for earlier in known)

    async def _look(self, *, working: bool) -> list[tuple[Doubtful, Outcome]]:
        """Look every doubt up at the gateway, as it is now."""
        found = {sent.claimed.id: sent.claimed.reserved_id for sent in self.sent_ones}
        now = self.at.now
        return [
            (doubt, after_look_up(found.get(doubt.id), doubt, working=working, evidence=EVIDENCE, now=now))
            for doubt in await self.doubts()
        ]

    async def _check(self) -> None:
        rows: list[Any] = await self.intents()
        for row in rows:
            before = self.states_before.get(row.id, row.state)
            assert before == row.state or (before, row.state) in MOVES, f"{before} became {row.state}"
        self.states_before = {row.id: row.state for row in rows}
        assert sum(row.state == "sending" for row in rows) <= 1, "one in flight"
        believed = {row.id for row in rows if row.state == "sent"}
        assert believed <= {sent.claimed.id for sent in self.sent_ones}, "said to be sent before it was"
        told: dict[int, int] = {}
        for claimed in (sent.claimed for sent in self.sent_ones if sent.claimed.id in believed):
            if (ticket := self.tickets.get(claimed.id)) is not None:
                told[ticket] = _place(claimed)
        known = await self.rows("select id, told_place from tickets where told_place is not null")
        assert {row.id: row.told_place for row in known}.items() <= told.items(), "the place told last"


def _place(claimed: Claimed) -> int:
    found = re.search(r"nº (\d+)", claimed.text)
    assert found
    return int(found[1])
