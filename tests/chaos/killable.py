"""`wsm` as a process that dies at a point of its way, or that has a fault planted in it.

    python -m chaos.killable <what wsm is given>

CHAOS_POINT     a point: the process dies there by SIGKILL when it first comes there
CHAOS_POINTS    a folder with a file of points for each command (`ingest`, `worker`, `clock`), one per line:
                the process dies at the first that it comes to, and takes it off the list, which it shares
                with others of the same command; a list may be written, and written anew, while they run
CHAOS_SIGNAL    `SIGSTOP`: it stops there instead, and goes on with SIGCONT
CHAOS_MUTATION  the name of a fault in `chaos.mutations`

They are not called WSM_…: wsm refuses settings that it does not know.
"""

import ast
import fcntl
import os
import signal
import sys
from collections.abc import Collection, Iterable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from chaos.killpoints import POINT, WAY, all_points, rewritten
from chaos.mutations import MUTATIONS, Mutation


class Death:
    """Where this process is to die.

    points  when it comes to one of these
    shared  or to one that stands in this file, from which it is then taken; the file may change at any time
    number  the signal that it gets there
    """

    def __init__(
        self, points: Iterable[str] = (), shared: Path | None = None, number: signal.Signals = signal.SIGKILL
    ) -> None:
        self._points = set(points)
        self._shared = shared
        self._number = number
        self._read_at_ns = 0

    def at(self, name: str, value: Any) -> Any:
        """Pass a value on, or end the process here."""
        if self._shared is not None:
            self._read(self._shared)
        if name in self._points:
            self._points.discard(name)
            if self._shared is None or take(self._shared, name):
                os.kill(os.getpid(), self._number)
        return value

    def _read(self, shared: Path) -> None:
        try:
            changed_at_ns = shared.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed_at_ns != self._read_at_ns:
            self._read_at_ns = changed_at_ns
            self._points = set(listed(shared))


def listed(shared: Path) -> list[str]:
    """Read a list that several processes share."""
    with shared.open(encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return file.read().split()


def write(shared: Path, names: Iterable[str]) -> None:
    """Make or replace a list that several processes share."""
    with shared.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write("\n".join(names))


def take(shared: Path, name: str) -> bool:
    """Take a name off such a list; False if somebody has done so before."""
    with shared.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        names = file.read().split()
        if name not in names:
            return False
        names.remove(name)
        file.seek(0)
        file.truncate()
        file.write("\n".join(names))
    return True


class Loader(SourceFileLoader):
    """Loads a module with its points live and its fault planted; always from the source."""

    death: Death
    mutation: Mutation | None
    way: Collection[str]

    def get_code(self, fullname: str) -> CodeType:
        """Compile anew: a cached file knows nothing of this."""
        text = self.get_data(self.path).decode()
        if self.mutation is not None and self.mutation.module == fullname:
            text = self.mutation.planted(text)
        tree = rewritten(fullname, text) if fullname in self.way else ast.parse(text)
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, which finds its points' function among its names."""
        vars(module)[POINT] = self.death.at
        super().exec_module(module)


class Finder(MetaPathFinder):
    """Finds the modules that are to be loaded in this way, before everybody else.

    way  the modules whose points are live
    """

    def __init__(self, death: Death, mutation: Mutation | None, way: Collection[str] = WAY) -> None:
        self._death = death
        self._mutation = mutation
        self._way = way

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return a spec with the own loader, None for modules that stay as they are."""
        if fullname not in self._way and (self._mutation is None or self._mutation.module != fullname):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.origin is not None
        loader = Loader(fullname, spec.origin)
        loader.death, loader.mutation, loader.way = self._death, self._mutation, self._way
        spec.loader = loader
        return spec


def armed(command: str) -> Death:
    """Read from the environment where this process is to die. Refuses a point that does not exist."""
    number = signal.Signals[os.environ.get("CHAOS_SIGNAL", "SIGKILL")]
    if named := os.environ.get("CHAOS_POINT"):
        if named not in all_points():
            sys.exit(f"there is no point {named}")
        return Death([named], number=number)
    if folder := os.environ.get("CHAOS_POINTS"):
        return Death(shared=Path(folder) / command, number=number)
    return Death()


def main() -> None:
    """Run `wsm` with what stands in the environment."""
    named = os.environ.get("CHAOS_MUTATION")
    sys.meta_path.insert(0, Finder(armed(sys.argv[1]), MUTATIONS[named] if named else None))
    from wsm.cli import main as wsm  # noqa: PLC0415 (not before its modules can be found here)

    wsm(sys.argv[1:])


if __name__ == "__main__":
    main()
