# ruff: noqa: INP001 (a script, not a package)
"""Make `.venv` what requirements.lock says, and the project importable in it.

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

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "wsm-installed"
LOCK = ROOT / "requirements.lock"
PROJECT = ROOT / "pyproject.toml"


def main() -> int:
    """Return the exit code; waits while another run installs."""
    if fits(STAMP, wanted()):
        return 0
    with LOCK.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make is installing; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        if fits(STAMP, wanted()):
            return 0
        return install()


def wanted() -> list[str]:
    """What the stamp must say: where the environment is, its packages, the project's own metadata."""
    return [str(VENV), digest(LOCK), digest(PROJECT)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fits(stamp: Path, lines: list[str]) -> bool:
    """Whether an environment that works, of the asked Python, is stamped with these lines."""
    try:
        stamped = stamp.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if os.environ.get("PYTHON") and not (VENV / "lib" / f"python{version}").is_dir():
        return False
    return stamped[: len(lines)] == lines and (VENV / "bin" / "python").exists()


def install() -> int:
    """Build what is missing; the lock is held. Network is used here and nowhere else."""
    lines = wanted()
    keep = fits(STAMP, lines[:2])
    try:
        STAMP.unlink(missing_ok=True)
        if not keep:
            say(f"making .venv with Python {sys.version.split()[0]}; once, about a minute")
            if VENV.is_symlink():
                VENV.unlink()
            elif VENV.exists():
                shutil.rmtree(VENV)
            venv.EnvBuilder(with_pip=True, symlinks=True).create(VENV)
            pip("--require-hashes", "--only-binary", ":all:", "--requirement", LOCK.name)
        pip("--no-deps", "--no-build-isolation", "--editable", ".")
        STAMP.write_text("\n".join([*lines, ""]), encoding="utf-8")
    except subprocess.CalledProcessError as exc:
        say(f"not installed: {step(exc)} failed; run make again when its reason is gone")
        return 1
    except OSError as exc:
        say(f"not installed: {exc.filename or VENV}: {exc.strerror}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; make starts over next time")
        return 130
    return 0


def pip(*arguments: str) -> None:
    """Run pip inside the environment, its progress on the screen."""
    foreign = {"PYTHONPATH", "PYTHONHOME", "PIP_USER"}
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    python = str(VENV / "bin" / "python")
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)  # noqa: S603 (our own words)


def step(exc: subprocess.CalledProcessError) -> str:
    """Name the command that failed by its last words."""
    return " ".join(str(part) for part in exc.cmd[2:4])


def say(text: str) -> None:
    sys.stderr.write(f"wsm: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
