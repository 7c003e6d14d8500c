"""The story as its users start it: a process in a folder of its own, looked at from others, ended by signals.

Two are told at the same time, one that ends by itself and one that stays.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from waiting import wait_for_blocking
from wsm.sandbox.servers import command_line

ENVIRON = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ}
STAYS_UP = "It stays up until Ctrl-C"
PATIENCE_SECONDS = 60.0


def wsm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-X", "utf8", "-m", "wsm", *arguments]
    return subprocess.run(command, cwd=folder, env=ENVIRON, capture_output=True, text=True, check=False)


class Telling:
    """A story that is being told in a folder, at `home` or at the default one."""

    def __init__(self, folder: Path, *arguments: str, home: Path | None = None) -> None:
        self.folder = folder
        self.home = home
        folder.mkdir(exist_ok=True)
        arguments = arguments if home is None else (*arguments, "--home", str(home))
        self._screen = folder / "screen"
        with self._screen.open("wb") as screen:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-m", "wsm", "story", *arguments],
                cwd=folder,
                env=ENVIRON,
                stdout=screen,
                stderr=screen,
                start_new_session=True,
            )

    def lines(self) -> list[str]:
        """What stands on its screen."""
        return self._screen.read_text().splitlines()

    def shows(self, text: str) -> None:
        """Wait until it shows a text."""

        def shown() -> bool:
            return any(text in line for line in self.lines()) or self.process.poll() is not None

        wait_for_blocking(shown, PATIENCE_SECONDS)
        assert any(text in line for line in self.lines()), "\n".join(self.lines())

    def family(self) -> set[int]:
        """The process ids of the story and everything that it has started."""
        parents = processes()
        family = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        return family

    def signal(self, number: signal.Signals) -> None:
        """Send a signal as a terminal would: to everything in the foreground."""
        os.killpg(self.process.pid, number)

    def ended(self) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def processes() -> dict[int, int]:
    """Every process with its parent."""
    if sys.platform != "linux":
        listed = subprocess.run(
            ["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        )
        return {int(pid): int(parent) for pid, parent in map(str.split, listed.stdout.splitlines())}
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
    return found


def check_gone(family: Sequence[int] | set[int]) -> None:
    """Everybody has ended, or does within a moment."""
    wait_for_blocking(lambda: not [pid for pid in family if command_line(pid)])


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Telling]:
    """A story that stays up, at the default home; it is told while the other tests run."""
    with Telling(tmp_path_factory.mktemp("stays")) as story:
        yield story


@pytest.fixture
def once(stays: Telling, tmp_path: Path) -> Iterator[Telling]:
    """A story that ends by itself, at a home where an earlier one was killed."""
    home = tmp_path / "home with a space"
    with Telling(tmp_path / "crashed", home=home) as crashed:
        crashed.shows("are up")
        family = crashed.family()
        crashed.signal(signal.SIGKILL)
        assert crashed.ended() == -signal.SIGKILL
    if sys.platform == "linux":
        check_gone(family)
    with Telling(tmp_path / "once", "--once", home=home) as story:
        yield story


def test_told_once_it_ends_with_its_figures_and_leaves_nobody_behind(once: Telling) -> None:
    once.shows("are up")
    second = wsm(once.folder, "story", "--once", "--home", str(once.home))
    assert second.returncode == 1
    assert second.stderr == (
        f"wsm: {once.home} is in use by another wsm (process {once.process.pid}):"
        " stop it, or name another home\n"
    )
    once.shows("Tickets are closed")
    family = once.family()
    assert len(family) > 8, "two servers with their children, a WAHA, ingest, clock and two workers"
    assert once.ended() == 0, "\n".join(once.lines())
    figures = r"accepted=[1-9]\d* answered=5 duplicates=[1-9]\d* refused=1 lost=0"
    assert re.fullmatch(figures, once.lines()[-1]), once.lines()[-1]
    check_gone(family)


def test_it_stays_up_and_does_what_it_says(stays: Telling, tmp_path: Path) -> None:
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
    assert elsewhere.returncode == 1
    assert elsewhere.stderr == "wsm: REDIS_URL is not set, and nothing runs in .wsm\n"
    stranger = wsm(stays.folder, "history", close[2], "5511960000099")
    assert (stranger.returncode, stranger.stderr.count("\n")) == (1, 1)

    family = stays.family()
    stays.signal(signal.SIGINT)
    assert stays.ended() == 0
    check_gone(family)


def test_a_signal_in_the_middle_ends_it_and_leaves_nobody_behind(stays: Telling, tmp_path: Path) -> None:
    with Telling(tmp_path / "cut") as story:
        story.shows("Five customers write")
        family = story.family()
        story.signal(signal.SIGTERM)
        assert story.ended() == 130
        assert story.lines()[-1] == "stopped"
        check_gone(family)
