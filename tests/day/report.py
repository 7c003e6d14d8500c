"""The figures of a day, as text: waits, notices, endings, and whatever the judge found."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from statistics import median
from typing import Any

from day.books import Books, whose
from day.judge import Verdict, words
from day.people import ASKING
from day.words import TURNS, Word

_SHOWN = 12


def report(books: Books, verdict: Verdict) -> Iterator[str]:
    """Write the report, line by line; the last line has the figures that count."""
    plan = books.plan
    yield (
        f"seed {plan.seed}: {plan.customers} customers, {len(plan.shops)} shops with {plan.agents} agents"
        f" each, {plan.hours:g} hours; over at {books.ended_at:%d %b %H:%M} UTC"
    )
    yield from _waits(books)
    yield from _notices(verdict)
    yield _questions(books, verdict)
    yield from _endings(books, verdict)
    yield "on the way: " + _counted(books.happened)
    for word, findings in verdict.found.items():
        yield from (f"  {word}: {finding}" for finding in findings[:_SHOWN])
    others = {word: len(findings) for word, findings in verdict.found.items() if findings}
    yield "found: " + (_counted(others) if others else "nothing")
    yield " ".join(f"{word}={figure}" for word, figure in words(verdict).items())


def _waits(books: Books) -> Iterator[str]:
    """From the entry of each ticket until somebody served it first, in minutes."""
    entered: dict[tuple[int, int], datetime] = {}
    served: dict[tuple[int, int], datetime] = {}
    for note in books.notes:
        if note.what == "ticket":
            key = (note.tenant, note.row["id"])
            entered.setdefault(key, datetime.fromisoformat(note.row["entered_at"]))
            if note.row["state"] == "served":
                served.setdefault(key, datetime.fromisoformat(note.row["served_at"]))
    waits: dict[int, list[float]] = defaultdict(list)
    for key, at in served.items():
        waits[key[0]].append((at - entered[key]).total_seconds() / 60)
    for shop in books.plan.shops:
        those = sorted(waits[shop.tenant])
        if those:
            ninety = those[int(len(those) * 0.9)]
            yield (
                f"waits of {shop.name} in minutes: {len(those)} tickets, {sum(map(bool, those))} waited,"
                f" median {median(those):.1f}, p90 {ninety:.1f}, max {those[-1]:.1f}"
            )


def _notices(verdict: Verdict) -> Iterator[str]:
    said = Counter(str(each.read.word) if each.read else "a person's" for each in verdict.arrivals)
    people = len(verdict.ends) or 1
    yield "told: " + _counted(said)
    yield "told per customer: " + ", ".join(
        f"{word} {number / people:.2f}" for word, number in said.most_common()
    )
    places = Counter(
        each.who for each in verdict.arrivals if each.read and each.read.word not in TURNS and each.read.place
    )
    most = max(places.values(), default=0)
    yield f"places told to one customer at most: {most}; to {sum(places.values()) / people:.2f} on average"


def _questions(books: Books, verdict: Verdict) -> str:
    """How soon who asked for his place heard it; who was called meanwhile, or asked twice, heard it once."""
    answers = [each for each in verdict.arrivals if each.read and each.read.word is Word.POSITION]
    asked = [each for each in books.wrote if each.text in ASKING]
    waits = []
    for each in answers:
        before = [one.at for one in asked if one.who == each.who and one.at <= each.truth.at]
        if before:
            waits.append((each.truth.at - before[-1]).total_seconds())
    median_wait = f"{median(waits):.0f} s after, {max(waits):.0f} s at most" if waits else "-"
    return f"places asked for {len(asked)} times, told {len(answers)} times: {median_wait}"


def _endings(books: Books, verdict: Verdict) -> Iterator[str]:
    yield "endings of customers: " + _counted(Counter(verdict.ends.values()))
    yield "endings of tickets: " + _counted(Counter(str(row.ended) for row in books.tickets))
    audit = Counter(note.row["what"] for note in books.notes if note.what == "audit")
    yield "moves: " + _counted({word.removeprefix("ticket."): number for word, number in audit.items()})
    again = {whose(row.chat_id) for row in books.tickets}
    reopened = sum(number for word, number in audit.items() if word.startswith("ticket.reopened"))
    overflown = audit["ticket.opened.overflown"] + audit["ticket.overflown"]
    yield (
        f"{len(books.tickets)} tickets of {len(again)} customers; re-opened {reopened}, overflow {overflown}"
    )


def _counted(counts: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    pairs = counts.items() if isinstance(counts, Mapping) else counts
    return ", ".join(f"{word} {number}" for word, number in sorted(pairs, key=lambda pair: -pair[1])) or "-"
