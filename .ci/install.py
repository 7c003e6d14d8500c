# ruff: noqa: INP001 (a script, not a package)
"""Make `.venv` what requirements.lock says, and the project importable in it.

    install.py          .venv, with the tools
    install.py bench    .venv-bench as bench/requirements.lock says: wsm and what it is measured against

Safe to interrupt, to repeat and to run twice at once: the stamp is removed before anything changes and
written last, and whoever changes the environment holds a lock. A stamp that fits costs no network and a
few milliseconds. A moved checkout or a changed lock makes a new environment; a changed pyproject.toml
only installs the project again. Needs the standard library alone, Python 3.11 or newer.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pyproject.toml"


class Environment(NamedTuple):
    """A folder, and the lock that says what is in it."""

    folder: Path
    lock: Path

    @property
    def stamp(self) -> Path:
        """Written last, so that what has one is whole."""
        return self.folder / "wsm-installed"

    def wanted(self) -> list[str]:
        """What the stamp must say: where the environment is, its packages, the project's own metadata."""
        return [str(self.folder), digest(self.lock), digest(PROJECT)]

    def fits(self, lines: list[str]) -> bool:
        """Whether it works, is of the asked Python, and is stamped with these lines."""
        try:
            stamped = self.stamp.read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if os.environ.get("PYTHON") and not (self.folder / "lib" / f"python{version}").is_dir():
            return False
        return stamped[: len(lines)] == lines and (self.folder / "bin" / "python").exists()


TOOLS = Environment(ROOT / ".venv", ROOT / "requirements.lock")
BENCH = Environment(ROOT / ".venv-bench", ROOT / "bench" / "requirements.lock")


def main(arguments: list[str]) -> int:
    """Return the exit code; waits while another run installs."""
    environment = BENCH if arguments == ["bench"] else TOOLS
    if environment.fits(environment.wanted()):
        return 0
    with environment.lock.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make is installing; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        if environment.fits(environment.wanted()):
            return 0
        return install(environment)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(environment: Environment) -> int:
    """Build what is missing; the lock is held. Network is used here and nowhere else."""
    folder = environment.folder
    lines = environment.wanted()
    keep = environment.fits(lines[:2])
    try:
        environment.stamp.unlink(missing_ok=True)
        if not keep:
            say(f"making {folder.name} with Python {sys.version.split()[0]}; once, about a minute")
            if folder.is_symlink():
                folder.unlink()
            elif folder.exists():
                shutil.rmtree(folder)
            venv.EnvBuilder(with_pip=True, symlinks=True).create(folder)
            locked = ("--require-hashes", "--only-binary", ":all:", "--requirement", str(environment.lock))
            pip(folder, *locked)
        pip(folder, "--no-deps", "--no-build-isolation", "--editable", ".")
        environment.stamp.write_text("\n".join([*lines, ""]), encoding="utf-8")
    except subprocess.CalledProcessError as exc:
        say(f"not installed: {step(exc)} failed; run make again when its reason is gone")
        return 1
    except OSError as exc:
        say(f"not installed: {exc.filename or folder}: {exc.strerror}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; make starts over next time")
        return 130
    return 0


def pip(folder: Path, *arguments: str) -> None:
    """Run pip inside the environment, its progress on the screen."""
    foreign = {"PYTHONPATH", "PYTHONHOME", "PIP_USER"}
    environ = {name: value for name, value in os.environ.items() if name not in foreign}
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    subprocess.run(command, cwd=ROOT, env=environ, check=True)  # noqa: S603 (our own words)


def step(exc: subprocess.CalledProcessError) -> str:
    """Name the command that failed by its last words."""
    return " ".join(str(part) for part in exc.cmd[2:4])


def say(text: str) -> None:
    sys.stderr.write(f"wsm: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
