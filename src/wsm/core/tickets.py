"""Who stands where in the line: the values that `attendance` moves.

A ticket's place in its queue is a key that never changes while it waits: `rank_at`, the time of entry, put
forward or back by its level. Who has waited as long as a queue's ageing stands beside a newcomer of the next
more urgent level; so within a level the first comes first, and nobody waits for ever.
"""

from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum

import msgspec

from wsm.core.conversation import Act, State
from wsm.core.hours import Hours
from wsm.core.notices import Manners, Pace, Policy, expected

ConversationId = int
QueueId = int
AgentId = int
Rank = tuple[datetime, int]

MICROSECOND = timedelta(microseconds=1)
NEW = 1 << 62
"""Breaks ties for tickets that have not been stored: they are the last ones, numbered from here on."""


class Level(IntEnum):
    """How urgent a ticket is."""

    URGENT = 0
    NORMAL = 1
    LOW = 2


class Ended(StrEnum):
    """How a ticket ended.

    served    somebody had served it
    left      the customer left the line
    no_show   he did not answer when it was his turn
    closed    somebody closed it while it waited
    overflow  the line was too long, or the wait: what he wrote is a message that was left
    merged    it became another ticket of the same person
    moved     its conversation is served elsewhere
    """

    SERVED = "served"
    LEFT = "left"
    NO_SHOW = "no_show"
    CLOSED = "closed"
    OVERFLOW = "overflow"
    MERGED = "merged"
    MOVED = "moved"


class Spot(msgspec.Struct):
    """A ticket in the line: an open one, or the last one of a conversation that may come back.

    seq         breaks ties between equal ranks
    ticket      its number, None until it has been stored
    agent       who serves it; while it is not served, who served this customer last
    again       it stands in the line anew: what was told of its place before is over
    """

    conversation: ConversationId
    queue: QueueId
    state: State
    entered_at: datetime
    rank_at: datetime
    seq: int = NEW
    level: Level = Level.NORMAL
    ticket: int | None = None
    agent: AgentId | None = None
    served_at: datetime | None = None
    parked_at: datetime | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None
    ended: Ended | None = None
    again: bool = False

    @property
    def rank(self) -> Rank:
        """What orders those who wait."""
        return self.rank_at, self.seq


