"""Authentic, and nobody's: kept apart, bounded, listable; and what is refused instead, over real HTTP."""

import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from databases import Database as Urls
from ingesting import (
    ANN,
    ANNS_NUMBER,
    BOB,
    HOOK,
    KID,
    SESSIONS,
    Site,
    event,
    listed,
    path_of,
    refused,
    request,
    secret_of,
    site,
    to,
)
from wsm import bootstrap
from wsm.clock.clock import TICK_SECONDS, Clock
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName, TenantId
from wsm.ingest.directory import LiveDirectory
from wsm.store import fleet
from wsm.store.database import Database
from wsm.store.leadership import Leadership
from wsm.streams.handover import Handover, Limits
from wsm.streams.letters import Quarantine

OTHER_NUMBER = "5511888880000"
NOT_A_NUMBER: list[Any] = [
    None, {}, [], "", ANNS_NUMBER, 7, True, {"id": None}, {"id": ""}, {"id": 7}, {"id": ["x"]}, {"id": {}},
    {"id": "me"}, {"id": "144444444444444@lid"}, {"id": "144444444444444:3@lid"}, {"pushName": OTHER_NUMBER},
    {"lid": "144444444444444@lid", "jid": f"{OTHER_NUMBER}:3@s.whatsapp.net"},
]  # fmt: skip
"""What WAHA says of itself before it knows, and what is nobody's number."""


def number(me: str) -> list[str]:
    """A number in every form that WAHA has for it."""
    return [f"{me}@c.us", f"{me}@s.whatsapp.net", f"{me}:12@s.whatsapp.net", f"{me}.0:12@s.whatsapp.net", me]


async def said(at: Site, me: Any, *, absent: bool = False) -> list[str]:
    """Post an event of Ann's session with this `me`, to her own path and to the shared hook."""
    body = event(ANN.session) if absent else event(ANN.session, me=me)
    posts = (to(ANN, body), request(HOOK, body, secret="hook-new"))
    replies = [await at.say(post) for post in posts]
    assert {reply.status for reply in replies} == {200}, me
    return [reply.json["status"] for reply in replies]


async def test_what_names_no_other_number_is_the_sessions(redis_url: str) -> None:
    async with site(redis_url) as at:
        assert await said(at, None, absent=True) == ["accepted", "accepted"]
        for me in (*NOT_A_NUMBER, *({"id": form} for form in number(ANNS_NUMBER))):
            assert await said(at, me) == ["accepted", "accepted"], me
        assert await at.misfits() == []


async def test_another_number_is_kept_apart_in_every_form_and_at_every_door(redis_url: str) -> None:
    async with site(redis_url) as at:
        for form in number(OTHER_NUMBER):
            assert await said(at, {"id": form, "pushName": "Ana"}) == ["quarantined", "quarantined"], form
        assert await at.entries(ANN) == []
        kept = await Quarantine(at.redis).read()
        assert {(each.session, each.server, each.reason) for each in kept} == {
            (ANN.session, "default", "other_number")
        }
        assert len(kept) == 2 * len(number(OTHER_NUMBER))


@pytest.mark.parametrize(
    ("limits", "most"),
    [({"quarantine_entries": 3}, 3), ({"quarantine_bytes": 600}, 2), ({"quarantine_bytes": 1}, 1)],
)
async def test_the_quarantine_keeps_the_newest_and_no_more(
    redis_url: str, limits: dict[str, int], most: int
) -> None:
    bounds = Limits(
        **{"tenant_entries": 9, "tenant_bytes": 9999, "all_bytes": 9999, "quarantine_entries": 99, **limits}
    )
    async with site(redis_url, limits=bounds) as at:
        for n in range(1, 11):
            body = event("nobody", number=n, padding="x" * 170)
            assert (await at.say(request(HOOK, body, secret="hook-new"))).json == {"status": "quarantined"}
        kept = await Quarantine(at.redis).read()
        assert [b'"evt_%d"' % n in each.body for n, each in enumerate(kept, 11 - most)] == [True] * most
        assert (await at.say(to(ANN, event(ANN.session)))).json == {"status": "accepted"}, (
            "nobody's takes no room"
        )


