"""A gateway that repeats all that it was asked, secrets and texts: nothing of that leaves its room."""

import asyncio
import inspect
import typing
from collections.abc import Coroutine
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest

from echo import SHAPES, Shape, echo
from wsm import telemetry
from wsm.config import Settings, WahaServer
from wsm.control.moves import Keys
from wsm.core.content import (
    Contact,
    Content,
    Edit,
    File,
    Loaded,
    MediaSource,
    Poll,
    Reaction,
    Revoke,
    Target,
    Text,
)
from wsm.core.errors import WsmError
from wsm.core.exits import Exit, Pool, Way
from wsm.core.ids import DEFAULT_SERVER, BareId, ChatId, SessionAddress, SessionName, TenantId
from wsm.gateway import environment
from wsm.gateway.config import SessionConfig
from wsm.gateway.waha import Gateways, WahaSession
from wsm.ingest.directory import Seat
from wsm.sandbox.exits import ExitProxy, Whoami
from wsm.sandbox.waha.asgi import Answer, Receive, Request, Send, read, write
from wsm.sandbox.waha.server import Listener
from wsm.wire.directory import Listed

CANARY = "canarioX7"
KEY, PASSWORD, SECRET = f"{CANARY}key", f"{CANARY}password", f"{CANARY}secret"
PHONE = "5521987650000"
ADDRESS = SessionAddress(TenantId(77), SessionName("user_77"))
WAY = Exit(host="127.0.0.1", port=9, username=f"{CANARY}user", password=PASSWORD)
CONFIG = SessionConfig(url="http://127.0.0.1:9/webhooks/waha", secret=SECRET, way=WAY)
ARGUMENTS: dict[object, object] = {
    SessionConfig: CONFIG,
    ChatId: ChatId(f"{PHONE}@c.us"),
    BareId: BareId(CANARY),
    str: f"{CANARY} text",
    int: 1,
    float: 1.0,
    bool: False,
    Content: Text(text=f"{CANARY} text", reply_to=BareId(CANARY)),
    Target: Target(BareId(CANARY), from_me=True, participant=ChatId(f"{PHONE}@c.us")),
    Loaded: Loaded(CANARY.encode(), f"{CANARY}/type", f"{CANARY}{PHONE}.pdf"),
}
SOURCE = MediaSource(url=f"https://127.0.0.1/{CANARY}{PHONE}", filename=f"{CANARY}{PHONE}.pdf")
CONTENTS: tuple[Content, ...] = (
    File(media=SOURCE, caption=f"{CANARY} text"),
    Contact(name=CANARY, phone=PHONE),
    Poll(question=CANARY, options=(CANARY, PHONE)),
    Reaction(target=BareId(CANARY), emoji=CANARY),
    Edit(target=BareId(CANARY), text=CANARY),
    Revoke(target=BareId(CANARY)),
)
STATUSES = (200, 301, 401, 407, 422, 500, 503)


