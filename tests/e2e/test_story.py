"""The story as its users start it: a process in a folder of its own, looked at from others, ended by signals.

Two are told at the same time, one that ends by itself and one that stays.
"""

import re
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from e2e.telling import Running, discard, wsm
from waiting import wait_for_blocking
from wsm.sandbox.servers import command_line

STAYS_UP = "It stays up until Ctrl-C"
NOBODY = "wsm: REDIS_URL is not set, and nothing runs in .wsm\n"


def check_gone(family: Sequence[int] | set[int]) -> None:
    """Everybody has ended, or does within a moment."""
    wait_for_blocking(lambda: not [pid for pid in family if command_line(pid)])


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A story that stays up, at the default home; it is told while the other tests run."""
    folder = tmp_path_factory.mktemp("stays")
    with Running(folder, "story") as story:
        yield story
    discard(folder)


@pytest.fixture
def once(stays: Running, folder: Path) -> Iterator[Running]:
    """A story that ends by itself, where an earlier one was killed."""
    with Running(folder, "story") as crashed:
        crashed.shows("are up")
        family = crashed.family()
        crashed.signal(signal.SIGKILL)
        assert crashed.ended() == -signal.SIGKILL
    if sys.platform == "linux":
        check_gone(family)
        for words in (["line", "show", "1460561546"], ["sandbox", "inbox", "5511960000009"]):
            asked = wsm(folder, *words)
            assert (asked.returncode, asked.stderr) == (1, NOBODY)
    with Running(folder, "story", "--once") as story:
        yield story


def test_told_once_it_ends_with_its_figures_and_leaves_nobody_behind(once: Running) -> None:
    once.shows("are up")
    second = wsm(once.folder, "story", "--once")
    assert second.returncode == 1
    home = (once.folder / ".wsm" / "story").resolve()
    assert second.stderr == (
        f"wsm: {home} is in use by another wsm (process {once.process.pid}): stop it, or name another home\n"
    )
    once.shows("Tickets are closed")
    family = once.family()
    assert len(family) > 8, "two servers with their children, a WAHA, ingest, clock and two workers"
    assert once.ended() == 0, "\n".join(once.lines())
    figures = r"accepted=[1-9]\d* answered=5 duplicates=[1-9]\d* refused=1 lost=0"
    assert re.fullmatch(figures, once.lines()[-1]), once.lines()[-1]
    check_gone(family)


def test_it_stays_up_and_does_what_it_says(stays: Running, tmp_path: Path) -> None:
    stays.shows(STAYS_UP)
    offered = [shlex.split(line)[1:] for line in stays.lines() if ".venv/bin/wsm" in line]
    verbs = [" ".join(words[: 1 if words[0] == "history" else 2]) for words in offered]
    assert verbs == ["sandbox say", "sandbox inbox", "line show", "line close", "history"]
    say, inbox, show, close, history = offered

    def does(words: Sequence[str]) -> str:
        done = wsm(stays.folder, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    does(say)
    wait_for_blocking(lambda: does(inbox) == "Chegou a sua vez! Você está sendo atendido agora.\n")
    customer = close[-1]
    assert re.fullmatch(rf"served +{customer}@c\.us +user_\d+ +since [\d:]{{8}}\n", does(show))
    assert does(close) == f"asked to close {customer}@c.us\n"
    wait_for_blocking(lambda: does(show) == "nobody is in line\n")
    said = does(history).splitlines()
    assert [re.split(r" {2,}", line)[1:3] for line in said] == [
        ["customer", "bom dia"],
        ["bot", "Chegou a sua vez! Você está sendo atendido agora."],
    ]
    assert said[1].endswith("[delivered ✓✓]")

    elsewhere = wsm(tmp_path, *show)
    assert (elsewhere.returncode, elsewhere.stderr) == (1, NOBODY)
    stranger = wsm(stays.folder, "history", close[2], "5511960000099")
    assert (stranger.returncode, stranger.stderr.count("\n")) == (1, 1)

    family = stays.family()
    stays.signal(signal.SIGINT)
    assert stays.ended() == 0
    check_gone(family)


def test_a_signal_in_the_middle_ends_it_and_leaves_nobody_behind(stays: Running, folder: Path) -> None:
    with Running(folder, "story") as story:
        story.shows("Five customers write")
        family = story.family()
        story.signal(signal.SIGTERM)
        assert story.ended() == 130
        assert story.lines()[-1] == "stopped"
        check_gone(family)
