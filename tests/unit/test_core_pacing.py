"""When a message may leave and why it waits: a week of sending, and each rule by itself."""

import itertools
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from statistics import mean

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paced import MONDAY, SAO_PAULO, Claim, Paced
from wsm.core.content import SendClass
from wsm.core.outbox import Lock
from wsm.core.pacing import (
    FAIR,
    Budget,
    Correspondent,
    Head,
    Numbers,
    Pace,
    Refusal,
    Wait,
    after_claim,
    choose,
    curve,
    frozen,
    jittered,
    lengthened,
    loops,
    may_leave,
    put_off,
    refused,
    typing_time,
    until_open,
)
from wsm.core.reasons import REASONS, Why

DEFAULT = Pace()
OPEN = Pace(first_contacts=True)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LOCAL = datetime(2026, 11, 23, 9)  # noqa: DTZ001 (a tenant's own time has no zone)
NUMBERS = Numbers(local=LOCAL)


def head(urgency: SendClass = SendClass.AGENT, number: int = 1, **more: object) -> Head:
    values = {"id": number, "urgency": urgency, "cold": False, "since": MONDAY, **more}
    return msgspec.convert(values, Head)


@cache
def week() -> tuple[Paced, int]:
    """A busy number's week: bursts of customers, people who type, a bot, and a campaign. Seeded."""
    chance = random.Random(20261123)
    session = Paced(DEFAULT, chance.random)
    now, written = MONDAY, 0
    end = MONDAY + timedelta(days=7)
    kinds = [SendClass.AGENT, SendClass.BOT, SendClass.TURN, SendClass.PLACE, SendClass.SURVEY]
    for chat in range(3_000):
        session.say(SendClass.CAMPAIGN, chat + 10_000, now)
        written += 1
    while now < end:
        local = now + SAO_PAULO
        busy = 8 <= local.hour < 22 and local.weekday() < 3  # then little, and campaigns have room
        if busy and chance.random() < 0.02:
            for _ in range(40):  # everybody at once
                session.say(chance.choice(kinds), chance.randrange(4_000), now)
                written += 1
        if busy or chance.random() < 0.15:
            for _ in range(chance.choice((1, 2, 2, 3))):
                session.say(chance.choices(kinds, (6, 4, 2, 2, 1))[0], chance.randrange(4_000), now)
                written += 1
        now = session.run(now + timedelta(seconds=chance.uniform(20, 80)), now)
    return session, written


@cache
def strangers() -> Paced:
    """A new number that writes to 3,000 people who never wrote, beside a few replies, until all have it."""
    chance = random.Random(7)
    session = Paced(OPEN, chance.random)
    for chat in range(3_000):
        session.say(SendClass.AGENT, chat, MONDAY, cold=True)
    now = MONDAY
    for chat in range(10_000, 10_400):
        session.say(SendClass.BOT, chat, now)
        now = session.run(now + HOUR, now)
    return session


def times(claims: Sequence[Claim], *budgets: Budget) -> list[datetime]:
    return [claim.at for claim in claims if claim.budget in budgets]


def fullest(moments: Sequence[datetime], within: timedelta) -> int:
    """How many are in the fullest window."""
    first, most = 0, 0
    for last, at in enumerate(moments):
        while moments[first] <= at - within:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_a_week_of_ten_thousand_messages_keeps_every_limit() -> None:
    session, written = week()
    claims = session.claims
    assert written > 10_000 < len(claims), (written, len(claims))
    replies = times(claims, Budget.REPLY)
    assert fullest(replies, MINUTE) == DEFAULT.reply_per_minute, "used, and never more"
    assert fullest(replies, DAY) <= DEFAULT.reply_per_day
    everything = [claim.at for claim in claims]
    for number, claim in enumerate(claims):
        if claim.budget is Budget.REPLY:
            continue
        for limit, within in ((8, MINUTE), (200, HOUR), (1_000, DAY)):
            if number >= limit:
                assert claim.at - everything[number - limit] >= within, "campaigns take what replies leave"
    per_chat: dict[int, list[Claim]] = {}
    for claim in claims:
        per_chat.setdefault(claim.intent.chat, []).append(claim)
    for mine in per_chat.values():
        gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(mine)]
        assert min(gaps, default=HOUR) >= timedelta(seconds=6)
        automatic = [each.at for each in mine if each.intent.urgency not in {"agent", "turn"}]
        assert fullest(automatic, DAY) <= DEFAULT.contact_automated_per_day


