"""A site whose processes die at points, or have a fault planted in them; and the books that must be right."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from chaos import records
from chaos.checker import reordered
from chaos.killable import listed, write
from chaos.records import Told
from e2e.town import Ground, Said, Town, differences, town
from wsm.core.ids import TenantId
from wsm.sandbox import supervisor
from wsm.sandbox.site import PROCESSES, WORKERS
from wsm.sandbox.supervisor import Child
from wsm.sandbox.waha.ids import owner

COMMANDS = {name: "worker" if name in WORKERS else name for name in PROCESSES}
"""The command that each process of a site runs."""
TESTS = Path(__file__).parents[1]
QUICK_TO_DIE = {"WSM_LEASE_SECONDS": "2", "WSM_DRAIN_SECONDS": "2"}
MAY_STAY = {"wsm:quarantine"}
"""What a stranger's webhook leaves, by design."""
AT_ONCE = 6
"""How many tenants are founded at once."""
FORESEEN = re.compile("directory_not_confirmed|entry_failed|Cancel [0-9]+ running task.*")
"""Errors that processes may log when others die, an entry is broken on purpose, or Redis outlasts a drain."""


class Deaths:
    """The lists of points at which processes are still to die, one for each command, in a folder.

    told  every attempt of WAHA's to deliver, in the order in which they ended
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.asked: dict[str, set[str]] = {}
        self.pending: dict[str, set[str]] = {}
        self.told: list[Told] = []

    def arm(self, command: str, names: Iterable[str]) -> None:
        """Let every process of a command die at these points from now on."""
        self.asked.setdefault(command, set()).update(names)
        write(self.folder / command, sorted(names))

    def disarm(self, command: str) -> None:
        """Let nobody die any more; what is left is remembered."""
        self.pending[command] = self.left(command)
        write(self.folder / command, [])

    def left(self, command: str) -> set[str]:
        """Return the points at which no process of a command has died yet."""
        return set(listed(self.folder / command))

    def count_left(self) -> int:
        """Count the points on all lists."""
        return sum(len(self.left(command)) for command in self.asked)

    def nowhere(self) -> set[str]:
        """Return the points at which no process of any command has died yet."""
        return set.intersection(*map(self.left, self.asked))

    def died(self) -> set[tuple[str, str]]:
        """Return every (command, point) at which a process has died. For lists that are disarmed."""
        return {
            (command, name) for command, names in self.asked.items() for name in names - self.pending[command]
        }


def killable(child: Child, spared: Collection[str] = ()) -> Child:
    """Start a process of a site through `chaos.killable`; a spared one dies at no point."""
    command = tuple("chaos.killable" if word == "wsm" else word for word in child.command)
    own = {"PYTHONPATH": str(TESTS), **({"CHAOS_POINTS": ""} if child.name in spared else {})}
    return msgspec.structs.replace(child, command=command, environ={**child.environ, **own})


@contextmanager
def no_pauses() -> Iterator[None]:
    """Let a child that dies again and again be started at once each time."""
    longest, supervisor.LONGEST_PAUSE_SECONDS = (
        supervisor.LONGEST_PAUSE_SECONDS,
        supervisor.FIRST_PAUSE_SECONDS,
    )
    try:
        yield
    finally:
        supervisor.LONGEST_PAUSE_SECONDS = longest


@asynccontextmanager
async def deadly_town(
    ground: Ground,
    tenants: Iterable[TenantId],
    deaths: Deaths,
    changed: Mapping[str, str],
    spared: Collection[str] = (),
    **more: Any,
) -> AsyncIterator[Town]:
    """Run a town of killable processes.

    changed  settings, and CHAOS_… for its processes
    spared   processes that die at no point
    """
    own = {**QUICK_TO_DIE, "CHAOS_POINTS": str(deaths.folder), **changed}
    with no_pauses():
        async with town(ground, changed=own, dressed=partial(killable, spared=spared), **more) as at:
            at.waha.courier.watch = lambda attempt: deaths.told.append(records.told(attempt))
            for few in zip_longest(*[iter(tenants)] * AT_ONCE):
                await asyncio.gather(*(at.found(tenant) for tenant in few if tenant is not None))
            yield at


async def check_books(at: Town, tenants: Iterable[TenantId], told: Sequence[Told]) -> int:
    """Nothing accepted is lost, said twice or out of order, the line was just, and nothing lies about.

    WAHA gives up what nobody accepted in 16 attempts: that is not lost, and may be known all the same.
    Returns how many pairs of messages had an order.
    """
    left_over = await at.left_over() - MAY_STAY
    assert not {key for key in left_over if key.endswith(":dead")}, f"dead letters: {sorted(left_over)}"
    await check_history(at, told)
    await at.check_sent_once()
    pairs, swapped = reordered(told, await records.kept(at))
    assert not swapped, f"out of order: {swapped}"
    for tenant in tenants:
        await at.replayed(tenant)
    assert not left_over, f"left over: {sorted(left_over)}"
    errors = {line["event"] for line in at.log_lines(*PROCESSES) if line["level"] in {"error", "critical"}}
    unforeseen = sorted(error for error in errors if not FORESEEN.fullmatch(error))
    assert not unforeseen, f"logged: {unforeseen}"
    return pairs


async def check_history(at: Town, told: Iterable[Told]) -> None:
    """What was accepted is in the history, once; and nothing is there that nobody wrote."""
    accepted = {
        each.fact.id.partition("/")[2]
        for each in told
        if each.fact.kind == "message" and each.accepted_at is not None
    }
    rows = await at.rows(
        "select m.tenant_id, c.chat_id, m.bare_id, m.body from messages m"
        " join conversations c on c.id = m.conversation_id where m.author = 'customer'"
    )
    kept = Counter(Said(row.tenant_id, owner(row.chat_id), row.bare_id, row.body) for row in rows)
    said = Counter(at.said)
    assert not kept - said, f"doubled, or from nowhere: {kept - said}"
    wanted = Counter(each for each in at.said if each.id in accepted)
    assert not wanted - kept, f"accepted and lost: {differences(kept, wanted)}"
