"""A number is tried out against a gateway that says whatever one may say of a number."""

import asyncio
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from databases import Database as Urls
from scripted_gateway import NOT_FOUND, SENT, Asked, Gateway, Reply, cuts, gateway, says
from wsm.bootstrap import opened
from wsm.control.trial import Trial, try_out
from wsm.core.errors import BadInput, GatewayUnavailable
from wsm.gateway.waha import WahaSession
from wsm.store.database import Database

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
    async with opened(Database(urls.app_url, connections=1)) as app:
        return await try_out(app, session, 1, "5511960000123", "oi", patience_seconds=0)


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
