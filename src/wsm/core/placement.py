"""Placement: on which server a new session is made. It stays there: its login lies in that server's store."""

from collections.abc import Mapping

from wsm.core.errors import BadInput
from wsm.core.ids import ServerName


def choose(
    capacities: Mapping[ServerName, int],
    sessions: Mapping[ServerName, int],
    *,
    named: ServerName | None = None,
) -> ServerName:
    """Return the server with the lowest share of its capacity in use; of equal ones the first by name.

    capacities  how many sessions each server may have
    sessions    how many each has now; one that is missing has none
    named       the only one that is wanted, if that was said

    Raises BadInput when that is not among them, or, with the numbers, when there is no room.
    """
    if named is not None and named not in capacities:
        raise BadInput("server", f"none is configured that is named {named!r}")
    wanted = list(capacities) if named is None else [named]
    free = [name for name in wanted if sessions.get(name, 0) < capacities[name]]
    if not free:
        full = ", ".join(f"{name} has {sessions.get(name, 0)} of {capacities[name]}" for name in wanted)
        raise BadInput("server", f"no room for another session: {full or 'no server is configured'}")
    return min(free, key=lambda name: (sessions.get(name, 0) / capacities[name], name))
