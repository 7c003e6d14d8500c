"""Customers: they write in bursts, wait or do not, ask, leave, answer or not, and some come back.

Each has his own luck, so a customer does the same on every run of a seed as long as he is told the same.
What he knows is what stands on his phone.
"""

from datetime import datetime
from typing import Any

import msgspec

from day.city import City, Seen
from day.plan import Shop
from day.words import TURNS, Read, Word, read
from wsm.core.ids import SessionName, TenantId
from wsm.sandbox.waha import bodies, ids
from wsm.sandbox.waha.contents import Content, Kind, Location, Media, Poll
from wsm.sandbox.waha.handset import Said
from wsm.sandbox.waha.phones import Received
from wsm.sandbox.waha.state import Message

_THINGS = {
    "location": Content(kind=Kind.LOCATION, location=Location(-23.5, -46.6, "Casa")),
    "contact": Content(kind=Kind.CONTACT, vcards=["BEGIN:VCARD\nVERSION:3.0\nFN:Bia\nEND:VCARD"]),
    "poll": Content(kind=Kind.POLL, poll=Poll("Quando?", ["hoje", "amanhã"])),
}
_ODD: dict[str, Any] = {"sticker": {"stickerMessage": {}}, "unknown": {"aKindFromTheFuture": {}}}
ASKING = ("posição", "POSICAO", "position")
STOPPING = ("PARAR", "stop", "Descadastrar")
_KINDS = ("text",) * 24 + ("image", "voice", "location", "contact", "poll", "sticker", "unknown", "call")


class Wrote(msgspec.Struct, frozen=True):
    """A message that a customer sent.

    order  of all that he sent
    held   the number was away: WhatsApp kept it
    """

    tenant: TenantId
    session: SessionName
    who: str
    id: str
    kind: str
    text: str
    at: datetime
    order: int
    held: bool


