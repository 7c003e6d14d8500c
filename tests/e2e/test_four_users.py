"""The line as its customers see it: everyone is served in turn, and each notice was true when it was claimed.

Four users write, one is served, tickets are closed one after another; then the same under load. The audit
is replayed by a model of its own (`ledger`).
"""

import random
import re

from e2e.town import YOUR_TURN, Ground, Town, customers, entered, moved, town
from wsm.core.ids import TenantId

SHOP = TenantId(1460561546)


async def test_four_users_are_served_one_after_another_and_know_their_places(ground: Ground) -> None:
    async with town(ground, [SHOP]) as at:
        a, b, c, d = customers(4)
        await at.says(SHOP, a, "oi")
        await at.hears(a, YOUR_TURN)
        for place, who in enumerate((b, c, d), 1):
            await at.says(SHOP, who, "oi")
            await at.hears(who, entered(place))

        await at.closes(SHOP, a)
        await at.hears(b, entered(1), YOUR_TURN)
        await at.hears(c, entered(2), moved(1))
        await at.hears(d, entered(3), moved(2))

        await at.types_end(SHOP, b)
        await at.hears(c, entered(2), moved(1), YOUR_TURN)
        await at.hears(d, entered(3), moved(2), moved(1))

        await at.closes(SHOP, c)
        await at.hears(d, entered(3), moved(2), moved(1), YOUR_TURN)
        await at.types_end(SHOP, d)
        await at.quiet()

        assert await at.line(SHOP) == []
        assert at.inbox(a) == [YOUR_TURN]
        ledger = await at.replayed(SHOP)
        assert len(ledger.ever_served) == 4
        assert ledger.claims == 10
        await at.check_nothing_lost()
        await at.check_sent_once()


async def test_under_load_the_line_stays_true(ground: Ground) -> None:
    seed = random.getrandbits(32)  # the run's own seed makes it
    print(f"seed {seed}")  # noqa: T201 (shown when it fails)
    chance = random.Random(seed)
    async with town(ground) as at:
        await at.found(SHOP, capacity=2)
        await at.execute("update queues set reopen_hours = 0")  # who is closed and writes again enters anew
        crowd = customers(30)
        for who in crowd:
            for number in range(chance.choice((1, 1, 2))):
                await at.says(SHOP, who, f"oi {number}", delay_seconds=chance.uniform(0, 2))

        await close_at_random(at, chance, until_served=len(crowd) // 2)
        await at.quiet()
        places = await at.rows(
            "select told_place, told_updates, row_number() over (order by rank_at, seq) as place from tickets"
            " where state = 'waiting'"
        )
        near, far = places[:5], places[5:]
        assert all(row.told_place == row.place or row.told_updates >= 5 for row in near), (
            "the next ones know it"
        )
        assert all(row.told_place >= row.place for row in far), "and nobody believes to be nearer than he is"

        await close_at_random(at, chance, until_served=len(crowd))
        while line := await at.line(SHOP):
            await close(at, chance, line[0][0])
        await at.quiet()

        ledger = await at.replayed(SHOP, capacity=2)
        assert len(ledger.ever_served) == len(crowd)
        assert ledger.waiting == []
        for who in crowd:
            check_heard(at.inbox(who))
        await at.check_nothing_lost()
        await at.check_sent_once()


async def close_at_random(at: Town, chance: random.Random, *, until_served: int) -> None:
    """Close tickets, mostly of who is served; who is closed while he waits writes again."""
    ever = "select count(distinct conversation_id) from tickets where served_at is not null"
    while await at.value(ever) < until_served:
        await at.until("select count(*) from tickets where state <> 'closed'")
        line = await at.line(SHOP)
        who, state = chance.choice(line) if chance.random() < 0.2 else line[0]
        await close(at, chance, who)
        if state == "waiting":
            await at.says(SHOP, who, "ainda estou aqui")


async def close(at: Town, chance: random.Random, who: str) -> None:
    """Close one ticket, by command or from the phone."""
    closed = "select count(*) > %s from tickets where closed_at is not null"
    before = await at.value("select count(*) from tickets where closed_at is not null")
    await (at.closes if chance.random() < 0.5 else at.types_end)(SHOP, who)
    try:
        await at.until(closed, before, timeout=2)
    except AssertionError:
        await at.closes(SHOP, who)  # he wrote after the agent's word, which was late then
        await at.until(closed, before)


def check_heard(texts: list[str]) -> None:
    """What one customer heard makes sense: places fall from an entry on, until it is his turn."""
    place = 0
    for text in texts:
        if text == YOUR_TURN:
            place = 0
            continue
        plain = re.sub(r", espera de \d+ a \d+ minutos", "", text)
        told = next(number for number in range(1, 31) if plain in {entered(number), moved(number)})
        assert plain == entered(told) or told < place, texts
        place = told
