"""Group commit on its own: what goes into one call, and what everyone who waits is told."""

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest
from prometheus_client import REGISTRY

from waiting import wait_for
from wsm.core.errors import MailboxFull, StreamsUnavailable, Unavailable
from wsm.core.events import Origin
from wsm.core.ids import SessionName, TenantId
from wsm.ingest.batch import Batcher, Item
from wsm.streams.handover import Misfit, Offer, Verdict


def offer(number: int, *, size_bytes: int = 10) -> Offer:
    return Offer(TenantId(number), SessionName(f"user_{number}"), Origin.WAHA, 0, b"x" * size_bytes)


class Below:
    """What is below the batcher: it answers a batch when it is told to, with verdicts by tenant."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Item]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.verdicts: dict[int, Verdict] = {}
        self.failure: Exception | None = None
        self.most_at_once = 0
        self._at_once = 0

    async def accept(self, items: Sequence[Item]) -> list[Verdict]:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.batches.append(items)
        try:
            await self.open.wait()
        finally:
            self._at_once -= 1
        if self.failure is not None:
            raise self.failure
        return [
            self.verdicts.get(item.tenant, Verdict.ACCEPTED) if isinstance(item, Offer) else Verdict.ACCEPTED
            for item in items
        ]

    async def asked(self, batches: int) -> None:
        await wait_for(lambda: len(self.batches) >= batches)


async def submitted(batcher: Batcher, item: Item) -> None:
    """Submit an item and wait for what its sender is told."""
    told: asyncio.Future[Unavailable | None] = asyncio.get_running_loop().create_future()
    batcher.submit(item, told.set_result)
    if (failure := await told) is not None:
        raise failure


def many(batcher: Batcher, numbers: Sequence[int], *, size_bytes: int = 10) -> list[asyncio.Task[None]]:
    return [
        asyncio.create_task(submitted(batcher, offer(number, size_bytes=size_bytes))) for number in numbers
    ]


async def outcomes(tasks: Sequence[asyncio.Task[None]]) -> list[str]:
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    return ["kept" if end is None else type(end).__name__ for end in ended]


async def test_all_of_one_tick_are_one_call_in_their_order() -> None:
    below = Below()
    batcher = Batcher(below.accept)
    assert await outcomes(many(batcher, range(50))) == ["kept"] * 50
    assert below.batches == [[offer(number) for number in range(50)]]


async def test_one_batch_is_in_flight_and_who_comes_meanwhile_is_the_next() -> None:
    below = Below()
    below.open.clear()
    batcher = Batcher(below.accept)
    first = many(batcher, range(3))
    await below.asked(1)
    later = [*many(batcher, [3]), *many(batcher, [4, 5])]
    await asyncio.sleep(0)
    below.open.set()
    assert await outcomes([*first, *later]) == ["kept"] * 6
    assert [len(batch) for batch in below.batches] == [3, 3]
    assert below.most_at_once == 1


async def test_a_batch_is_bounded_by_entries_and_by_bytes() -> None:
    below = Below()
    batcher = Batcher(below.accept, batch_entries=4, batch_bytes=100)
    assert await outcomes(many(batcher, range(10))) == ["kept"] * 10
    assert [len(batch) for batch in below.batches] == [4, 4, 2]
    below.batches.clear()
    tasks = [*many(batcher, range(3), size_bytes=40), *many(batcher, [3, 4], size_bytes=500)]
    assert await outcomes(tasks) == ["kept"] * 5
    assert [len(batch) for batch in below.batches] == [2, 1, 1, 1]


async def test_a_full_mailbox_is_told_to_its_tenant_alone() -> None:
    below = Below()
    below.verdicts = {1: Verdict.TENANT_FULL, 3: Verdict.ALL_FULL}
    tasks = many(Batcher(below.accept), range(5))
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    scopes = [end.scope if isinstance(end, MailboxFull) else end for end in ended]
    assert scopes == [None, "tenant", None, "all", None]


async def test_a_failure_is_told_to_everyone_of_its_batch_and_nobody_else() -> None:
    below = Below()
    below.failure = StreamsUnavailable("connection refused")
    batcher = Batcher(below.accept)
    tasks = many(batcher, range(3))
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {str(end) for end in ended} == {"connection refused"}
    assert len({id(end) for end in ended}) == 3
    below.failure = None
    assert await outcomes(many(batcher, range(3))) == ["kept"] * 3


async def test_no_reply_in_time_is_unavailable_for_all_of_the_batch() -> None:
    below = Below()
    below.open.clear()
    batcher = Batcher(below.accept, timeout_seconds=0.02)
    assert await outcomes(many(batcher, range(3))) == ["StreamsUnavailable"] * 3
    below.open.set()
    assert await outcomes(many(batcher, range(3))) == ["kept"] * 3


async def test_who_waited_too_long_in_the_queue_is_not_sent_at_all() -> None:
    below = Below()
    below.open.clear()
    batcher = Batcher(below.accept, batch_entries=1, timeout_seconds=0.05)
    tasks = many(batcher, range(4))
    assert await outcomes(tasks) == ["StreamsUnavailable"] * 4
    # All four came in one tick: when the first had its time, the others had theirs.
    assert len(below.batches) < 4


async def test_the_queue_is_bounded_by_entries_and_by_bytes() -> None:
    for bounds in ({"queue_entries": 3}, {"queue_bytes": 35}):
        below = Below()
        below.open.clear()
        batcher = Batcher(below.accept, **bounds)
        first = many(batcher, [0])
        await below.asked(1)
        queued = many(batcher, range(1, 6))
        await asyncio.sleep(0)
        below.open.set()
        assert await outcomes([*first, *queued]) == ["kept"] * 4 + ["Unavailable"] * 2
        assert await outcomes(many(batcher, range(3))) == ["kept"] * 3


async def test_closing_takes_nothing_more_and_answers_everyone() -> None:
    below = Below()
    below.open.clear()
    batcher = Batcher(below.accept, batch_entries=2)
    taken = many(batcher, range(5))
    await below.asked(1)
    closing = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="stopping"):
        await submitted(batcher, offer(9))
    below.open.set()
    await closing
    assert [task.done() for task in taken] == [True] * 5
    assert await outcomes(taken) == ["kept"] * 5


async def test_a_bug_below_is_loud_and_leaves_nobody_waiting() -> None:
    below = Below()
    below.failure = RuntimeError("a bug")
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))
    batcher = Batcher(below.accept)
    assert await outcomes(many(batcher, range(2))) == ["StreamsUnavailable"] * 2
    below.failure = None
    assert await outcomes(many(batcher, range(2))) == ["kept"] * 2
    assert [str(context["exception"]) for context in said] == ["a bug"]


async def test_a_reply_that_is_too_short_is_no_verdict() -> None:
    async def short(items: Sequence[Item]) -> list[Verdict]:
        return [Verdict.ACCEPTED] * (len(items) - 1)

    assert await outcomes(many(Batcher(short), range(3))) == ["kept", "kept", "StreamsUnavailable"]


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("wsm_ingest_requests_total", {"result": result}) or 0.0


async def test_what_was_appended_is_counted_by_what_it_was() -> None:
    below = Below()
    below.verdicts = {1: Verdict.TENANT_FULL}
    batcher = Batcher(below.accept)
    before = counted("accepted"), counted("quarantined")
    misfit = Misfit("default", "x", "session_unmapped", 0, b"{}")
    await asyncio.gather(*many(batcher, range(4)), submitted(batcher, misfit), return_exceptions=True)
    assert (counted("accepted"), counted("quarantined")) == (before[0] + 3, before[1] + 1)


async def test_redis_works_at_the_next_full_batch_while_the_answers_are_given() -> None:
    happened: list[str] = []

    async def accept(items: Sequence[Item]) -> list[Verdict]:
        happened.append(f"asked {len(items)}")
        await asyncio.sleep(0)
        return [Verdict.ACCEPTED] * len(items)

    def told(number: int, _: Unavailable | None) -> None:
        happened.append(f"told {number}")

    batcher = Batcher(accept, batch_entries=2)
    for number in range(5):
        batcher.submit(offer(number), partial(told, number))
    await batcher.aclose()
    assert happened == [
        "asked 2", "asked 2", "told 0", "told 1", "told 2", "told 3", "asked 1", "told 4",
    ]  # fmt: skip