async def test_a_session_that_never_was_and_one_that_is_gone_are_told_apart_by_nobody(redis_url: str) -> None:
    never = SessionAddress(TenantId(5), SessionName("user_5"))
    async with site(redis_url) as at:
        assert (await at.say(to(BOB, event(BOB.session)))).status == 200
        await at.redis.delete("wsm:77:in", "wsm:77:load", "wsm:load", "wsm:active", "wsm:mail:turn")
        await at.publish([listed(ANN)], "2")
        answers = []
        for address in (never, BOB):
            body = event(address.session, me={"id": f"{OTHER_NUMBER}@c.us"})
            for secret in (secret_of(address), "wrong", "hook-new"):
                reply = await at.say(request(path_of(address), body, secret=secret))
                assert refused(reply, "signature_mismatch")
                answers.append((reply.status, reply.headers, reply.body))
        assert answers == answers[:1] * 6
        assert await at.misfits() == []
        assert await at.entries(BOB) == []
        # At the shared hook the same is authentic: its WAHA has a session of which wsm knows nothing.
        reply = await at.say(request(HOOK, event(BOB.session), secret="hook-new"))
        assert reply.json == {"status": "quarantined"}
        [kept] = await Quarantine(at.redis).read()
        assert (kept.session, kept.reason) == (BOB.session, "session_unmapped")
        await at.publish(SESSIONS, "3")
        assert (await at.say(request(HOOK, event(BOB.session), secret="hook-new"))).json == {
            "status": "accepted"
        }


async def test_a_number_that_is_learned_later_counts_from_the_next_directory_on(
    redis_url: str, database: Urls
) -> None:
    leadership = Leadership(database.system_url)
    async with (
        bootstrap.opened(Database(database.system_url, connections=1)) as system,
        site(redis_url, sessions=None) as at,
    ):
        between = Handover(at.redis, limits=Limits(99, 9999, 9999, 99), lease_seconds=4, turn_entries=9)
        clock = Clock(
            system,
            leadership,
            between,
            at.board,
            now=lambda: datetime.now(UTC),
            keep_dedupe=timedelta(days=60),
            keep_media=timedelta(days=30),
        )

        async def learned(phone: str | None) -> None:
            async with await psycopg.AsyncConnection.connect(database.owner_url) as owner:
                await owner.execute("update wsm.sessions set phone = %s", [phone])
            await clock.tick()
            await at.directory.refresh()

        await fleet.add_tenant(system, ANN.tenant, name="", locale="en", capacity=1)
        await fleet.add_session(system, ANN, server=DEFAULT_SERVER, alias="", kid=KID)
        await learned(None)
        mine, other = {"id": f"{ANNS_NUMBER}@c.us"}, {"id": f"{OTHER_NUMBER}:3@s.whatsapp.net"}
        assert await said(at, other) == ["accepted", "accepted"], "nobody knows better yet"
        await learned(f"{ANNS_NUMBER}@c.us")
        assert await said(at, other) == ["quarantined", "quarantined"]
        assert await said(at, mine) == ["accepted", "accepted"]
        await learned(OTHER_NUMBER)
        assert await said(at, other) == ["accepted", "accepted"], "somebody has confirmed it"
        assert await said(at, mine) == ["quarantined", "quarantined"]
        await leadership.resign()


def test_a_directory_is_two_seconds_old_at_most() -> None:
    parameters = inspect.signature(LiveDirectory).parameters
    bound = bootstrap.ingest._DIRECTORY_AGE_SECONDS
    assert bound == parameters["max_age_seconds"].default == 2.0
    assert TICK_SECONDS + parameters["poll_seconds"].default < bound
