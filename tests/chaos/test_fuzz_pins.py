"""Bad input that once did harm: what `make fuzz` found, and what was found on the way to it.

Each body is signed rightly and was answered 200, so a turn has to bring it home: no dead letter, no turn
that fails again and again.
"""

import asyncio
import random
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from databases import Database as Urls
from hooks import reading
from shop import Shop, shop
from wsm.core.errors import BadInput
from wsm.wire.waha import head

T = TypeVar("T")

LONG = "".join(random.Random(7).choices("ABCDEFGHIJKLMNOPQRSTUVWXYZéß漢字", k=9_000))
STORED: dict[str, tuple[str, dict[str, Any]]] = {
    "a NUL in a message's id": ("message", {"id": "false_1@c.us_A\0B", "from": "1@c.us"}),
    "a NUL in an acked id": ("message.ack", {"id": "true_1@c.us_A\0B", "ack": 1}),
    "a NUL in a quoted id": ("message", {"id": "A", "from": "1@c.us", "replyTo": {"id": "x\0y"}}),
    "a NUL in an edited id": (
        "message.edited",
        {"id": "false_1@c.us_A", "body": "x", "editedMessageId": "x\0y"},
    ),
    "a NUL in a revoked id": (
        "message.revoked",
        {"before": {"id": "false_1@c.us_A"}, "revokedMessageId": "x\0y"},
    ),
    "a NUL in a reaction's id": (
        "message.reaction",
        {"id": "false_1@c.us_A", "timestamp": 1e-9, "reaction": {"messageId": "x\0y", "text": "\0"}},
    ),
    "an acked id that no index takes": ("message.ack", {"id": "true_1@c.us_" + LONG, "ack": 1}),
    "an endless id": ("message", {"id": "false_1@c.us_" + LONG, "from": "1@c.us"}),
    "an endless name": (LONG, {}),
}


def nested(depth: int) -> bytes:
    """A message with a value of this depth, where it is written out as text."""
    deep = b"[" * depth + b"]" * depth
    return b'{"event":"message","session":"s","payload":{"id":"false_1@c.us_A","media":{"error":%s}}}' % deep


def deeper(frames: int, function: Callable[[], T]) -> T:
    """Call a function with a stack that is already this deep."""
    return function() if frames == 0 else deeper(frames - 1, function)


@pytest.mark.parametrize("oddity", STORED)
async def test_what_is_odd_is_kept_and_parks_nothing(database: Urls, oddity: str) -> None:
    event, payload = STORED[oddity]
    async with shop(database) as at:
        settled = await at.turn(at.body(event, payload))
        assert len(settled.handled) == 1
        await _goes_on(at)


async def _goes_on(at: Shop) -> None:
    settled = await at.turn(at.says("5511900000001", "oi"))
    assert len(settled.handled) == 1


def test_whatever_ingest_takes_is_read_however_deep_its_nesting_and_the_readers_stack() -> None:
    taken = []
    for depth in range(1, sys.getrecursionlimit() + 10):
        body = nested(depth)
        try:
            head(body)
        except BadInput as exc:
            assert (exc.field, exc.reason) == ("body", "nested too deeply")  # noqa: PT017 (what it says)
        else:
            deeper(100, lambda body=body: reading(body))  # type: ignore[misc]
            taken.append(depth)
    assert taken == list(range(1, len(taken) + 1))
    assert len(taken) > 100


def test_brackets_in_texts_and_beside_each_other_are_no_nesting() -> None:
    many = b'{"event":"message","session":"s","payload":{"a":[%s],"body":"%s"}}'
    flat = many % (b",".join([b'{"b":[]}'] * 5_000), rb"[{\"\\[" * 5_000)
    assert head(flat).event == "message"


async def test_a_body_at_the_bound_of_nesting_goes_through_a_turn(database: Urls) -> None:
    deepest = max(depth for depth in range(1, 1_000) if _taken(nested(depth)))
    async with shop(database) as at:
        settled = await asyncio.wait_for(at.turn(nested(deepest)), 20)
        assert len(settled.handled) == 1
        await _goes_on(at)


def _taken(body: bytes) -> bool:
    try:
        head(body)
    except BadInput:
        return False
    return True
