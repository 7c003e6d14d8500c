"""`wsm` as a person starts it: commands that end, and what stays and writes on a screen."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from waiting import wait_for_blocking
from wsm.sandbox.embedded import Embedded

ENVIRON = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ}
PATIENCE_SECONDS = 60.0


def wsm(
    folder: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `environ` is added to a nearly empty environment."""
    command = [sys.executable, "-X", "utf8", "-m", "wsm", *arguments]
    whole = {**ENVIRON, **(environ or {})}
    return subprocess.run(command, cwd=folder, env=whole, capture_output=True, text=True, check=False)


class Running:
    """A command that runs on in a folder: `wsm story …` or `wsm up`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._screen = folder / "screen"
        with self._screen.open("wb") as screen:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-m", "wsm", *arguments],
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
        """The process ids of it and of everything that it has started."""
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
            self.signal(signal.SIGTERM)
            self.ended()


def discard(folder: Path) -> None:
    """Remove what the homes below a folder keep, also outside of it (`places`)."""
    for home in (folder / ".wsm").glob("*"):
        Embedded(home, fsync=False).discard()


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
