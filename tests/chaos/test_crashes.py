"""Workers die around their sends while the gateway fails: each message leaves as often as it may."""

import random
from datetime import timedelta

import pytest

import postoffice
from chaos.courier import couriers
from chaos.crashes import CALLS, FAULTS, Case, Hooks, Point, every, foreseen, sample, try_all
from databases import Database as Urls
from wsm.sandbox.waha import Engine
from wsm.sandbox.waha.faults import Wrong


@pytest.mark.deadline(120)
@pytest.mark.parametrize("engines", [(Engine.GOWS, Engine.WEBJS), (Engine.NOWEB, Engine.WPP)])
async def test_wherever_a_worker_dies_and_whatever_the_gateway_does(
    database: Urls, engines: tuple[Engine, ...]
) -> None:
    seed = random.getrandbits(32)
    print(f"seed {seed}")  # noqa: T201 (shown when it fails)
    chance = random.Random(seed)
    async with couriers() as dying:
        for engine in engines:
            drawn = chance.sample(sample(chance), len(FAULTS))
            wrong = await try_all(database, engine, drawn, dying)
            assert not wrong, f"seed {seed}: {wrong}"


async def test_what_is_sent_again_too_early_is_seen(database: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postoffice, "EVIDENCE", timedelta(0))
    case = Case(Point.CALLED, Wrong.FAIL_THEN_SEND, "text", Hooks.NONE)
    async with couriers(1) as dying:
        [twice, *_] = await try_all(database, Engine.GOWS, [case], dying)
        assert "left 2 times and not 1" in twice


def test_every_point_meets_every_fault_with_every_kind() -> None:
    met = {(case.point, case.fault, case.kind) for case in every()}
    assert len(met) == len(Point) * len(FAULTS) * len(CALLS)
    drawn = sample(random.Random(1))
    assert {(case.point, case.fault) for case in drawn} == {pair[:2] for pair in met}
    assert {case.kind for case in drawn} == CALLS.keys()


def test_where_ids_exist_only_a_refusal_keeps_a_message_from_leaving() -> None:
    for case in every():
        fate = foreseen(case, Engine.GOWS)
        assert fate.left == 1 or fate.reason or case.fault is Wrong.ERROR_ACK, case
        blind = foreseen(case, Engine.WEBJS)
        assert blind.left <= 1
        assert blind.left == fate.left or case.kind != "text", case
