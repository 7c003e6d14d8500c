"""Who is known by one id alone: the gateway is asked for the other one, seldom, and nobody waits for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import pytest

from databases import Database as Urls
from scripted_gateway import ADDRESS, Asked, Reply, gateway, hangs, says
from shop import Shop, shop
from wahastage import stage
from waiting import wait_for
from wsm.config import WahaServer
from wsm.control.hidden_ids import EVERY, HiddenIds, Learned
from wsm.core.events import Origin
from wsm.core.ids import DEFAULT_SERVER, SessionAddress
from wsm.gateway.waha import Gateways, WahaSession
from wsm.sandbox.waha import Engine
from wsm.sandbox.waha.control import Phone
from wsm.store import watch
from wsm.streams.handover import Offer, Verdict

ANA, BIA, CAIO = "5511960000001", "5511960000002", "5511960000003"
STORE = {"noweb": {"store": {"enabled": True, "fullSync": False}}}
DAY = timedelta(days=1)


def hidden(phone: str) -> str:
    """The sandbox's hidden id of a phone."""
    return f"9{phone}@lid"


class Desk:
    """A shop whose customers are known by one id, and who asks for the other; time goes on by hand."""

    def __init__(self, open_shop: Shop, gateway: WahaSession, session: int) -> None:
        self.shop = open_shop
        self.gateway = gateway
        self.session = session
        self.now = datetime.now(UTC) + timedelta(seconds=1)
        self.entered: list[Offer] = []
        self.verdict = Verdict.ACCEPTED
        self.ids = HiddenIds(open_shop.database, self.take, now=lambda: self.now, limit_seconds=0.5)

    @property
    def address(self) -> SessionAddress:
        return self.gateway.address

    async def take(self, offers: Sequence[Offer]) -> list[Verdict]:
        if self.verdict is Verdict.ACCEPTED:
            self.entered += offers
        return [self.verdict] * len(offers)

    async def heard(self, *chats: str) -> None:
        """Let customers write, each under one id."""
        for chat in chats:
            await self.shop.turn(self.shop.message(chat, "oi"))

    async def learn(self, after: timedelta = timedelta()) -> Learned:
        """Do a round, so much later."""
        self.now += after
        return await self.ids.learn(self.gateway, self.session)

    def begin(self, *, heard_ms: int = 0, after: timedelta = timedelta()) -> None:
        """Begin one beside, if its time has come."""
        self.now += after
        self.ids.begin(self.gateway, server=DEFAULT_SERVER, session=self.session, heard_ms=heard_ms)

    def pairs(self) -> list[list[list[str]]]:
        """What entered, entry by entry."""
        return [json.loads(offer.body)["payload"]["pairs"] for offer in self.entered]

    async def waiting(self) -> list[str]:
        """Of whom an id is still asked for."""
        query = "select chat_id from conversations where ask_ids_at is not null order by chat_id"
        async with self.shop.database.transaction(self.shop.tenant) as transaction:
            rows = await (await transaction._connection.execute(query)).fetchall()
        return [row.chat_id for row in rows]


@asynccontextmanager
async def desk(urls: Urls, gateway: WahaSession) -> AsyncIterator[Desk]:
    """Open it before a gateway."""
    async with shop(urls) as open_shop:
        [row] = await watch.every(open_shop.system)
        at = Desk(open_shop, gateway, row.id)
        yield at
        await at.ids.forget()


@asynccontextmanager
async def waha(urls: Urls, engine: Engine) -> AsyncIterator[tuple[Desk, Phone]]:
    """Open it before a WAHA, whose session is linked and knows whom it has heard."""
    async with stage(engine=engine) as on:
        server = WahaServer(url=on.waha.base_url, api_key=on.waha.api_key)
        gateways = Gateways({DEFAULT_SERVER: server}, send_timeout_seconds=5, look_timeout_seconds=5)
        try:
            async with desk(urls, gateways.session(DEFAULT_SERVER, ADDRESS, None)) as at:
                await on.session(at.address.session, config=STORE, webhooks=[])
                yield at, on.phone
        finally:
            await gateways.aclose()


