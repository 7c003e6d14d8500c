"""Agents: they come and go, have lunch, answer, ask, hand over, put aside, close, and forget to.

What an agent knows of his customers is what the audit says of tickets; what he wants he asks for as a
command does, and a part of it he types on the shop's phone.
"""

from datetime import timedelta
from typing import Any

import msgspec

from day.city import City
from day.plan import OPENS, Plan, Shop
from wsm.core.asks import Ask, SetAgent, Verb
from wsm.core.content import Text
from wsm.core.ids import SessionName
from wsm.core.tickets import Level

_AUDIT = """
select a.id, a.tenant_id, a.what, a.ticket_id, t.state, g.name as agent, c.chat_id, s.name as session
from unnest(%s::bigint[]) of (tenant_id)
cross join lateral (
    select * from wsm.audit where tenant_id = of.tenant_id and id > %s and what like 'ticket.%%' offset 0) a
join wsm.tickets t on t.tenant_id = a.tenant_id and t.id = a.ticket_id
join wsm.conversations c on c.tenant_id = t.tenant_id and c.id = t.conversation_id
join wsm.sessions s on s.tenant_id = c.tenant_id and s.id = c.session_id
left join wsm.agents g on g.tenant_id = t.tenant_id and g.id = t.agent_id and t.state = 'served'
order by a.id
"""
_NAMES = ("Ana", "Beto", "Carla", "Davi", "Elis", "Fábio", "Gabi", "Hugo", "Iara", "Jonas")
_LETTER_SECONDS = 0.12


class Talk(msgspec.Struct):
    """A ticket in somebody's hands. over: it is not any more."""

    ticket: int
    agent: "Agent"
    session: SessionName
    chat: str
    rounds: int
    over: bool = False


class Agent:
    """One person who serves."""

    def __init__(self, at: City, shop: Shop, number: int) -> None:
        self.name = _NAMES[number % len(_NAMES)] + ("" if number < len(_NAMES) else f" {number}")
        self.shop = shop
        self.chance = at.plan.chance("agent", shop.tenant, number)
        self.capacity = self.chance.choice((2, 3, 4))
        self.queues = () if number % 3 else tuple(queue.name for queue in shop.queues[:1])
        self.online = False
        self.talks: list[Talk] = []
        self._slow = self.chance.uniform(0.7, 1.5)
        self._forgets = self.chance.random() < 0.25
        self._city = at
        self._said = 0

    def works(self, plan: Plan) -> None:
        """Put his day, and the next morning, into the agenda."""
        chance, agenda = self.chance, self._city.agenda
        whole = plan.closes - OPENS
        lunch = OPENS + whole * chance.uniform(0.4, 0.62)
        agenda.at(OPENS + timedelta(seconds=chance.uniform(0, 600)), self._comes)
        agenda.at(lunch, self._goes)
        agenda.at(lunch + whole * chance.uniform(0.05, 0.09), self._comes)
        agenda.at(plan.closes + timedelta(seconds=chance.uniform(-60, 900)), self._goes)
        agenda.at(plan.next_morning + timedelta(seconds=chance.uniform(0, 300)), self._comes)
        agenda.at(plan.noon, self._goes)
        if any(not queue.calls for queue in self.shop.queues) and not self.queues:
            agenda.at(OPENS + timedelta(seconds=60), self._asks_for_the_next)

    async def _comes(self) -> None:
        self.online = True
        await self._ask(Ask(verb=Verb.ONLINE, agent=self.name))

    async def _goes(self) -> None:
        self.online = False
        await self._ask(Ask(verb=Verb.OFFLINE, agent=self.name))

    async def _asks_for_the_next(self) -> None:
        """Where nobody is called by himself, look now and then."""
        plan, now = self._city.plan, self._city.clock()
        if self.online and len(self.talks) < self.capacity:
            await self._ask(Ask(verb=Verb.NEXT, agent=self.name))
        if now > plan.noon:
            return
        asleep = plan.closes + timedelta(minutes=10) < now < plan.next_morning
        wait = (plan.next_morning - now).total_seconds() if asleep else self.chance.uniform(40, 180)
        self._city.agenda.after(wait, self._asks_for_the_next)

    def takes(self, talk: Talk) -> None:
        """Begin to serve a customer."""
        self.talks.append(talk)
        self._then(talk, self.chance.uniform(15, 120), self._speaks)

    async def _speaks(self, talk: Talk) -> None:
        chance, city = self.chance, self._city
        self._said += 1
        text = (
            f"{self.name}: {chance.choice(('bom dia', 'um momento', 'já vejo isso', 'certo'))} #{self._said}"
        )
        if chance.random() < 0.15:
            city.handset.send(city.waha.session(talk.session), talk.chat, text, source="app")
        else:
            await city.reply(self.shop, talk.session, talk.chat, Text(text=text), by=self.name, said=text)
        talk.rounds -= 1
        pause = chance.uniform(120, 540) + len(text) * _LETTER_SECONDS
        self._then(talk, pause, self._speaks if talk.rounds > 0 else self._ends)

    async def _ends(self, talk: Talk) -> None:
        """Let a customer go, in one way or another."""
        chance, shop = self.chance, self.shop
        what = chance.choices(
            ("close", "type", "forget", "queue", "agent", "return", "park"),
            (70, 12, 6 if self._forgets else 0, 4, 4, 2, 3),
        )[0]
        where = {"session": talk.session, "chat": talk.chat}
        match what:
            case "close":
                await self._city.close(shop, talk.session, talk.chat, by=self.name)
            case "type":
                session = self._city.waha.session(talk.session)
                self._city.handset.send(session, talk.chat, "#fim", source="app")
            case "queue":
                queue, level = chance.choice(shop.queues), chance.choice((None, None, *Level))
                await self._ask(Ask(verb=Verb.MOVE, queue=queue.name, level=level), **where)
            case "agent":
                other = chance.choice(_NAMES[: self._city.plan.agents])
                await self._ask(Ask(verb=Verb.GIVE, agent=other), **where)
            case "return":
                await self._ask(Ask(verb=Verb.RETURN), **where)
            case "park":
                await self._ask(Ask(verb=Verb.PARK), **where)
        if what != "forget":  # what was refused, or lost on the way of a phone, he sees and does again
            self._then(talk, 400, self._ends)

    def _then(self, talk: Talk, seconds: float, act: Any) -> None:
        async def do() -> None:
            if not talk.over and self.online:
                await act(talk)
            elif not talk.over:
                self._city.agenda.after(300, do)

        self._city.agenda.after(seconds * self._slow, do)

    async def _ask(self, ask: Ask, **where: Any) -> None:
        await self._city.ask(self.shop, ask, by=self.name, **where)