def asked_of(session: WahaSession) -> list[Coroutine[Any, Any, object]]:
    """Every call that a session has, with canaries for arguments: one that is new is among them."""
    calls = []
    for name, call in inspect.getmembers(session, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            hints = typing.get_type_hints(call)
            names = inspect.signature(call).parameters
            given = {each: ARGUMENTS.get(_plain(hints[each]), f"{CANARY}{PHONE}") for each in names}
            calls.append(call(**given))
            if "content" in names:
                calls += [call(**{**given, "content": content}) for content in CONTENTS]
    return calls


def _plain(hint: Any) -> object:
    """Take `None` out of a hint."""
    plain = [each for each in typing.get_args(hint) if each is not type(None)]
    return plain[0] if plain and type(None) in typing.get_args(hint) else hint


def check_silent(exc: WsmError) -> None:
    """An error's text, and the log line that is made of it, tell nothing."""
    said = f"{exc} {exc!r} {exc.args} {telemetry._fault(None, '', {'exc_info': exc})}"
    assert CANARY not in said
    assert PHONE not in said


@pytest.mark.parametrize("status", STATUSES)
async def test_what_a_gateway_repeats_of_a_call_is_in_no_error_log_line_or_metric(status: int) -> None:
    async def one(shape: Shape) -> list[WsmError]:
        async with echo(status, shape) as url:
            server = WahaServer(url=url, api_key=KEY)
            gateways = Gateways({DEFAULT_SERVER: server}, send_timeout_seconds=5)
            session = gateways.session(DEFAULT_SERVER, ADDRESS, None)
            calls = [*asked_of(session), environment.look(DEFAULT_SERVER, server)]
            assert len(calls) > 15
            found = await asyncio.gather(*calls, return_exceptions=True)
            await gateways.aclose()
        failed = [each for each in found if isinstance(each, BaseException)]
        assert all(isinstance(each, WsmError) for each in failed), failed
        return [each for each in failed if isinstance(each, WsmError)]

    for failed in await asyncio.gather(*map(one, SHAPES.values())):
        for exc in failed:
            check_silent(exc)
    page = generate_latest(REGISTRY).decode()
    assert CANARY not in page
    assert PHONE not in page


async def test_an_exit_that_refuses_its_password_and_a_check_that_babbles_are_told_without_secrets() -> None:
    async with ExitProxy(password="another") as proxy, Whoami(proxy.country_of) as whoami:
        for status, check_url in ((200, whoami.url), (500, ""), (200, ""), (407, "")):
            async with echo(status, SHAPES["names"]) as url:
                pool = Pool(
                    provider="generic",
                    endpoint=f"127.0.0.1:{proxy.port}",
                    username=f"{CANARY}user",
                    password=PASSWORD,
                    check_url=check_url or f"{url}/{CANARY}?{PASSWORD}",
                )
                gateways = Gateways(
                    {DEFAULT_SERVER: WahaServer(url="https://127.0.0.1:9", api_key=KEY, route="public")},
                    {"br": pool},
                    send_timeout_seconds=5,
                )
                way = Way("br", f"{CANARY}id")
                with pytest.raises(WsmError) as raised:
                    await gateways.look(way)
                check_silent(raised.value)
                session = gateways.session(DEFAULT_SERVER, ADDRESS, way)
                with pytest.raises(WsmError) as raised:
                    await session.send_text(ChatId(f"{PHONE}@c.us"), CANARY)
                check_silent(raised.value)
                await gateways.aclose()


async def test_a_check_service_hears_that_somebody_asks_and_nothing_of_whom() -> None:
    asked: list[Request] = []

    async def serve(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        asked.append(await read(scope, receive))
        await write(send, Answer(body=b'{"ip": "127.0.0.1", "country": "br"}'))

    listener = Listener(serve, "127.0.0.1", 0)
    async with ExitProxy(password=PASSWORD) as proxy:
        pool = Pool(
            provider="generic",
            endpoint=f"127.0.0.1:{proxy.port}",
            username="acme",
            password=PASSWORD,
            check_url=f"{await listener.open()}/ip",
        )
        server = WahaServer(url="https://127.0.0.1:9", api_key=KEY, route="public")
        gateways = Gateways({DEFAULT_SERVER: server}, {"br": pool}, send_timeout_seconds=5)
        for identity in ("ann", "bob"):
            await gateways.look(Way("br", identity))
        await gateways.aclose()
        await listener.close()
    names = {"accept", "accept-encoding", "connection", "host", "user-agent", "via"}
    assert len(asked) == 2
    for each in asked:
        assert (each.method, each.path, each.query, each.body) == ("GET", "/ip", {}, b"")
        assert each.headers.keys() <= names
        assert each.headers["user-agent"] == "wsm"
        assert not {"ann", "bob", PASSWORD, KEY} & {
            word for value in each.headers.values() for word in value.split()
        }


def test_no_secret_is_in_the_repr_of_what_holds_it() -> None:
    pool = Pool(provider="generic", endpoint="h:1", username="u", password=PASSWORD, check_url="http://h")
    server = WahaServer(url="http://h", api_key=KEY, hook_secrets=(SECRET,))
    holders = (
        pool,
        server,
        Settings(redis_url=f"redis://:{PASSWORD}@h", waha={"default": server}, exits={"br": pool}),
        CONFIG,
        WAY,
        Keys({"k1": CANARY.encode()}, "k1"),
        Seat(Listed(TenantId(1), SessionName("s"), DEFAULT_SERVER, "k1", (1,)), {"k1": CANARY.encode()}),
    )
    for holder in holders:
        assert CANARY not in f"{holder} {holder!r} {[holder]}", type(holder).__name__