def test_one_person_gets_twenty_automatic_messages_a_day_and_every_word_of_people() -> None:
    session = Paced(DEFAULT, random.Random(3).random)
    now = MONDAY
    for number in range(3 * 24 * 3):  # one each twenty minutes, for three days
        session.say(SendClass.AGENT if number % 6 == 0 else SendClass.BOT, 1, now)
        now = session.run(now + MINUTE * 20, now)
    automatic = [claim.at for claim in session.claims if claim.intent.urgency is SendClass.BOT]
    assert fullest(automatic, DAY) == DEFAULT.contact_automated_per_day, "used, and never more"
    by_people = [claim for claim in session.claims if claim.intent.urgency is SendClass.AGENT]
    assert len(by_people) == 3 * 24 / 2
    assert max(claim.at - claim.intent.since for claim in by_people) < MINUTE


def test_new_people_are_within_the_warm_up_and_far_apart() -> None:
    firsts = times(strangers().claims, Budget.FIRST)
    assert len(firsts) == 3_000
    limits = curve(OPEN)
    days = [(at - firsts[0]).days for at in firsts]
    for number, (at, day) in enumerate(zip(firsts, days, strict=True)):
        if day < len(limits) and number >= limits[day]:
            assert at - firsts[number - limits[day]] >= DAY
    assert [days.count(day) for day in range(5)] == limits[:5], "what may be used is"
    assert max(days.count(day) for day in days) <= OPEN.per_day
    assert min(b - a for a, b in itertools.pairwise(firsts)) >= timedelta(seconds=30)


def test_campaigns_of_a_week_leave_in_the_allowed_hours() -> None:
    session, _ = week()
    campaigns = [claim.at + SAO_PAULO for claim in session.claims if claim.intent.urgency == "campaign"]
    assert len(campaigns) > 800
    assert all(9 <= at.hour < 20 and at.weekday() < 6 for at in campaigns)


def test_the_gaps_of_a_week_are_no_beat() -> None:
    session, _ = week()
    moments = [claim.at for claim in session.claims]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(moments)]
    assert min(gaps) >= 0.7 * DEFAULT.gap_seconds
    short = [gap for gap in gaps if gap < 10]
    commonest = max(sum(round(gap, 1) == tenth / 10 for gap in short) for tenth in range(100))
    assert commonest < len(short) / 8


def test_in_a_week_the_urgent_go_first_and_the_others_one_time_in_ten() -> None:
    session, _ = week()
    waits: dict[str, list[float]] = {}
    for claim in session.claims:
        wait = (claim.at - claim.intent.since).total_seconds()
        waits.setdefault(claim.intent.urgency, []).append(wait)
    typical = {urgency: mean(found) for urgency, found in waits.items()}
    ranked = [typical[each] for each in SendClass]
    assert ranked == sorted(ranked), typical
    overtaken = sum(claim.behind > 0 for claim in session.claims)
    assert overtaken <= session.picks / FAIR + 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    older=st.integers(0, 3),
    urgent=st.sampled_from([SendClass.AGENT, SendClass.BOT]),
    behind=st.sampled_from([SendClass.PLACE, SendClass.SURVEY]),
    types=st.booleans(),
)
def test_nobody_starves_behind_an_endless_stream_of_the_urgent(
    *, seed: int, older: int, urgent: SendClass, behind: SendClass, types: bool
) -> None:
    chance = random.Random(seed)
    session = Paced(DEFAULT, chance.random, types=types)
    now = MONDAY
    for chat in range(older):
        session.say(behind, chat, now)
    waiting = session.say(behind, 99, now)
    chat = 1_000
    while not session.claims or session.claims[-1].intent.id != waiting:
        assert session.picks <= FAIR * (older + 1) + DEFAULT.typing_chats
        while len(session.pending[urgent, False]) < 5:
            chat += 1
            session.say(urgent, chat, now)
        came = session.step(now)
        assert came is not None
        now = max(came, now)


def test_what_is_typed_leaves_first_and_then_the_most_urgent() -> None:
    heads = [head(urgency, number) for number, urgency in enumerate(SendClass, 1)]
    numbers = msgspec.structs.replace(NUMBERS, local=LOCAL)
    for urgency in SendClass:
        chosen = choose(DEFAULT, numbers, reversed(heads), MONDAY)
        assert isinstance(chosen, Head)
        assert chosen.urgency is urgency
        heads.remove(chosen)
    typed = head(SendClass.SURVEY, 9, typed=True)
    assert choose(DEFAULT, NUMBERS, [head(), typed], MONDAY) == typed
    assert choose(DEFAULT, NUMBERS, [], MONDAY) is None


REPLY, COLD, CAMPAIGN = head(), head(cold=True), head(SendClass.CAMPAIGN)
LATER = MONDAY + timedelta(seconds=30)


