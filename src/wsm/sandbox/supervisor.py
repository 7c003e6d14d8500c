"""wsm's processes as children of one: started, watched, started again, and ended together.

A child that ends on its own is started again, after a pause that doubles up to ten seconds; one that held
out for ten seconds starts with the short pause again. What a child writes goes to `<logs>/<name>.log`. At
the end every child gets SIGTERM, has the grace to finish what it holds, and is killed after that. Children
end with this process however it ends (Linux; see `leash`).
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

from wsm import telemetry
from wsm.core.errors import NotFound, Unavailable
from wsm.sandbox.leash import leashed

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 10.0
PROBE_SECONDS = 0.05
PROBE_TIMEOUT_SECONDS = 5.0
LOG_BYTES = 16 * 1024 * 1024
LOG_TAIL_LINES = 12


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """One process to keep alive.

    name       its name here and of its log
    command    program and arguments; the program is a path
    environ    its whole environment
    ready_url  answers 200 to GET once the process can work; None: it is ready when it runs
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    ready_url: str | None = None


def wsm_child(
    name: str, *arguments: str, settings: Mapping[str, str], ops_port: int, alias: str | None = None
) -> Child:
    """Describe `wsm <name> <argument>…` of this same installation.

    settings  what the child reads from its environment (`REDIS_URL`, `WSM_…`); of this process's own
              environment it gets what is no setting
    ops_port  where it answers /readyz on 127.0.0.1
    alias     the child's name when a command runs more than once
    """
    kept = {key: value for key, value in os.environ.items() if not _is_setting(key)}
    return Child(
        name=alias or name,
        command=(sys.executable, "-X", "utf8", "-m", "wsm", name, *arguments),
        environ={**kept, **settings, "WSM_OPS_PORT": str(ops_port)},
        ready_url=f"http://127.0.0.1:{ops_port}/readyz",
    )


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on in this moment, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Supervisor:
    """Keeps children alive, as an async context: started on entering, ended on leaving.

    logs           the folder of their logs, made if missing
    grace_seconds  how long they may take to end after SIGTERM; above the processes' own draining time

    The children hang on the thread that runs the event loop: run it in one that lasts, the main one.
    """

    def __init__(self, children: Sequence[Child], *, logs: Path, grace_seconds: float = 25.0) -> None:
        self._children = {child.name: child for child in children}
        self._logs = logs
        self._grace_seconds = grace_seconds
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._ending = asyncio.Event()
        self._unclean = False
        self._log = telemetry.logger("supervisor")

    def pid(self, name: str) -> int:
        """Return a child's process id. Raises Unavailable between two lives, NotFound for no such child."""
        process = self._process(name)
        if process is None:
            raise Unavailable(f"{name} is not running")
        return process.pid

    async def ready(self, *names: str, timeout_seconds: float = 30.0) -> None:
        """Wait until the named children (all, if none is named) can work.

        Raises Unavailable with the end of the child's log when the time runs out, and when the children are
        being ended.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                for name in names or self._children:
                    while not await self._is_ready(name):
                        if self._ending.is_set():
                            raise Unavailable("the processes are being ended")
                        await asyncio.sleep(PROBE_SECONDS)
        except TimeoutError:
            raise Unavailable(f"{name} was not ready in time; its log ends:\n{self.log_tail(name)}") from None

    async def kill(self, name: str) -> int:
        """End a child with SIGKILL, as a crash would, and return its process id once it is gone.

        It is started again like any that dies; `ready` waits for the new one. Raises as `pid` does.
        """
        pid = self.pid(name)
        process = self._processes[name]
        _signal(process, signal.SIGKILL)
        await process.wait()
        return pid

    async def end(self, name: str) -> int:
        """End a child with SIGTERM, as a deployment would, and return its exit code once it is gone.

        Who takes longer than the grace is killed. It is started again like any. Raises as `pid` does.
        """
        self.pid(name)
        process = self._processes[name]
        _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._grace_seconds):
                return await process.wait()
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            return await process.wait()

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a child any signal. Raises as `pid` does."""
        os.kill(self.pid(name), number)

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, end the children, and return the exit code.

        0 when every child ended after SIGTERM without an error, 1 otherwise. A second signal kills. Make it
        a task before waiting for readiness, or a signal that comes earlier ends this process at once.
        """
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()

        def on_signal() -> None:
            if asked.is_set():
                self._kill_all()
            asked.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        try:
            await asked.wait()
            return await self.close()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def close(self) -> int:
        """End the children and return the exit code, as `run` does; safe to repeat."""
        self._ending.set()
        for process in self._alive():
            _signal(process, signal.SIGTERM)
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=self._grace_seconds)
            if late:
                self._log.warning("children_killed", children=[task.get_name() for task in late])
                self._kill_all()
            await asyncio.gather(*self._keepers)
        return int(self._unclean)

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._keepers = [
            asyncio.create_task(self._keep(child), name=child.name) for child in self._children.values()
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def log_tail(self, name: str) -> str:
        """Return the last lines of a child's log."""
        try:
            text = self._log_path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

    async def _keep(self, child: Child) -> None:
        """Start the child again and again until the end is asked for."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            since = loop.time()
            process = await self._start(child)
            code = await process.wait()
            if self._ending.is_set():
                self._unclean |= code not in (0, -signal.SIGTERM)  # the signal may come before its handler
                return
            self._log.warning("child_ended", child=child.name, pid=process.pid, code=code)
            if loop.time() - since > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        path = self._log_path(child.name)
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *leashed(child.command, on_orphaned=signal.SIGKILL),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(child.environ),
                start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor alone
            )
        self._processes[child.name] = process
        if self._ending.is_set():  # asked for while it started
            _signal(process, signal.SIGTERM)
        return process

    async def _is_ready(self, name: str) -> bool:
        process = self._process(name)
        url = self._children[name].ready_url
        return process is not None and (url is None or await _answers_200(url))

    def _process(self, name: str) -> asyncio.subprocess.Process | None:
        if name not in self._children:
            raise NotFound(f"no child is named {name}")
        process = self._processes.get(name)
        return process if process is not None and process.returncode is None else None

    def _alive(self) -> list[asyncio.subprocess.Process]:
        return [process for process in self._processes.values() if process.returncode is None]

    def _kill_all(self) -> None:
        for process in self._alive():
            _signal(process, signal.SIGKILL)

    def _log_path(self, name: str) -> Path:
        return self._logs / f"{name}.log"


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal, without asking first whether the child has ended.

    `Process.terminate` asks, and takes the exit code of one that has just ended away from asyncio, which then
    makes up a 255.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _is_setting(name: str) -> bool:
    known = {"REDIS_URL", "DATABASE_URL", "WAHA_URL", "WAHA_API_KEY", "WEBHOOK_HMAC_SECRET"}
    return name in known or name.startswith("WSM_")


async def _answers_200(url: str) -> bool:
    """GET a URL of this machine; False for everything but a prompt 200."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return status.split()[1:2] == [b"200"]
