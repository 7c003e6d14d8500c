"""A worker dies around a send, the gateway fails in its own way, and the customer's phone is the judge.

    python -m chaos.crashes [--engine WEBJS] [--sample N] [--seed N]

A *case* is one message: where its worker's process dies (SIGKILL, `chaos.courier`), what the gateway makes of
its first call, what is sent, which of WAHA's webhooks arrive and when. What has to become of it is said by
`foreseen`, from the promises and not from wsm's code: where a message leaves under an id of ours, or its
words would show it, it leaves once; elsewhere at most once, and never again where nobody knows.

The last line is `cases=… deaths=… wrong=… seconds=…`; the exit code is not 0 when any was wrong.
"""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from chaos.courier import CALLED, Couriers, Order, couriers
from databases import Database as Urls
from postoffice import SEND_SECONDS, PostOffice
from receiver import Receiver
from shop import Shop
from wsm.config import WahaServer
from wsm.core.content import (
    OTHER_WORDS,
    Contact,
    Content,
    File,
    Image,
    Location,
    MediaSource,
    Poll,
    SendClass,
    Text,
    Video,
    Voice,
    shown,
)
from wsm.core.engines import heard_as
from wsm.core.ids import DEFAULT_SERVER, SessionName, TenantId
from wsm.core.moments import milliseconds
from wsm.gateway.waha import Gateways
from wsm.sandbox.embedded import Embedded
from wsm.sandbox.waha import Engine, Tempo, WahaSandbox
from wsm.sandbox.waha.contents import digest
from wsm.sandbox.waha.faults import Fault, Wrong
from wsm.store import media, outbox
from wsm.store.database import Database
from wsm.store.migrate import migrate

AT_ONCE = 24
"""How many cases go side by side."""
ROUNDS = 12
LONG_AFTER_SECONDS = 0.5
"""After a call has timed out, and after a look-up that came too early."""
TURN = "Chegou a sua vez! Você está sendo atendido agora."
_numbers = count(1_000)


class Point(StrEnum):
    """Where a worker dies."""

    CLAIMING = "before the claim commits"
    CLAIMED = "claimed, not called"
    CALLED = "called, no answer read"
    ANSWERED = "answered, not settled"
    SETTLED = "settled, bell not finished"


_AT = {
    Point.CLAIMING: ["store.outbox:claim#1.leaving"],
    Point.CLAIMED: ["store.outbox:claim#1.left"],
    Point.CALLED: [CALLED],
    Point.ANSWERED: ["store.outbox:settle#1.before", "store.outbox:sent_and_claim#1.before"],
    Point.SETTLED: ["store.outbox:settle#1.left", "store.outbox:sent_and_claim#1.left"],
}


class Hooks(StrEnum):
    """Which of WAHA's webhooks about it are heard: nothing may depend on it."""

    EARLY = "all, before anybody looks"
    LATE = "all, when everything is settled"
    NO_ECHO = "acks alone"
    NO_ACKS = "the echo alone"
    NONE = "none"


FILES = {
    "image": b"\xff\xd8\xff" + bytes(500),
    "file": b"%PDF-1.7 nota",
    "voice": b"OggS" + bytes(40),
    "video": b"\x00\x00\x00\x20ftypisom" + bytes(40),
}
CALLS = {
    "text": "sendText",
    "image": "sendImage",
    "file": "sendFile",
    "voice": "sendVoice",
    "video": "sendVideo",
    "location": "sendLocation",
    "contact": "sendContactVcard",
    "poll": "sendPoll",
}
FAULTS: tuple[Wrong | None, ...] = (None, *Wrong)
_NEVER_LEAVES = {
    Wrong.FAIL_BEFORE,
    Wrong.ERROR_463,
    Wrong.RATE_OVERLIMIT,
    Wrong.TOO_MANY,
    Wrong.NOT_IMPLEMENTED,
    Wrong.CUT_BEFORE,
}
_NEVER_ANSWERS = {Wrong.FAIL_AFTER, Wrong.FAIL_THEN_SEND, Wrong.HANG, Wrong.HANG_AFTER, Wrong.CUT_AFTER}
_EITHER = "sent, or failed"
_SLOWS = {Wrong.RATE_OVERLIMIT, Wrong.TOO_MANY}
_NO = {Wrong.ERROR_463: "reachout_timelock", Wrong.NOT_IMPLEMENTED: "not_implemented"}
_UNKNOWN = "outcome unknown"


class Case(msgspec.Struct, frozen=True):
    """One message, and what befalls it.

    proven  files leave under the ids that are reserved for them, and one was seen to, in this session
    cold    its correspondent never wrote
    """

    point: Point
    fault: Wrong | None
    kind: str
    hooks: Hooks
    proven: bool = True
    cold: bool = False
    send_class: SendClass = SendClass.AGENT

    def __str__(self) -> str:
        words = [self.send_class, self.kind, *["unproved"] * (not self.proven), *["cold"] * self.cold]
        return f"{' '.join(words)}: {self.point}; {self.fault or 'no fault'}; hooks: {self.hooks}"


