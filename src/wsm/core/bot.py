"""When the bot may speak, and to what an answer is wanted.

A person who types on the session's phone has the talk: the bot is silent until the ticket is closed or a time
has passed. What a customer writes in pieces is one question: an answer is wanted once, when he has paused.
And every kind of message has a rule, the unknown ones too.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec


class Bot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a tenant's bot behaves. Seconds, unless the name says otherwise.

    debounce  pause after which a burst is complete; 0: each message is one
    longest   after which it is complete without a pause
    pause_hours  how long a person who has stepped in keeps the bot silent, unless the ticket is closed before
    """

    debounce: int = 6
    longest: int = 45
    pause_hours: int = 12

    def __post_init__(self) -> None:
        if not (0 <= self.debounce <= self.longest <= _LONGEST and 0 < self.pause_hours <= _LONGEST_HOURS):
            raise ValueError(
                f"0 <= debounce <= longest <= {_LONGEST} and 0 < pause_hours <= {_LONGEST_HOURS}"
            )


_LONGEST, _LONGEST_HOURS = 600, 24 * 30

PAUSE = timedelta(hours=Bot().pause_hours)
"""For tenants who have said nothing of a bot."""


def complete_at(now: datetime, began_at: datetime, bot: Bot) -> datetime:
    """Return when a burst that began at `began_at` is complete if nothing more is written after `now`."""
    return min(now + timedelta(seconds=bot.debounce), began_at + timedelta(seconds=bot.longest))


class Rule(StrEnum):
    """What becomes of a customer's message of some kind.

    opens  it speaks to somebody: it opens a ticket where there is none, and an answer is wanted
    noted  it is kept, with the ticket that is open; it opens none, and nobody answers it
    """

    OPENS = "opens"
    NOTED = "noted"


RULES: Mapping[str, Rule] = {
    "text": Rule.OPENS,
    "image": Rule.OPENS,
    "video": Rule.OPENS,
    "voice": Rule.OPENS,
    "audio": Rule.OPENS,
    "document": Rule.OPENS,
    "sticker": Rule.OPENS,
    "location": Rule.OPENS,
    "contact": Rule.OPENS,
    "poll": Rule.OPENS,
    "media": Rule.OPENS,
    "other": Rule.OPENS,
    "album": Rule.NOTED,
    "system": Rule.NOTED,
}
"""By the kinds of `wire`. `other` is what nobody knows yet, what can be seen once only, and what is empty:
a person looks at it. An album is the cover of the pictures that follow; `system` is what WhatsApp says."""


def rule(kind: str) -> Rule:
    """Return the rule for a kind of message; one that is not in the table speaks to a person."""
    return RULES.get(kind, Rule.OPENS)