class Customer:
    """One person with one phone. turn: it is his, as far as he knows."""

    def __init__(self, at: City, shop: Shop, session: SessionName, who: str, wrote: list[Wrote]) -> None:
        self.shop = shop
        self.session = session
        self.who = who
        self.chance = at.plan.chance("customer", who)
        self.arrives_at = at.plan.arrival(self.chance)
        self._city = at
        self._wrote = wrote
        self._order = 0
        self._burst = self.chance.choices((1, 2, 3, 5), (6, 3, 2, 1))[0]
        self._patience = self.chance.expovariate(1 / 2400) + (60 if self.chance.random() < 0.1 else 420)
        self._asks = self.chance.random() < 0.25
        self._shows_up = self.chance.random() < 0.92
        self._answers = self.chance.random() < 0.85
        self._comes_back = self.chance.random() < 0.08
        self._has_enough = self.chance.random() < 0.02
        self._by_lid = self.chance.random() < 0.12
        self._waits = self._turn = self._gone = False
        self._questions = self.chance.choice((1, 1, 2, 3))
        at.agenda.at(self.arrives_at, self._begin)

    # What he does

    async def _begin(self) -> None:
        await self._write_burst(self._burst)
        if self._asks:
            self._after(self.chance.uniform(60, 900), self._ask)
        self._after(self._patience, self._lose_patience)

    async def _write_burst(self, pieces: int) -> None:
        kind = self.chance.choice(_KINDS)
        await self._say(kind, f"oi, preciso de ajuda ({self.who[-5:]})")
        if kind == "call":  # nobody answered: so he writes
            self._after(self.chance.uniform(2, 9), lambda: self._say("text", "liguei agora há pouco"))
        at = 0.0
        for piece in range(1, pieces):
            at += self.chance.choice((0, 1, 3, 8, 20))
            self._after(at, self._piece(piece))

    def _piece(self, number: int) -> Any:
        return lambda: self._say("text", f"e mais uma coisa, {number}")

    async def _ask(self) -> None:
        if self._waits and not self._turn:
            word = self.chance.choice(ASKING)
            await self._say("text", word)
            if self.chance.random() < 0.3:
                self._after(self.chance.uniform(3, 400), self._ask)

    async def _lose_patience(self) -> None:
        if self._waits and not self._turn and self.chance.random() < 0.7:
            await self._say("text", self.chance.choice(("SAIR", "sair")))

    async def _answer(self) -> None:
        if self._gone:
            return
        self._questions -= 1
        await self._say("text", f"então: {self.chance.choice(('sim', 'não', 'pode ser', 'quanto custa?'))}")

    async def _return(self) -> None:
        if self.chance.random() < 0.3:
            await self._say("text", "obrigado!")
            return
        self._turn, self._questions = False, 1
        await self._say("text", "oi de novo, faltou uma coisa")

    async def _stop(self) -> None:
        await self._say("text", self.chance.choice(STOPPING))

    async def _say(self, kind: str, text: str) -> None:
        """Write something, which reaches the session's phone now or when that is connected again."""
        id_ = ids.phone_id()
        if kind == "call":
            self._call(id_)
            return
        self._order += 1
        city, media = self._city, {"image": Media(), "voice": Media(mimetype="audio/ogg")}.get(kind)
        body = text if kind == "text" else ""
        if kind in _ODD:
            self._say_odd(kind, id_)
        else:
            said = Said(
                who=self.who,
                text=body,
                id=id_,
                as_lid=self._by_lid and self.chance.random() < 0.5,
                twin=self._by_lid and self.chance.random() < 0.2,
                media=media,
                content=_THINGS.get(kind, Content()),
            )
            city.handset.hear(self.session, said)
        self._wrote.append(
            Wrote(
                tenant=self.shop.tenant,
                session=self.session,
                who=self.who,
                id=id_,
                kind=kind,
                text=body,
                at=city.clock(),
                order=self._order,
                held=not city.waha.session(self.session).reachable,
            )
        )

    def _say_odd(self, kind: str, id_: str) -> None:
        """Send what the sandbox's phones cannot make, as GOWS tells it."""
        world, now = self._city.waha.world, self._city.clock.ms() // 1000
        session = self._city.waha.session(self.session)
        chat = ids.phone_chat(self.who)
        payload = bodies.message(world, session, Message(id_, chat, False, "app", "", now, 2))
        payload["_data"]["Message"] = _ODD[kind]
        self._city.handset._reach(
            self.session, lambda now: self._city.waha.courier.emit(now, "message.any", payload)
        )

    def _call(self, id_: str) -> None:
        payload = {"id": id_, "from": ids.phone_chat(self.who), "timestamp": self._city.clock.ms() // 1000}
        self._city.handset._reach(
            self.session, lambda now: self._city.waha.courier.emit(now, "call.received", payload)
        )

    def _after(self, seconds: float, action: Any) -> None:
        self._city.agenda.after(seconds, action)

    # What he reads

    def reads(self, received: Received) -> None:
        """Look at the phone."""
        found = read(received.text)
        if found is None:
            self._heard_a_person()
        else:
            self._heard(found)

    def _heard(self, found: Read) -> None:
        chance = self.chance
        if found.word in {Word.ENTRY, Word.BACK, Word.CLOSED}:
            self._waits, self._turn = True, False
        elif found.word in TURNS:
            self._waits, self._turn = False, True
            if self._shows_up:
                self._after(chance.uniform(4, 90), self._answer)
        elif found.word is Word.NUDGE and chance.random() < 0.4:
            self._after(chance.uniform(5, 120), self._answer)
        elif found.word is Word.RELEASED and chance.random() < 0.5:
            self._after(chance.uniform(30, 2400), self._answer)
        elif found.word in {Word.SILENCE, Word.SILENCE_MOVED}:
            said = chance.choices(("1", "2", ""), (4, 1, 4))[0]
            if said:
                self._after(chance.uniform(5, 60), lambda: self._say("text", said))
        elif found.word is Word.SURVEY:
            self._goes()
            if chance.random() < 0.5:
                self._after(chance.uniform(5, 300), lambda: self._say("text", chance.choice("12345")))
        elif found.word in {Word.LEFT, Word.OVERFLOW, Word.CLOSING, Word.ENDED, Word.CLOSED_MESSAGE}:
            self._waits = self._turn = False
            if found.word in {Word.OVERFLOW, Word.CLOSED_MESSAGE}:
                self._after(chance.uniform(5, 60), lambda: self._say("text", "meu recado: liguem, por favor"))

    def _heard_a_person(self) -> None:
        if self._questions > 0 and self._answers:
            self._after(self.chance.uniform(6, 100), self._answer)
        elif self._comes_back or self._has_enough:
            self._goes()

    def _goes(self) -> None:
        """What some do when they are done."""
        if self._comes_back:
            self._comes_back = False
            self._after(self.chance.uniform(600, 5400), self._return)
        if self._has_enough:
            self._has_enough = False
            self._after(self.chance.uniform(900, 4000), self._stop)


class People:
    """All customers. wrote: everything that they sent, in its order."""

    def __init__(self, at: City) -> None:
        self.wrote: list[Wrote] = []
        self._by_phone = {
            each.who: each for number in range(at.plan.customers) for each in [self._customer(at, number)]
        }

    def _customer(self, at: City, number: int) -> Customer:
        shop = at.plan.shops[number % len(at.plan.shops)]
        session = shop.sessions[int(at.plan.chance("entrance", number).random() < 0.4)]
        return Customer(at, shop, session, f"55119{number:08d}", self.wrote)

    def __iter__(self) -> Any:
        return iter(self._by_phone.values())

    def read(self, arrivals: list[Seen]) -> None:
        """Let everybody look at what reached his phone."""
        for who, received in arrivals:
            if customer := self._by_phone.get(who):
                customer.reads(received)
