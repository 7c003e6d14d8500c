"""The set-up machinery, without a network: the lock, `make install`, and what `.ci/run` hands on."""

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
BENCH_LOCK = (ROOT / "bench" / "requirements.lock").read_text(encoding="utf-8")
LOCKS = pytest.mark.parametrize("lock", [LOCK, BENCH_LOCK], ids=["tools", "bench"])
REQUIREMENT = re.compile(r"([a-z0-9-]+)==([0-9][\w.]*)( ; [\w .<>='!]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
EMPTY_ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make install` needs, in a folder with a space and a quote in its name."""
    folder = tmp_path / "a 'new' folder"
    (folder / ".ci").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml", ".ci/install.py", ".ci/run"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def installer(checkout: Path) -> ModuleType:
    """Load a checkout's .ci/install.py."""
    spec = importlib.util.spec_from_file_location("install", checkout / ".ci" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretend_installed(checkout: Path) -> Path:
    """Leave what a finished install leaves; return the stamp."""
    install = installer(checkout)
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    stamp: Path = install.TOOLS.stamp
    stamp.write_text("\n".join([*install.TOOLS.wanted(), ""]), encoding="utf-8")
    return stamp


def make(checkout: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env={**EMPTY_ENVIRONMENT, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@LOCKS
def test_every_line_of_a_lock_is_a_pinned_package_or_its_hash(lock: str) -> None:
    """So no index, no find-links, no path and no comment can be in it."""
    odd = [line for line in lock.splitlines() if not (REQUIREMENT.fullmatch(line) or HASH.fullmatch(line))]
    assert odd == []


@LOCKS
def test_every_locked_package_has_a_hash(lock: str) -> None:
    lines = lock.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if REQUIREMENT.fullmatch(line):
            assert HASH.fullmatch(following), line


@pytest.mark.parametrize(("lock", "group"), [(LOCK, "dev"), (BENCH_LOCK, "bench")], ids=["tools", "bench"])
def test_a_lock_has_every_package_that_pyproject_names(lock: str, group: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["embedded"],
        *project["dependency-groups"][group],
    ]
    locked = {found[1] for found in map(REQUIREMENT.fullmatch, lock.splitlines()) if found}
    assert {re.split(r"[^\w-]", name)[0].lower().replace("_", "-") for name in named} <= locked


def test_what_is_measured_is_what_is_tested() -> None:
    """Of a package in both locks both name the same version."""
    tools, bench = (
        {found[1]: found[2] for found in map(REQUIREMENT.fullmatch, lock.splitlines()) if found}
        for lock in (LOCK, BENCH_LOCK)
    )
    assert {name: bench[name] for name in tools.keys() & bench.keys()} == {
        name: tools[name] for name in tools.keys() & bench.keys()
    }


def test_a_second_install_does_nothing_and_asks_no_network(checkout: Path) -> None:
    stamp = pretend_installed(checkout)
    before = stamp.stat()
    done = make(checkout, "install", PIP_NO_INDEX="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    after = stamp.stat()  # it is read, so its time of access may differ
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_failed_install_says_so_and_is_not_taken_for_a_good_one(checkout: Path) -> None:
    pretend_installed(checkout).unlink()
    (checkout / "requirements.lock").write_text(
        LOCK.splitlines()[0] + "\n    --hash=sha256:" + "0" * 64 + "\n"
    )
    done = make(checkout, "install", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(checkout))
    assert done.returncode != 0
    assert "not installed: " in done.stderr
    assert not (checkout / ".venv" / "wsm-installed").exists()


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed(checkout: Path, name: str) -> None:
    pretend_installed(checkout)
    install = installer(checkout)
    assert install.TOOLS.fits(install.TOOLS.wanted())
    with (checkout / name).open("a") as changed:
        changed.write("\n")
    assert not install.TOOLS.fits(install.TOOLS.wanted())


def test_a_moved_checkout_is_installed_anew(checkout: Path) -> None:
    pretend_installed(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    install = installer(moved)
    assert not install.TOOLS.fits(install.TOOLS.wanted())


def test_a_second_make_waits_for_the_first_and_finds_its_work_done(checkout: Path) -> None:
    stamp = pretend_installed(checkout)
    text = stamp.read_text()
    stamp.unlink()
    with (checkout / "requirements.lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = subprocess.Popen(
            ["make", "install"], cwd=checkout, env=EMPTY_ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        with second:
            assert second.stderr is not None
            assert "another make is installing" in second.stderr.readline()
            stamp.write_text(text)
            fcntl.flock(held, fcntl.LOCK_UN)
            assert second.wait() == 0


def test_a_python_that_does_not_suit_is_refused_in_one_sentence(checkout: Path) -> None:
    done = make(checkout, "install", "PYTHON=/bin/false")
    assert done.returncode != 0
    assert "wsm needs Python 3.11 or newer" in done.stderr
    assert not (checkout / ".venv").exists()


def test_what_args_says_reaches_pytest_whole(checkout: Path) -> None:
    pretend_installed(checkout)
    done = make(checkout, "--dry-run", "test", "ARGS=-k 'a or b'")
    assert done.stdout.splitlines()[-1].endswith(" -k 'a or b'")


@pytest.mark.parametrize(
    ("given", "said"), [("ONCE=1", "story --once"), ("ONCE=", "story"), ("ONCE=0", "story")]
)
def test_the_story_ends_by_itself_when_asked(checkout: Path, given: str, said: str) -> None:
    pretend_installed(checkout)
    done = make(checkout, "--dry-run", "run", given)
    assert done.stdout.splitlines()[-1].rstrip().endswith(said)


def test_ci_hands_on_the_samples_beside_the_checkout(checkout: Path) -> None:
    (checkout / "Makefile").write_text('test:\n\t@echo "<$$WSM_WAHA_FIXTURES>"\n')
    run = checkout / ".ci" / "run"
    beside = re.search(r'"\$PWD/\.\./([\w/]+)"', run.read_text())
    assert beside is not None
    assert subprocess.check_output([run], env=EMPTY_ENVIRONMENT, text=True) == "<>\n"
    samples = checkout.parent / beside[1]
    samples.mkdir(parents=True)
    assert subprocess.check_output([run], env=EMPTY_ENVIRONMENT, text=True) == f"<{samples}>\n"
