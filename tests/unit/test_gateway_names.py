"""Names of hosts whose name servers do not answer, and what that costs the others."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from waiting import wait_for
from wsm.core.errors import BadInput, SourceUnavailable, WsmError
from wsm.gateway.names import Resolver

PUBLIC = "93.184.216.34"


@contextmanager
def silent_server() -> Iterator[tuple[Callable[..., list[Any]], list[str]]]:
    """A machine's resolver, which hears nothing of `hung.example`, and what it was asked."""
    released, asked = threading.Event(), list[str]()

    def look_up(host: str, port: int, **more: Any) -> list[Any]:
        asked.append(host)
        if host.endswith(".hung.example"):
            assert released.wait(30)
        return socket.getaddrinfo(PUBLIC, port, **more)

    try:
        yield look_up, asked
    finally:
        released.set()


async def ended(asking: Iterable[Awaitable[object]]) -> list[type[BaseException] | None]:
    found = await asyncio.gather(*asking, return_exceptions=True)
    return [type(each) if isinstance(each, BaseException) else None for each in found]


async def test_a_name_server_that_is_silent_keeps_back_who_asks_for_its_names_alone() -> None:
    with silent_server() as (look_up, asked):
        resolver = Resolver(at_once=9, seconds=0.1, look_up=look_up)
        hung = [f"{number}.hung.example" for number in (1, 2, 3, 4, 5, 6, 7, 7)]
        assert await ended(resolver(host, 80) for host in hung) == [SourceUnavailable] * 8
        assert sorted(asked) == hung[:7], "each name once"
        assert await resolver("files.example", 80) == [PUBLIC]
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 80), 5), "nobody's thread was taken"


async def test_names_that_nobody_answers_for_are_bounded_and_forgotten_once_they_are_answered() -> None:
    with silent_server() as (look_up, asked):
        resolver = Resolver(at_once=2, seconds=0.1, look_up=look_up)
        hung = ["a.hung.example", "b.hung.example"]
        assert await ended(resolver(host, 80) for host in hung) == [SourceUnavailable] * 2
        more = ["files.example", hung[0]]
        assert await ended(resolver(host, 80) for host in more) == [SourceUnavailable] * 2
        assert sorted(asked) == hung, "nothing more was begun"
    await wait_for(lambda: not resolver._asked)
    assert await resolver("files.example", 80) == [PUBLIC]


@pytest.mark.parametrize(
    ("errno", "error"),
    [
        (socket.EAI_NONAME, BadInput),
        (socket.EAI_NODATA, BadInput),
        (socket.EAI_AGAIN, SourceUnavailable),
        (socket.EAI_FAIL, SourceUnavailable),
    ],
)
async def test_a_host_that_does_not_exist_is_refused_and_one_that_cannot_be_asked_for_waits(
    errno: int, error: type[WsmError]
) -> None:
    def look_up(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(errno, "no")

    with pytest.raises(error):
        await Resolver(look_up=look_up)("files.example", 80)
