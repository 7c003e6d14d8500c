"""The outbox under any interleaving of two workers, a gateway and time: sent once, in order, and known."""

import itertools

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from databases import Database as Urls
from outbox_world import CALLS, World
from postoffice import opened_again
from shop import Shop
from wsm.core.ids import TenantId

MOVES = ("write", "close", "survey", "claim", "settle", "crash", "echo", "ack", "look", "tell", "later")
OFTEN = ("write", "close", "settle", "settle", "survey", "tell", "later")
HISTORY = st.lists(
    st.tuples(st.sampled_from((*MOVES, *OFTEN, *CALLS)), st.integers(0, 20)), min_size=10, max_size=50
)
_tenants = itertools.count(1)

ALL_WRITE = [("write", 0), ("write", 1), ("write", 2)]
DONE = [("ok", 0), ("settle", 0)]
LATE_LOOK_UP = [("lost", 0), ("survey", 1), ("later", 5), ("look", 2), ("look", 1), ("tell", 1)]
KNOWN_BAD = {
    "a look-up of an earlier attempt": [*LATE_LOOK_UP, ("left", 1), ("survey", 0), ("tell", 0)],
    "two places of one ticket": [*DONE, *DONE, ("away", 0), ("close", 1), ("settle", 0)],
    "an echo before the answer": [("ok", 0), ("echo", 0), ("settle", 0)],
    "a notice on its way before another": [
        *DONE, ("leaves later", 4), ("settle", 0), ("close", 0), *DONE, *DONE,
    ],
    "an answer after the next notice": [
        *DONE, *DONE, ("ok", 0), ("echo", 2), ("close", 1), ("ok", 1), ("settle", 1), ("settle", 0),
    ],
}  # fmt: skip


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.deadline(240)
@given(history=HISTORY)
@example(history=KNOWN_BAD["a look-up of an earlier attempt"])
@example(history=KNOWN_BAD["two places of one ticket"])
@example(history=KNOWN_BAD["an echo before the answer"])
@example(history=KNOWN_BAD["a notice on its way before another"])
@example(history=KNOWN_BAD["an answer after the next notice"])
async def test_every_notice_leaves_once_in_order_and_is_known(
    database: Urls, history: list[tuple[str, int]]
) -> None:
    async with opened_again(database) as at:
        world = World(await Shop(at.database, at.system, tenant=TenantId(next(_tenants))).founded())
        for move, number in (*ALL_WRITE, *history):
            await world.do(move, number)
        await world.settle_everything()
        await world.check_the_end()
