"""The outbox under any interleaving of two workers, a gateway and time: sent once, in order, and known."""

import itertools

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from databases import Database as Urls
from outbox_world import World
from postoffice import opened_again
from shop import Shop
from wsm.core.ids import TenantId

CALLS = ("ok", "lost", "left", "leaves later", "away", "unauthorized", "refused")
MOVES = ("write", "close", "survey", "claim", "settle", "crash", "echo", "ack", "look", "later")
HISTORY = st.lists(
    st.tuples(st.sampled_from((*MOVES, "write", "claim", "claim", *CALLS)), st.integers(0, 20)), max_size=40
)
_tenants = itertools.count(1)

STALE_LOOK_UP = [
    *[("write", 0), ("claim", 0), ("left", 0), ("survey", 1), ("crash", 0), ("later", 5), ("look", 1)],
    *[("later", 5), ("claim", 1), ("ok", 1), ("settle", 1)],
]
MERGED = [
    *[("write", n) for n in (0, 1, 2)],
    *[step for _ in range(2) for step in (("claim", 0), ("ok", 0), ("settle", 0))],
    *[("claim", 0), ("close", 1), ("away", 0), ("settle", 0)],
]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=HISTORY)
@example(history=STALE_LOOK_UP)
@example(history=MERGED)
async def test_every_notice_leaves_once_in_order_and_is_known(
    database: Urls, history: list[tuple[str, int]]
) -> None:
    async with opened_again(database) as at:
        world = World(await Shop(at.database, at.system, tenant=TenantId(next(_tenants))).founded())
        for move, number in history:
            await world.do(move, number)
        await world.settle_everything()
        await world.check_the_end()