class Fate(NamedTuple):
    """What has to become of it. left: how often it reached its customer; reason: a part of the intent's."""

    left: int
    state: str
    reason: str = ""


def foreseen(case: Case, engine: Engine) -> Fate:
    """Say what has to become of a case."""
    by_id = not engine.in_browser and (case.kind not in FILES or case.proven)
    lost = Fate(0, "failed", _UNKNOWN)
    left = 0 if case.fault is Wrong.ERROR_ACK else 1
    # That nothing is found is no proof for a file without an id; of what has other words in the chat (a
    # place, a card, a poll) its echo alone shows that it left.
    once_more = Fate(1, "sent") if by_id or case.kind == "text" else lost  # the fault was the first call's
    shows = by_id or case.kind not in OTHER_WORDS or case.hooks in {Hooks.EARLY, Hooks.NO_ACKS}
    unheard = Fate(left, "sent" if shows else _EITHER)
    answered = _answered(case, Fate(left, "sent"), unheard, once_more)
    match case.point:
        case Point.CLAIMING | Point.SETTLED:
            return answered
        case Point.CLAIMED:
            return lost if once_more is lost else answered
        case Point.CALLED | Point.ANSWERED:
            return once_more if case.fault in _NEVER_LEAVES else unheard


def _answered(case: Case, sent: Fate, unheard: Fate, once_more: Fate) -> Fate:
    """What has to become of a call whose answer, if there is one, is heard."""
    if case.fault not in _NEVER_LEAVES:
        return unheard if case.fault in _NEVER_ANSWERS else sent
    if case.fault in _NO:
        return Fate(0, "failed", _NO[case.fault])
    if case.fault in _SLOWS:
        return Fate(0, "failed", "rate_limited") if case.cold else Fate(1, "sent")
    return once_more


def every(kinds: Iterable[str] = tuple(CALLS)) -> Iterator[Case]:
    """Make every pair of a point and a fault for each of these kinds; the rest is left to chance."""
    for kind in kinds:
        for point in Point:
            for fault in FAULTS:
                yield Case(point, fault, kind, Hooks.EARLY)


def varied(case: Case, chance: random.Random) -> Case:
    """Draw what a case is left to."""
    return msgspec.structs.replace(
        case,
        hooks=chance.choice(list(Hooks)),
        proven=chance.random() < 0.8,
        cold=chance.random() < 0.2,
        send_class=chance.choice((SendClass.AGENT, SendClass.BOT)),
    )


def sample(chance: random.Random) -> list[Case]:
    """Draw cases so that each point meets each fault, and every kind a few of them."""
    kinds = [*CALLS] * len(Point) * 2
    chance.shuffle(kinds)
    pairs = [(point, fault) for point in Point for fault in FAULTS]
    return [varied(Case(*pair, kind, Hooks.EARLY), chance) for pair, kind in zip(pairs, kinds, strict=False)]


class Clock:
    """How much everybody's clock is ahead of the machine's."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now_ms(self) -> int:
        """What the gateway's says."""
        return milliseconds(datetime.now(UTC) + self.ahead)


class Ground(msgspec.Struct, frozen=True):
    """Where cases are tried: a database, a WAHA, and processes that die.

    bodies  of webhooks that came and were not heard yet, by session and event
    """

    urls: Urls
    app: Database
    system: Database
    waha: WahaSandbox
    hook: Receiver
    gateways: Gateways
    couriers: Couriers
    clock: Clock
    bodies: defaultdict[tuple[str, str], list[bytes]]


@asynccontextmanager
async def ground(urls: Urls, engine: Engine, dying: Couriers) -> AsyncIterator[Ground]:
    """Open one for an engine."""
    app, system = Database(urls.app_url, connections=6), Database(urls.system_url, connections=2)
    tempo, clock = Tempo(waits=0.002, retries=0.001), Clock()
    sandbox = WahaSandbox(engine=engine, tempo=tempo, now_ms=clock.now_ms)
    async with Receiver() as hook, sandbox as waha:
        server = WahaServer(url=waha.base_url, api_key=waha.api_key)
        gateways = Gateways(
            {DEFAULT_SERVER: server}, send_timeout_seconds=SEND_SECONDS, look_timeout_seconds=2.0
        )
        await app.open()
        await system.open()
        try:
            yield Ground(urls, app, system, waha, hook, gateways, dying, clock, defaultdict(list))
        finally:
            await gateways.aclose()
            await app.close()
            await system.close()
            assert await waha.idle()


