"""Every place where a message waits for something has a name, and a process dies there without harm."""

import os
import random
import signal
import subprocess
import sys
import tokenize
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from chaos.crowd import Crowd
from chaos.deaths import COMMANDS, TESTS, Deaths, deadly_town
from chaos.everypoint import TENANTS, at_rest, steady
from chaos.killpoints import ASIDE, ROOMS, WAY, all_points, points, source
from chaos.unreached import is_ordinary
from e2e.town import Ground

SOURCE = Path(__file__).resolve().parents[2] / "src"
SAMPLE = 12


def modules() -> list[str]:
    files = (file for room in ROOMS for file in (SOURCE / "wsm" / room).rglob("*.py"))
    return [
        ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for file in files
    ]


def waits(module: str) -> Counter[str]:
    """Count what waits in a module's text, without its syntax tree."""
    with source(module).open("rb") as file:
        words = [token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME]
    after_async = (following for word, following in pairwise(words) if word == "async")
    return Counter(await_=words.count("await")) + Counter(after_async)


def test_every_module_that_waits_is_on_the_way_or_beside_it_for_a_reason() -> None:
    waiting = {module for module in modules() if waits(module)["await_"]}
    assert waiting == {*WAY, *ASIDE}
    assert not set(WAY) & set(ASIDE)


@pytest.mark.parametrize("module", WAY)
def test_every_wait_and_every_border_has_a_name(module: str) -> None:
    there = waits(module)
    named = Counter(name.rpartition(".")[2] for name in points(module))
    assert named["after"] == there["await_"]
    assert named["leaving"] == named["entered"] >= there["with"]  # one may have several borders
    assert named["step"] == there["for"]
    assert named["before"] == named["after"] + named["entered"] + named["step"]
    assert named["left"] == named["entered"] + named["step"]


def test_no_name_is_given_twice() -> None:
    assert max(Counter(all_points()).values()) == 1


def test_a_process_dies_at_the_point_that_is_named() -> None:
    first = "worker.worker:Worker.run#1.before"
    assert first in all_points()
    assert started(CHAOS_POINT="ingest.server:serve#1.before").returncode == -signal.SIGKILL


def test_a_point_that_does_not_exist_is_refused() -> None:
    refused = started(CHAOS_POINT="ingest.batch:Batcher.nowhere#1.before")
    assert (refused.returncode, refused.stderr) == (
        1,
        "there is no point ingest.batch:Batcher.nowhere#1.before\n",
    )


def started(**environ: str) -> subprocess.CompletedProcess[str]:
    """Start an ingest that nobody feeds."""
    settings = {
        "REDIS_URL": "unix:///nowhere",
        "WSM_MASTER_KEYS": f"k1:{'00' * 32}",
        "WSM_MASTER_KEY_ID": "k1",
    }
    return subprocess.run(
        [sys.executable, "-X", "utf8", "-m", "chaos.killable", "ingest"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(TESTS), "WSM_PORT": "0", **settings, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.deadline(150)
async def test_wherever_a_process_dies_nothing_is_lost_or_said_twice(ground: Ground) -> None:
    seed = random.getrandbits(32)  # the run's own seed makes it
    print(f"seed {seed}")  # noqa: T201 (shown when it fails)
    chance = random.Random(seed)
    sample = chance.sample([name for name in all_points() if is_ordinary(name)], SAMPLE)
    deaths = Deaths(ground.home / "points")
    shops = TENANTS[:SAMPLE]
    async with deadly_town(ground, shops, deaths, {}) as at:
        async with Crowd(at, shops, chance):
            for command in set(COMMANDS.values()):
                deaths.arm(command, sample)
            await steady(at, lambda: len(deaths.nowhere()), 10)
            assert not deaths.nowhere()
            for command in set(COMMANDS.values()):
                deaths.disarm(command)
        await at_rest(at, shops, deaths.told)
