"""Who the master is: the answer of the last election counts, and nobody waits for one sentinel alone."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from wsm.config import load
from wsm.core.errors import BadInput
from wsm.streams.sentinels import Sentinels, Watched, watched

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


class Says:
    """A sentinel's client that names a master, or nobody, once it is told to answer."""

    def __init__(
        self, epoch: int = 0, master: tuple[str, int] | None = None, *, at_once: bool = True
    ) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self._epoch = epoch
        self._master = master
        if at_once:
            self.answers.set()

    async def sentinel_master(self, service: str) -> dict[str, Any]:
        self.asked += 1
        await self.answers.wait()
        if self._master is None:
            raise RedisConnectionError("away")
        ip, port = self._master
        return {"name": service, "ip": ip, "port": port, "config-epoch": self._epoch}

    async def aclose(self) -> None:
        self.answers.set()


def sentinels(*clients: Any) -> Sentinels:
    return Sentinels("wsm", clients)


async def test_the_last_election_counts_not_the_first_answer() -> None:
    assert await sentinels(Says(3, OLD), Says(4, NEW), Says(3, OLD, at_once=False)).master() == NEW
    assert await sentinels(Says(10, NEW), Says(9, OLD), Says()).master() == NEW


async def test_one_that_does_not_answer_is_neither_waited_for_nor_asked_twice() -> None:
    silent = Says(at_once=False)
    found = sentinels(silent, Says(1, OLD), Says(1, OLD))
    for _ in range(3):
        assert await found.master() == OLD
    assert silent.asked == 1
    silent.answers.set()
    await found.aclose()


async def test_the_word_of_one_is_taken_when_the_others_are_away() -> None:
    assert await sentinels(Says(), Says(2, NEW), Says()).master() == NEW


async def test_without_any_answer_it_says_so() -> None:
    with pytest.raises(
        RedisConnectionError, match="no sentinel knows the master of wsm: ConnectionError: away"
    ):
        await sentinels(Says(), Says()).master()


async def test_closing_lets_go_of_who_still_owes_an_answer() -> None:
    found = sentinels(Says(at_once=False), Says(1, OLD), Says(1, OLD))
    assert await found.master() == OLD
    await found.aclose()
    assert found._asking == {}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1", None),
        ("redis+sentinel://h:26379/wsm", Watched((("h", 26379),), "wsm", {})),
        ("redis+sentinel://a:1,[::1]:2/w-1", Watched((("a", 1), ("::1", 2)), "w-1", {})),
        (
            "redis+sentinel://u:p%40ss@a:1,b:2/w",
            Watched((("a", 1), ("b", 2)), "w", {"username": "u", "password": "p@ss"}),
        ),
        ("redis+sentinel://:p@a:1/w", Watched((("a", 1),), "w", {"password": "p"})),
    ],
)
def test_a_url_names_sentinels_service_and_credentials(url: str, expected: Watched | None) -> None:
    assert watched(url) == expected
    assert load({"REDIS_URL": url}).redis_url == url
    assert "p@ss" not in repr(watched(url))


@pytest.mark.parametrize(
    "rest", ["h/wsm", "h:1", "h:1/", "h:0/wsm", "a:1,b/wsm", "a:1,/wsm", "x@h:1/wsm", "h:1/a/b"]
)
def test_a_malformed_one_stops_the_start(rest: str) -> None:
    for read in (lambda url: load({"REDIS_URL": url}), watched):
        with pytest.raises(BadInput, match="redis_url: is written redis"):
            read(f"redis+sentinel://{rest}")
