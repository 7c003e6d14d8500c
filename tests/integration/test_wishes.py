"""Who asks for no more automatic messages gets none, and hears that it is so, whatever was on its way."""

import pytest

from databases import Database as Urls
from outboxes import Outbox
from shop import shop
from wsm.core.content import SendClass, Text
from wsm.core.events import Origin
from wsm.core.ids import ChatAddress, ChatId
from wsm.core.outbox import IntentState, Outcome
from wsm.core.pacing import Pace
from wsm.store.paces import Pacing
from wsm.wire.waha import send_command

ANA = "5511900000001"
CHAT = ChatId(f"{ANA}@c.us")
BOT, CAMPAIGN = SendClass.BOT, SendClass.CAMPAIGN


async def said(box: Outbox) -> list[str]:
    """Send all that may be sent."""
    texts = []
    while claimed := await box.claim():
        texts.append(claimed.text)
        await box.sent(claimed)
    return texts


async def test_what_was_on_its_way_when_somebody_opted_out_is_not_sent_again(database: Urls) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        await said(box)
        await at.asks_to_send(CHAT, Text(text="oferta"), send_class=CAMPAIGN)
        offer = await box.must_claim()
        at.later(60)
        address = ChatAddress(at.tenant, at.address.session, CHAT)
        answer = send_command(address, Text(text="resposta"), id="a", by="bot", send_class=BOT)
        await at.turn(at.says(ANA, "SAIR"), answer, origin=Origin.CLI)
        await box.settle(offer, Outcome(IntentState.PENDING, "gateway away", not_before=at.now))
        assert [text.partition(":")[0] for text in await said(box)] == ["Pronto"]
        ended = [row.reason for row in await box.intents() if row.state != "sent"]
        assert ended == ["opted_out", "opted_out"]


@pytest.mark.parametrize(("per_day", "state"), [(99, "dropped"), (2, "pending")])
async def test_who_was_pestered_hears_that_it_is_over(database: Urls, per_day: int, state: str) -> None:
    pace = Pace(typing=False, gap_seconds=0, contact_gap_seconds=0, contact_automated_per_day=per_day)
    async with shop(database) as at:
        box = Outbox(at)
        box.pacing = Pacing(pace, lambda: 0.5)
        await at.turn(at.says(ANA, "oi"))
        for number in range(4):
            text = f"Resposta {number}" if state == "pending" else "Não entendi."
            await at.asks_to_send(CHAT, Text(text=text), send_class=BOT)
        await said(box)
        assert [row.state for row in await box.intents()][-1] == state
        at.later(60)
        await at.turn(at.says(ANA, "SAIR"))
        [text] = await said(box)
        assert text.startswith("Pronto"), "neither the loop nor the day's limit are the customer's"


@pytest.mark.parametrize("person_first", [True, False])
async def test_who_talks_to_a_person_hears_that_his_wish_was_heard(
    database: Urls, *, person_first: bool
) -> None:
    async with shop(database) as at:
        box = Outbox(at)
        await at.turn(at.says(ANA, "oi"))
        await said(box)
        at.later(60)
        bodies = [at.message(CHAT, "bom dia", from_me=True), at.says(ANA, "PARAR")]
        for body in bodies if person_first else reversed(bodies):
            await at.turn(body)
        [text] = await said(box)
        assert text.startswith("Pronto"), "the bot is silent, and this is no talk of a bot's"
