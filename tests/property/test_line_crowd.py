"""The line on PostgreSQL under any history, eight workers at a time, some of whom die in the middle.

Each worker has a clock of its own, a few milliseconds beside the others'. Timers ring, and notices leave
while the line moves. What the audit says was done is judged by the model, turn by turn, and what was told at
the line as it was when that was claimed; what the tables hold is compared with it: they are all that a crash
leaves.
WSM_LINE_EXAMPLES asks for more histories than the suite has time for.
"""

import asyncio
import itertools
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from databases import Database as Urls
from line_model import Clerk, Hall, Model, Row
from outboxes import Outbox
from shop import Shop
from told_model import Ears
from wsm.core.asks import Ask, SetAgent, Verb
from wsm.core.events import Origin
from wsm.core.ids import ChatAddress, ChatId, TenantId
from wsm.core.moments import milliseconds
from wsm.core.notices import Policy
from wsm.core.tickets import Level
from wsm.store import fleet, reads
from wsm.store.database import Database
from wsm.streams.handover import Bell
from wsm.streams.keys import Kind
from wsm.wire.waha import close_command, timer_command
from wsm.worker.turn import Turns

WORKERS = 8
NAMES = ("lia", "leo")
PEOPLE = 14
STEPS = (7, 63, 126, 1806, 86_401)
"""Seconds; no sum of them comes near a limit of the line."""
POLICY = Policy(every=60, at_most=1, near=2, step=2, silence=600, silence_again=900)
_tenants = itertools.count(77_000_001)

CUSTOMER = st.tuples(
    st.sampled_from(["wrote", "wrote", "wrote", "closed", "asked", "done"]), st.integers(1, PEOPLE), st.none()
)
TICKET = st.tuples(
    st.just("ask"),
    st.integers(1, PEOPLE),
    st.one_of(
        st.builds(Ask, verb=st.sampled_from([Verb.RETURN, Verb.PARK, Verb.LEAVE])),
        st.builds(Ask, verb=st.just(Verb.GIVE), agent=st.sampled_from(NAMES)),
        st.builds(Ask, verb=st.just(Verb.MOVE), queue=st.sampled_from(["default", "two"]),
                  level=st.sampled_from([None, *Level])),
    ),
)  # fmt: skip
OTHERS = st.tuples(
    st.just("ask"),
    st.none(),
    st.one_of(
        st.builds(
            Ask, verb=st.sampled_from([Verb.NEXT, Verb.ONLINE, Verb.OFFLINE]), agent=st.sampled_from(NAMES)
        ),
        st.just(Ask(verb=Verb.TEND)),
    ),
)
MOVE = st.one_of(CUSTOMER, CUSTOMER, CUSTOMER, TICKET, OTHERS)
ROUND = st.tuples(
    st.lists(MOVE, min_size=1, max_size=WORKERS),
    st.sampled_from((0, 0, *STEPS)),
    st.lists(st.integers(1, 3000), max_size=2),
)
"""What happens at once, the seconds until the next round, and after how many rounds of the loop workers die:
a turn takes some 2,000 of them, in nearly all of which it waits for the database."""


