"""Who reads the books and says what held: every promise about a line, seen from the phones.

Its figures are those that are promised, written down here once more: what wsm is set to is not asked.
"""

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec

from day.books import Books, whose
from day.line import Truth, truths
from day.people import STOPPING, Wrote
from day.words import PLACES, TURNS, Read, Word, read
from wsm.sandbox.waha.phones import Received

PROMISED = ("untrue", "above_capacity", "over_pace", "lost", "doubled")
"""The words of the last line; the others stand above it, and count as much."""

PER_MINUTE, PER_DAY = 20, 3_000
GAP_MS, CONTACT_GAP_MS = 1_400, 6_000
CONTACT_AUTOMATIC_PER_DAY = 20
UPDATES, UPDATE_SECONDS = 5, 120
SILENCE_SECONDS = 1_200
_MINUTE_MS, _DAY_MS = 60_000, 86_400_000
_ROUNDED_MS = 1
"""Phones know whole milliseconds."""

_TRUE_IN = {
    **dict.fromkeys(PLACES | {Word.SILENCE_MOVED, Word.CLOSED}, "waiting"),
    **dict.fromkeys(TURNS | {Word.NUDGE, Word.REMINDER}, "served"),
    Word.RELEASED: "parked",
    **dict.fromkeys(
        {Word.CLOSED_MESSAGE, Word.CLOSING, Word.OVERFLOW, Word.LEFT, Word.ENDED, Word.SURVEY}, "closed"
    ),
}
"""Where a ticket stands for what is said of it to be true."""

_NOT_LOST = frozenset({"expired", "opted_out"})
_ENDS = {"served": "served", "left": "left"}
_OFFICE = frozenset({"agent", "turn"})


class Arrival(msgspec.Struct, frozen=True):
    """Something of wsm's that reached a phone, and its claim."""

    who: str
    received: Received
    read: Read | None
    truth: Truth


class Verdict(msgspec.Struct):
    """What the judge says. found: by word; ends: of each customer; the rest is for the report."""

    found: dict[str, list[str]]
    ends: dict[str, str]
    arrivals: list[Arrival]

    @property
    def clean(self) -> bool:
        """Whether everything held."""
        return not any(self.found.values())


def judge(books: Books) -> Verdict:
    """Judge a day."""
    found: dict[str, list[str]] = defaultdict(list)
    arrivals = _arrivals(books, truths(books.notes, books.queues, books.plan.is_open, found), found)
    _check_true(arrivals, found)
    _check_notices(arrivals, found)
    _check_pace(arrivals, found)
    _check_kept(books, found)
    _check_sent(books, arrivals, found)
    _check_order(books, arrivals, found)
    ends = _ends(books, found)
    found["errors"] += books.errors
    return Verdict(dict(found), ends, arrivals)


def _arrivals(books: Books, told: Iterable[Truth], found: Mapping[str, list[str]]) -> list[Arrival]:
    """Find the claim of everything that reached a phone: the last one under its id before it came."""
    by_id: dict[tuple[str, str], list[Truth]] = defaultdict(list)
    names = {(row.tenant_id, row.id): row.name for row in books.sessions}
    for truth in told:
        session = names[truth.claim["tenant_id"], truth.claim["session_id"]]
        by_id[session, truth.claim["reserved_id"]].append(truth)
    arrivals = []
    for who, inbox in books.inboxes.items():
        for received in inbox:
            if received.source != "api":
                continue
            claims = by_id.get((received.session, received.id), [])
            made = bisect.bisect_right([_ms(each) for each in claims], received.at_ms + _ROUNDED_MS)
            if not made:
                found["doubled"].append(f"{received.id} reached {who}, and nothing was claimed under that id")
                continue
            truth = claims[made - 1]
            if truth.claim["body"] != received.text:
                found["untrue"].append(f"{received.id} says something else than was claimed")
            arrivals.append(Arrival(who, received, read(received.text), truth))
    return sorted(arrivals, key=lambda each: each.received.at_ms)


def _ms(truth: Truth) -> float:
    return truth.at.timestamp() * 1000


