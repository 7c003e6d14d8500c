"""What a fail-over costs: acked and lost under load, for one Redis, a pair, and three with Sentinel.

    PYTHONPATH=tests python -m chaos.failover [words of the rows wanted]

runs `wsm ingest` as it is deployed, with signed webhooks at it, does something to the servers, waits until
everybody is back, and prints a row for each case. *Lost* is what was answered 2xx and is not in the mailboxes
of the master after the old one came back as its replica; *refused* was answered 503. No webhook is repeated
here, as WAHA would: so what was refused stays refused.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from chaos.replicas import Node, Replicas, free_port, replicas
from chaos.senders import NO_ANSWER, SEATS, SENDERS, Answer, Load
from ingesting import KID, MASTER_KEYS, connected, listed
from waiting import wait_for
from wsm.streams import keys
from wsm.streams.client import connect
from wsm.streams.directory import PublishedDirectory
from wsm.wire import directory as published
from wsm.wire.directory import Directory


class Row(msgspec.Struct, frozen=True):
    """What one case came to.

    without_seconds  the longest time without an acceptance, from the fault on
    seconds          answers by second since the fault: accepted, refused, none
    """

    acked: int
    lost: int
    refused: int
    unanswered: int
    without_seconds: float
    seconds: tuple[tuple[int, int, int], ...]


Fault = Callable[[Replicas, Load], Awaitable[Node]]
"""Does something to the servers, waits until everybody is back, and returns who is the master then."""


class Case(NamedTuple):
    """One row of the table.

    down_after_ms  how long a sentinel waits for a server before it calls it down
    """

    servers: str
    settings: str
    what: str
    nodes: int
    wait_replicas: int
    fault: Fault
    options: Mapping[str, str]
    down_after_ms: int = 1000

    @property
    def sentinels(self) -> int:
        """Three watch three."""
        return 3 if self.nodes == 3 else 0


async def measure(case: Case, folder: Path) -> Row:
    """Run a case; returns its row."""
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(
            replicas(
                folder,
                nodes=case.nodes,
                sentinels=case.sentinels,
                options=case.options,
                down_after_ms=case.down_after_ms,
            )
        )
        await _publish(at)
        port = await stack.enter_async_context(_ingest(at.url, case.wait_replicas))
        load = await stack.enter_async_context(_loaded(port))
        await load.accepts(200)
        began = time.monotonic()
        master = await case.fault(at, load)
        await load.accepts(100)
        ended = time.monotonic()
        acked = load.accepted()
        lost = acked - await _kept(master)
        return _row(load.answers, len(acked), len(lost), began, ended)


def _row(answers: Sequence[Answer], acked: int, lost: int, began: float, ended: float) -> Row:
    moments = [began, *(a.at for a in answers if a.status == 200 and began < a.at < ended), ended]
    statuses = Counter(answer.status for answer in answers)
    by_second: list[Counter[int]] = [Counter() for _ in range(int(ended - began) + 1)]
    for answer in answers:
        if began < answer.at < ended:
            by_second[int(answer.at - began)][answer.status] += 1
    return Row(
        acked,
        lost,
        statuses[503],
        statuses[NO_ANSWER],
        max(later - sooner for sooner, later in pairwise(moments)),
        tuple((second[200], second[503], second[NO_ANSWER]) for second in by_second),
    )


async def _publish(at: Replicas) -> None:
    """Say who may sign, and wait until every replica has it."""
    redis: Any = connect(at.url, timeout_seconds=5)
    sessions = tuple(listed(seat) for seat in SEATS)
    await PublishedDirectory(redis).publish("1", published.write(Directory("1", sessions)))
    await redis.aclose()
    for node in at.nodes:
        await wait_for(partial(node.direct.exists, keys.DIRECTORY))


@asynccontextmanager
async def _ingest(url: str, wait_replicas: int) -> AsyncIterator[int]:
    """Run `wsm ingest` until the end of the block, with its own defaults; its port."""
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "REDIS_URL": url,
        "WSM_PORT": str(port),
        "WSM_MASTER_KEYS": f"{KID}:{MASTER_KEYS[KID].hex()}",
        "WSM_MASTER_KEY_ID": KID,
        "WSM_WAIT_REPLICAS": str(wait_replicas),
        "WSM_LOG_LEVEL": "error",
        "WSM_DRAIN_SECONDS": "0",
    }
    command = (sys.executable, "-X", "utf8", "-m", "wsm", "ingest")
    process = await asyncio.create_subprocess_exec(*command, env=environ, stderr=asyncio.subprocess.DEVNULL)
    try:
        await wait_for(lambda: _ready(port), timeout=30)
        yield port
    finally:
        process.kill()
        await process.wait()


async def _ready(port: int) -> bool:
    try:
        async with connected(port) as connection:
            await connection.send(b"GET /readyz HTTP/1.1\r\nhost: ingest\r\n\r\n")
            return (await connection.reply()).status == 200
    except OSError:
        return False


@asynccontextmanager
async def _loaded(port: int) -> AsyncIterator[Load]:
    load = Load(port)
    sending = [asyncio.create_task(load.send()) for _ in range(SENDERS)]
    try:
        yield load
    finally:
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)


async def _kept(master: Node) -> set[int]:
    """The numbers of what lies in the mailboxes of a master."""
    assert await master.role() == "master"
    found = set()
    for seat in SEATS:
        for _, fields in await master.direct.xrange(keys.mailbox(seat.tenant)):
            body = next(value for value in fields.values() if value.startswith(b"{"))
            found.add(int(msgspec.json.decode(body)["id"].removeprefix("evt_")))
    return found


# What is done to the servers


async def restarted(at: Replicas, load: Load) -> Node:
    """The only node is killed and started again."""
    (only,) = at.nodes
    await asyncio.to_thread(only.server.kill)
    await load.goes_on(2)
    await asyncio.to_thread(only.server.start)
    return only


async def replica_away(at: Replicas, load: Load) -> Node:
    """The replica of a pair stands still, and comes back."""
    first, second = at.nodes
    second.signal(signal.SIGSTOP)
    await load.goes_on(2)
    second.signal(signal.SIGCONT)
    return first


async def moved_by_hand(at: Replicas, load: Load) -> Node:
    """The master of a pair is killed; somebody promotes the other, moves the address, mends the first."""
    first, second = at.nodes
    await asyncio.to_thread(first.server.kill)
    await load.goes_on(2)
    await second.direct.replicaof("NO", "ONE")
    first.door.behind = second.door.behind
    await load.goes_on(2)
    await asyncio.to_thread(first.server.start)
    await first.direct.replicaof("127.0.0.1", second.door.port)
    await first.follows()
    return second


async def stopped(at: Replicas, load: Load) -> Node:
    """The master stands still until another one is promoted, and comes back."""
    at.nodes[0].signal(signal.SIGSTOP)
    master = await at.promoted()
    await load.goes_on(2)
    at.nodes[0].signal(signal.SIGCONT)
    await at.nodes[0].follows()
    return master


async def killed(at: Replicas, load: Load) -> Node:
    """The master is killed, another one promoted, and the old one started again."""
    await asyncio.to_thread(at.nodes[0].server.kill)
    master = await at.promoted()
    await load.goes_on(2)
    await asyncio.to_thread(at.nodes[0].server.start)
    await at.nodes[0].follows()
    return master


async def parted(at: Replicas, load: Load, *, with_ingest: bool = False) -> Node:
    """The master is cut off from replicas and sentinels; ingest reaches both sides."""
    await at.cut_off(at.nodes[0], with_ingest=with_ingest)
    master = await at.promoted()
    await load.goes_on(2)
    await at.heal()
    await at.nodes[0].follows()
    return master


async def parted_with_ingest(at: Replicas, load: Load) -> Node:
    """The master and ingest are cut off together from replicas and sentinels."""
    return await parted(at, load, with_ingest=True)


async def behind(at: Replicas, load: Load) -> Node:
    """A replica falls behind, and the master is killed: the other one is further and is to be promoted."""
    first, second, third = at.nodes
    await first.door.shut_to(third.own_address.__eq__)
    await load.goes_on(2)
    await asyncio.to_thread(first.server.kill)
    master = await at.promoted()
    await load.goes_on(2)
    await at.heal()
    await asyncio.to_thread(first.server.start)
    for node in {first, second, third} - {master}:
        await node.follows()
    return master


async def behind_preferred(at: Replicas, load: Load) -> Node:
    """The same, but the replica that falls behind has the better `replica-priority`, which comes first."""
    third = at.nodes[2]
    await third.direct.config_set("replica-priority", 10)
    await wait_for(partial(at.prefer, third), timeout=30)
    return await behind(at, load)


async def behind_promoted(at: Replicas, load: Load) -> Node:
    """A replica falls behind; when the master and the other replica are gone, it is the one to promote."""
    first, second, third = at.nodes
    await first.door.shut_to(third.own_address.__eq__)
    await load.goes_on(2)
    first.signal(signal.SIGSTOP)
    second.signal(signal.SIGSTOP)
    await wait_for(lambda: _is_master(third), timeout=40)
    await load.goes_on(2)
    for node in (first, second):
        node.signal(signal.SIGCONT)
    await at.heal()
    for node in (first, second):
        await node.follows()
    return third


async def _is_master(node: Node) -> bool:
    return await node.role() == "master"


MIN_REPLICAS = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}
ONE, PAIR, THREE = "one node", "a pair, moved by hand", "three, three sentinels"
DEAD, STILL = "master killed and back", "master stands still (SIGSTOP), promotion, back"
CUT = "master cut off, ingest reaches both sides"
CUT_WITH = "master cut off together with ingest"
BEHIND_ONE = "a replica falls 2 s behind, then the master is killed"
PREFERRED = "the same, and the replica behind has the better replica-priority"
BEHIND = "a replica falls 2 s behind, then master and the other replica stand still"
CASES = (
    Case(ONE, "wait 0", DEAD, 1, 0, restarted, {}),
    Case(PAIR, "wait 1", "replica stands still and comes back", 2, 1, replica_away, {}),
    Case(PAIR, "wait 1", DEAD, 2, 1, moved_by_hand, {}),
    Case(PAIR, "wait 0", DEAD, 2, 0, moved_by_hand, {}),
    *(Case(THREE, f"wait {wait}", DEAD, 3, wait, killed, {}) for wait in (0, 1)),
    *(Case(THREE, f"wait {wait}", STILL, 3, wait, stopped, {}) for wait in (0, 1, 2)),
    Case(THREE, "wait 0", CUT, 3, 0, parted, {}),
    Case(THREE, "wait 0, min-replicas 1, lag 2 s", CUT, 3, 0, parted, MIN_REPLICAS),
    *(Case(THREE, f"wait {wait}", CUT, 3, wait, parted, {}) for wait in (1, 2)),
    Case(THREE, "wait 0", CUT_WITH, 3, 0, parted_with_ingest, {}),
    Case(THREE, "wait 0, min-replicas 1, lag 2 s", CUT_WITH, 3, 0, parted_with_ingest, MIN_REPLICAS),
    Case(THREE, "wait 1", CUT_WITH, 3, 1, parted_with_ingest, {}),
    Case(THREE, "wait 1", BEHIND_ONE, 3, 1, behind, {}),
    *(Case(THREE, f"wait {wait}", PREFERRED, 3, wait, behind_preferred, {}) for wait in (1, 2)),
    *(Case(THREE, f"wait {wait}", BEHIND, 3, wait, behind_promoted, {}) for wait in (1, 2)),
)


async def main(words: Sequence[str]) -> None:
    """Print the table, row by row, and below it each row's answers by second."""
    say = print
    say("| servers | settings | what happens | acked | lost | refused | seconds without acceptance |")
    say("|---|---|---|--:|--:|--:|--:|", flush=True)
    told = []
    for case in CASES:
        name = f"{case.servers} | {case.settings} | {case.what}"
        if not all(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory(prefix="wsm-") as folder:
            row = await measure(case, Path(folder))
        say(
            f"| {name} | {row.acked} | {row.lost} | {row.refused} | {row.without_seconds:.1f} |",
            flush=True,
        )
        told.append((name, row))
    say("\nAnswers by second since the fault, accepted/refused:\n")
    for name, row in told:
        say(f"- {name}: {' '.join(f'{yes}/{no}' for yes, no, _ in row.seconds)}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