class Crowd:
    """A tenant with two queues, his workers, and the model that has followed him so far."""

    def __init__(self, at: Shop, model: Model) -> None:
        self.at = at
        self.model = model
        self.ears = Ears(model, POLICY)
        self.box = Outbox(at)
        self._numbers = itertools.count(1)
        self._seen = 0
        self._phones: dict[int, str] = {}

    async def round(self, moves: Sequence[Any], deaths: Sequence[int]) -> None:
        """Let everything happen at once. What a worker leaves by dying is another one's, as SWEEP has it."""
        bodies = [self._body(*move) for move in moves if move[0] != "done" or self.model.served()]
        bodies += await self._due()
        dying = [
            asyncio.create_task(self._dies(body, steps)) for body, steps in zip(bodies, deaths, strict=False)
        ]
        await asyncio.gather(*dying, *(self._turn(body) for body in bodies[len(dying) :]), self._tell())
        for body in bodies[: len(dying)]:
            await self._turn(body)
        self.at.later(1)
        await self._tell()
        await self._follow()
        await self._compare()

    def _body(self, what: str, who: int | None, ask: Ask | None) -> tuple[bytes, Origin]:
        phone = f"5511{who:09d}" if who else None
        if what == "done" and who:  # of those who are served, the nth
            phone = self._phones[self.model.served()[who % len(self.model.served())]]
        if what in {"wrote", "asked"}:
            assert phone is not None
            self.ears.questions += what == "asked"
            return self.at.says(phone, "oi" if what == "wrote" else "posição"), Origin.WAHA
        if ask is None:
            address = ChatAddress(self.at.tenant, self.at.address.session, ChatId(f"{phone}@c.us"))
            return close_command(address, id=f"{next(self._numbers):032x}", by="cli"), Origin.CLI
        return self.at.ask(ask, phone), Origin.CLI

    async def _due(self) -> list[tuple[bytes, Origin]]:
        """The timers that the clock would ring."""
        rows = await self.box.rows(
            "select id, kind, due_at from timers"
            f" where due_at <= '{self.at.now.isoformat()}' order by due_at, id"
        )
        session = self.at.address.session
        return [
            (timer_command(session, row.id, row.kind, milliseconds(row.due_at)), Origin.CLOCK) for row in rows
        ]

    async def _tell(self) -> None:
        """Let all that is due leave."""
        while claimed := await self.box.claim():
            await self.box.sent(claimed)

    async def _turn(self, body: tuple[bytes, Origin]) -> None:
        number = next(self._numbers)
        now = self.at.now + timedelta(milliseconds=number * 37 % 997)
        turns = Turns(self.at.database, clock=lambda: now, stale_after=timedelta(days=60))
        entry = self.at.entry(*body)
        settled = await turns.run(
            Bell(Kind.TURN, self.at.tenant, f"turn-{number}", (entry,), frozenset(), alone=False)
        )
        assert settled.handled == [entry]

    async def _dies(self, body: tuple[bytes, Origin], steps: int) -> None:
        task = asyncio.create_task(self._turn(body))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    async def _follow(self) -> None:
        """Let the model take what was done since: a turn's rows are those of one time, next to each other."""
        rows = [row for row in await reads.audit(self.at.database, self.at.tenant) if row.id > self._seen]
        self._seen = max((row.id for row in rows), default=self._seen)
        talks = await self.box.rows("select id, chat_id from conversations")
        self._phones = {row.id: row.chat_id.partition("@")[0] for row in talks}
        for (at, _), of_turn in itertools.groupby(rows, key=lambda row: (row.at, row.what[:8] == "claimed.")):
            done = [Row(row.what, row.conversation_id, row.detail, at) for row in of_turn]
            for row in done:
                if row.what == "claimed.place":
                    self.ears.claimed(row)
                elif row.what.startswith("claimed.turn") and row.detail["word"] == "turn":
                    assert self.model.people[row.conversation_id or 0].state == "served"
                self.ears.before(row)
            self.model.turn(done)

    async def _compare(self) -> None:
        """What the tables say now, and nothing else, is where everyone stands."""
        rows = await reads.line(self.at.database, self.at.tenant)
        async with self.at.database.transaction(self.at.tenant) as transaction:
            found = await (await transaction._connection.execute(
                b"select t.conversation_id, t.queue_id, t.state, c.state as conversation, t.agent_id"
                b" from tickets t join conversations c on c.id = t.conversation_id"
                b" where t.id in (select max(id) from tickets group by conversation_id)"
                b" order by t.rank_at, t.seq"
            )).fetchall()  # fmt: skip
        for hall in self.model.halls:
            waiting = [row.conversation_id for row in found if (row.state, row.queue_id) == ("waiting", hall)]
            assert waiting == self.model.waiting(hall)
            places = [row.place for row in rows if row.place and row.queue == self._names[hall]]
            assert places == [*range(1, len(waiting) + 1)]
        assert {row.conversation_id: row.state for row in found} == {
            who: each.state for who, each in self.model.people.items() if who
        }
        assert [row for row in found if row.state != row.conversation] == []
        served = {row.conversation_id: row.agent_id for row in found if row.state == "served"}
        assert served == {who: self.model.people[who].clerk for who in self.model.served()}

    _names: dict[int, str] = {}  # noqa: RUF012 (set once per crowd)

    async def end(self) -> None:
        """Let agents work until nobody is left."""
        for name in NAMES * bool(self.model.clerks):
            await self.round([("ask", None, Ask(verb=Verb.ONLINE, agent=name))], ())
        for _ in range(2 * PEOPLE):
            if not self.model.served():
                break
            await self.round([("done", who + 1, None) for who in range(len(self.model.served()))], ())
        self.at.later(STEPS[-1])
        await self.round([("ask", None, Ask(verb=Verb.TEND))], ())
        assert {each.state for who, each in self.model.people.items() if who} <= {"closed"}
        left = "select id, state, ended from tickets where state <> 'closed' or ended is null"
        assert await self.box.rows(left) == []


