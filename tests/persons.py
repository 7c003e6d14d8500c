"""One person under several ids, and what must hold of contacts whatever has been merged."""

import itertools
from typing import Any

from clockroom import ClockRoom
from wsm.core.asks import Ask, SetAgent, Verb
from wsm.core.events import Origin
from wsm.core.ids import ChatId
from wsm.store import fleet
from wsm.streams.handover import Bell, Entry
from wsm.streams.keys import Kind
from wsm.wire.asks import ask_command
from wsm.wire.people import hidden_ids_command

ANA, BIA = "5511960000001", "5511960000002"
EIGHT = "551160000001"
"""Ana's number as it was before it had a nine."""
PHONE, OLD_PHONE, HIDDEN = f"{ANA}@c.us", f"{EIGHT}@c.us", "95511960000001@lid"
ALT = f"{ANA}@s.whatsapp.net"
_numbers = itertools.count(1)

_WRONG = """
select 'a row of ' || t || ' hangs on what went' as fault from (
    select 'messages' as t, conversation_id as talk from messages
    union all select 'tickets', conversation_id from tickets
    union all select 'outbox', conversation_id from outbox
    union all select 'timers', conversation_id from timers) r
join conversations c on c.id = r.talk where c.merged_into is not null
union all select 'an alias leads to what went' from contact_aliases a join contacts w on w.id = a.contact_id
where w.merged_into is not null
union all select 'a conversation of a contact that went'
from conversations c join contacts w on w.id = c.contact_id where w.merged_into is not null
union all select 'what went became what went itself'
from conversations c join conversations k on k.id = c.merged_into where k.merged_into is not null
union all select 'what went became what went itself' from contacts c join contacts k on k.id = c.merged_into
where k.merged_into is not null
union all select 'its state is not that of its ticket'
from conversations c join tickets t on t.conversation_id = c.id where t.state not in ('closed', c.state)
union all select 'a text about a ticket that went' from outbox o join tickets t on t.id = o.ticket_id
where t.ended = 'merged' and o.state = 'pending' and o.class in ('place', 'turn')
union all select 'a timer of a ticket that went' from timers m join tickets t on t.id = m.ticket_id
where t.ended = 'merged'
"""


class Persons(ClockRoom):
    """A shop, and somebody who writes to it under several ids. Nobody is called: agents choose."""

    async def opened(self) -> "Persons":
        """Open a queue of which agents choose whom they serve."""
        await fleet.set_queue(self.at.system, self.at.tenant, "default", pull=True)
        await self.at.asks(SetAgent(agent="rui", capacity=90))
        await self.at.asks(Ask(verb=Verb.ONLINE, agent="rui"))
        return self

    async def says(self, chat: str, text: str = "oi", **more: Any) -> None:
        """Let something be said in a chat, a second later."""
        self.at.later(1)
        await self.at.turn(self.at.message(chat, text, **more))

    async def stands(self, chat: str, where: str) -> None:
        """Let somebody write, and stand there: waiting, served, parked, closed; start: he was written to."""
        await self.says(chat, "oi", from_me=where == "start")
        verbs = {
            "served": (Verb.GIVE,),
            "parked": (Verb.GIVE, Verb.PARK),
            "closed": (Verb.GIVE, Verb.LEAVE),
        }
        for verb in verbs.get(where, ()):
            agent = "rui" if verb is Verb.GIVE else ""
            await self.at.turn(self.about(chat, Ask(verb=verb, agent=agent)), origin=Origin.CLI)

    def about(self, chat: str, what: Ask) -> bytes:
        """An ask about a chat's ticket, by any of its ids."""
        return ask_command(self.at.address, what, id=f"about-{next(_numbers)}", by="cli", chat=ChatId(chat))

    def told(self, *pairs: tuple[str, str | None]) -> bytes:
        """What a gateway tells of hidden ids."""
        its = [(ChatId(lid), ChatId(phone) if phone else None) for lid, phone in pairs]
        return hidden_ids_command(self.at.address, its, id=f"told-{next(_numbers)}")

    async def tell(self, *pairs: tuple[str, str | None]) -> None:
        """Let a gateway tell."""
        self.at.later(1)
        await self.at.turn(self.told(*pairs), origin=Origin.CLOCK)

    async def turn(self, *entries: Entry) -> None:
        """Run one turn over entries of any origin."""
        bell = Bell(Kind.TURN, self.at.tenant, f"turn-{next(_numbers)}", entries, frozenset(), alone=False)
        await self.at.turns.run(bell)

    async def wrong(self) -> list[str]:
        """What does not hold of contacts and what hangs on them; empty if everything does."""
        return [row.fault for row in await self.rows(_WRONG)]

    async def people(self) -> int:
        """How many contacts there are."""
        return len(await self.rows("select id from contacts where merged_into is null"))

    async def talk(self) -> Any:
        """The one conversation that there is."""
        [row] = await self.rows(
            "select id, chat_id, state, heard_at, human_until, bot_paused_until from conversations"
            " where merged_into is null"
        )
        return row

    async def texts(self, phone: str = ANA) -> list[str]:
        """What the history of a chat says."""
        return [row.body for row in await self.at.history(phone)]

    async def tickets(self) -> list[tuple[str, str | None]]:
        """Every ticket: where it stands, how it ended."""
        return [
            (row.state, row.ended) for row in await self.rows("select state, ended from tickets order by id")
        ]
