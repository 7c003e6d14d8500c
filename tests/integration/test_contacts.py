"""Who is who, on a real PostgreSQL: two ids of one person, and persons inside groups."""

import json
from typing import Any

from databases import Database as Urls
from shop import Shop, shop

ANA, BIA = "5511900000001", "5511900000002"
ANAS_LID, BIAS_LID = "95511900000001@lid", "95511900000002@lid"
GROUP = "120363000000000001@g.us"


async def test_who_writes_in_a_group_is_still_himself_in_his_own_chat(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(_in_group(at, ANAS_LID, f"{ANA}@s.whatsapp.net"))
        await at.turn(at.says(ANA, "oi"))
        assert await at.line() == [(ANA, None)]


async def test_two_members_of_one_group_are_two_customers(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(
            _in_group(at, ANAS_LID, f"{ANA}@s.whatsapp.net"),
            _in_group(at, BIAS_LID, f"{BIA}@s.whatsapp.net"),
        )
        await at.turn(at.says(ANA, "oi"), at.says(BIA, "oi"))
        assert await at.line() == [(ANA, None), (BIA, 1)]


async def test_both_ids_of_one_person_in_one_turn_are_one_customer(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(
            at.says(ANA, "oi", ago=3),
            at.message(ANAS_LID, "sou eu", alt=f"{ANA}@s.whatsapp.net", ago=2),
            at.message(ANAS_LID, "de novo", ago=1),
        )
        assert len(await at.line()) == 1
        assert [row.body for row in await at.history(ANA)] == ["oi", "sou eu", "de novo"]


async def test_the_agents_name_is_not_given_to_the_customer(database: Urls) -> None:
    async with shop(database) as at:
        own = json.loads(at.message(f"{ANA}@c.us", "bom dia", from_me=True))
        own["payload"]["_data"]["Info"]["PushName"] = "Loja"
        await at.turn(json.dumps(own).encode())
        async with at.database.transaction(at.tenant) as transaction:
            cursor = await transaction._connection.execute("select name from contacts")
            assert [row.name for row in await cursor.fetchall()] == [None]


def _in_group(at: Shop, participant: str, alt: str) -> bytes:
    """A message of one member of a group, of whom the engine knows both ids."""
    body: dict[str, Any] = json.loads(at.message(GROUP, "oi, grupo"))
    body["payload"]["participant"] = participant
    body["payload"]["_data"]["Info"] |= {"Sender": participant, "SenderAlt": alt, "PushName": "Membro"}
    return json.dumps(body).encode()