URGENT = Ask(verb=Verb.MOVE, level=Level.URGENT)
DONE = [("done", 1, None), ("done", 2, None)]
BUSY: list[Any] = [
    ([("wrote", who, None) for who in range(1, 9)], 7, [900]),
    ([("wrote", who, None) for who in range(9, 15)], 126, []),
    (DONE[:1], 126, []),
    ([], 63, []),
    *(([*DONE, ("asked", who, None)], 126, [who * 100]) for who in (9, 11, 14)),
    ([("ask", who, URGENT) for who in (10, 12, 14)], 1806, []),
    ([], 7, []),
    *((DONE, 126, []) for _ in range(3)),
    ([("wrote", who, None) for who in range(1, 9)], 0, []),
]
"""A line of twelve in which nearly everything is told that can be."""

COMES, GOES = (("ask", None, Ask(verb=verb, agent="lia")) for verb in (Verb.ONLINE, Verb.OFFLINE))
DYING: list[Any] = [
    *(([move, ("wrote", n + 1, None)], 7, [n * 300]) for n, move in enumerate([COMES, GOES] * 5)),
    ([("ask", who, Ask(verb=Verb.PARK)) for who in range(1, 4)], 0, [1200, 1500]),
]
"""An agent comes and goes, and who should write it dies at every point of a turn."""


@given(agents=st.booleans(), rounds=st.lists(ROUND, min_size=3, max_size=8))
@example(agents=False, rounds=BUSY)
@example(agents=True, rounds=DYING)
@settings(
    max_examples=int(os.environ.get("WSM_LINE_EXAMPLES", "3")),
    deadline=None,
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if "WSM_LINE_EXAMPLES" in os.environ else [])],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_whatever_happens_at_once_the_line_stays_true(
    database: Urls,
    agents: bool,
    rounds: list[Any],
) -> None:
    app, system = (
        Database(database.app_url, connections=WORKERS),
        Database(database.system_url, connections=1),
    )
    await app.open()
    await system.open()
    try:
        crowd = await founded(app, system, agents=agents)
        for moves, seconds, deaths in rounds:
            await crowd.round(moves, deaths)
            crowd.at.later(seconds)
        await crowd.end()
    finally:
        await app.close()
        await system.close()


async def founded(app: Database, system: Database, *, agents: bool) -> Crowd:
    """Found a tenant with two queues, and agents if there are to be any."""
    at = await Shop(app, system, TenantId(next(_tenants))).founded(capacity=2)
    await fleet.set_queue(system, at.tenant, "two", ageing_minutes=1)
    await fleet.set_notices(system, at.tenant, POLICY)
    for name, capacity in zip(NAMES, (1, 2), strict=True):
        if agents:
            await at.asks(SetAgent(agent=name, capacity=capacity, queues=("two",) if name == "leo" else None))
    queues = {row.name: row.id for row in await reads.queues(app, at.tenant)}
    clerks = {
        row.id: Clerk(row.name, row.capacity, {queues["two"]} if row.name == "leo" else {*queues.values()})
        for row in await reads.agents(app, at.tenant)
    }
    halls = {queues["default"]: Hall(2), queues["two"]: Hall(1, ageing=timedelta(minutes=1))}
    crowd = Crowd(at, Model(halls, clerks, queues["default"]))
    crowd._names = {number: name for name, number in queues.items()}
    return crowd
