"""Clients are kept by key, as many as may be, and none is closed while somebody uses it."""

from contextlib import AsyncExitStack

import httpx

from wsm.gateway.clients import Clients


class Built:
    """Builds clients and remembers them."""

    def __init__(self) -> None:
        self.clients: list[httpx.AsyncClient] = []

    def __call__(self) -> httpx.AsyncClient:
        self.clients.append(httpx.AsyncClient(trust_env=False))
        return self.clients[-1]

    @property
    def open(self) -> list[bool]:
        return [not client.is_closed for client in self.clients]


async def test_a_key_has_one_client() -> None:
    clients, built = Clients(), Built()
    async with clients.use("a", built) as first, clients.use("a", built) as second:
        assert first is second
    async with clients.use("b", built) as other:
        assert other is not first
    assert built.open == [True, True]
    await clients.aclose()
    assert built.open == [False, False]


async def test_beyond_the_bound_the_longest_idle_one_is_closed() -> None:
    clients, built = Clients(2), Built()
    for key in ("a", "b", "a", "c"):
        async with clients.use(key, built):
            pass
    assert built.open == [True, False, True], "b was idle for longer than a"
    await clients.aclose()


async def test_none_is_closed_while_it_is_used() -> None:
    clients, built = Clients(1), Built()
    async with AsyncExitStack() as stack:
        for key in "abc":
            await stack.enter_async_context(clients.use(key, built))
        assert built.open == [True] * 3
    async with clients.use("d", built):
        assert built.open == [False, False, False, True]
    await clients.aclose()


async def test_one_that_was_idle_for_longer_than_connections_live_is_closed_when_another_is_used() -> None:
    moment = 0.0
    clients, built = Clients(idle_seconds=5, clock=lambda: moment), Built()
    async with clients.use("held", built):
        for key in "abc":
            moment += 2
            async with clients.use(key, built):
                pass
        assert built.open == [True] * 4
        moment = 8.5
        async with clients.use("d", built):
            assert built.open == [True, False, True, True, True], "idle since 2, 4 and 6"
        moment = 30
        async with clients.use("a", built):
            assert built.open == [True, False, False, False, False, True]
    await clients.aclose()
