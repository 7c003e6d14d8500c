"""Valkey and PostgreSQL from wheels: what `wsm up`, the story and the tests run on.

Everything is kept in one folder, the *home*, and is there again at the next start; one run at a time holds
a home. The servers listen on unix sockets in a private folder and end with this process. Where a file lies
outside the home, and why, is in `places`.

    home/lock         held while a run lasts
    home/services     where the servers of this run are, for other commands
    home/log/*.log    the servers' logs
    home/valkey       Valkey's append-only file
    home/postgres     PostgreSQL's data (as root perhaps elsewhere)
"""

import fcntl
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import msgspec

from wsm.core.errors import NotFound, Refused
from wsm.sandbox import places
from wsm.sandbox.servers import DATABASE, POSTGRES_PORT, Postgres, Valkey

OWNER = "postgres"
"""The superuser: migrations run as this role. `wsm_app` and `wsm_system` are made by the first of them."""


class Services(msgspec.Struct, frozen=True):
    """Where a home's servers listen."""

    redis_socket: str
    postgres_sockets: str

    @property
    def redis_url(self) -> str:
        """The URL as redis-py takes it."""
        return f"unix://{quote(self.redis_socket)}"

    def database_url(self, role: str = OWNER, database: str = DATABASE) -> str:
        """The URL as libpq takes it. Who reaches the socket is trusted: there are no passwords."""
        host = quote(self.postgres_sockets, safe="")
        return f"postgresql://{quote(role)}@/{quote(database)}?host={host}&port={POSTGRES_PORT}"


class Embedded:
    """The servers of one home, as a context: started on entering, stopped on leaving.

    home       a folder, made if missing
    fresh      remove the home's data first
    maxmemory  Valkey's, as it writes it
    fsync      PostgreSQL's; Valkey always waits for its disk
    options    further settings of Valkey

    Entering raises Refused when another run holds the home or no place will do, and Unavailable with the
    end of the log when a server does not start. It blocks: under a second, two on the first start.
    """

    def __init__(
        self,
        home: Path,
        *,
        fresh: bool = False,
        maxmemory: str = "1gb",
        fsync: bool = True,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home.expanduser().resolve()  # one name, so that its orphans are known by it
        self._lock = _hold(self.home)
        try:
            user = places.server_user()
            self._annex = places.annex(self.home, user)
            data = places.data_directory(self.home, self._annex, user)
            if fresh:
                _remove(self.home / "valkey", self.home / "log", data)
            logs = self.home / "log"
            logs.mkdir(exist_ok=True)
            sockets = places.private(self._annex / "pg", user)
            self.services = Services(str(self._annex / "redis.sock"), str(sockets))
            self.valkey = Valkey(
                self.home / "valkey",
                Path(self.services.redis_socket),
                logs / "valkey.log",
                maxmemory=maxmemory,
                options=options or {},
            )
            self.postgres = Postgres(
                places.postgres_binaries(user),
                data,
                sockets,
                logs / "postgres.log",
                user=user,
                fsync=fsync,
                keeps_copy=fresh and fsync,
            )
        except BaseException:
            self._lock.close()
            raise
        self._data = data

    @property
    def redis_url(self) -> str:
        """Valkey's URL."""
        return self.services.redis_url

    def database_url(self, role: str = OWNER, database: str = DATABASE) -> str:
        """PostgreSQL's URL for one role: `postgres` (the owner), `wsm_app` or `wsm_system`."""
        return self.services.database_url(role, database)

    def start(self) -> None:
        """Start what does not run. Raises and blocks as entering does."""
        self.valkey.start()
        self.postgres.start()
        (self.home / "services").write_bytes(msgspec.json.encode(self.services))

    def close(self) -> None:
        """Stop the servers and give the home back; safe to repeat."""
        (self.home / "services").unlink(missing_ok=True)
        self.postgres.stop()
        self.valkey.stop()
        self._lock.close()

    def discard(self) -> None:
        """Close, and remove the data and everything outside the home."""
        self.close()
        _remove(self.home / "valkey", self._data, self.postgres.copy, self._annex)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def running(home: Path) -> Services:
    """Return where the servers of a home listen that another process runs. Raises NotFound.

    Whoever runs them holds the home's lock: what is said in a home that nobody holds was left by a crash.
    """
    nobody = NotFound(f"nothing runs in {home}")
    try:
        with (home / "lock").open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((home / "services").read_bytes(), type=Services)
    except OSError:
        raise nobody from None
    raise nobody


def _hold(home: Path) -> IO[str]:
    """Take the home for this process: the lock ends with the file, so a crash leaves none."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "lock").open("a+", encoding="utf-8")
    except OSError as exc:
        raise Refused(f"{home} cannot be used as a home: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise Refused(
            f"{home} is in use by another wsm (process {holder}): stop it, or name another home"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _remove(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