@pytest.mark.parametrize("engine", Engine)
async def test_who_is_known_by_one_id_is_asked_for_by_the_other(database: Urls, engine: Engine) -> None:
    async with waha(database, engine) as (at, phone):
        for each in (ANA, BIA):
            await phone.say(at.address.session, each, "oi", told=False)
        await at.heard(hidden(ANA), f"{BIA}@c.us", hidden(CAIO), "120363000000000001@g.us")
        assert await at.learn() == Learned(due=3, asked=3, learned=2)
        [entry] = at.entered
        assert (entry.origin, entry.tenant, entry.session) == (
            Origin.CLOCK,
            at.address.tenant,
            at.address.session,
        )
        assert sorted(at.pairs()[0]) == [[hidden(each), f"{each}@c.us"] for each in (ANA, BIA)]
        assert await at.learn(EVERY) == Learned(), "nobody is asked for twice a day"


async def test_two_who_turn_out_to_be_one_become_one_and_are_asked_for_no_more(database: Urls) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:
        behind.reply = says(200, {"lid": hidden(ANA), "pn": f"{ANA}@c.us"})
        await at.heard(hidden(ANA), f"{ANA}@c.us")
        assert [place for _, place in await at.shop.line()] == [None, 1], "twice in the line"
        assert (await at.learn()).learned == 2
        await at.shop.turn(*(offer.body for offer in at.entered), origin=Origin.CLOCK)
        assert [place for _, place in await at.shop.line()] == [None]
        assert await at.learn(2 * DAY) == Learned()
        assert await at.waiting() == []


def knows_nobody(asked: Asked) -> object:
    """WAHA's answer for an id that it has not learned."""
    *_, kind, id_ = unquote(asked.path).split("/")
    return {"lid": None, "pn": f"{id_}@c.us"} if kind == "pn" else {"lid": id_, "pn": None}