@pytest.mark.parametrize(
    ("numbers", "who", "until", "why"),
    [
        ({"next_at": LATER}, REPLY, LATER, Why.GAP),
        ({"next_at": LATER, "since": MONDAY}, REPLY, LATER, Why.RAMP),
        ({"reply_minute": MONDAY - MINUTE / 2}, REPLY, LATER, Why.REPLY_LIMIT),
        ({"reply_minute": MONDAY - MINUTE}, REPLY, None, None),
        ({"reply_minute": MONDAY}, CAMPAIGN, None, None),
        ({"all_minute": MONDAY - MINUTE / 2}, CAMPAIGN, LATER, Why.ALL_LIMIT),
        ({"all_minute": MONDAY}, REPLY, None, None),
        ({"all_hour": MONDAY, "first_day": MONDAY}, COLD, MONDAY + DAY, Why.FIRST_LIMIT),
        ({"next_first_at": LATER}, COLD, LATER, Why.FIRST_GAP),
        ({"next_first_at": LATER}, REPLY, None, None),
        ({"frozen_until": LATER}, COLD, LATER, Why.FROZEN),
        ({"frozen_until": LATER}, REPLY, None, None),
        ({"frozen_until": LATER}, CAMPAIGN, None, None),
        ({"slowed_until": LATER}, CAMPAIGN, LATER, Why.SLOWED),
        ({"slowed_until": LATER}, REPLY, None, None),
        ({"local": LOCAL - HOUR}, CAMPAIGN, MONDAY + HOUR, Why.HOURS),
        ({"typing": 3, "typing_until": LATER}, head(types=True), LATER, Why.TYPING),
        ({"typing": 2, "typing_until": LATER}, head(types=True), None, None),
        ({"next_at": LATER, "frozen_until": LATER}, head(cold=True, kind="seen"), None, None),
    ],
)
def test_each_thing_waits_for_what_concerns_it(
    numbers: dict[str, object], who: Head, until: datetime | None, why: Why | None
) -> None:
    found = may_leave(OPEN, msgspec.structs.replace(NUMBERS, **numbers), who, MONDAY)
    assert found == (Wait(until, why) if until and why else None)


@pytest.mark.parametrize(
    ("local", "hours"),
    [
        (LOCAL, 0),
        (LOCAL.replace(hour=8), 1),
        (LOCAL.replace(hour=20), 13),
        (LOCAL + timedelta(days=5, hours=11), 37),  # Saturday evening: Monday morning
        (LOCAL + timedelta(days=6), 24),
    ],
)
def test_campaigns_wait_for_the_next_allowed_hour(local: datetime, hours: float) -> None:
    assert until_open(DEFAULT, local) == timedelta(hours=hours)


def test_a_pace_without_allowed_hours_looks_again_in_a_week() -> None:
    assert until_open(Pace(campaign_weekdays=()), LOCAL) == timedelta(days=7)


@pytest.mark.parametrize(
    ("who", "whom", "why"),
    [
        (COLD, {}, Why.FIRST_OFF),
        (REPLY, {"opted_out": True, "same_text": 9}, None),
        (head(SendClass.PLACE), {"opted_out": True}, None),
        (head(SendClass.TURN), {"opted_out": True, "same_text": 9}, None),
        (head(SendClass.BOT), {"opted_out": True}, Why.OPTED_OUT),
        (head(SendClass.SURVEY), {"opted_out": True}, Why.OPTED_OUT),
        (CAMPAIGN, {"opted_out": True}, Why.OPTED_OUT),
        (CAMPAIGN, {"same_text": 3}, Why.SAME_TEXT),
        (CAMPAIGN, {"same_text": 2}, None),
        (head(SendClass.SURVEY), {"same_text": 9}, None),
        (head(SendClass.BOT), {"said": 8}, Why.BOT_LOOP),
        (head(SendClass.BOT), {"repeated": 2}, Why.BOT_LOOP),
        (head(SendClass.BOT), {"said": 7, "repeated": 1}, None),
        (head(SendClass.BOT), {"bot_paused_until": LATER}, Why.BOT_LOOP),
        (head(SendClass.BOT), {"bot_paused_until": MONDAY}, None),
        (head(SendClass.PLACE), {"said": 99, "bot_paused_until": LATER}, None),
    ],
)
def test_what_must_not_leave_is_refused_with_the_reason(
    who: Head, whom: dict[str, object], why: Why | None
) -> None:
    found = refused(DEFAULT, who, msgspec.convert(whom, Correspondent), MONDAY)
    assert found == (Refusal(why, dropped=why is Why.BOT_LOOP) if why else None)


