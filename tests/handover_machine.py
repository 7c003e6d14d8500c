"""The hand-over's model: workers claim, renew, commit, finish, stall past their leases and die; replies get
lost, a stock RQ worker steals bells, scripts are forgotten; entries fail once, always, or kill their worker.

After every step the figures are compared with what is there; `teardown` drains, and nothing may be left.
"""

from collections import Counter
from typing import Any, ClassVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from handover_world import (
    LEASE_MS,
    LIMITS,
    TENANTS,
    TURN_BYTES,
    TURN_ENTRIES,
    Letter,
    OpenTurn,
    World,
    letter,
    of_chat,
)
from waiting import wait_for
from wsm.core.events import Origin
from wsm.core.ids import ChatId, SessionName, TenantId
from wsm.streams.handover import ATTEMPTS, Bell, Entry, Offer, Parking, Verdict
from wsm.streams.keys import Kind

WORKERS = ("ana", "bia", "caio")
NATURES = ("good", "good", "good", "good", "flaky", "poison", "lethal")
LEFT_BEHIND = {"wsm:load", "wsm:turn", "wsm:wake", *(f"wsm:{tenant}:dead" for tenant in TENANTS)}
ALWAYS = 10**6

which_worker = st.sampled_from(WORKERS)
which_tenant = st.sampled_from(TENANTS)
which = st.integers(0, 5)


class Job(msgspec.Struct, eq=False):
    """What a worker knows of a bell that it holds."""

    bell: Bell
    handled: list[Entry] = []
    parked: list[Parking] = []
    turn: OpenTurn | None = None
    begun: bool = False


