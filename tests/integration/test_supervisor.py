"""The supervisor on small real processes."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import wait_for
from wsm.core.errors import NotFound, Unavailable
from wsm.sandbox.servers import command_line
from wsm.sandbox.supervisor import Child, Supervisor, free_ports, wsm_child

PATIENT = """
import signal, sys
def end(number, frame):
    print("drained", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
signal.pause()
"""

DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""

READY = """
import http.server, sys
class Ops(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ops).serve_forever()
"""

SPAWNER = """
import asyncio, sys
from pathlib import Path
from wsm.sandbox.supervisor import Child, Supervisor
async def main():
    child = Child(name="held", command=(sys.executable, "-c", sys.argv[2]), environ={})
    async with Supervisor([child], logs=Path(sys.argv[1])) as supervisor:
        serving = asyncio.create_task(supervisor.run())
        await supervisor.ready()
        print(supervisor.pid("held"), flush=True)
        sys.exit(await serving)
asyncio.run(main())
"""


def python(name: str, code: str, *arguments: str, ready_url: str | None = None) -> Child:
    return Child(name=name, command=(sys.executable, "-c", code, *arguments), environ={}, ready_url=ready_url)


def said(logs: Path, name: str) -> list[str]:
    path = logs / f"{name}.log"
    return path.read_text().splitlines() if path.exists() else []


async def test_a_killed_child_is_started_again_under_a_new_pid(tmp_path: Path) -> None:
    async with Supervisor([python("patient", PATIENT)], logs=tmp_path / "logs") as supervisor:
        await supervisor.ready()
        gone = await supervisor.kill("patient")
        await supervisor.ready("patient")
        assert supervisor.pid("patient") != gone


async def test_the_others_live_on_when_one_is_killed(tmp_path: Path) -> None:
    async with Supervisor([python("a", PATIENT), python("b", PATIENT)], logs=tmp_path) as supervisor:
        await supervisor.ready()
        other = supervisor.pid("b")
        await supervisor.kill("a")
        await supervisor.ready("a")
        assert supervisor.pid("b") == other


async def test_every_child_is_asked_to_end_and_its_words_are_kept(tmp_path: Path) -> None:
    async with Supervisor([python("a", PATIENT), python("b", PATIENT)], logs=tmp_path) as supervisor:
        await wait_for(lambda: said(tmp_path, "a") and said(tmp_path, "b"))
        assert await supervisor.close() == 0
    assert said(tmp_path, "a") == said(tmp_path, "b") == ["up", "drained"]


async def test_a_deaf_child_is_killed_after_the_grace_and_the_exit_code_says_so(tmp_path: Path) -> None:
    async with Supervisor([python("deaf", DEAF)], logs=tmp_path, grace_seconds=0.2) as supervisor:
        await wait_for(lambda: said(tmp_path, "deaf"))
        pid = supervisor.pid("deaf")
        assert await supervisor.close() == 1
    assert command_line(pid) == ""


async def test_ready_waits_for_readyz_also_of_the_next_life(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    child = python("ops", READY, str(port), ready_url=f"http://127.0.0.1:{port}/readyz")
    async with Supervisor([child], logs=tmp_path) as supervisor:
        await supervisor.ready()
        await supervisor.kill("ops")
        await supervisor.ready()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()


async def test_a_child_that_never_gets_ready_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    broken = python(
        "broken", "raise SystemExit('no such setting')", ready_url=f"http://127.0.0.1:{port}/readyz"
    )
    async with Supervisor([broken], logs=tmp_path) as supervisor:
        with pytest.raises(Unavailable, match=r"(?s)broken was not ready.*no such setting"):
            await supervisor.ready(timeout_seconds=0.5)


async def test_a_child_that_keeps_dying_is_started_ever_less_often(tmp_path: Path) -> None:
    dying = python("dying", "print('up', flush=True)")
    async with Supervisor([dying], logs=tmp_path) as supervisor:
        await wait_for(lambda: len(said(tmp_path, "dying")) >= 3)
        assert await supervisor.close() == 0
    assert len(said(tmp_path, "dying")) < 6


async def test_an_unknown_child_is_refused(tmp_path: Path) -> None:
    async with Supervisor([], logs=tmp_path) as supervisor:
        with pytest.raises(NotFound):
            supervisor.pid("nobody")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_supervisor_ends_everything_and_exits_0(tmp_path: Path, number: int) -> None:
    process, pid = await spawner(tmp_path)
    await wait_for(lambda: said(tmp_path, "held"))
    process.send_signal(number)
    assert await process.wait() == 0
    assert said(tmp_path, "held") == ["up", "drained"]
    assert command_line(pid) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's leash is Linux's")
async def test_children_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    process, pid = await spawner(tmp_path)
    process.kill()
    await process.wait()
    await wait_for(lambda: command_line(pid) == "")


async def spawner(logs: Path) -> tuple[asyncio.subprocess.Process, int]:
    """Run a supervisor in a process of its own; return it with its child's process id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SPAWNER, str(logs), PATIENT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


def test_a_child_inherits_no_setting_but_those_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://somebody.elses")
    monkeypatch.setenv("WSM_WAHA_FIXTURES", "/somewhere")
    child = wsm_child("worker", settings={"WSM_LOG_LEVEL": "info"}, ops_port=1234, alias="worker-2")
    assert child.name == "worker-2"
    assert child.environ["PATH"] == os.environ["PATH"]
    assert child.environ["WSM_OPS_PORT"] == "1234"
    assert {"REDIS_URL", "WSM_WAHA_FIXTURES"}.isdisjoint(child.environ)


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(20))) == 20
