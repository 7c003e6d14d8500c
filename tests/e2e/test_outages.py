"""What wsm needs is away, hangs or breaks: notices wait, nothing is lost, nothing is said twice."""

import asyncio

import httpx
import pytest

from e2e.town import YOUR_TURN, Ground, Town, customers, entered, moved, session_of, town
from waiting import wait_for
from wsm.bootstrap import front_door
from wsm.core.ids import SessionAddress, TenantId
from wsm.sandbox.site import PROCESSES, WORKERS
from wsm.sandbox.waha import Engine
from wsm.sandbox.waha.faults import Wrong
from wsm.streams.keys import Kind
from wsm.wire.signature import sign

SHOP, OTHER = TenantId(1460561546), TenantId(1460561547)
SLOWED = {Wrong.RATE_OVERLIMIT, Wrong.TOO_MANY}
"""What WhatsApp slows down is tried again a minute later: with a clock of one's own, in `test_deliveries`."""


async def test_a_gateway_that_is_away_delays_what_is_due(ground: Ground) -> None:
    async with town(ground, [SHOP]) as at:
        a, b, c = customers(3)
        await at.says(SHOP, a, "oi")
        await at.hears(a, YOUR_TURN)
        for place, who in enumerate((b, c), 1):
            await at.says(SHOP, who, "oi")
            await at.hears(who, entered(place))
        await at.quiet()

        await at.waha.stop()
        await at.closes(SHOP, a)
        await at.until(
            "select count(*) = 2 from outbox where state = 'pending' and reason like 'not reached%%'"
        )
        assert await at.value("select count(*) from messages where author = 'bot'") == 3
        assert await at.value("select count(*) from outbox where state = 'sent'") == 3

        await at.waha.start()
        await at.links_again(SHOP)
        await at.hears(b, entered(1), YOUR_TURN)
        await at.hears(c, entered(2), moved(1))
        await at.quiet()
        await at.check_sent_once()
        await at.replayed(SHOP)


@pytest.mark.parametrize("engine", [Engine.GOWS, Engine.WEBJS])
async def test_however_a_send_goes_wrong_it_is_made_once(ground: Ground, engine: Engine) -> None:
    quick = {"WSM_SEND_TIMEOUT_SECONDS": "0.5", "WSM_EVIDENCE_SECONDS": "2"}
    async with town(ground, engine=engine, changed=quick) as at:
        kinds = [kind for kind in Wrong if (kind.passes or kind is Wrong.ERROR_463) and kind not in SLOWED]
        await at.found(SHOP, capacity=len(kinds))
        crowd = dict(zip(kinds, customers(len(kinds)), strict=True))
        for kind, who in crowd.items():
            await at.phone.fault(kind, session=session_of(SHOP), phone=who, seconds=1)
        for who in crowd.values():
            await at.says(SHOP, who, "oi")
        await at.until("select count(*) = %s from outbox", len(crowd))
        await at.quiet()

        refused = crowd.pop(Wrong.ERROR_463)
        for kind, who in crowd.items():
            assert at.inbox(who) == [YOUR_TURN], kind
        assert at.inbox(refused) == []
        states = await at.rows("select state, reason from outbox where chat_id = %s", f"{refused}@c.us")
        assert [tuple(row) for row in states] == [("failed", "gateway answered 500: reachout_timelock")]
        await at.check_nothing_lost()
        await at.check_sent_once()


async def holder(at: Town) -> str:
    """The worker that delivers for the shop."""
    async with front_door(at.site.settings) as handover:
        held = await handover.holder(Kind.DELIVER, SHOP)
    assert held is not None
    return next(name for name in WORKERS if f"-{at.site.supervisor.pid(name)}-" in held)


async def test_a_worker_that_dies_between_claim_and_answer_has_sent_once(ground: Ground) -> None:
    quick = {"WSM_LEASE_SECONDS": "2", "WSM_EVIDENCE_SECONDS": "2"}
    async with town(ground, changed=quick) as at:
        await asyncio.gather(at.found(SHOP, capacity=2), at.found(OTHER))
        left, never_left, waits = customers(3)
        [neighbour] = customers(1, shop=2)
        claimed = "select count(*) from outbox where state = 'sending' and chat_id = %s"

        await at.phone.fault(Wrong.HANG, phone=left, seconds=1)
        await at.says(SHOP, left, "oi")
        await at.until(claimed, f"{left}@c.us")
        killed = await holder(at)
        await at.site.supervisor.kill(killed)
        await at.hears(left, YOUR_TURN)
        await at.quiet()
        await at.site.supervisor.ready(killed)

        await at.phone.fault(Wrong.HANG, phone=never_left, seconds=60)
        await at.says(SHOP, never_left, "oi")
        await at.until(claimed, f"{never_left}@c.us")
        reserved = await at.value("select reserved_id from outbox where state = 'sending'")

        # While it hangs, turns go on, and so do other sessions' deliveries.
        await at.says(OTHER, neighbour, "oi")
        await at.hears(neighbour, YOUR_TURN)
        await at.says(SHOP, waits, "oi")
        await at.until("select count(*) from tickets where state = 'waiting'")
        assert await at.value(claimed, f"{never_left}@c.us") == 1

        await at.site.supervisor.kill(await holder(at))
        await at.waha.kill()
        await at.links_again(SHOP)
        await at.hears(never_left, YOUR_TURN)
        assert [each.id for each in at.waha.world.phone(never_left).inbox] == [reserved]
        await at.quiet()
        await at.check_sent_once()


async def test_redis_and_then_the_database_are_away_and_every_process_says_so(ground: Ground) -> None:
    async with town(ground, [SHOP]) as at:
        a, b, c = customers(3)
        await at.says(SHOP, a, "oi")
        await at.hears(a, YOUR_TURN)
        await at.quiet()

        await asyncio.to_thread(ground.servers.valkey.kill)
        answer = await post(at, b'{"event":"message.any","session":"user_1460561546"}')
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        await at.says(SHOP, b, "oi")
        await wait_for(lambda: at.waha.courier.log[-1].answers == [503])
        for status, checks in await asyncio.gather(*map(at.ready, PROCESSES)):
            assert status == 503
            assert checks["redis"] != "ok"
        await asyncio.to_thread(ground.servers.valkey.start)
        await at.hears(b, entered(1))
        await at.site.supervisor.ready()

        await asyncio.to_thread(ground.servers.postgres.kill)
        await at.says(SHOP, c, "oi")
        await wait_for(lambda: at.waha.courier.log[-1].state == "delivered")
        of_ingest, *others = await asyncio.gather(*map(at.ready, PROCESSES))
        assert of_ingest == (200, {"redis": "ok", "directory": "ok"})
        for status, checks in others:
            assert (status, checks["redis"]) == (503, "ok")
            assert checks["database"] != "ok"
        await asyncio.to_thread(ground.servers.postgres.start)
        await at.hears(c, entered(2))
        await at.site.supervisor.ready()

        await at.quiet()
        await at.check_nothing_lost()
        await at.check_sent_once()


async def post(at: Town, body: bytes) -> httpx.Response:
    """Post a signed body to the shop's address."""
    address = SessionAddress(SHOP, session_of(SHOP))
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"{at.site.webhooks_url}/{address.tenant}/{address.session}"
        headers = {"X-Webhook-Hmac": sign(at.site.secret(address), body)}
        return await client.post(url, content=body, headers=headers)