class HandoverMachine(RuleBasedStateMachine):
    """The model: who holds what until when, what was accepted, and what must therefore come out."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.world.reset()
        self.now = 10**12
        self.jobs: dict[str, list[Job]] = {worker: [] for worker in WORKERS}
        self.leases: dict[tuple[TenantId, Kind], tuple[Bell, int]] = {}
        self.attempts: Counter[tuple[TenantId, str]] = Counter()
        self.open: dict[TenantId, list[OpenTurn]] = {tenant: [] for tenant in TENANTS}
        self.accepted: dict[TenantId, list[Letter]] = {tenant: [] for tenant in TENANTS}
        self.faults: dict[int, int] = {}
        self.lethal: set[int] = set()
        self.keys = 0
        self.sound = False
        self.look()

    def look(self) -> None:
        self.held, self.shared = self.world.run(self.world.look())

    def do(self, coroutine: Any) -> Any:
        return self.world.run(coroutine)

    # --- the front door

    @rule(
        items=st.lists(
            st.tuples(which_tenant, st.sampled_from("ab"), st.sampled_from(NATURES), st.booleans()),
            min_size=1,
            max_size=5,
        )
    )
    def accept(self, items: list[tuple[TenantId, str, str, bool]]) -> None:
        offers = []
        for tenant, chat, nature, own in items:
            self.keys += 1
            if nature == "lethal":
                self.lethal.add(self.keys)
            elif nature != "good":
                self.faults[self.keys] = 1 if nature == "flaky" else ALWAYS
            offers.append((tenant, Letter(chat, self.keys), Origin.CLOCK if own else Origin.WAHA))
        self.offer(offers)

    @rule(tenant=which_tenant, pick=which)
    def accept_again(self, tenant: TenantId, pick: int) -> None:
        if known := self.accepted[tenant]:
            self.offer([(tenant, known[-1 - pick % len(known)], Origin.WAHA)])

    def offer(self, offers: list[tuple[TenantId, Letter, Origin]]) -> None:
        verdicts = self.do(
            self.world.handover.accept(
                [Offer(t, SessionName("s"), origin, 1, each.body) for t, each, origin in offers]
            )
        )
        loads = {tenant: self.held[tenant].load for tenant in TENANTS}
        for (tenant, each, origin), verdict in zip(offers, verdicts, strict=True):
            entries, size = loads[tenant]
            everything = sum(bytes_ for _, bytes_ in loads.values())
            expected = Verdict.ACCEPTED
            if origin is Origin.WAHA:
                if entries >= LIMITS.tenant_entries or size + len(each.body) > LIMITS.tenant_bytes:
                    expected = Verdict.TENANT_FULL
                elif everything + len(each.body) > LIMITS.all_bytes:
                    expected = Verdict.ALL_FULL
            assert verdict is expected
            if verdict is Verdict.ACCEPTED:
                loads[tenant] = (entries + 1, size + len(each.body))
                if each not in self.accepted[tenant]:
                    self.accepted[tenant].append(each)

    # --- bells

    @rule(kind=st.sampled_from(Kind), limit=st.integers(1, 3))
    def ring(self, kind: Kind, limit: int) -> None:
        self.do(self.world.handover.ring(kind, limit))

    @rule(tenant=which_tenant)
    def mail(self, tenant: TenantId) -> None:
        self.do(self.world.handover.mail(Kind.DELIVER, [tenant]))

    @rule(worker=which_worker, turns=st.integers(0, 2), deliveries=st.integers(0, 1), lost=st.booleans())
    def claim(self, worker: str, turns: int, deliveries: int, *, lost: bool = False) -> None:
        """`lost`: the reply does not reach the worker, who then holds bells that he does not know."""
        held = [job.bell for job in self.jobs[worker]]
        slots = {Kind.TURN: turns, Kind.DELIVER: deliveries}
        claim = self.do(self.world.handover.claim(worker, slots, held, now_ms=self.now))
        assert set(claim.lost) == {bell.id for bell in held if not self.mine(bell)}
        for bell in held:
            if self.mine(bell):
                self.leases[bell.tenant, bell.kind] = (bell, self.now + LEASE_MS)
        for bell in claim.bells:
            assert (bell.tenant, bell.kind) not in self.leases, "a second bell while one is held"
            self.leases[bell.tenant, bell.kind] = (bell, self.now + LEASE_MS)
            self.check_bell(bell)
            if not lost:
                self.jobs[worker].append(Job(bell))

    def check_bell(self, bell: Bell) -> None:
        assert len(bell.entries) <= (1 if bell.alone else TURN_ENTRIES)
        assert len(bell.entries) <= 1 or sum(len(entry.body) for entry in bell.entries) <= TURN_BYTES
        assert len(set(bell.entries)) == len(bell.entries)

    def mine(self, bell: Bell) -> bool:
        lease = self.leases.get((bell.tenant, bell.kind))
        return lease is not None and lease[0].id == bell.id

    # --- turns

    @rule(worker=which_worker, pick=which)
    def begin(self, worker: str, pick: int) -> None:
        """Open a turn's transaction and write; a lethal entry kills the worker instead."""
        job = self.pick(worker, pick)
        if job is None or job.begun or len(self.open[job.bell.tenant]) > 1:
            return
        job.begun = True
        for chat, entries in of_chat(job.bell.entries).items():
            failing = [entry for entry in entries if self.fails(entry)]
            if chat in job.bell.parked:
                job.parked.append(Parking(ChatId(chat), None, "", tuple(entries)))
            elif any(letter(entry.body).key in self.lethal for entry in entries):
                self.crash(worker)
                return
            elif failing:
                self.faults[letter(failing[0].body).key] -= 1
                job.parked.append(Parking(ChatId(chat), failing[0].id, "boom", tuple(entries)))
            else:
                job.handled += entries
        if job.handled:
            others = self.open[job.bell.tenant]
            turn = OpenTurn(self.world, job.bell.tenant, (letter(entry.body) for entry in job.handled))
            job.turn = turn
            others.append(turn)
            self.do(turn.reach() if len(others) == 1 else wait_for(lambda: turn.stands_in_line))

    def fails(self, entry: Entry) -> bool:
        return self.faults.get(letter(entry.body).key, 0) > 0

    @rule(worker=which_worker, pick=which)
    def commit(self, worker: str, pick: int) -> None:
        job = self.pick(worker, pick)
        if job and job.turn and self.open[job.bell.tenant][0] is job.turn:
            self.do(job.turn.commit())
            self.leave_lane(job)

    def leave_lane(self, job: Job) -> None:
        turns = self.open[job.bell.tenant]
        if job.turn:
            turns.remove(job.turn)
            job.turn = None
        if turns:
            self.do(turns[0].reach())

    @rule(worker=which_worker, pick=which, deliver=st.booleans(), again=st.booleans())
    def finish(self, worker: str, pick: int, *, deliver: bool = False, again: bool = False) -> None:
        """Settle a bell, or hand it back untouched. `again`: the reply is lost and the call repeated."""
        job = self.pick(worker, pick)
        if job is None or job.turn:
            return
        self.jobs[worker].remove(job)
        expected = self.mine(job.bell)
        for mine in (expected, False) if again else (expected,):
            assert mine is self.do(
                self.world.handover.finish(
                    job.bell,
                    handled=job.handled,
                    parked=job.parked,
                    deliver=deliver,
                    more=deliver and job.bell.kind is Kind.DELIVER,
                    now_ms=self.now,
                )
            )
        if expected:
            del self.leases[job.bell.tenant, job.bell.kind]
            self.attempts.update((job.bell.tenant, each.culprit) for each in job.parked if each.culprit)

    @rule(worker=which_worker)
    def crash(self, worker: str) -> None:
        """Kill a worker: open transactions roll back, leases are left to run out."""
        jobs, self.jobs[worker] = self.jobs[worker], []
        for job in reversed(jobs):
            if job.turn:
                self.do(job.turn.abort())
                self.leave_lane(job)

    def pick(self, worker: str, number: int) -> Job | None:
        jobs = self.jobs[worker]
        return jobs[number % len(jobs)] if jobs else None

    # --- the world

    @rule(milliseconds=st.sampled_from((500, 3000, LEASE_MS + 1, 40_000)))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule()
    def sweep(self) -> None:
        """Sweep twice: what is in order by then is left alone, however much of it there is."""
        out = {key for key, (_, until) in self.leases.items() if until < self.now}
        assert self.sweep_once()[1] == len(out)
        for key in out:
            bell, _ = self.leases.pop(key)
            self.attempts.update((bell.tenant, entry.id) for entry in bell.entries if bell.alone)
        assert self.sweep_once() == (0, 0, 0, 0, 0)

    def sweep_once(self) -> tuple[int, ...]:
        total, cursor = [0] * 5, -1
        while cursor:
            done = self.do(self.world.handover.sweep(max(cursor, 0), slice_size=1, now_ms=self.now))
            cursor, *found = msgspec.structs.astuple(done)
            total = [a + b for a, b in zip(total, found, strict=True)]
        return tuple(total)

    @rule(tenant=which_tenant)
    def steal(self, tenant: TenantId) -> None:
        """A stock RQ worker pops a bell and dies."""
        self.do(self.world.redis.lpop(f"rq:queue:{tenant}"))

    @rule()
    def forget_scripts(self) -> None:
        self.do(self.world.redis.script_flush())

    # --- what holds at any time

    @invariant()
    def check(self) -> None:
        self.sound = False
        self.look()
        log = self.world.log()
        for tenant in TENANTS:
            self.check_tenant(tenant, log[tenant])
        loads = [self.held[tenant].load for tenant in TENANTS]
        assert self.shared.load == (sum(n for n, _ in loads), sum(size for _, size in loads))
        pointers = [its["bell"] for held in self.held.values() for its in held.pointers.values() if its]
        assert self.shared.jobs == set(pointers)
        self.sound = True

    def check_tenant(self, tenant: TenantId, log: list[Letter]) -> None:
        held = self.held[tenant]
        waiting = held.waiting
        assert len(log) == len(set(log)), "committed twice"
        assert {*self.accepted[tenant]} == {*waiting, *(each for _, each in held.dead), *log}, (
            "lost, or from nowhere"
        )
        assert held.load == (len(waiting), sum(len(each.body) for each in waiting))
        dead = {each for _, each in held.dead}
        for chat in "ab":
            order = [each for each in self.accepted[tenant] if each.chat == chat and each not in dead]
            done = [each for each in log if each.chat == chat and each not in dead]
            assert done == [each for each in order if each in done], "out of order"
        listed = [its["bell"] for its in held.pointers.values() if its.get("state") == "queued"]
        assert set(held.queue) <= set(listed)
        assert len(held.queue) == len(set(held.queue))
        claimed = [its["bell"] for its in held.pointers.values() if its.get("state") == "claimed"]
        assert sorted(claimed) == sorted(held.started)
        assert set(claimed) == {bell.id for bell, _ in self.leases.values() if bell.tenant == tenant}
        if waiting or listed or claimed:
            assert tenant in self.shared.active

    # --- the end

    def teardown(self) -> None:
        if self.sound:
            self.drain()
        for worker in WORKERS:
            self.crash(worker)

    def drain(self) -> None:
        """Let one healthy worker work, and sweeps and time pass, until nothing is left."""
        for worker in WORKERS:
            self.crash(worker)
        for _ in range(400):
            if not (self.shared.active or any(self.shared.mail.values())):
                break
            self.now += 130_000
            self.sweep()
            for kind in Kind:
                self.ring(kind=kind, limit=10)
            self.claim(worker=WORKERS[0], turns=5, deliveries=5)
            while self.jobs[WORKERS[0]]:
                self.begin(worker=WORKERS[0], pick=0)
                self.commit(worker=WORKERS[0], pick=0)
                self.finish(worker=WORKERS[0], pick=0)
            self.check()
        assert self.shared.keys <= LEFT_BEHIND, "left behind"
        assert self.shared.load == (0, 0)
        for tenant, log in self.world.log().items():
            dead = self.held[tenant].dead
            assert {*log, *(each for _, each in dead)} == {*self.accepted[tenant]}
            assert all(self.attempts[tenant, id_] >= ATTEMPTS for id_, _ in dead), "buried too early"
            hopeless = {each for each in self.accepted[tenant] if self.hopeless(each)}
            assert hopeless <= {each for _, each in dead}, "a hopeless entry came through"

    def hopeless(self, each: Letter) -> bool:
        return each.key in self.lethal or self.faults.get(each.key, 0) > ALWAYS / 2
