"""Whoever writes under whatever id, and whenever that is learned: in the end everybody is one."""

import itertools
import random

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from databases import Database as Urls
from e2e.ledger import Ledger
from persons import Persons
from shop import Shop
from wsm.core.events import Origin
from wsm.core.ids import ChatAddress, ChatId, TenantId
from wsm.store import reads
from wsm.store.database import Database
from wsm.streams.handover import Entry
from wsm.wire.waha import close_command

_tenants = itertools.count(6001)
WHO = range(3)


class Said(msgspec.Struct, frozen=True):
    """A message: who wrote it, under which of his ids, whether it bears another one; how often it came."""

    who: int
    form: int
    bears_both: bool = False
    times: int = 1


class Told(msgspec.Struct, frozen=True):
    """A gateway's answer about somebody."""

    who: int


class Closed(msgspec.Struct, frozen=True):
    """Somebody's ticket is closed, by one of his ids."""

    who: int
    form: int


_who, _form = st.sampled_from(WHO), st.integers(0, 4)
_said = st.builds(Said, _who, _form, st.booleans(), st.integers(1, 3))
DEEDS = st.lists(
    st.one_of(_said, _said, _said, st.builds(Told, _who), st.builds(Closed, _who, _form)),
    min_size=4, max_size=16,
)  # fmt: skip


def ids(who: int) -> tuple[str, str, str, str, str]:
    """The ids of somebody: hidden, his phone with and without its nine, and as engines write them."""
    nine, eight, hidden = f"551196000000{who}", f"55116000000{who}", f"9551196000000{who}"
    return f"{hidden}@lid", f"{nine}@c.us", f"{eight}@c.us", f"{nine}:7@s.whatsapp.net", f"{hidden}:2@lid"


def other(who: int, form: int) -> str:
    """The other id that a message under one of them may bear."""
    hidden, nine, eight, *_ = ids(who)
    return {0: nine, 4: eight}.get(form, hidden).replace("@c.us", "@s.whatsapp.net")


def entry_of(at: Shop, number: int, deed: Said | Told | Closed) -> list[Entry]:
    """The entries that a deed makes."""
    if isinstance(deed, Told):
        return [at.entry(Persons(at).told((ids(deed.who)[0], ids(deed.who)[1])), Origin.CLOCK)]
    if isinstance(deed, Closed):
        address = ChatAddress(at.tenant, at.address.session, ChatId(ids(deed.who)[deed.form]))
        return [at.entry(close_command(address, id=f"close-{number}", by="cli"), Origin.CLI)]
    alt = other(deed.who, deed.form) if deed.bears_both else ""
    body = at.message(ids(deed.who)[deed.form], f"{number:03}", ago=60 - number, alt=alt)
    return [at.entry(body) for _ in range(deed.times)]


@given(deeds=DEEDS, seed=st.integers(0, 2**32))
@example(deeds=[Said(0, 0), Said(1, 1), Said(0, 1), Said(0, 2), Told(0)], seed=1)
@example(
    deeds=[Said(0, 0, times=3), Said(0, 2), Closed(0, 0), Said(0, 1), Said(0, 0, bears_both=True)], seed=3
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_everybody_is_one_in_the_end_and_nothing_is_lost_or_out_of_place(
    database: Urls, deeds: list[Said | Told | Closed], seed: int
) -> None:
    chance = random.Random(seed)
    app, system = Database(database.app_url, connections=2), Database(database.system_url, connections=1)
    await app.open()
    await system.open()
    try:
        at = await Shop(app, system, TenantId(next(_tenants))).founded(capacity=1)
        await _live(Persons(at), deeds, chance)
        await _check(Persons(at), deeds)
    finally:
        await app.close()
        await system.close()


async def _live(room: Persons, deeds: list[Said | Told | Closed], chance: random.Random) -> None:
    """Let everything happen, in any order and in turns of any size, while something is on its way."""
    at = room.at
    at.later(60)
    entries = [entry for number, deed in enumerate(deeds) for entry in entry_of(at, number, deed)]
    if chance.random() < 0.8:
        chance.shuffle(entries)
    while entries:
        flying = await room.claim() if chance.random() < 0.5 else None
        many = chance.randint(1, 5)
        await room.turn(*entries[:many])
        entries = entries[many:]
        if flying is not None:
            await room.sent(flying)
        at.later(130)
        if chance.random() < 0.5:
            await room.send()
        assert await room.wrong() == []
        _check_line([place for _, place in await at.line()])
    await room.tell(*((ids(who)[0], ids(who)[1]) for who in WHO))
    await room.send()


def _check_line(places: list[int | None]) -> None:
    waiting = [place for place in places if place is not None]
    assert waiting == list(range(1, len(waiting) + 1))


async def _check(room: Persons, deeds: list[Said | Told | Closed]) -> None:
    at = room.at
    assert await room.wrong() == []
    texts: dict[int, list[str]] = {}
    for number, deed in enumerate(deeds):
        if isinstance(deed, Said):
            texts.setdefault(deed.who, []).append(f"{number:03}")
    assert await room.people() == len(texts)
    for who, words in texts.items():
        for chat in ids(who)[:3]:
            [talk] = await reads.conversations(at.database, at.tenant, [chat], None)
            rows, _ = await reads.history(at.database, at.tenant, talk.id)
            assert [row.body for row in rows if row.author == "customer"] == words
        tickets = await room.rows(f"select state from tickets where conversation_id = {talk.id}")
        assert sum(row.state != "closed" for row in tickets) <= 1
    _check_line([place for _, place in await at.line()])
    Ledger(1).replay(await reads.audit(at.database, at.tenant))
