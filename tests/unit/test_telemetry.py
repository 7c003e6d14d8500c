"""What the outside sees: log lines without anybody's words, metrics, and whether a process is ready."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram
from redis.exceptions import NoPermissionError, ResponseError
from structlog.testing import capture_logs

from wsm import telemetry
from wsm.bootstrap import parts, watched
from wsm.core.errors import StoreUnavailable
from wsm.streams.client import durability
from wsm.telemetry import METRICS, Page, configure_logging, metrics_page, ops_pages

WORDS = "PRIVATE WORDS"
SCRIPT = f"""
import asyncio, gc, logging
import psycopg
from wsm import telemetry

telemetry.configure_logging("test", "info")
log = telemetry.logger("room")
WORDS = "{WORDS}"

def refuse():
    try:
        raise OSError(WORDS)
    except OSError:
        detail = "new row violates; DETAIL: Failing row contains (" + WORDS + ")"
        raise psycopg.errors.CheckViolation(detail) from None

def fail():
    try:
        refuse()
    except psycopg.Error as exc:
        raise RuntimeError(WORDS) from exc

log.debug("hidden")
log.info("said", count=3, raw=b"bytes")
try:
    fail()
except RuntimeError as exc:
    log.exception("bug")
    log.error("given", exc_info=exc)
    logging.getLogger("library").exception("it failed\\n%s", WORDS)
logging.getLogger("library").info("hidden")
logging.getLogger("talkative").setLevel(logging.INFO)
logging.getLogger("talkative").info(WORDS)

async def leak():
    task = asyncio.create_task(asyncio.to_thread(fail))
    await asyncio.wait([task])
    asyncio.get_running_loop().call_soon(lambda words: fail(), WORDS)
    await asyncio.sleep(0)

asyncio.run(leak())
gc.collect()
fail()
"""


@pytest.fixture(scope="module")
def told() -> list[dict[str, Any]]:
    """The lines of a process that had every kind of trouble."""
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert WORDS not in done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_is_json_with_its_word_and_its_values(told: list[dict[str, Any]]) -> None:
    first = told[0]
    assert first.pop("at").endswith("Z")
    assert first == {
        "event": "said",
        "level": "info",
        "process": "test",
        "room": "room",
        "count": 3,
        "raw": "Ynl0ZXM=",
    }


def test_faults_are_told_by_their_types_and_places_alone(told: list[dict[str, Any]]) -> None:
    words = [line["event"] for line in told]
    assert words[:4] == ["said", "bug", "given", "it failed"]
    assert sorted(words[4:6]) == ["Exception in callback leak.", "Task exception was never retrieved"]
    assert words[6:] == ["crashed"]
    for line in told[1:]:
        assert line["fault"] == ["RuntimeError", "CheckViolation"], line
        assert any(place.endswith(" fail") for place in line["at_lines"])


def test_libraries_are_named_and_heard_from_warnings_on(told: list[dict[str, Any]]) -> None:
    assert [line["room"] for line in told] == [
        "room",
        "room",
        "room",
        "library",
        "asyncio",
        "asyncio",
        "process",
    ]


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    """A full disk, and a reader that is gone."""
    script = (
        "from wsm import telemetry; telemetry.configure_logging('test', 'info')\n"
        "log = telemetry.logger('room')\n"
        "for _ in range(3): log.warning('said', much='x' * 100_000)\n"
        "print('went on')"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("wb") as full, os.fdopen(writer, "wb") as gone:
        for nowhere in (full, gone):
            done = subprocess.run(
                [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=nowhere, check=False
            )
            assert done.stdout == b"went on\n"


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        configure_logging("test", "loud")


def test_every_metric_says_what_it_means_and_names_nobody() -> None:
    page = metrics_page()
    for metric in METRICS:
        [described] = list(metric.describe())
        assert described.name.startswith("wsm_")
        assert described.documentation.endswith(".")
        assert f"`{described.name}" in page
        assert not {"tenant", "session", "chat", "phone"} & set(metric._labelnames)
    assert len({next(iter(metric.describe())).name for metric in METRICS}) == len(METRICS)


def test_no_metric_is_left_out_of_the_list() -> None:
    defined = [value for value in vars(telemetry).values() if isinstance(value, Counter | Gauge | Histogram)]
    assert set(defined) == set(METRICS)


async def asked(path: str, found: dict[str, str] | None = None) -> Page:
    """Ask for a page."""

    async def checks() -> dict[str, str]:
        return found or {}

    return await ops_pages(checks)(path)


async def test_a_process_says_that_it_lives_and_whether_it_is_ready() -> None:
    assert (await asked("/healthz", {"database": "away"})).status == 200
    well = Page(200, "application/json", b'{"database":"ok","redis":"ok"}')
    assert await asked("/readyz", {"database": "ok", "redis": "ok"}) == well
    page = await asked("/readyz", {"database": "StoreUnavailable", "redis": "ok"})
    assert (page.status, json.loads(page.body)["database"]) == (503, "StoreUnavailable")


async def test_metrics_are_prometheus_text() -> None:
    page = await asked("/metrics")
    assert page.status == 200
    assert page.content_type.startswith("text/plain")
    assert b"# TYPE wsm_bells_total counter" in page.body


async def test_every_check_says_why_not_whatever_happens_to_it() -> None:
    async def works() -> None:
        return

    async def is_away() -> None:
        raise StoreUnavailable("PoolTimeout")

    async def has_a_bug() -> None:
        raise KeyError(WORDS)

    found = await watched.ask({"one": works, "two": is_away, "three": has_a_bug, "four": works})
    assert found == {"one": "ok", "two": "PoolTimeout", "three": "KeyError", "four": "ok"}


async def test_a_check_that_hangs_is_not_waited_for_longer_than_the_prober_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "REDIS_SECONDS", 0.05)

    async def hangs() -> None:
        await asyncio.Event().wait()

    assert await watched.ask({"one": hangs}) == {"one": "TimeoutError"}


class Secretive:
    """A Redis that does not show its configuration."""

    def __init__(self, answer: ResponseError) -> None:
        self._answer = answer

    async def config_get(self, *_: str) -> dict[str, str]:
        raise self._answer


@pytest.mark.parametrize(
    "answer",
    [
        ResponseError("unknown command 'CONFIG', with args beginning with: "),
        NoPermissionError("no permissions"),
    ],
)
async def test_a_redis_that_hides_its_configuration_is_named(answer: ResponseError) -> None:
    redis: Any = Secretive(answer)
    assert await durability(redis) == ["the server does not let its configuration be read"]


async def test_what_fails_beside_a_process_is_told_at_once_and_does_not_change_its_end() -> None:
    async def fails() -> None:
        raise KeyError(WORDS)

    async def lasts() -> None:
        await asyncio.Event().wait()

    with capture_logs() as told:
        async with watched.beside(fails(), lasts()):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [line["event"] for line in told] == ["beside_failed"]
    assert len(told) == 1