def test_who_is_opted_out_is_no_first_contact_for_anybody() -> None:
    assert refused(OPEN, COLD, Correspondent(opted_out=True), MONDAY) == Refusal(Why.OPTED_OUT)
    assert refused(OPEN, COLD, Correspondent(), MONDAY) is None
    assert refused(OPEN, head(SendClass.BOT, cold=True), Correspondent(same_text=3), MONDAY) == Refusal(
        Why.SAME_TEXT
    )
    assert not loops(OPEN, REPLY, Correspondent(said=99))


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_a_person_gets_one_message_in_six_seconds_and_twenty_automatic_ones_a_day(chance: float) -> None:
    bot, recent = head(SendClass.BOT), Correspondent(told_at=MONDAY - timedelta(seconds=5))
    for who in (REPLY, bot):
        wait = put_off(DEFAULT, who, recent, MONDAY, chance)
        assert wait is not None
        assert wait.why is Why.CONTACT_GAP
        assert timedelta(seconds=1) <= wait.until - MONDAY <= timedelta(seconds=2.8)
    assert put_off(DEFAULT, bot, Correspondent(told_at=MONDAY - timedelta(seconds=6)), MONDAY, chance) is None
    full = Correspondent(automated_at=MONDAY - HOUR)
    assert put_off(DEFAULT, bot, full, MONDAY, chance) == Wait(MONDAY + 23 * HOUR, Why.CONTACT_DAY)
    assert put_off(DEFAULT, head(SendClass.TURN), full, MONDAY, chance) is None
    assert put_off(DEFAULT, head(kind="seen"), recent, MONDAY, chance) is None


def test_delays_vary_and_limits_are_only_lengthened() -> None:
    assert [jittered(10, chance).total_seconds() for chance in (0, 0.5)] == [7, 10]
    assert [lengthened(10, chance).total_seconds() for chance in (0, 0.5)] == [10, 11.5]
    assert typing_time(DEFAULT, "text", 5, 0.5) == timedelta(seconds=0.8)
    assert typing_time(DEFAULT, "text", 100, 0.5) == timedelta(seconds=4)
    assert typing_time(DEFAULT, "text", 5_000, 0.5) == timedelta(seconds=8)
    assert typing_time(DEFAULT, "voice", 0, 0.5) == timedelta(seconds=3)
    assert typing_time(DEFAULT, "image", 10, 0.5) == timedelta(seconds=2.4)


def test_a_session_that_has_come_back_begins_with_a_tenth_of_its_rate() -> None:
    def gap(age: float) -> float:
        numbers = msgspec.structs.replace(NUMBERS, since=MONDAY - timedelta(seconds=age))
        return (after_claim(DEFAULT, numbers, REPLY, MONDAY, 0.5).next_at - MONDAY).total_seconds()

    assert [round(gap(age), 1) for age in (0, 30, 60, 600)] == [30, 5.5, 2, 2]
    assert after_claim(DEFAULT, NUMBERS, head(kind="typing"), MONDAY, 0.5).next_at == MONDAY


def test_the_warm_up_begins_anew_after_three_idle_days() -> None:
    began = MONDAY - 5 * DAY
    numbers = msgspec.structs.replace(NUMBERS, warm_since=began, first_at=MONDAY - 71 * HOUR)
    assert after_claim(OPEN, numbers, COLD, MONDAY, 0.0).warm_since == began
    numbers = msgspec.structs.replace(numbers, first_at=MONDAY - 73 * HOUR)
    after = after_claim(OPEN, numbers, COLD, MONDAY, 0.5)
    assert after.warm_since == MONDAY
    assert after.next_first_at == MONDAY + timedelta(seconds=45)
    assert curve(OPEN)[:4] == [15, 27, 48, 87]
    assert len(curve(OPEN)) == 10


def test_what_whatsapp_forbids_ends_when_it_says_or_after_a_day_or_an_hour() -> None:
    said = MONDAY + 6 * DAY
    assert frozen(DEFAULT, Lock("reachout_timelock", said), MONDAY) == (said, None)
    assert frozen(DEFAULT, Lock("reachout_timelock"), MONDAY) == (MONDAY + DAY, None)
    assert frozen(DEFAULT, Lock("rate_limited"), MONDAY) == (MONDAY + HOUR, MONDAY + HOUR)
    slow = msgspec.structs.replace(NUMBERS, slowed_until=LATER)
    assert after_claim(DEFAULT, slow, REPLY, MONDAY, 0.5).next_at == MONDAY + timedelta(seconds=8)


@pytest.mark.parametrize(
    ("said", "hours"),
    [
        (MONDAY - DAY, 24),
        (MONDAY, 24),
        (datetime(1970, 1, 1, 1, tzinfo=UTC), 24),
        (MONDAY + HOUR, 1),
        (MONDAY + 400 * DAY, 720),
        (datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-14 * HOUR)), 720),
    ],
)
def test_a_lock_that_ends_in_the_past_or_never_is_bounded(said: datetime, hours: int) -> None:
    until = MONDAY + hours * HOUR
    assert frozen(DEFAULT, Lock("reachout_timelock", said), MONDAY) == (until, None)
    slow = until if hours != 24 else MONDAY + HOUR
    assert frozen(DEFAULT, Lock("rate_limited", said), MONDAY) == (slow, slow)


def test_every_reason_is_told_in_plain_words() -> None:
    assert set(REASONS) == set(Why)
