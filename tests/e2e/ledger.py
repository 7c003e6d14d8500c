"""The line of one tenant once more, replayed from the audit alone.

Written apart from `core.attendance`: tickets in a list, places counted. Raises AssertionError at the first
row that does not follow from the rows before it: somebody served out of turn, a notice that was not true
when its sending was claimed, or one that tells a worse place than the one before.
"""

from collections.abc import Iterable
from typing import Any

_NO_MOVES = {"session", "agent", "line", "bot", "answer", "survey", "contact", "conversation", "refused"}
_ASKED_FOR = {f"claimed.{each}" for each in ("agent", "bot", "survey", "campaign")}


class Ledger:
    """What the audit of a tenant says, row by row."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.served: list[int] = []
        self.waiting: list[int] = []
        self.ever_served: set[int] = set()
        self.claims = 0
        self._entries: list[int] = []
        self._told: dict[int, int] = {}
        self._chats: dict[int, int] = {}

    def replay(self, rows: Iterable[Any]) -> "Ledger":
        """Take rows of the audit in the order of their commits; what is told of sessions moves no line."""
        for row in rows:
            if row.what.partition(".")[0] in _NO_MOVES or row.what in _ASKED_FOR:
                continue
            try:
                getattr(self, "_" + row.what.replace(".", "_"))(row)
            except AssertionError as exc:
                raise AssertionError(f"{row}: {exc}; served {self.served}, waiting {self.waiting}") from exc
        return self

    def _ticket_opened_served(self, row: Any) -> None:
        assert not self.waiting, "somebody waited"
        assert len(self.served) < self.capacity, "nobody was free"
        self._open(row, self.served)
        self.ever_served.add(row.conversation_id)

    def _ticket_opened_waiting(self, row: Any) -> None:
        assert self.waiting or len(self.served) >= self.capacity, "somebody was free"
        self._open(row, self.waiting)

    def _open(self, row: Any, place: list[int]) -> None:
        assert row.conversation_id not in self._chats.values(), "a chat has one open ticket at most"
        self._chats[row.ticket_id] = row.conversation_id
        place.append(row.ticket_id)
        self._entries.append(row.ticket_id)

    def _ticket_reopened_served(self, row: Any) -> None:
        assert not self.waiting, "somebody waited"
        assert len(self.served) < self.capacity, "nobody was free"
        self._reopen(row, self.served)

    def _ticket_reopened_waiting(self, row: Any) -> None:
        assert self.waiting or len(self.served) >= self.capacity, "somebody was free"
        self._reopen(row, self.waiting)
        self.waiting.sort(key=self._entries.index)

    def _reopen(self, row: Any, place: list[int]) -> None:
        """Who comes back in time has the place of his entry, and is told of it anew."""
        assert row.ticket_id in self._entries, "it never was open"
        assert row.conversation_id not in self._chats.values(), "a chat has one open ticket at most"
        self._chats[row.ticket_id] = row.conversation_id
        self._told.pop(row.ticket_id, None)
        place.append(row.ticket_id)

    def _ticket_served(self, row: Any) -> None:
        assert len(self.served) < self.capacity, "nobody was free"
        assert self.waiting, "nobody waits"
        assert self.waiting[0] == row.ticket_id, "not his turn"
        self.served.append(self.waiting.pop(0))
        self.ever_served.add(row.conversation_id)

    def _ticket_closed(self, row: Any) -> None:
        (self.served if row.ticket_id in self.served else self.waiting).remove(row.ticket_id)
        del self._chats[row.ticket_id]
        assert row.detail["by"], "it is said who closed"

    def _claimed_turn(self, row: Any) -> None:
        if row.detail["word"] in {"turn", "turn_by"}:
            assert row.ticket_id in self.served, "told that it is his turn, and it is not"
        self.claims += 1

    def _claimed_place(self, row: Any) -> None:
        told = row.detail["place"]
        assert row.ticket_id in self.waiting, "told a place, and he does not wait"
        assert told == self.waiting.index(row.ticket_id) + 1, "told a place that is not his"
        assert told <= self._told.get(row.ticket_id, told), "told a worse place than before"
        self._told[row.ticket_id] = told
        self.claims += 1
