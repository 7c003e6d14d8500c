"""The line under any history: what P7 promises of it."""

from hypothesis import example, given
from hypothesis import strategies as st

from wsm.core.attendance import Did, Line, place_to_tell
from wsm.core.conversation import State

MOVES = st.lists(st.tuples(st.sampled_from(["wrote", "closed"]), st.integers(1, 8)), max_size=60)


@given(capacity=st.integers(0, 3), moves=MOVES)
@example(capacity=1, moves=[("wrote", n) for n in (1, 2, 3, 4)] + [("closed", n) for n in (1, 2, 3, 4)])
def test_the_line_moves(capacity: int, moves: list[tuple[str, int]]) -> None:
    line = Line(capacity, [])
    states: dict[int, State] = {}
    entered: list[int] = []  # who waits, by a model that knows nothing of the table
    told: dict[int, int] = {}
    for move, who in moves:
        state = states.get(who, State.START)
        effects = line.wrote(who, state) if move == "wrote" else line.closed(who, state, "cli")
        for effect in effects:
            if effect.did is Did.OPENED_WAITING:
                entered.append(effect.conversation)
                told.pop(effect.conversation, None)
                states[effect.conversation] = State.WAITING
            elif effect.did is Did.OPENED_SERVED:
                assert not entered, "nobody is served past those who wait"
                states[effect.conversation] = State.SERVED
            elif effect.did is Did.SERVED:
                assert entered.pop(0) == effect.conversation, "first in, first served"
                states[effect.conversation] = State.SERVED
            elif effect.did is Did.CLOSED:
                if states[effect.conversation] is State.WAITING:
                    entered.remove(effect.conversation)
                states[effect.conversation] = State.CLOSED
        assert line.waiting() == entered
        assert sum(state is State.SERVED for state in states.values()) <= capacity
        for effect in effects:
            if effect.did is Did.TELL_PLACE:
                place = entered.index(effect.conversation) + 1
                tell = place_to_tell(place, told.get(effect.conversation))
                assert tell == place, "who is to be told has a better place than he knew"
                told[effect.conversation] = place
        assert [told[who] for who in entered] == list(range(1, len(entered) + 1)), "everyone knows his place"
