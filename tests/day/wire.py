"""The way of webhooks from WAHA to wsm's front door, with what happens to them on the way.

WAHA posts them over HTTP, as ever; here some come later than those that left after them, some come twice,
and of those that tell of own messages some never come: WAHA keeps what is pending in its memory alone. What
customers wrote always comes in the end. Signatures and ingest's own ways have their tests elsewhere.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from day.hours import Agenda, Clock
from wsm.core.events import Origin
from wsm.core.ids import SessionName, TenantId
from wsm.sandbox.waha.asgi import Receive, Send
from wsm.sandbox.waha.server import Listener
from wsm.streams.handover import Handover, Offer, Verdict

LATE, TWICE, OWN_LOST = 0.04, 0.03, 0.05
_LATE_SECONDS = (1, 25)
_AGAIN_SECONDS = (0, 90)


class Wire:
    """Takes every webhook, and brings it to the mailbox of its tenant.

    troubles  how often something happens to one; 1 is usual
    seen      what happened, and how often
    """

    def __init__(
        self, handover: Handover, clock: Clock, agenda: Agenda, chance: random.Random, *, troubles: float
    ) -> None:
        self._handover = handover
        self._clock = clock
        self._agenda = agenda
        self._chance = chance
        self._troubles = troubles
        self._listener = Listener(self._answer, "127.0.0.1", 0)
        self._tenants: dict[str, TenantId] = {}
        self.url = ""
        self.accepted = 0
        self.seen: Counter[str] = Counter()

    def know(self, tenant: TenantId, sessions: Sequence[SessionName]) -> None:
        """Bring what these sessions say to a tenant."""
        self._tenants |= dict.fromkeys(sessions, tenant)

    async def open(self) -> None:
        """Listen."""
        self.url = f"{await self._listener.open()}/webhooks"

    async def close(self) -> None:
        """Listen no more."""
        await self._listener.close()

    async def offer(self, tenant: TenantId, session: SessionName, origin: Origin, body: bytes) -> None:
        """Put something into a mailbox."""
        verdicts = await self._handover.accept([Offer(tenant, session, origin, self._clock.ms(), body)])
        assert verdicts == [Verdict.ACCEPTED], verdicts
        self.accepted += 1

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = b""
        while (part := await receive()).get("more_body"):
            body += part["body"]
        await self._carry(body + part.get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def _carry(self, body: bytes) -> None:
        said = _head.decode(body)
        chance = self._chance
        own = said.event == "message.ack" or (said.event == "message.any" and said.payload.is_echo)
        if own and chance.random() < OWN_LOST * self._troubles:
            self.seen[f"lost {said.event}"] += 1
            return
        may_wait = said.event in {"message.any", "message.ack"}
        if may_wait and chance.random() < LATE * self._troubles:
            self.seen[f"late {said.event}"] += 1
            self._later(said.session, body, chance.uniform(*_LATE_SECONDS))
            return
        await self._arrive(said.session, body)
        if may_wait and chance.random() < TWICE * self._troubles:
            self.seen[f"twice {said.event}"] += 1
            self._later(said.session, body, chance.uniform(*_AGAIN_SECONDS))

    def _later(self, session: str, body: bytes, seconds: float) -> None:
        async def arrive() -> None:
            await self._arrive(session, body)

        self._agenda.after(seconds, arrive)

    async def _arrive(self, session: str, body: bytes) -> None:
        await self.offer(self._tenants[session], SessionName(session), Origin.WAHA, body)


class _Payload(msgspec.Struct, rename="camel"):
    from_me: bool = False
    source: str | None = None

    @property
    def is_echo(self) -> bool:
        """Whether wsm sent it; what a person typed on the phone is nobody's echo."""
        return self.from_me and self.source == "api"


class _Head(msgspec.Struct):
    event: str
    session: str
    payload: _Payload


_head = msgspec.json.Decoder(_Head)
