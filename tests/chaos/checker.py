"""Judge a run by its records alone: what was lost, doubled, out of order, or is still not known.

lost           answered 2xx and not kept; said to be sent and never arrived; a dead letter; asked to be sent
               and no intent; a file that arrived as another one
duplicated     a fact kept twice or never told, a message that left twice, a line that does not replay; one
               ask that became two intents; what was claimed after its time, or for who had opted out
reordered      *a* was answered 2xx before *b* was first sent, *a* is the older by (payload timestamp,
               envelope timestamp), both are of one conversation, and *b* was handled first
indeterminate  an intent that is neither sent nor certainly not sent
excluded       left twice because a worker was stopped between its deadline check and the write to the
               socket: the one exclusion that P4 names. Shown, and not held against the run
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from chaos.records import Arrival, Fact, Intent, Pause, Records, Row, Told
from e2e.ledger import Ledger

START_WITHIN_SECONDS = 4.0
"""How long after a claim a call may begin: the worker's deadline."""

CALL_SECONDS = 10.0
"""How long after a stopped worker went on its call has certainly arrived."""

_SETTLED = {"sent", "failed", "dropped"}


class Report(msgspec.Struct, frozen=True):
    """What the checker found; each finding is a sentence.

    acked  deliveries that were answered 2xx
    facts  what they told, each counted once
    sent   messages that reached a customer
    pairs  pairs of facts of which one had to be handled before the other
    asked  messages that somebody asked to send
    """

    acked: int
    facts: int
    sent: int
    pairs: int
    asked: int
    lost: Sequence[str]
    duplicated: Sequence[str]
    reordered: Sequence[str]
    indeterminate: Sequence[str]
    excluded: Sequence[str]

    @property
    def clean(self) -> bool:
        """Whether every promise held."""
        return not (self.lost or self.duplicated or self.reordered or self.indeterminate)

    @property
    def findings(self) -> list[str]:
        """Every finding with its word before it."""
        words = ("lost", "duplicated", "reordered", "indeterminate", "excluded")
        return [f"{word}: {what}" for word in words for what in getattr(self, word)]


def check(run: Records) -> Report:
    """Judge a run."""
    twice, excluded = _left_twice(run)
    pairs, swapped = reordered(run.told, run.kept)
    return Report(
        acked=run.acked,
        facts=len({each.fact for each in run.told}),
        sent=len(run.arrivals),
        pairs=pairs,
        asked=len(run.asked),
        lost=[*_not_kept(run.told, run.kept), *_never_arrived(run), *_not_as_asked(run), *run.dead],
        duplicated=[*_kept_twice(run), *twice, *_said_twice(run), *_lines(run), *_must_not_leave(run)],
        reordered=[*swapped, *_overtaken(run)],
        indeterminate=_indeterminate(run),
        excluded=excluded,
    )


def _not_kept(told: Iterable[Told], kept: Iterable[Row]) -> list[str]:
    there = {row.fact for row in kept}
    accepted = {each.fact for each in told if each.accepted_at is not None}
    return [f"{fact} was accepted and is nowhere" for fact in sorted(accepted - there)]


def _never_arrived(run: Records) -> list[str]:
    arrived = {(each.session, each.id) for each in run.arrivals}
    return [
        f"intent {each.id} is {each.state} as {each.bare_id} and reached nobody"
        for each in run.intents
        if each.state == "sent" and (each.session, each.bare_id) not in arrived
    ]


def _not_as_asked(run: Records) -> list[str]:
    """What was accepted and has no intent, and files that arrived with other bytes."""
    intents = {(each.session, each.key): each for each in run.intents}
    arrived = {(each.session, each.id): each for each in run.arrivals}
    found = []
    for ask in run.asked:
        intent = intents.get((ask.session, ask.key))
        if intent is None:
            found.append(f"{ask.key} was asked for, and nothing became of it")
            continue
        came = arrived.get((ask.session, intent.bare_id or ""))
        if came is not None and (came.who, came.sha256) != (ask.who, ask.sha256):
            found.append(f"intent {intent.id} arrived with other bytes, or at somebody else's")
    return found


def _must_not_leave(run: Records) -> list[str]:
    """One ask that became two intents, and claims that came too late or for who had opted out."""
    asked = {(each.session, each.key) for each in run.asked}
    counted = Counter((each.session, each.key) for each in run.intents)
    found = [f"{key[1]} became {counted[key]} intents" for key in sorted(asked) if counted[key] > 1]
    for each in run.intents:
        last = max(each.claimed_at, default=0.0)
        if each.expires_at is not None and last > each.expires_at:
            found.append(f"intent {each.id} was claimed after its time")
        automatic = (each.session, each.key) in asked and each.what != "agent"
        if automatic and each.opted_out_at is not None and last > each.opted_out_at:
            found.append(f"intent {each.id} was claimed for who had opted out")
    return found


def _overtaken(run: Records) -> list[str]:
    """Of one class in one chat what was asked for first leaves first."""
    asked = {(each.session, each.key) for each in run.asked}
    its = {(each.session, each.bare_id): each for each in run.intents if (each.session, each.key) in asked}
    newest: dict[tuple[str, str, str], int] = {}
    found = []
    for came in run.arrivals:
        if (intent := its.get((came.session, came.id))) is not None:
            chat = (came.session, came.who, intent.what)
            if intent.id < newest.get(chat, 0):
                found.append(f"intent {newest[chat]} left before intent {intent.id}")
            newest[chat] = max(newest.get(chat, 0), intent.id)
    return found