async def nobody(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await says(200, knows_nobody(asked))(asked, writer)


async def test_who_is_never_known_is_asked_for_ever_more_rarely(database: Urls) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:
        behind.reply = nobody
        await at.heard(hidden(ANA), f"{BIA}@c.us")
        days = 0
        for _ in range(200):
            days += (await at.learn(DAY)).asked == 2
        assert 8 <= days <= 16, "daily at first, then after as long as it is unknown, at least once a month"
        assert {asked.path for asked in behind.asked} == {
            f"/api/{at.address.session}/lids/{hidden(ANA)}".replace("@", "%40"),
            f"/api/{at.address.session}/lids/pn/{BIA}",
        }
        assert at.entered == []


async def test_who_is_known_by_both_and_who_is_no_person_is_never_asked_for(database: Urls) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:
        await at.shop.turn(at.shop.message(hidden(ANA), "oi", alt=f"{ANA}@s.whatsapp.net"))
        await at.heard("120363000000000001@g.us", f"{BIA}@c.us")
        behind.reply = nobody
        assert await at.learn() == Learned(due=1, asked=1)
        assert await at.waiting() == [f"{BIA}@c.us"]


async def test_a_round_asks_for_so_many_and_for_the_newest_first(database: Urls) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:
        behind.reply = nobody
        await at.heard(*(f"55119600{number:05d}@c.us" for number in range(25)))
        assert await at.learn() == Learned(due=20, asked=20)
        assert [asked.path[-5:] for asked in behind.asked] == [f"{number:05d}" for number in range(24, 4, -1)]
        assert await at.learn() == Learned(due=5, asked=5)


@pytest.mark.parametrize(
    "reply",
    [
        says(400, {"message": "Enable NOWEB store", "statusCode": 400}),
        says(501, {"message": "not implemented", "statusCode": 501}),
        says(404, {"message": "Cannot GET /api/user_1460561546/lids/1", "statusCode": 404}),
    ],
)
async def test_a_gateway_that_answers_no_such_question_is_left_alone_for_a_day(
    database: Urls, reply: Reply
) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:
        behind.reply = reply
        await at.heard(hidden(ANA), hidden(BIA))
        for hours in range(25):
            at.begin(heard_ms=hours, after=timedelta(hours=hours > 0))
            await at.ids.idle()
            assert len(behind.asked) == (1 if hours < 24 else 2)
        assert len(await at.waiting()) == 2


async def test_who_is_refused_does_not_keep_the_others_waiting(database: Urls) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:

        async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
            refuses = ANA in asked.path
            await (says(422, {"message": "odd", "statusCode": 422}) if refuses else nobody)(asked, writer)

        behind.reply = reply
        await at.heard(hidden(BIA), hidden(ANA))
        reason = "gateway answered 422: unprocessable"
        assert await at.learn() == Learned(due=2, asked=1, reason=reason)
        assert await at.learn(EVERY) == Learned(due=1, asked=1)


async def test_what_breaks_off_is_told_as_far_as_it_came_and_goes_on(database: Urls) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:

        async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
            pair = {"lid": hidden(BIA), "pn": f"{BIA}@c.us"}
            await (hangs if ANA in asked.path else says(200, pair))(asked, writer)

        behind.reply = reply
        await at.heard(hidden(ANA), hidden(BIA))
        assert await at.learn() == Learned(due=2, asked=1, learned=1, reason="no answer in time")
        assert at.pairs() == [[[hidden(BIA), f"{BIA}@c.us"]]]
        behind.reply = nobody
        assert await at.learn(EVERY) == Learned(due=1, asked=1)


@pytest.mark.parametrize("answer", [{}, [], {"lid": "8@lid", "pn": None}, {"lid": 5, "pn": "nobody"}])
async def test_an_answer_that_names_somebody_else_is_none(database: Urls, answer: object) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:
        behind.reply = says(200, answer)
        await at.heard(hidden(ANA))
        assert await at.learn() == Learned(due=1, reason="unreadable answer")


async def test_what_does_not_enter_is_asked_for_again(database: Urls) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:
        behind.reply = says(200, {"lid": hidden(ANA), "pn": f"{ANA}@c.us"})
        await at.heard(hidden(ANA))
        at.verdict = Verdict.ALL_FULL
        at.begin()
        await at.ids.idle()
        assert at.entered == []
        at.verdict = Verdict.ACCEPTED
        at.begin(after=EVERY)
        await at.ids.idle()
        assert at.pairs() == [[[hidden(ANA), f"{ANA}@c.us"]]]


async def test_nobody_waits_for_it_and_it_is_broken_off_when_another_leads(database: Urls) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:
        behind.reply = hangs
        await at.heard(hidden(ANA))
        at.begin()
        at.begin(after=EVERY)
        await wait_for(lambda: behind.asked)
        await at.ids.forget()
        assert len(behind.asked) == 1, "a round of a session at a time"
        behind.reply = nobody
        at.begin()
        await at.ids.idle()
        assert await at.learn() == Learned(), "who leads next begins anew"


async def test_a_session_that_hears_nothing_new_is_looked_at_once_an_hour(database: Urls) -> None:
    async with gateway() as (behind, session), desk(database, session) as at:
        behind.reply = nobody
        at.begin(heard_ms=1)
        await at.ids.idle()
        await at.heard(hidden(ANA))
        at.begin(heard_ms=1, after=EVERY)
        assert not at.ids.busy
        at.begin(heard_ms=2)
        await at.ids.idle()
        assert len(behind.asked) == 1
        await at.heard(hidden(BIA))
        at.begin(heard_ms=2, after=timedelta(hours=1))
        await at.ids.idle()
        assert len(behind.asked) == 2
