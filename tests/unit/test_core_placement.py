"""Where a session is made: by the share of what a server can have, and never above it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsm.core.errors import BadInput
from wsm.core.ids import ServerName
from wsm.core.placement import choose

A, B, C = ServerName("a"), ServerName("b"), ServerName("c")


def test_the_server_with_the_lowest_share_in_use_is_taken_and_of_equal_ones_the_first_by_name() -> None:
    assert choose({A: 100, B: 500}, {A: 30, B: 100}) == B
    assert choose({B: 10, A: 10}, {}) == A
    assert choose({A: 10, B: 1}, {A: 9}) == B
    assert choose({A: 10, B: 20}, {A: 5, B: 10}) == A


def test_a_server_that_is_named_is_taken_while_it_has_room() -> None:
    assert choose({A: 10, B: 10}, {A: 9}, named=A) == A
    with pytest.raises(BadInput, match="a has 10 of 10"):
        choose({A: 10, B: 10}, {A: 10}, named=A)
    with pytest.raises(BadInput, match="named 'c'"):
        choose({A: 10, B: 10}, {}, named=C)


def test_a_full_fleet_is_said_with_its_numbers() -> None:
    with pytest.raises(BadInput, match="server: no room for another session: a has 1 of 1, b has 3 of 2"):
        choose({A: 1, B: 2}, {A: 1, B: 3})
    with pytest.raises(BadInput, match="no server is configured"):
        choose({}, {A: 1})


@given(
    capacities=st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 20), min_size=1),
    made=st.integers(0, 70),
)
def test_placed_one_after_the_other_servers_fill_up_evenly_and_to_the_brim(
    capacities: dict[ServerName, int], made: int
) -> None:
    sessions = dict.fromkeys(capacities, 0)
    for _ in range(min(made, sum(capacities.values()))):
        sessions[choose(capacities, sessions)] += 1
    assert all(sessions[name] <= capacities[name] for name in capacities)
    shares = [sessions[name] / capacities[name] for name in capacities]
    assert max(shares) - min(shares) <= max(1 / capacity for capacity in capacities.values()) + 1e-9
    if made >= sum(capacities.values()):
        with pytest.raises(BadInput, match="no room"):
            choose(capacities, sessions)