def _kept_twice(run: Records) -> list[str]:
    known = {each.fact for each in run.told}
    known |= {Fact("message", each.session, f"True/{each.id}") for each in run.arrivals}
    counted = Counter(row.fact for row in run.kept)
    twice = [f"{fact} was kept {number} times" for fact, number in sorted(counted.items()) if number > 1]
    return twice + [f"{fact} was kept, and nobody told it" for fact in sorted(counted.keys() - known)]


def _left_twice(run: Records) -> tuple[list[str], list[str]]:
    """Return what left twice, and what of that the named exclusion explains."""
    intents = {(each.session, each.bare_id): each for each in run.intents if each.bare_id}
    groups: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
    for each in run.arrivals:
        groups[each.session, each.id].append(each)
    twice: list[str] = []
    excluded: list[str] = []
    for key, group in groups.items():
        intent = intents.get(key)
        if intent is None:
            twice.append(f"{key} reached {group[0].who}, and no intent bears that id")
        elif len(group) > 1:
            stopped = any(_stopped_in_the_gap(intent, each, run.pauses) for each in group)
            (excluded if stopped else twice).append(f"intent {intent.id} left {len(group)} times as {key}")
    return twice, excluded


def _stopped_in_the_gap(intent: Intent, arrival: Arrival, pauses: Iterable[Pause]) -> bool:
    """Whether a worker may have claimed it, been stopped past its deadline check, and sent it afterwards."""
    return any(
        pause.process.startswith("worker")
        and pause.continued_at <= arrival.at <= pause.continued_at + CALL_SECONDS
        and any(claim <= pause.stopped_at <= claim + START_WITHIN_SECONDS for claim in intent.claimed_at)
        for pause in pauses
    )


def _said_twice(run: Records) -> list[str]:
    """A ticket is told its turn once, and no place twice, and once more each time it is opened again."""
    reopened = Counter(
        row.ticket_id for line in run.lines for row in line.audit if row.what.startswith("ticket.reopened")
    )
    said = Counter(
        (each.session, each.ticket, each.what, each.text) for each in run.intents if each.state == "sent"
    )
    return [
        f"{what} was said {number} times" for what, number in said.items() if number > 1 + reopened[what[1]]
    ]


def _lines(run: Records) -> list[str]:
    found = []
    for line in run.lines:
        try:
            Ledger(line.capacity).replay(line.audit)
        except (AssertionError, ValueError) as exc:
            found.append(f"the line of {line.tenant}: {exc}")
    return found


def _indeterminate(run: Records) -> list[str]:
    arrived = {(each.session, each.id) for each in run.arrivals}
    open_ = [f"intent {each.id} is {each.state}" for each in run.intents if each.state not in _SETTLED]
    return open_ + [
        f"intent {each.id} is {each.state}, and it arrived"
        for each in run.intents
        if each.state in {"failed", "dropped"} and (each.session, each.bare_id) in arrived
    ]


class _Story(msgspec.Struct):
    """A fact's deliveries: the newest order that any had, the oldest, the first attempt, the first 2xx."""

    newest: tuple[int, int]
    oldest: tuple[int, int]
    began: float
    accepted_at: float | None


def reordered(told: Iterable[Told], kept: Iterable[Row]) -> tuple[int, list[str]]:
    """Count the pairs whose order is promised, and tell which were handled the other way round.

    What people wrote is compared; wsm's own messages are kept when they leave, not when their echo comes.
    """
    stories = _stories(told)
    chats: dict[int | None, list[tuple[int, Fact, _Story]]] = defaultdict(list)
    for row in kept:
        if row.place is not None and row.author != "bot" and row.fact in stories:
            chats[row.conversation].append((row.place, row.fact, stories[row.fact]))
    pairs, found = 0, []
    for chat in chats.values():
        chat.sort(key=lambda item: item[0])
        for index, (_, fact, story) in enumerate(chat):
            pairs += sum(_precedes(other, story) for _, _, other in chat[:index])
            passed = [other_fact for _, other_fact, other in chat[:index] if _precedes(story, other)]
            pairs += len(passed)
            if passed:
                found.append(f"{passed[0]} was handled before {fact}")
    return pairs, found


def _precedes(a: _Story, b: _Story) -> bool:
    """Whether *a* had to be handled before *b*."""
    return a.accepted_at is not None and a.accepted_at < b.began and a.newest < b.oldest


def _stories(told: Iterable[Told]) -> Mapping[Fact, _Story]:
    stories: dict[Fact, _Story] = {}
    for each in told:
        story = stories.setdefault(each.fact, _Story(each.order, each.order, each.began, None))
        story.newest, story.oldest = max(story.newest, each.order), min(story.oldest, each.order)
        story.began = min(story.began, each.began)
        if each.accepted_at is not None:
            story.accepted_at = min(story.accepted_at or each.accepted_at, each.accepted_at)
    return stories