class Queue(msgspec.Struct):
    """A queue and what a turn sees of it.

    capacity    how many are served at a time, in the line of a tenant without agents
    ageing      how long one waits to stand beside newcomers of the next more urgent level
    max_length  who finds so many waiting is asked to leave a message; None: no limit
    max_wait    so is who has waited so long
    reopen      how long after the end of his ticket a customer who writes comes back to it
    pull        nobody is called by himself: agents ask for the next one
    keeps       who waits when the hours end keeps his place; else his ticket is closed
    hours       in the time zone `zone`; None: always open
    shut        it is out of its hours: nobody is called; `leaves`: who writes then leaves a message
    opened_at, closes_at  the present hours, None where it is shut, or always open
    pace        how quickly it serves
    notices, manners  when its customers are told their places, and what follows when they are silent
    served      how many are served now
    waiting     how many wait, counted as far as `is_full_at` looks
    newest_at   the last entry among those who wait, None if nobody does
    heads       the first ones who wait, in order; `more`: there may be others behind them
    """

    id: QueueId
    name: str = "default"
    capacity: int = 1
    ageing: timedelta = timedelta(minutes=15)
    max_length: int | None = None
    max_wait: timedelta | None = None
    reopen: timedelta = timedelta(0)
    pull: bool = False
    keeps: bool = True
    hours: Hours | None = None
    zone: str = "UTC"
    shut: bool = False
    leaves: bool = False
    opened_at: datetime | None = None
    closes_at: datetime | None = None
    pace: Pace = Pace(0, 0, None, 0)
    notices: Policy = Policy()
    manners: Manners = Manners()
    served: int = 0
    waiting: int = 0
    newest_at: datetime | None = None
    heads: list[Spot] = []
    more: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits, as far as can be seen."""
        return not self.heads and not self.more

    @property
    def rests(self) -> bool:
        """Whether nobody is called by himself."""
        return self.pull or self.shut

    def is_full_at(self, now: datetime) -> bool:
        """Whether a newcomer for whom there is no room is asked to leave a message.

        Also where his turn would come after closing time, if those who wait then are sent away.
        """
        too_many = self.max_length is not None and self.waiting >= self.max_length
        if too_many or self.closes_at is None or self.keeps:
            return too_many or (self.shut and self.leaves)
        wait = expected(self.waiting + 1, self.pace, self.notices)
        return wait is not None and now + wait > self.closes_at

    def overdue_at(self, entered_at: datetime) -> datetime | None:
        """Return when a wait is too long, counted from the opening; None: never, or not while it is shut."""
        if self.max_wait is None or self.shut:
            return None
        return max(entered_at, self.opened_at or entered_at) + self.max_wait

    def rank_at(self, entered_at: datetime, level: Level) -> datetime:
        """Give the key of a place."""
        return entered_at + (level - Level.NORMAL) * self.ageing

    def entry_at(self, now: datetime) -> datetime:
        """Give the time of an entry: behind everyone who waits, also when a clock went back."""
        return now if self.newest_at is None else max(now, self.newest_at + MICROSECOND)

    def insert(self, spot: Spot) -> None:
        """Let a ticket wait, in its place."""
        self.waiting += 1
        self.newest_at = max(spot.entered_at, self.newest_at or spot.entered_at)
        if self.more and (not self.heads or spot.rank > self.heads[-1].rank):
            return  # behind what is seen
        at = next((n for n, each in enumerate(self.heads) if each.rank > spot.rank), len(self.heads))
        self.heads.insert(at, spot)

    def remove(self, spot: Spot) -> None:
        """Let a ticket wait no more."""
        self.waiting -= 1
        self.heads = [each for each in self.heads if each is not spot]


class Agent(msgspec.Struct):
    """A person who serves customers.

    queues      those he serves, None for all
    since       since when he is online, or is not
    served      how many he serves now
    busy_at     when he last got or gave up a ticket
    removed     he is no agent any more, but for those whom he serves
    """

    id: AgentId
    name: str
    capacity: int = 1
    online: bool = False
    queues: frozenset[QueueId] | None = None
    since: datetime | None = None
    served: int = 0
    busy_at: datetime | None = None
    removed: bool = False

    def serves(self, queue: QueueId) -> bool:
        """Whether a queue is his."""
        return self.queues is None or queue in self.queues

    @property
    def has_room(self) -> bool:
        """Whether he could take one more now."""
        return self.online and self.served < self.capacity

    def why_not(self, *, force: bool = False) -> str:
        """Say why he could not take one more now, empty: he could. force: beyond his capacity, too."""
        if not self.online:
            return f"{self.name} is not online"
        return "" if force or self.has_room else f"{self.name} has no room"


class Did(StrEnum):
    """The words of effects, as the audit keeps them."""

    OPENED_SERVED = "ticket.opened.served"
    OPENED_WAITING = "ticket.opened.waiting"
    OPENED_OVERFLOWN = "ticket.opened.overflown"
    REOPENED_SERVED = "ticket.reopened.served"
    REOPENED_WAITING = "ticket.reopened.waiting"
    SERVED = "ticket.served"
    GIVEN = "ticket.given"
    MOVED = "ticket.moved"
    RETURNED = "ticket.returned"
    PARKED = "ticket.parked"
    OVERFLOWN = "ticket.overflown"
    CLOSED = "ticket.closed"
    ONLINE = "agent.online"
    OFFLINE = "agent.offline"
    REFUSED = "line.refused"
    LINE_MOVED = "line.moved"
    TELL_TURN = "tell.turn"
    TELL_PLACE = "tell.place"
    TELL_MESSAGE = "tell.message"


TOLD = frozenset({Did.LINE_MOVED, Did.TELL_TURN, Did.TELL_PLACE, Did.TELL_MESSAGE})
"""What is no change of a ticket or an agent: it is told, if it is still true then."""


class Effect(msgspec.Struct, frozen=True):
    """One thing to write: a change of a ticket or an agent (`by` says who wanted it), or something to tell.

    agent   who serves the ticket from now on, or came, or went
    queue, level  where it waits from now on, if it was moved
    ask, why  the key of what was asked, if it was refused, and the reason in plain words
    behind  of a line that moved: everyone in `queue` behind this rank stands in a new place
    """

    did: Did
    conversation: ConversationId | None
    by: str = ""
    agent: AgentId | None = None
    queue: QueueId | None = None
    level: Level | None = None
    behind: Rank | None = None
    ask: str = ""
    why: str = ""


def over_at(since: datetime | None, lasts: timedelta) -> datetime:
    """When something that began at `since` is over; what has no beginning is over."""
    return datetime.min.replace(tzinfo=UTC) if since is None else since + lasts


EFFECTS = {
    Act.OPEN_SERVED: Did.OPENED_SERVED,
    Act.OPEN_WAITING: Did.OPENED_WAITING,
    Act.OPEN_OVERFLOWN: Did.OPENED_OVERFLOWN,
    Act.REOPEN_SERVED: Did.REOPENED_SERVED,
    Act.REOPEN_WAITING: Did.REOPENED_WAITING,
    Act.SERVE: Did.SERVED,
    Act.GIVE: Did.GIVEN,
    Act.MOVE: Did.MOVED,
    Act.RETURN: Did.RETURNED,
    Act.PARK: Did.PARKED,
    Act.OVERFLOW: Did.OVERFLOWN,
    Act.CLOSE: Did.CLOSED,
    Act.TELL_TURN: Did.TELL_TURN,
    Act.TELL_PLACE: Did.TELL_PLACE,
    Act.TELL_MESSAGE: Did.TELL_MESSAGE,
}
"""What the acts of a transition are told and kept as."""
