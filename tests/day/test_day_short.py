"""A short day: a few customers of three shops, and the judge's verdict."""

import random

import pytest

from databases import Database as Urls
from day.judge import judge
from day.plan import SHOPS, Plan
from day.report import report
from day.run import run
from wsm.core import notices
from wsm.core.notices import Notice
from wsm.core.tickets import Agent

TO_TELL = notices.to_tell


@pytest.mark.deadline(120)
async def test_everybody_is_served_leaves_or_is_closed_and_nobody_is_told_what_is_not_so(
    redis_url: str, database: Urls
) -> None:
    plan = Plan(seed=random.getrandbits(32), customers=18, hours=0.4)
    books = await run(plan, redis_url, database)
    verdict = judge(books)
    assert verdict.clean, "\n".join(report(books, verdict))
    assert len(verdict.ends) == plan.customers


async def found(redis_url: str, database: Urls) -> dict[str, list[str]]:
    """What the judge finds on a day so short and crowded that somebody has to wait."""
    plan = Plan(seed=7, customers=14, hours=0.1, troubles=0, shops=SHOPS[:1])
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
