"""One tenant finds nothing of another, with whatever data, ids and forgotten predicates."""

import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from catalogue import owner_of
from databases import Database as Urls
from strangers import strangers, types_of, ways, without_predicates
from wsm.core.ids import TenantId
from wsm.store.queries import QUERIES

DEEDS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["says", "ends", "acks", "told"])), max_size=6)


@given(mine=DEEDS, theirs=DEEDS, seed=st.integers(0, 2**32))
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.generate],  # what it finds it names: smaller data would say no more
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_nothing_of_another_is_found_or_changed(
    database: Urls, mine: list[tuple[int, str]], theirs: list[tuple[int, str]], seed: int
) -> None:
    async with strangers(database, random.Random(seed)) as both:
        await both.live(mine, theirs)
        assert both.heard() == {}
        assert not both.changed()


BROKEN = {
    "alter policy one_tenant on messages using (true) with check (true)": ("read messages", True),
    "alter policy one_tenant on tickets using (true)": ("show_line, bare", False),
    "alter table conversations disable row level security": ("conversations_of_chat, bare", True),
    "create policy more on contact_aliases to wsm_app using (true)": ("read contact_aliases", True),
    "alter role wsm_app bypassrls": ("show_audit", True),
}
"""What is broken -> what then hears the other one, and whether his rows can be changed."""


@pytest.mark.parametrize("breaking", BROKEN)
async def test_each_kind_of_hole_lets_something_through_that_is_seen(database: Urls, breaking: str) -> None:
    hears, changes = BROKEN[breaking]
    async with strangers(database, random.Random(1)) as both:
        await both.live([(0, "told"), (0, "acks")], [(0, "told"), (1, "ends")])
        with owner_of(database.owner_url) as owner:
            owner.execute(breaking.encode())
            try:
                assert hears in both.heard()
                assert both.changed() is changes
            finally:
                owner.execute("alter role wsm_app nobypassrls")


def test_every_predicate_is_taken_away_and_nothing_else() -> None:
    assert without_predicates(
        "select a from b join c on b.x = c.x and (b.y or c.z) where a in (select 1) order by a"
    ) == ("select a from b join c on true where true order by a")
    assert without_predicates("insert into a select b from c where d = 'where' on conflict do nothing") == (
        "insert into a select b from c where true on conflict do nothing"
    )
    assert without_predicates("select exists (select from a where b = (c)) from d -- where") == (
        "select exists (select from a where true ) from d "
    )
    for name, query in QUERIES.items():
        text = query.decode()
        bare = without_predicates(text)
        assert bare.lower().count("where") <= text.lower().count("where"), name
        assert "%(session)s" not in bare or "where" not in text or "insert" in text or "select %(" in text, (
            name
        )


def test_every_way_can_be_asked(database: Urls) -> None:
    with owner_of(database.owner_url) as owner:
        names = [
            name for name, statement in ways(owner, TenantId(1)) if types_of(owner, statement) is not None
        ]
    assert {*QUERIES} < {*names}
    assert len(names) == len({*names}) > 2 * len(QUERIES) + 100