class Trial:
    """A case of a tenant of its own."""

    def __init__(self, on: Ground, case: Case) -> None:
        number = next(_numbers)
        self.case = case
        self.phone = f"55119{number:08}"
        self._on = on
        self._number = number
        self._office = PostOffice(Shop(on.app, on.system, TenantId(number)), on.waha, on.hook, on.gateways)
        self._office.ahead = on.clock.ahead
        self._session: SessionName = self._office.at.address.session
        self._then = f"e depois {number}"

    async def begin(self) -> None:
        """Found the tenant, let its customer write unless he is cold, and ask for what is to be sent."""
        office, case = self._office, self.case
        await office.at.founded()
        await office.open(self._session)
        await self._hear("session.status")
        if not case.cold:
            await office.write(self.phone)
            await office.deliver()
        if case.proven:
            await outbox.prove_media_ids(office.at.database, await office.session())
        await self._ask(await self._content())
        if not case.cold:
            await self._ask(Text(text=self._then))
        if case.fault is not None:
            call = CALLS[case.kind]
            fault = Fault(kind=case.fault, session=self._session, call=call, seconds=LONG_AFTER_SECONDS)
            self._on.waha.world.faults.add(fault)

    async def die(self) -> None:
        """Have its bell delivered by a worker that dies there."""
        on, case = self._on, self.case
        is_claim = case.point in {Point.CLAIMING, Point.CLAIMED}
        died = await on.couriers.deliver(
            Order(
                points=_AT[case.point],
                nth=2 if is_claim and case.kind in FILES else 1,  # the first one only says what to load
                database_url=on.urls.app_url,
                waha_url=on.waha.base_url,
                api_key=on.waha.api_key,
                tenant=self._number,
                bell=f"deliver-died-{self._number}",
                ahead_seconds=self._office.ahead.total_seconds(),
                send_seconds=SEND_SECONDS,
            )
        )
        assert died, f"{case}: it never came there"

    async def deliver(self) -> None:
        """Let another worker see what there is."""
        self._office.ahead = self._on.clock.ahead
        self._office.clock()
        heard = {
            Hooks.EARLY: ("message.any", "message.ack"),
            Hooks.NO_ECHO: ("message.ack",),
            Hooks.NO_ACKS: ("message.any",),
        }
        await self._hear(*heard.get(self.case.hooks, ()))
        await self._office.deliver()

    async def is_settled(self) -> bool:
        """Whether nothing is left to do."""
        states = {state for _, state in await self._office.states()}
        return not states & {"pending", "sending", "indeterminate"}

    async def judge(self) -> list[str]:
        """Compare what became of it with what had to, by the customer's phone. Returns what is wrong."""
        if self.case.hooks is Hooks.LATE:
            await self._hear("message.any", "message.ack")
        fate = foreseen(self.case, self._on.waha.world.engine)
        got = [each for each in self._on.waha.world.phone(self.phone).inbox if each.text != TURN]
        its = [each for each in got if each.text != self._then]
        [intent, *_] = await self._office.rows(
            "select id, state, reason, reserved_id from outbox"
            f" where class in ('agent', 'bot') and body is distinct from '{self._then}' order by id"
        )
        rows = await self._office.rows(
            "select author, kind, body, bare_id from messages where from_me"
            f" and body not in ('{TURN}', '{self._then}') order by id"
        )
        said = [(row.author, row.kind, "" if row.kind in OTHER_WORDS else row.body) for row in rows]
        kind, author = heard_as(self.case.kind), self.case.send_class.value
        words = "" if self.case.kind in OTHER_WORDS else shown(await self._content())
        wanted = [(author, kind, words)] if intent.state == "sent" else []
        if fate.state == _EITHER and intent.state == "failed" and self.case.hooks is Hooks.LATE:
            wanted = said  # it left, and its echo came after all hope was given up
        then = [] if self.case.cold else [self._then]
        claims: list[tuple[bool, str]] = [
            (len(its) == fate.left, f"left {len(its)} times and not {fate.left}"),
            (intent.state in fate.state, f"is {intent.state} and not {fate.state} ({intent.reason})"),
            (fate.reason in (intent.reason or ""), f"the reason is {intent.reason} and not {fate.reason}"),
            (said == wanted, f"the history has {said} and not {wanted}"),
            (
                not rows or {each.id for each in its} <= {row.bare_id for row in rows},
                "the history has another id",
            ),
            ([each.text for each in got[len(its) :]] == then, "what came after it left before it, or never"),
            (all(self._is_whole(each.media.sha256) for each in its if each.media), "other bytes arrived"),
        ]
        return [f"{self.case}: {what}" for is_so, what in claims if not is_so]

    def _is_whole(self, sha256: str | None) -> bool:
        return sha256 == digest(FILES[self.case.kind])

    async def _ask(self, content: Content) -> None:
        self._office.clock()
        chat = f"{self.phone}@c.us"
        await self._office.at.asks_to_send(chat, content, send_class=self.case.send_class)

    async def _hear(self, *events: str) -> None:
        """Let WAHA's webhooks of this session in, all that came so far."""
        on = self._on
        while on.hook.got:
            got = on.hook.got.pop()
            if got.body:
                on.bodies[got.json["session"], got.json["event"]].append(got.body)
        bodies = [body for event in events for body in on.bodies.pop((self._session, event), ())]
        if bodies:
            await self._office.at.turn(*bodies)

    async def _content(self) -> Content:
        """What is to be sent, with words of its own."""
        words = f"{self.case.kind} {self._number}"
        match self.case.kind:
            case "text":
                return Text(text=words)
            case "location":
                return Location(latitude=-23.5, longitude=-46.6, title=words)
            case "contact":
                return Contact(name=words, phone="5511900000001")
            case "poll":
                return Poll(question=words, options=("sexta", "sábado"))
        data = FILES[self.case.kind]
        at = self._office.at
        number = await media.put(
            at.database, at.tenant, data, mimetype="application/octet-stream", filename=None, now=at.now
        )
        source = MediaSource(stored=number, filename="a.bin")
        if self.case.kind == "voice":
            return Voice(media=source)
        kinds: dict[str, type[Image | File | Video]] = {"image": Image, "file": File, "video": Video}
        return kinds[self.case.kind](media=source, caption=words)