class Staff:
    """All agents of all shops."""

    def __init__(self, at: City) -> None:
        self._city = at
        self._agents = {
            (shop.tenant, each.name): each
            for shop in at.plan.shops
            for number in range(at.plan.agents)
            for each in [Agent(at, shop, number)]
        }
        self._talks: dict[tuple[int, int], Talk] = {}
        self._tenants = [shop.tenant for shop in at.plan.shops]
        self._seen = 0

    def __iter__(self) -> Any:
        return iter(self._agents.values())

    async def begin(self) -> None:
        """Make them known, and let them come when their day begins."""
        for agent in self:
            what = SetAgent(agent=agent.name, capacity=agent.capacity, queues=agent.queues or None)
            await self._city.ask(agent.shop, what, by="owner")
            agent.works(self._city.plan)
        await self._city.settle()

    async def look(self) -> None:
        """See what became of the tickets since the last time."""
        rows = await self._city.rows(_AUDIT, self._tenants, self._seen)
        for row in rows:
            self._seen = row.id
            key = (row.tenant_id, row.ticket_id)
            if (before := self._talks.pop(key, None)) is not None:
                before.over = True
                before.agent.talks.remove(before)
            if row.agent is not None:
                agent = self._agents[row.tenant_id, row.agent]
                rounds = agent.chance.choice((1, 2, 2, 3))
                session = SessionName(row.session)
                talk = self._talks[key] = Talk(row.ticket_id, agent, session, row.chat_id, rounds)
                agent.takes(talk)


_OPEN = """
select t.tenant_id, t.state, t.level, c.chat_id, s.name as session from wsm.tickets t
join wsm.conversations c on c.tenant_id = t.tenant_id and c.id = t.conversation_id
join wsm.sessions s on s.tenant_id = c.tenant_id and s.id = c.session_id
where t.state in ('waiting', 'served') order by t.id
"""


class Owner:
    """Looks at the line now and then, raises the level of a few, and closes what is left over at last."""

    def __init__(self, at: City) -> None:
        self._city = at
        self._chance = at.plan.chance("owner")
        self._shops = {shop.tenant: shop for shop in at.plan.shops}
        at.agenda.at(OPENS + timedelta(minutes=5), self._looks)
        at.agenda.at(at.plan.noon + timedelta(minutes=10), self._closes)

    async def _looks(self) -> None:
        chance, city = self._chance, self._city
        waiting = [
            row for row in await city.rows(_OPEN) if row.state == "waiting" and row.level == Level.NORMAL
        ]
        if waiting:
            row = chance.choice(waiting)
            ask = Ask(verb=Verb.MOVE, level=chance.choice((Level.URGENT, Level.LOW)))
            where: Any = {"session": SessionName(row.session), "chat": row.chat_id}
            await city.ask(self._shops[row.tenant_id], ask, by="owner", **where)
        later = chance.uniform(60, 600)
        if city.clock() + timedelta(seconds=later) < city.plan.closes:
            city.agenda.after(later, self._looks)

    async def _closes(self) -> None:
        """Close what is left, and once an hour what has come since: nobody is there to serve it."""
        for row in await self._city.rows(_OPEN):
            shop = self._shops[row.tenant_id]
            await self._city.close(shop, SessionName(row.session), row.chat_id, by="owner")
        if self._city.clock() + timedelta(hours=1) < self._city.plan.ends:
            self._city.agenda.after(3600, self._closes)
