"""A number is tried out against a gateway that says whatever one may say of a number."""

import asyncio
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from databases import Database as Urls
from scripted_gateway import NOT_FOUND, SENT, Asked, Gateway, Reply, cuts, gateway, says
from shop import shop
from wsm.control.trial import Trial, try_out
from wsm.core.errors import BadInput, GatewayUnavailable
from wsm.core.ids import BareId
from wsm.gateway.waha import WahaSession
from wsm.store import reads

NAME = "user_1460561546"
WORKS = says(200, {"name": NAME, "status": "WORKING"})
THERE = says(200, {"numberExists": True, "chatId": "551196000123@c.us"})
NO_IDS = says(501, {"message": "not implemented", "statusCode": 501})
NEVER_HEARD_OF = says(404, NOT_FOUND)


def scripted(behind: Gateway, more: Mapping[str, Reply] = MappingProxyType({})) -> None:
    """Let the gateway answer by the last word of a path, and whatever is not said with 404."""
    script = {NAME: WORKS, "check-exists": THERE, "new-message-id": NO_IDS, "sendText": says(201, SENT)}
    script |= more

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        word = asked.path.partition("?")[0].rpartition("/")[2]
        await script.get(word, NEVER_HEARD_OF)(asked, writer)

    behind.reply = reply


async def tried(urls: Urls, session: WahaSession) -> Trial:
    async with shop(urls) as at:
        [row] = await reads.sessions(at.database, at.tenant)
        assert session.address == at.address
        return await try_out(at.database, session, row.id, "5511960000123", "oi", patience_seconds=0)


def sent(behind: Gateway) -> list[Any]:
    return [json.loads(asked.body) for asked in behind.asked if asked.path.endswith("sendText")]


async def test_whoever_is_not_on_whatsapp_is_not_written_to(database: Urls) -> None:
    async with gateway() as (behind, session):
        scripted(behind, {"check-exists": says(200, {"numberExists": False})})
        with pytest.raises(BadInput, match="phone: is not on WhatsApp"):
            await tried(database, session)
        assert sent(behind) == []


async def test_the_id_that_whatsapp_gives_a_number_is_written_to(database: Urls) -> None:
    async with gateway() as (behind, session):
        scripted(behind)
        assert await tried(database, session) == Trial(certain=True)
        assert [body["chatId"] for body in sent(behind)] == ["551196000123@c.us"]


async def test_a_gateway_that_cannot_tell_is_given_the_number_itself(database: Urls) -> None:
    async with gateway() as (behind, session):
        scripted(behind, {"check-exists": NEVER_HEARD_OF})
        await tried(database, session)
        assert [body["chatId"] for body in sent(behind)] == ["5511960000123@c.us"]


async def test_without_own_ids_an_unknown_outcome_stays_unknown_and_is_not_repeated(database: Urls) -> None:
    async with gateway() as (behind, session):
        scripted(behind, {"sendText": cuts})
        assert await tried(database, session) == Trial(certain=False)
        assert len(sent(behind)) == 1


async def test_a_session_that_does_not_work_is_not_asked_for_more(database: Urls) -> None:
    async with gateway() as (behind, session):
        scripted(behind, {NAME: says(200, {"name": NAME, "status": "SCAN_QR_CODE"})})
        with pytest.raises(GatewayUnavailable, match="it is SCAN_QR_CODE"):
            await tried(database, session)
        assert len(behind.asked) == 1


async def test_what_came_by_webhook_is_told(database: Urls) -> None:
    chat, sent = "5511960000123@c.us", BareId("3EB0TRIED")
    async with shop(database) as at:
        [row] = await reads.sessions(at.database, at.tenant)

        async def told(*bodies: bytes) -> tuple[bool, int | None, bool]:
            await at.turn(*bodies)
            kept = await reads.own_message(at.database, at.tenant, row.id, sent)
            return kept.heard, kept.level, kept.refused

        assert await told(at.message(chat, "oi", id="3EB0OTHER", from_me=True, source="api")) == (
            (False, None, False)
        )
        echo = at.message(chat, "oi", id=sent, from_me=True, source="api")
        assert await told(echo) == (True, None, False)
        assert await told(at.ack(chat, sent, 2), at.ack(chat, sent, 1)) == (True, 2, False)
        assert await told(at.ack(chat, sent, -1)) == (True, 2, True)