def _check_true(arrivals: Iterable[Arrival], found: Mapping[str, list[str]]) -> None:
    """What was said of a ticket was so when it was claimed."""
    for each in arrivals:
        if each.read is None or each.read.word not in _TRUE_IN:
            continue
        truth, said = each.truth, each.read
        wrong = []
        if truth.state != _TRUE_IN[said.word]:
            wrong.append(f"its ticket was {truth.state}")
        if said.word in PLACES and said.place != truth.place:
            wrong.append(f"his place was {truth.place}, not {said.place}")
        if said.word is Word.NEXT and truth.place != 1:
            wrong.append(f"he was {truth.place}")
        if said.word is Word.TURN_BY and said.agent != truth.agent:
            wrong.append(f"{truth.agent} served him, not {said.agent}")
        if wrong:
            found["untrue"].append(f"{said.word} to {each.who} at {truth.at}: {', '.join(wrong)}")


def _check_notices(arrivals: Iterable[Arrival], found: Mapping[str, list[str]]) -> None:
    """Nobody is told a worse place unasked, nor too often, nor too soon."""
    waits: dict[tuple[int, int | None, int], list[Arrival]] = defaultdict(list)
    for each in arrivals:
        if each.read and each.read.word in PLACES | {Word.SILENCE_MOVED}:
            waits[each.truth.claim["tenant_id"], each.truth.ticket, each.truth.wait].append(each)
    for wait in waits.values():
        place, updates = None, 0
        for before, each in zip([None, *wait], wait, strict=False):
            assert each.read is not None
            if each.read.word is not Word.POSITION and place and each.read.place and each.read.place > place:
                found["worse"].append(f"{each.who} was told {each.read.place} after {place}")
            place = each.read.place or place
            since = (each.truth.at - before.truth.at).total_seconds() if before else None
            if each.read.word in {Word.UPDATE, Word.NEXT}:
                updates += 1
                if since is not None and since < UPDATE_SECONDS:
                    found["too_soon"].append(f"{each.who} was told a place {since} s after another")
        if updates > UPDATES:
            found["too_often"].append(f"{wait[0].who} was told {updates} times")
        apologies = [each.truth.at for each in wait if each.read and each.read.word.startswith("silence")]
        for earlier, later in pairwise(apologies):
            if later - earlier < timedelta(seconds=SILENCE_SECONDS):
                found["too_soon"].append(f"{wait[0].who} was apologized to twice in {later - earlier}")


def _check_pace(arrivals: Sequence[Arrival], found: Mapping[str, list[str]]) -> None:
    """Count what left in every window, of each number and of each of its correspondents."""
    sessions: dict[str, list[int]] = defaultdict(list)
    contacts: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for each in arrivals:
        at_ms, session = each.received.at_ms, each.received.session
        sessions[session].append(at_ms)
        contacts[session, each.who].append((at_ms, each.truth.claim["class"]))
    for session, times in sessions.items():
        for many, within in ((PER_MINUTE, _MINUTE_MS), (PER_DAY, _DAY_MS), (1, GAP_MS)):
            _check_window(f"session {session}", times, many, within, found)
    for (session, who), those in contacts.items():
        _check_window(f"{session} to {who}", [at for at, _ in those], 1, CONTACT_GAP_MS, found)
        automatic = [at for at, urgency in those if urgency not in _OFFICE]
        _check_window(f"{session} to {who}", automatic, CONTACT_AUTOMATIC_PER_DAY, _DAY_MS, found)


def _check_window(
    what: str, times: Sequence[int], many: int, within_ms: int, found: Mapping[str, list[str]]
) -> None:
    for first, last in zip(times, times[many:], strict=False):
        if last - first < within_ms - _ROUNDED_MS:
            found["over_pace"].append(f"{what}: {many + 1} in {last - first} ms, not {within_ms}")


def _check_kept(books: Books, found: Mapping[str, list[str]]) -> None:
    """What customers wrote is in the history, once."""
    wrote = Counter((each.tenant, each.session, each.who, each.id, each.text) for each in books.wrote)
    kept = Counter(
        (row.tenant_id, row.session, whose(row.chat_id), row.bare_id, row.body)
        for row in books.kept
        if row.author == "customer"
    )
    found["lost"] += [f"{what} is in no history" for what in wrote - kept]
    found["doubled"] += [
        f"{what} is in the history, and nobody wrote it or not so often" for what in kept - wrote
    ]
    taken = {row.key.rpartition("|")[2] for row in books.taken}
    found["lost"] += [
        f"{each.by} asked for {each.what}, and nobody heard it"
        for each in books.asked
        if each.id not in taken
    ]
    if books.left:
        found["lost"].append(f"{books.left} entries are left in Redis")


