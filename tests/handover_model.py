"""The hand-over's model: workers claim, renew, commit, finish, stall past their leases and die; replies get
lost, a stock RQ worker steals bells, scripts are forgotten; entries fail once, always, or kill their worker.
Tenants are paused and go on, dead letters return or are dropped.

`check` compares every figure with what is there; `drain` lets a healthy worker work, and nothing may be left.
"""

from collections import Counter
from typing import Any

import msgspec

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
NATURES = ("good",) * 8 + ("flaky", "flaky", "poison", "lethal")
LEFT_BEHIND = {
    *("wsm:load", "wsm:turn", "wsm:wake:turn", "wsm:wake:deliver", "wsm:dead"),
    *(f"wsm:{tenant}:dead" for tenant in TENANTS),
}
ALWAYS = 10**6


class Job(msgspec.Struct, eq=False):
    """What a worker knows of a bell that it holds."""

    worker: str
    bell: Bell
    handled: list[Entry] = []
    parked: list[Parking] = []
    turn: OpenTurn | None = None
    begun: bool = False


class HandoverModel:
    """Who holds what until when, what was accepted, and what must therefore come out."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.reset()
        self.now = 10**12
        self.jobs: dict[str, list[Job]] = {worker: [] for worker in WORKERS}
        self.leases: dict[tuple[TenantId, Kind], tuple[Bell, int]] = {}
        self.attempts: Counter[tuple[TenantId, str]] = Counter()
        self.open: dict[TenantId, list[OpenTurn]] = {tenant: [] for tenant in TENANTS}
        self.accepted: dict[TenantId, list[Letter]] = {tenant: [] for tenant in TENANTS}
        self.faults: dict[int, int] = {}
        self.lethal: set[int] = set()
        self.replayed: set[Letter] = set()
        self.dropped: set[Letter] = set()
        self.buried: dict[TenantId, set[str]] = {tenant: set() for tenant in TENANTS}
        self.keys = 0
        self.sound = False
        self.look()

    def look(self) -> None:
        self.held, self.shared = self.world.run(self.world.look())

    def do(self, coroutine: Any) -> Any:
        return self.world.run(coroutine)

    # --- the front door

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

    def accept_again(self, tenant: TenantId, known: Letter) -> None:
        self.offer([(tenant, known, Origin.WAHA)])

    def offer(self, offers: list[tuple[TenantId, Letter, Origin]]) -> None:
        verdicts = self.do(
            self.world.handover.accept(
                [Offer(t, SessionName("s"), origin, 1, each.body) for t, each, origin in offers]
            )
        )
        loads = {tenant: self.held[tenant].load for tenant in TENANTS}
        for (tenant, each, origin), verdict in zip(offers, verdicts, strict=True):
            entries, size = loads[tenant]
            everything = sum(bytes_ for _, bytes_ in loads.values()) + self.shared.dead[1]
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

    def ring(self) -> None:
        for kind in Kind:
            self.do(self.world.handover.ring(kind, 2))

    def mail(self, tenant: TenantId) -> None:
        self.do(self.world.handover.mail(Kind.DELIVER, [tenant]))

    def claim(self, worker: str, turns: int = 2, deliveries: int = 1, *, lost: bool = False) -> None:
        """Ring and claim, as a worker does; `lost`: the reply does not reach him, and he never knows."""
        self.ring()
        self.look()
        paused = self.shared.paused
        held = [job.bell for job in self.jobs[worker]]
        slots = {Kind.TURN: turns, Kind.DELIVER: deliveries}
        claim = self.do(self.world.handover.claim(worker, slots, held, now_ms=self.now))
        assert set(claim.lost) == {
            bell.id
            for bell in held
            if not self.mine(bell) or (bell.kind is Kind.DELIVER and bell.tenant in paused)
        }
        for bell in held:
            if self.mine(bell):
                self.leases[bell.tenant, bell.kind] = (bell, self.now + LEASE_MS)
        self.look()
        for bell in claim.bells:
            assert (bell.tenant, bell.kind) not in self.leases, "a second bell while one is held"
            assert bell.tenant not in paused, "a bell of who is paused"
            self.leases[bell.tenant, bell.kind] = (bell, self.now + LEASE_MS)
            self.check_bell(bell)
            if not lost:
                self.jobs[worker].append(Job(worker, bell))

    def check_bell(self, bell: Bell) -> None:
        assert len(bell.entries) <= (1 if bell.alone else TURN_ENTRIES)
        assert len(bell.entries) <= 1 or sum(len(entry.body) for entry in bell.entries) <= TURN_BYTES
        assert len(set(bell.entries)) == len(bell.entries)
        assert bell.kind is not Kind.TURN or bell.parked == self.held[bell.tenant].aside

    def mine(self, bell: Bell) -> bool:
        lease = self.leases.get((bell.tenant, bell.kind))
        return lease is not None and lease[0].id == bell.id

    # --- turns

    def may_begin(self) -> list[Job]:
        return [job for job in self.all_jobs() if not job.begun and len(self.open[job.bell.tenant]) < 2]

    def may_commit(self) -> list[Job]:
        return [job for job in self.all_jobs() if job.turn and self.open[job.bell.tenant][0] is job.turn]

    def may_finish(self) -> list[Job]:
        return [job for job in self.all_jobs() if not job.turn]

    def all_jobs(self) -> list[Job]:
        return [job for worker in WORKERS for job in self.jobs[worker]]

    def work(self, job: Job) -> None:
        """Take a turn from its beginning to its end, as almost all go."""
        self.begin(job)
        if job in self.may_commit():
            self.commit(job)
        if job in self.may_finish():
            self.finish(job)

    def begin(self, job: Job) -> None:
        """Open a turn's transaction and write; a lethal entry kills the worker instead."""
        job.begun = True
        for chat, entries in of_chat(job.bell.entries).items():
            failing = [entry for entry in entries if self.faults.get(letter(entry.body).key, 0) > 0]
            if chat in job.bell.parked:
                job.parked.append(Parking(ChatId(chat), None, "", tuple(entries)))
            elif any(letter(entry.body).key in self.lethal for entry in entries):
                self.crash(job.worker)
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

    def commit(self, job: Job) -> None:
        if job.turn:
            self.do(job.turn.commit())
            self.leave_lane(job)

    def leave_lane(self, job: Job) -> None:
        turns = self.open[job.bell.tenant]
        if job.turn:
            turns.remove(job.turn)
            job.turn = None
        if turns:
            self.do(turns[0].reach())

    def finish(self, job: Job, *, deliver: bool = False, again: bool = False) -> None:
        """Settle a bell, or hand it back untouched. `again`: the reply is lost and the call repeated."""
        self.jobs[job.worker].remove(job)
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

    def crash(self, worker: str) -> None:
        """Kill a worker: open transactions roll back, leases are left to run out."""
        jobs, self.jobs[worker] = self.jobs[worker], []
        for job in reversed(jobs):
            if job.turn:
                self.do(job.turn.abort())
                self.leave_lane(job)

    # --- who looks after it

    def pause(self, tenant: TenantId) -> None:
        self.do(self.world.pauses.pause(tenant, "a reason"))

    def resume(self, tenant: TenantId) -> None:
        self.do(self.world.pauses.resume(tenant))

    def resume_all(self) -> None:
        for tenant in TENANTS:
            self.resume(tenant)

    def replay(self, tenant: TenantId) -> None:
        """Mend what stopped a tenant's dead letters, and let them return."""
        for letter_ in self.do(self.world.letters.read(tenant)):
            again = letter(letter_.body)
            self.replayed.add(again)
            self.faults.pop(again.key, None)
            self.lethal.discard(again.key)
            del self.attempts[tenant, letter_.entry]
        self.do(self.world.letters.replay(tenant, self._dead(tenant)))

    def drop(self, tenant: TenantId) -> None:
        self.dropped |= {each for _, each in self.held[tenant].dead}
        self.do(self.world.letters.drop(tenant, self._dead(tenant)))

    def _dead(self, tenant: TenantId) -> list[str]:
        return [each.id for each in self.do(self.world.letters.read(tenant))]

    # --- the world

    def time_passes(self, milliseconds: int, *, swept: bool = False) -> None:
        self.now += milliseconds
        if swept:
            self.sweep()

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

    def steal(self, tenant: TenantId) -> None:
        """A stock RQ worker pops a bell and dies."""
        self.do(self.world.redis.lpop(f"rq:queue:{tenant}"))

    def forget_scripts(self) -> None:
        self.do(self.world.redis.script_flush())

    # --- what holds at any time

    def check(self) -> None:
        self.sound = False
        self.look()
        log = self.world.log()
        for tenant in TENANTS:
            self.check_tenant(tenant, log[tenant])
        loads = [self.held[tenant].load for tenant in TENANTS]
        assert self.shared.load == (sum(n for n, _ in loads), sum(size for _, size in loads))
        dead = [each for held in self.held.values() for _, each in held.dead]
        assert self.shared.dead == (len(dead), sum(len(each.body) for each in dead))
        for waiting in (*self.shared.mail.values(), *self.shared.ready.values()):
            assert not waiting & self.shared.paused, "a place for who is paused"
        pointers = [its["bell"] for held in self.held.values() for its in held.pointers.values() if its]
        assert self.shared.jobs == set(pointers)
        self.sound = True

    def check_tenant(self, tenant: TenantId, log: list[Letter]) -> None:
        held = self.held[tenant]
        waiting = held.waiting
        assert len(log) == len(set(log)), "committed twice"
        dead = {each for _, each in held.dead}
        assert {*self.accepted[tenant]} - self.dropped == {*waiting, *dead, *log} - self.dropped, (
            "lost, or from nowhere"
        )
        buried = {id_ for id_, _ in held.dead}
        if buried - self.buried[tenant] and len(held.dead) >= LIMITS.dead_letters:
            assert tenant in self.shared.paused, "nobody stopped him"
        self.buried[tenant] = buried
        assert held.load == (len(waiting), sum(len(each.body) for each in waiting))
        astray = dead | self.replayed | self.dropped
        for chat in "ab":
            order = [each for each in self.accepted[tenant] if each.chat == chat and each not in astray]
            done = [each for each in log if each.chat == chat and each not in astray]
            assert done == [each for each in order if each in done], "out of order"
        assert held.attempts <= held.ids, "a count of what is gone"
        listed = [its["bell"] for its in held.pointers.values() if its.get("state") == "queued"]
        assert set(held.queue) <= set(listed)
        assert len(held.queue) == len(set(held.queue))
        claimed = [its["bell"] for its in held.pointers.values() if its.get("state") == "claimed"]
        assert sorted(claimed) == sorted(held.started)
        assert set(claimed) == {bell.id for bell, _ in self.leases.values() if bell.tenant == tenant}
        if waiting or listed or claimed:
            assert tenant in self.shared.active

    # --- the end

    def close(self) -> None:
        for worker in WORKERS:
            self.crash(worker)

    def drain(self) -> None:
        """Let one healthy worker work, and sweeps and time pass, until nothing is left."""
        for worker in WORKERS:
            self.crash(worker)
        self.check()
        self.resume_all()
        self.look()
        for _ in range(400):
            if not (self.shared.active or any(self.shared.mail.values())):
                break
            self.now += 130_000
            self.sweep()
            self.claim(worker=WORKERS[0])
            while jobs := self.jobs[WORKERS[0]]:
                self.work(jobs[0])
            self.check()
            self.resume_all()
            self.look()
        assert self.shared.keys <= LEFT_BEHIND, "left behind"
        assert self.shared.load == (0, 0)
        for tenant, log in self.world.log().items():
            dead = self.held[tenant].dead
            assert {*log, *(each for _, each in dead)} | self.dropped >= {*self.accepted[tenant]}
            assert all(self.attempts[tenant, id_] >= ATTEMPTS for id_, _ in dead), "buried too early"
            hopeless = {each for each in self.accepted[tenant] if self.hopeless(each)} - self.dropped
            assert hopeless <= {each for _, each in dead}, "a hopeless entry came through"

    def hopeless(self, each: Letter) -> bool:
        return each.key in self.lethal or self.faults.get(each.key, 0) > ALWAYS / 2
