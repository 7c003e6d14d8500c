"""What others got wrong with tenants, secrets and states of sessions, each seen not to be so here."""

import inspect
import typing
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from behind_exits import PASSWORD, needs_exits
from databases import Database as Urls
from ingesting import KID, MASTER_KEYS, event, refused, request, site
from integration.test_sessions import ANN, BOB, KEY, desk
from shop import START
from waiting import wait_for
from wsm.bootstrap import opened
from wsm.core.errors import GatewayUnavailable, NotFound
from wsm.core.ids import SessionAddress
from wsm.sandbox.exits import Dead
from wsm.sandbox.waha.asgi import Answer, Request
from wsm.store import fleet
from wsm.store.database import Database
from wsm.wire import directory as published
from wsm.wire.directory import Listed
from wsm.wire.signature import session_secret

pytestmark = needs_exits

TABLES = """
select c.oid::regclass::text from pg_class c
where c.relkind in ('r', 'p') and c.relnamespace = 'wsm'::regnamespace
"""


async def test_no_function_finds_another_tenants_session(database: Urls) -> None:
    async with desk(database) as at:
        mine = await at.sessions.create(ANN, exit_pool="br")
        stolen = SessionAddress(BOB, mine.session)
        before = await at.now_at(ANN)
        asked = 0
        for name, call in inspect.getmembers(at.sessions, inspect.iscoroutinefunction):
            hints = typing.get_type_hints(call)
            if not name.startswith("_") and SessionAddress in [
                hints.get(each) for each in inspect.signature(call).parameters
            ]:
                values = {each: _value(hints[each], stolen) for each in inspect.signature(call).parameters}
                with pytest.raises(NotFound):
                    await call(**values)
                asked += 1
        assert asked > 9
        assert await at.sessions.of(BOB) == []
        assert await at.now_at(ANN) == before
        assert list(at.proxy.seen) == []


def _value(hint: object, stolen: SessionAddress) -> object:
    known: dict[object, object] = {SessionAddress: stolen, bool: True, int: 1}
    return known.get(hint, START + timedelta(days=1) if "datetime" in str(hint) else "5511999990000")


async def test_no_secret_is_in_the_database(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        await at.sessions.start(address)
        await wait_for(lambda: at.waha.session(address.session).status == "WORKING")
        kept = _everything(database)
        assert address.session in kept
        for secret in (PASSWORD, session_secret(KEY, address, 1), KEY.decode(), KEY.hex(), at.waha.api_key):
            assert secret not in kept


async def test_a_gateway_is_told_of_each_session_what_is_its_own(database: Urls) -> None:
    async with desk(database) as at:
        asked: list[Request] = []
        answer = at.waha._answer

        async def listening(request: Request) -> Answer:
            asked.append(request)
            return await answer(request)

        at.waha._answer = listening  # type: ignore[method-assign]
        of: dict[str, set[str]] = {}
        for tenant in (ANN, BOB):
            address = await at.sessions.create(tenant, exit_pool="br")
            await at.sessions.start(address)
            await at.sessions.restart(address)
            [lease] = await at.sessions.leases(address)
            config = at.waha.session(address.session).config or {}
            of[address.session] = {
                *(f"/{tenant}/{address.session}", session_secret(KEY, address, 1), lease.identifier),
                *(lease.address, config["proxy"]["username"]),
            }
        assert len(asked) > 5
        for request in asked:
            said = f"{request.path} {request.query} {request.headers} {request.body.decode()}"
            [named] = [name for name in of if name in said]
            others = set().union(*(of[name] for name in of if name != named))
            assert not [each for each in others if each in said]
            assert KEY.hex() not in said
            assert (PASSWORD in said) == ('"proxy"' in said)


def _everything(urls: Urls) -> str:
    with psycopg.connect(urls.owner_url, options="-c search_path=wsm") as owner:
        tables = [name for (name,) in owner.execute(TABLES.encode())]
        return str([owner.execute(f"select t::text from {each} t".encode()).fetchall() for each in tables])


async def test_a_start_and_a_restart_that_fail_leave_it_written_that_it_should_run(database: Urls) -> None:
    async with desk(database) as at:
        address = await at.sessions.create(ANN, exit_pool="br")
        at.proxy.fault(Dead())
        for move in (at.sessions.start, at.sessions.restart):
            with pytest.raises(GatewayUnavailable):
                await move(address)
            assert (await at.now_at(ANN)).desired == "running"


async def test_a_deleted_session_signs_nothing_more_until_it_is_started_again_with_a_new_secret(
    database: Urls, redis_url: str
) -> None:
    async with (
        desk(database, route="private") as at,
        opened(Database(database.system_url, connections=1)) as system,
        site(redis_url, sessions=None) as hooks,
    ):

        async def heard(address: SessionAddress, generation: int) -> Any:
            """Publish the directory that the database has, and post what this secret has signed."""
            listed = [
                Listed(row.tenant_id, row.name, row.server, KID, tuple(row.generations))
                for row in await fleet.directory(system)
            ]
            found = published.directory(listed)
            await hooks.publish(found.sessions, found.version)
            secret = session_secret(MASTER_KEYS[KID], address, generation)
            path = f"/webhooks/waha/{address.tenant}/{address.session}"
            return await hooks.say(request(path, event(address.session), secret=secret))

        address = await at.sessions.create(ANN)
        await at.sessions.start(address)
        assert (await heard(address, 1)).status == 200
        await at.sessions.stop(address)
        assert (await heard(address, 1)).status == 200, "what it said before the stop may still come"
        await at.sessions.delete(address)
        for generation in (-1, 0, 1, 2):
            assert refused(await heard(address, generation), "signature_mismatch")
        await at.sessions.delete(address)
        await at.sessions.start(address)
        config = at.waha.session(address.session).config
        assert config is not None
        assert config["webhooks"][0]["hmac"]["key"] == session_secret(KEY, address, 2)
        assert refused(await heard(address, 1), "signature_mismatch")
        assert (await heard(address, 2)).status == 200
