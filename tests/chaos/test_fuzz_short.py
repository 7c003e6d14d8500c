"""A short run of `make fuzz`, and that it sees what it looks for."""

import random
from typing import Any

import pytest

from chaos.fuzz import GROWTH_BYTES, fuzz_app
from chaos.fuzz_app import BLOCK, Bench, Fault
from chaos.fuzz_inputs import Input, expected, make
from chaos.fuzz_sockets import Strain, replies, strain
from chaos.fuzz_wire import talk
from databases import Database as Urls
from ingesting import ANN, path_of
from wsm.core.errors import Forbidden
from wsm.core.events import Kept
from wsm.streams.client import connect
from wsm.wire import waha
from wsm.wire.signature import Verifier

SEED = 5
INPUTS = 8 * BLOCK


async def test_bad_input_is_answered_as_promised_and_what_is_accepted_is_turned(
    redis_url: str, database: Urls
) -> None:
    result = await fuzz_app(redis_url, database, seed=SEED, inputs=INPUTS)
    assert not result.faults
    assert result.growth_bytes < GROWTH_BYTES
    tally = result.tally
    assert (tally.inputs, tally.statuses.total()) == (INPUTS, INPUTS)
    assert {200, 400, 403, 404, 405, 413, 503} <= tally.statuses.keys()
    assert tally.accepted > INPUTS // 5
    assert tally.kept > 0
    assert result.turned > BLOCK // 5
    assert len(tally.events) >= 8, "every reader has been reached"


async def test_a_real_process_goes_on_through_broken_requests_slow_clients_and_a_flood(
    redis_url: str,
) -> None:
    seen = Strain()
    await strain(redis_url, seen, seed=SEED, talks=range(150), crowd=24)
    assert not seen.faults
    assert (seen.connections, seen.fivexx) == (150, 0)
    assert seen.confirmed > 20
    assert seen.growth_bytes < GROWTH_BYTES
    assert len(seen.good) >= 60


def test_the_same_numbers_make_the_same_input_whatever_was_made_before() -> None:
    numbers = [*range(300)]
    before = {number: (make(SEED, number), talk(SEED, number)) for number in numbers[:100]}
    random.Random(1).shuffle(numbers)
    for number in numbers:
        found = make(SEED, number), talk(SEED, number)
        assert before.get(number, found) == found


@pytest.fixture
def bench(redis_url: str) -> Bench:
    return Bench(SEED, connect(redis_url, timeout_seconds=30), lambda _number, _offer: None)


async def _first_fault(bench: Bench) -> Fault:
    with pytest.raises(Fault) as caught:
        await bench.block(BLOCK, BLOCK)
    return caught.value


async def test_a_verifier_that_believes_everybody_is_seen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Verifier, "check", lambda *_: None)
    assert "expected {403}" in str(await _first_fault(bench))


async def test_a_verifier_that_believes_nobody_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise Forbidden("signature_mismatch")

    monkeypatch.setattr(Verifier, "check", refuse)
    assert "expected {200" in str(await _first_fault(bench))


async def test_an_exception_that_escapes_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_body: bytes) -> waha.Head:
        raise ValueError("as told")

    monkeypatch.setattr(waha, "head", fail)
    assert "500 " in str(await _first_fault(bench))


async def test_a_reader_that_raises_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Kept:
        raise RecursionError("as told")

    monkeypatch.setattr(waha, "read", fail)
    assert "its reader raised" in str(await _first_fault(bench))


async def test_a_length_that_no_number_can_be_made_of_is_too_large(bench: Bench) -> None:
    given = Input(
        "POST",
        path_of(ANN).encode(),
        b"",
        ((b"content-length", b"9" * 5_000),),
        (b"{}",),
        left=False,
        true=False,
    )
    assert expected(given) == {(await bench.say(given)).status} == {413}


def test_answers_are_told_apart() -> None:
    said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    assert replies(said) == ([(100, b""), (200, b"{}")], True)
    assert replies(said + b"x")[1] is False
    assert replies(b"") == ([], True)
