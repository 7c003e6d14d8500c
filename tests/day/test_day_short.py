"""A short day: a few customers of three shops, and the judge's verdict."""

import random
from collections.abc import Iterator

import msgspec
import pytest

from databases import Database as Urls
from day.books import Books
from day.judge import judge
from day.plan import SHOPS, Plan
from day.report import report
from day.run import run
from wsm.core import notices
from wsm.core.notices import Notice
from wsm.core.tickets import Agent
from wsm.sandbox.waha.phones import Received

TO_TELL = notices.to_tell


@pytest.mark.deadline(120)
async def test_everybody_is_served_leaves_or_is_closed_and_nobody_is_told_what_is_not_so(
    redis_url: str, database: Urls
) -> None:
    plan = Plan(seed=random.getrandbits(32), customers=12, hours=0.25)
    books = await run(plan, redis_url, database)
    verdict = judge(books)
    assert verdict.clean, "\n".join(report(books, verdict))
    assert len(verdict.ends) == plan.customers
    for word, other in falsified(books):
        assert judge(other).found[word], f"{word} is not found"


def falsified(books: Books) -> Iterator[tuple[str, Books]]:
    """Books with one thing that is not so, and what the judge has to call it."""
    changed = msgspec.structs.replace
    who, (first, *others) = next(
        (who, sent)
        for who, inbox in books.inboxes.items()
        if (sent := [each for each in inbox if each.source == "api"])
    )

    def got(*inbox: Received) -> Books:
        return changed(books, inboxes={**books.inboxes, who: inbox})

    yield "lost", got(*others)
    yield "doubled", got(first, first, *others)
    yield "untrue", got(changed(first, text="Chegou a sua vez!"), *others)
    yield "over_pace", got(first, changed(first, at_ms=first.at_ms + 1), *others)
    mine = next(row for row in books.kept if row.author == "customer")
    yield "lost", changed(books, kept=[row for row in books.kept if row is not mine])
    yield "doubled", changed(books, kept=[mine, *books.kept])
    yield "reordered", changed(books, kept=books.kept[::-1])
    yield "unended", changed(books, tickets=[row for row in books.tickets if row.id != books.tickets[0].id])
    yield "lost", changed(books, taken=[])


async def found(redis_url: str, database: Urls) -> dict[str, list[str]]:
    """What the judge finds on a day so short and crowded that somebody has to wait."""
    plan = Plan(seed=7, customers=12, hours=0.1, troubles=0, shops=SHOPS[:1])
    return judge(await run(plan, redis_url, database, until=plan.closes)).found


async def test_the_judge_finds_a_place_that_is_one_too_many(
    redis_url: str, database: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_more(*given: object, **more: object) -> object:
        told = TO_TELL(*given, **more)  # type: ignore[arg-type]
        return Notice(told.name, told.place + 1) if isinstance(told, Notice) else told

    monkeypatch.setattr(notices, "to_tell", one_more)
    assert (await found(redis_url, database))["untrue"]


async def test_the_judge_finds_an_agent_who_serves_more_than_he_may(
    redis_url: str, database: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Agent, "has_room", property(lambda agent: agent.online))
    assert (await found(redis_url, database))["above_capacity"]