async def tried(on: Ground, cases: Sequence[Case]) -> list[str]:
    """Try cases side by side, and return what is wrong with them."""
    trials = [Trial(on, case) for case in cases]
    await asyncio.gather(*(trial.begin() for trial in trials))
    await asyncio.gather(*(trial.die() for trial in trials))
    open_ = trials
    for ahead_seconds in (0, *[3, 31] * ROUNDS):  # after three seconds it may still be on its way
        on.clock.ahead += timedelta(seconds=ahead_seconds)
        await asyncio.gather(*(trial.deliver() for trial in open_))
        open_ = [trial for trial in open_ if not await trial.is_settled()]
        if ahead_seconds == 3 or not open_:
            assert await on.waha.idle()
        if not open_:
            break
    wrong = [f"{trial.case}: it is never settled" for trial in open_]
    for trial in trials:
        if trial not in open_:
            wrong += await trial.judge()
    return wrong


async def try_all(urls: Urls, engine: Engine, cases: Sequence[Case], dying: Couriers) -> list[str]:
    """Try cases on an engine, so many at once."""
    wrong: list[str] = []
    async with ground(urls, engine, dying) as on:
        for is_proven in (True, False):
            on.waha.world.media_ids = is_proven
            its = [case for case in cases if case.proven is is_proven]
            for first in range(0, len(its), AT_ONCE):
                wrong += await tried(on, its[first : first + AT_ONCE])
    return [f"{engine}: {what}" for what in wrong]


def main() -> None:
    """Try every case of every kind on every engine, or a sample, on servers of its own."""
    parser = argparse.ArgumentParser(description="a worker dies around every send")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    parser.add_argument("--engine", type=Engine, action="append")
    parser.add_argument("--sample", action="store_true", help="each point with each fault, kinds by chance")
    asked = parser.parse_args()
    print(f"seed={asked.seed}", flush=True)  # noqa: T201
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    began, chance = time.monotonic(), random.Random(asked.seed)
    engines = asked.engine or list(Engine)
    drawn = {
        engine: sample(chance) if asked.sample else [varied(case, chance) for case in every()]
        for engine in engines
    }
    with tempfile.TemporaryDirectory(prefix="wsm-") as folder, Embedded(Path(folder) / "home") as servers:
        asyncio.run(migrate(servers.database_url()))
        urls = Urls(*(servers.database_url(role) for role in ("postgres", "wsm_app", "wsm_system")))
        wrong = asyncio.run(_run(urls, drawn))
    for what in wrong:
        print(what)  # noqa: T201
    cases = sum(map(len, drawn.values()))
    print(f"{cases=} deaths={cases} wrong={len(wrong)} seconds={time.monotonic() - began:.0f}")  # noqa: T201
    sys.exit(bool(wrong))


async def _run(urls: Urls, drawn: dict[Engine, list[Case]]) -> list[str]:
    wrong: list[str] = []
    async with couriers() as dying:
        for engine, cases in drawn.items():
            wrong += await try_all(urls, engine, cases, dying)
            print(f"{engine}: {len(cases)} cases, {len(wrong)} wrong so far", flush=True)  # noqa: T201
    return wrong


if __name__ == "__main__":
    main()