def _check_sent(books: Books, arrivals: Sequence[Arrival], found: Mapping[str, list[str]]) -> None:
    """What was to be said reached its phone, once, or is known not to have been."""
    came = Counter((each.received.session, each.received.id) for each in arrivals)
    found["doubled"] += [f"{what} arrived {number} times" for what, number in came.items() if number > 1]
    for row in books.intents:
        arrived = (row.session, row.reserved_id) in came
        if row.state == "sent" and not arrived:
            found["lost"].append(f"intent {row.id} is sent, and reached nobody")
        elif row.state in {"failed", "dropped"} and arrived:
            found["lost"].append(f"intent {row.id} is {row.state}, and reached {whose(row.chat_id)}")
        elif row.state not in {"sent", "failed", "dropped"}:
            found["lost"].append(f"intent {row.id} is {row.state} in the end")
        elif row.state == "failed" and row.reason not in _NOT_LOST:
            found["lost"].append(f"intent {row.id} failed: {row.reason}")
    said = Counter(
        (each.who, each.received.text) for each in arrivals if each.truth.claim["class"] == "agent"
    )
    asked = Counter((whose(each.chat or ""), each.said) for each in books.asked if each.said is not None)
    _check_wishes(books, arrivals, found)
    found["lost"] += [f"{what}: an agent said it, and it never came" for what in asked - said]
    found["doubled"] += [f"{what}: no agent said it so often" for what in said - asked]


def _check_wishes(books: Books, arrivals: Sequence[Arrival], found: Mapping[str, list[str]]) -> None:
    """Whoever wants no automatic messages any more hears that it is so."""
    heard = {each.who for each in arrivals if each.read and each.read.word is Word.OPTED_OUT}
    wished = {each.who for each in books.wrote if each.text in STOPPING}
    found["lost"] += [f"{who} opted out, and heard nothing of it" for who in wished - heard]


def _check_order(books: Books, arrivals: Sequence[Arrival], found: Mapping[str, list[str]]) -> None:
    """A chat's history is in the order of writing, and what an agent says comes in the order of saying."""
    wrote = {each.id: each for each in books.wrote}
    histories: dict[tuple[str, str], list[Wrote]] = defaultdict(list)
    for row in books.kept:
        if row.author == "customer" and row.bare_id in wrote:
            histories[row.session, whose(row.chat_id)].append(wrote[row.bare_id])
    for chat, those in histories.items():
        found["reordered"] += [
            f"in the history of {chat} message {later.order} stands before {earlier.order}"
            for later, earlier in pairwise(those)
            if later.order > earlier.order and _can_be_told(earlier, later)
        ]
    asked: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in books.asked:
        if each.said is not None:
            asked[each.session, whose(each.chat or "")].append(each.said)
    came: dict[tuple[str, str], list[str]] = defaultdict(list)
    for arrival in arrivals:
        if arrival.truth.claim["class"] == "agent":
            came[arrival.received.session, arrival.who].append(arrival.received.text)
    for chat, texts in came.items():
        if texts != [text for text in asked[chat] if text in texts]:
            found["reordered"].append(f"{chat} heard {texts}")


def _can_be_told(earlier: Wrote, later: Wrote) -> bool:
    """Whether their order is known: WhatsApp tells seconds, and of what it held nothing more exact."""
    same_second = earlier.at.replace(microsecond=0) == later.at.replace(microsecond=0)
    return not (same_second and (earlier.held or later.held))


def _ends(books: Books, found: Mapping[str, list[str]]) -> dict[str, str]:
    """How the last ticket of each customer ended: nobody is left in the line, nor was never in it."""
    ends: dict[str, str] = {}
    for row in books.tickets:
        ends[whose(row.chat_id)] = str(row.ended)
        if row.state != "closed":
            found["unended"].append(f"ticket {row.id} of {whose(row.chat_id)} is {row.state} in the end")
    for who in {each.who for each in books.wrote} - ends.keys():
        found["unended"].append(f"{who} wrote, and has no ticket")
    return ends


def category(ended: str) -> str:
    """One of three words for how it ended: served, left or closed."""
    return _ENDS.get(ended, "closed")


def words(verdict: Verdict) -> dict[str, Any]:
    """The figures of the last line."""
    counted = Counter(category(ended) for ended in verdict.ends.values())
    figures: dict[str, Any] = {"customers": len(verdict.ends)}
    figures |= {word: counted[word] for word in ("served", "left", "closed")}
    return figures | {word: len(verdict.found.get(word, [])) for word in PROMISED}
