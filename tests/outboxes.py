"""A shop's outbox taken in hand: bells that claim and settle at the moment that a test says."""

import itertools
from typing import Any

from shop import Shop
from unpaced import PACING
from wsm.core.ids import DEFAULT_SERVER, BareId
from wsm.core.outbox import Claimed, Composing, Doubtful, IntentState, Loading, Outcome
from wsm.store import outbox
from wsm.worker.turn import Settled

_numbers = itertools.count(1)
SENT, PENDING, INDETERMINATE = IntentState.SENT, IntentState.PENDING, IntentState.INDETERMINATE


def fresh_id() -> BareId:
    """An id as a gateway reserves it."""
    return BareId(f"3EB0F{next(_numbers):017X}")


class Outbox:
    """The outbox of a shop's one session."""

    pacing = PACING

    def __init__(self, at: Shop) -> None:
        self.at = at

    async def session(self) -> outbox.Session:
        """The session, whether it has something to do or not."""
        row = (await self.rows("select id from sessions"))[0]
        return row.id, self.at.address, DEFAULT_SERVER, None

    async def survey(self, bell: str = "a") -> list[outbox.Session]:
        """Begin a bell."""
        found = await outbox.survey(self.at.database, self.at.tenant, bell, {}, self.at.now, self.pacing)
        return [due.session for due in found]

    async def claim(
        self,
        bell: str = "a",
        *,
        id: BareId | None = None,  # noqa: A002
        own_ids: bool = True,
    ) -> Claimed | None:
        """Claim the next intent, for an engine that has own ids or not."""
        reserved = (id or fresh_id()) if own_ids else None
        session, now = await self.session(), self.at.now
        found = await outbox.claim(self.at.database, session, bell, reserved, now, self.pacing)
        assert not isinstance(found, Composing | Loading)
        return found

    async def must_claim(self, bell: str = "a", **more: Any) -> Claimed:
        """Claim, where there is something to claim."""
        claimed = await self.claim(bell, **more)
        assert claimed is not None
        return claimed

    async def settle(self, claimed: Claimed, outcome: Outcome) -> None:
        """Settle an attempt as the bell that made it."""
        at = self.at
        await outbox.settle(at.database, at.tenant, claimed.id, claimed.attempt, outcome, at.now)

    async def settle_doubt(self, doubt: Doubtful, outcome: Outcome) -> None:
        """Settle what a look-up has shown."""
        await outbox.settle(self.at.database, self.at.tenant, doubt.id, doubt.attempt, outcome, self.at.now)

    async def sent(self, claimed: Claimed, id: BareId | None = None) -> None:  # noqa: A002
        """Settle an attempt that was answered."""
        await self.settle(claimed, Outcome(SENT, bare_id=id or claimed.reserved_id))

    async def doubts(self) -> list[Doubtful]:
        """List the doubts that may be looked up now."""
        return await outbox.doubts(self.at.database, await self.session(), self.at.now)

    async def echo(self, claimed: Claimed, id: BareId | None = None) -> Settled:  # noqa: A002
        """Let the gateway's webhook of an own message arrive."""
        bare = id or claimed.reserved_id
        body = self.at.message(claimed.chat, claimed.text, id=bare, from_me=True, source="api")
        return await self.at.turn(body)

    async def ack(self, claimed: Claimed, level: int = 2) -> Settled:
        """Let an ack arrive."""
        assert claimed.reserved_id is not None
        return await self.at.turn(self.at.ack(claimed.chat, claimed.reserved_id, level))

    async def states(self) -> list[tuple[str, str]]:
        """Every intent in order: (class, state)."""
        return [(row.intent, row.state) for row in await self.intents()]

    async def intents(self) -> list[Any]:
        """Every intent: id, intent, state, reason, reserved_id, attempts, conversation_id."""
        return await self.rows(
            "select id, class as intent, state, reason, reserved_id, attempts, conversation_id, not_before"
            " from outbox order by id"
        )

    async def said(self) -> list[str]:
        """What the bot has said, by the history."""
        rows = await self.rows("select body from messages where author = 'bot' order by id")
        return [row.body for row in rows]

    async def rows(self, query: str) -> list[Any]:
        """Ask for rows of this tenant."""
        async with self.at.database.transaction(self.at.tenant) as transaction:
            return await (await transaction._connection.execute(query.encode())).fetchall()
