"""Become another program that ends when its parent does.

    python -I -S leash.py <parent's pid> <signal> <uid:gid, or -> <program> <argument>…

Keeps the process id. On Linux the kernel sends the signal when the parent *thread* ends, however it ends;
elsewhere a killed parent leaves the program behind, and the next start on the same home ends it. Runs
before anything of wsm is importable by the new user: the standard library alone.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def leashed(
    program: Sequence[str], *, on_orphaned: signal.Signals, user: tuple[int, int] | None = None
) -> list[str]:
    """Return the command line that runs `program` on a leash held by this process.

    on_orphaned  what the program gets when the thread that started it ends
    user         uid and gid that it runs as; None keeps those of this process, only root may name others
    """
    owner = "-" if user is None else f"{user[0]}:{user[1]}"
    leash = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    return [*leash, str(os.getpid()), str(int(on_orphaned)), owner, *program]


def _main(arguments: list[str]) -> None:
    parent, number, owner, *program = arguments
    if owner != "-":
        uid, gid = (int(part) for part in owner.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)  # before the leash: changing the user takes it off
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != int(parent):
            raise SystemExit("the parent is gone")
    os.execv(program[0], program)  # noqa: S606 (the point of it)


if __name__ == "__main__":
    _main(sys.argv[1:])
