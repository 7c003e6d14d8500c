"""What people do all day, drawn from one seed: WAHA tells of it as it does, unordered, repeated, late.

Customers write, some under their hidden id or under both, some with media that come late, some with a
message that was written a while ago; WAHA tells some of it twice. They react, edit, take back, read. Agents
type on the phone; tickets are closed by their word and by command; a session's connection drops.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from chaos.records import Asked, Fact, Told, close
from e2e.town import Town, session_of
from waiting import wait_for
from wsm.bootstrap import front_door
from wsm.core.content import (
    Contact,
    Content,
    File,
    Image,
    Location,
    MediaSource,
    Poll,
    SendClass,
    Text,
)
from wsm.core.errors import Unavailable
from wsm.core.events import Origin
from wsm.core.ids import ChatAddress, ChatId, TenantId
from wsm.core.turn import CLOSING_WORD
from wsm.sandbox.waha.contents import Media, digest
from wsm.sandbox.waha.handset import Handset, Said
from wsm.sandbox.waha.state import EngineError, Message, now_ms
from wsm.streams.handover import Offer, Verdict
from wsm.wire.waha import close_command

AT_ONCE = 120
"""How much WAHA has to tell at most before people pause."""

FILE = b"%PDF-1.7 nota"
IMAGE = b"\xff\xd8\xff" + bytes(500)
NEVER_WROTE = "7"
"""How the numbers begin of people who are written to first."""

_WEIGHTS = {"write": 60, "ask": 12, "type": 14, "change": 10, "close": 10, "end": 8, "read": 3, "drop": 1}
_CHANGES = ("message.reaction", "message.edited", "message.revoked")
_LONGEST_DELAY_SECONDS = 1.5
_OLDEST_SECONDS = 8
_PATIENCE_SECONDS = 120.0


class Load:
    """The people of a town."""

    def __init__(self, at: Town, shops: Mapping[TenantId, Sequence[str]], chance: random.Random) -> None:
        self.told: list[Told] = []
        self._at = at
        self._shops = shops
        self._chance = chance
        self._handset = Handset(at.waha.world, at.waha.courier)
        self._chores = at.waha.world.chores
        self.asked: list[Asked] = []
        self._files: dict[TenantId, tuple[int, int]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self, enough: Callable[[], bool]) -> None:
        """Let people do one thing after another until it is enough, then everything that is on its way."""
        for tenant, people in self._shops.items():
            number = [await self._at.keeps(tenant, file) for file in (IMAGE, FILE)]
            self._files[tenant] = number[0], number[1]
            self._handset.hear(session_of(tenant), Said(who=people[-1], text="SAIR", id=self._id()))
        words, weights = list(_WEIGHTS), list(_WEIGHTS.values())
        while not enough():
            [word] = self._chance.choices(words, weights)
            tenant = self._chance.choice(list(self._shops))
            await getattr(self, f"_{word}")(tenant, self._chance.choice(self._shops[tenant]))
            await asyncio.sleep(self._chance.uniform(0, 0.01))
            if self._chores.unfinished > AT_ONCE:
                await wait_for(lambda: self._chores.unfinished <= AT_ONCE or enough(), _PATIENCE_SECONDS)
        await asyncio.gather(*self._closing)

    async def _write(self, tenant: TenantId, who: str) -> None:
        chance = self._chance
        said = Said(
            who=who,
            text=f"mensagem {chance.getrandbits(32)}",
            id=self._id(),
            group=f"12036300{tenant}@g.us" if chance.random() < 0.05 else None,
            as_lid=chance.random() < 0.2,
            twin=chance.random() < 0.15,
            copies=chance.choice((1, 1, 1, 1, 2, 3)),
            sent_at_ms=now_ms() - chance.randrange(_OLDEST_SECONDS * 1000) if chance.random() < 0.2 else None,
            media=Media() if chance.random() < 0.1 else None,
            late_seconds=chance.uniform(0.1, 3),
        )
        delay = chance.uniform(0, _LONGEST_DELAY_SECONDS) if chance.random() < 0.3 else 0
        self._chores.spawn(self._hear(tenant, said, delay))

    async def _hear(self, tenant: TenantId, said: Said, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        self._handset.hear(session_of(tenant), said)

    async def _type(self, tenant: TenantId, who: str) -> None:
        self._send(tenant, who, f"resposta {self._chance.getrandbits(32)}")

    async def _end(self, tenant: TenantId, who: str) -> None:
        self._send(tenant, who, CLOSING_WORD)

    def _send(self, tenant: TenantId, who: str, text: str) -> None:
        session = self._at.waha.session(session_of(tenant))
        try:
            self._handset.send(session, f"{who}@c.us", text, id=self._id(), source="app")
        except EngineError:
            return  # not linked in this moment: a phone without its network

    async def _change(self, tenant: TenantId, who: str) -> None:
        target = self._some_message(tenant, who)
        if target is not None:
            session = self._at.waha.session(session_of(tenant))
            event = self._chance.choice(_CHANGES)
            text = "" if event == "message.revoked" else "mudou"
            self._handset.change(session, event, target, text, from_me=target.from_me)

    async def _read(self, tenant: TenantId, who: str) -> None:
        target = self._some_message(tenant, who)
        if target is not None and target.from_me:
            self._handset.acknowledge(session_of(tenant), target, 3)

    async def _drop(self, tenant: TenantId, _who: str) -> None:
        session = self._at.waha.session(session_of(tenant))
        if session.connected:
            self._at.waha.lifecycle.drop(session, self._chance.uniform(0, 1))

    async def _ask(self, tenant: TenantId, who: str) -> None:
        """Ask for a message of any kind: of an agent or automatic, at times to who never wrote."""
        chance = self._chance
        words, (image, file) = f"pedido {chance.getrandbits(40)}", self._files[tenant]
        whom = f"{NEVER_WROTE}{who}" if chance.random() < 0.1 else who
        content, data = chance.choice(
            (
                (Text(text=words), None),
                (Text(text=words), None),
                (Image(media=MediaSource(stored=image), caption=words), IMAGE),
                (File(media=MediaSource(stored=file), caption=words), FILE),
                (Location(latitude=-23.5, longitude=-46.6, title=words), None),
                (Contact(name=words, phone="5511900000001"), None),
                (Poll(question=words, options=("sexta", "sábado")), None),
            )
        )
        send_class = chance.choice((SendClass.AGENT, SendClass.BOT, SendClass.CAMPAIGN))
        times = {"expires_ms": now_ms() + chance.randrange(500, 8000)} if chance.random() < 0.1 else {}
        ask = Asked(words.replace(" ", "-"), session_of(tenant), whom, digest(data) if data else None)
        task = asyncio.create_task(self._ask_until_heard(tenant, ask, content, send_class, times))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _ask_until_heard(
        self, tenant: TenantId, ask: Asked, content: Content, send_class: SendClass, times: dict[str, int]
    ) -> None:
        """Ask under one key, twice at times, until it is accepted."""
        for _ in range(3):
            try:
                await self._at.asks(tenant, ask.who, content, key=ask.key, send_class=send_class, **times)
            except Unavailable:
                await asyncio.sleep(0.5)
            else:
                self.asked.append(ask)
                return

    async def _close(self, tenant: TenantId, who: str) -> None:
        task = asyncio.create_task(self._close_by_command(tenant, who, self._id()))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_by_command(self, tenant: TenantId, who: str, id_: str) -> None:
        """Ask at the front door, twice under one id at times, and until it is accepted."""
        address = ChatAddress(tenant, session_of(tenant), ChatId(f"{who}@c.us"))
        began = asyncio.get_running_loop().time()
        offer = Offer(tenant, address.session, Origin.CLI, now_ms(), close_command(address, id=id_, by="cli"))
        fact = close(address.session, id_)
        for _ in range(3):
            accepted = None
            try:
                async with front_door(self._at.site.settings) as handover:
                    if await handover.accept([offer]) == [Verdict.ACCEPTED]:
                        accepted = asyncio.get_running_loop().time()
            except Unavailable:
                await asyncio.sleep(0.5)
            self.told.append(_asked(fact, began, accepted))
            if accepted is not None:
                return

    def _some_message(self, tenant: TenantId, who: str) -> Message | None:
        """Pick one of the last messages of a chat that the phone knows."""
        account = self._at.waha.world.accounts.get(session_of(tenant))
        known = list(account.messages.values())[-200:] if account else []
        mine = [message for message in known if who in message.chat]
        return (
            self._chance.choice(mine) if mine and self._at.waha.session(session_of(tenant)).account else None
        )

    def _id(self) -> str:
        return f"3A{self._chance.getrandbits(72):018X}"


def _asked(fact: Fact, began: float, accepted: float | None) -> Told:
    return Told(fact, (0, 0), began, accepted)
