"""What customers may be told of their places, judged from the audit: each claim, at the line as it was then.

It knows the rules as they are told to people, and nothing of how a notice is decided. Raises AssertionError
at the first that is untrue, worse unasked, too soon or one too many.
"""

from collections import Counter
from datetime import datetime, timedelta

import msgspec

from line_model import Model, Row
from wsm.core.notices import Policy

FIRST = {"entry", "entry_next", "back"}
UPDATES = {"update", "next"}


class Heard(msgspec.Struct):
    """What one customer was told last, in the wait that he is in."""

    place: int | None = None
    at: datetime | None = None
    updates: int = 0


class Ears:
    """The customers of one tenant. questions: how many of them asked, by phone and not answered yet."""

    def __init__(self, model: Model, policy: Policy) -> None:
        self.model = model
        self.policy = policy
        self.questions = 0
        self.told: Counter[str] = Counter()
        self._heard: dict[int, Heard] = {}

    def before(self, row: Row) -> None:
        """Take a change of a ticket, ahead of the model: who enters or comes back begins a wait anew."""
        who = row.conversation_id or 0
        aside = row.what.startswith(("ticket.returned", "ticket.served")) and (
            self.model.people[who].state == "parked"
        )
        if aside or row.what.startswith(("ticket.opened", "ticket.reopened")):
            last = self._heard.get(who, Heard())
            self._heard[who] = Heard(at=last.at if row.what != "ticket.opened.waiting" else None)

    def claimed(self, row: Row) -> None:
        """Take a notice of a place, as it was claimed."""
        word, place, who = row.detail["word"], row.detail["place"], row.conversation_id or 0
        self.told[word] += 1
        heard, person = self._heard[who], self.model.people[who]
        about = f"{word} {place} to {who} at {row.at}, who had heard {heard}"
        assert person.state == "waiting", f"{about}: he does not wait"
        true = self.model.waiting(person.queue).index(who) + 1
        if word in FIRST:
            assert heard.place is None, f"{about}: he is not new"
            assert (word == "entry_next") <= (place == 1), about
        else:
            assert heard.place is not None, f"{about}: nothing had been told"
            assert heard.at is not None
        if word in UPDATES:
            self._update(row, heard, about)
        elif word == "position":
            self.questions -= 1
            assert self.questions >= 0, f"{about}: nobody asked"
        elif word == "silence_moved":
            assert heard.place is not None
            assert true > heard.place == place, f"{about}: it does not move"
            true = place
        elif word == "silence":
            assert heard.place is not None
            assert place <= heard.place, f"{about}: worse, and he did not ask"
        assert place == true, f"{about}: untrue, it is {true}"
        self._heard[who] = Heard(place, row.at, heard.updates + (word in UPDATES))

    def _update(self, row: Row, heard: Heard, about: str) -> None:
        policy, place = self.policy, row.detail["place"]
        assert heard.place is not None
        assert heard.at is not None
        assert place < heard.place, f"{about}: no better"
        assert (row.detail["word"] == "next") is (place == 1), about
        assert place <= policy.near or heard.place - place >= policy.step, f"{about}: not worth it"
        assert row.at >= heard.at + timedelta(seconds=policy.every), f"{about}: too soon"
        assert heard.updates < policy.at_most, f"{about}: one too many"
