"""What a 2xx stands on, seen from the kernel's side: append, fdatasync, reply, in this order.

`SHOW_TRACE=<folder>` keeps the lines of the traces that prove it.
"""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from chaos.replicas import free_port
from ingesting import ANN, event, site, to
from mailboxes import offers, opened
from waiting import wait_for
from wsm.sandbox.servers import Valkey

CALLS = "read,recvfrom,write,writev,sendto,sendmsg,fdatasync,fsync"
WRITES = frozenset({"write", "writev", "sendto", "sendmsg"})
READS = frozenset({"read", "recvfrom"})
SYNCS = frozenset({"fdatasync", "fsync"})
MARK = "evt_20261120"
LINE = re.compile(
    r"(?P<thread>\d+) +(?P<at>\d+\.\d+) (?:<\.\.\. )?(?P<call>\w+)(?P<resumed> resumed>)?"
    r"(?:\((?P<fd>\d+)<(?P<file>[^>]*)>)?"
)


class Step(NamedTuple):
    """A call in the order of their returns: who called what on which file, and the line of the trace."""

    thread: str
    call: str
    file: str
    line: str


def steps(trace: str) -> list[Step]:
    """Read a trace of `strace -f -y`. A call that another thread interrupts counts where it returns."""
    found: list[Step] = []
    begun: dict[str, tuple[str, str]] = {}
    for line in trace.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        thread = match["thread"]
        if match["resumed"]:
            file, text = begun.pop(thread, ("", ""))
            found.append(Step(thread, match["call"], file, text + line))
        elif line.endswith("<unfinished ...>"):
            begun[thread] = (match["file"], line)
        else:
            found.append(Step(thread, match["call"], match["file"] or "", line))
    return found


def way(trace: str, mark: str) -> list[Step]:
    """Return what happened to one command: it was read, appended, synced, answered, as far as it came.

    The answer is the next write to the socket that the command was read from. A sync counts if the thread
    that answers made it and it succeeded: what another thread does, no answer waits for.
    """
    happened = steps(trace)
    begin = next(i for i, step in enumerate(happened) if step.call in READS and mark in step.line)
    thread, asker = happened[begin].thread, happened[begin].file
    kept = [happened[begin]]
    for step in happened[begin + 1 :]:
        to_disk = ".aof" in step.file
        if (
            (step.call in WRITES and to_disk and mark in step.line)
            or (step.call in SYNCS and to_disk and step.thread == thread and step.line.endswith("= 0"))
            or (step.call in WRITES and step.file == asker)
        ):
            kept.append(step)
        if step.call in WRITES and step.file == asker:
            break
    return kept


def order(trace: str, mark: str) -> list[str]:
    """Name what happened to one command, in order."""
    names = {**dict.fromkeys(READS, "read"), **dict.fromkeys(SYNCS, "sync")}
    return [
        names.get(step.call, "append" if ".aof" in step.file else "reply")
        for step in way(trace, mark)
    ]  # fmt: skip


def answered(trace: Path) -> bool:
    """Whether the answer to the marked command stands in a trace by now."""
    text = trace.read_text()
    return MARK in text and order(text, MARK)[-1] == "reply"


def keep(steps: list[Step], name: str) -> None:
    """Write the lines into the folder that SHOW_TRACE names, if it names one."""
    if folder := os.environ.get("SHOW_TRACE"):
        (Path(folder) / f"{name}.trace").write_text("\n".join(step.line for step in steps) + "\n")


@asynccontextmanager
async def traced(pid: int, to_file: Path) -> AsyncIterator[None]:
    """Trace every thread of a process; skips the test where that is not possible."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is missing")
    command = (
        strace,
        "-f",
        "-y",
        "-ttt",
        "-s",
        "4096",
        "-e",
        f"trace={CALLS}",
        "-o",
        to_file,
        "-p",
        str(pid),
    )
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    said = (await process.stderr.readline()).decode()
    if "attached" not in said:
        await process.wait()
        pytest.skip(f"strace may not look at the server: {said.strip()}")
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        await process.communicate()


async def trace_of_one_webhook(folder: Path, fsync: str) -> str:
    """Have one webhook accepted by an ingest on a server of its own; return what the server did."""
    server = Valkey(
        folder / "data", folder / "v.s", folder / "v.log", maxmemory="64mb", options={"appendfsync": fsync}
    )
    trace = folder / "trace"
    try:
        await asyncio.to_thread(server.start)
        async with site(f"unix://{folder}/v.s") as at:
            first = await at.say(to(ANN, event(ANN.session, number=1)))  # has the script loaded
            assert first.status == 200
            async with traced(server.pid, trace):
                number = int(MARK.removeprefix("evt_"))
                reply = await at.say(to(ANN, event(ANN.session, number=number)))
                assert reply.status == 200
                await wait_for(lambda: answered(trace))
        return trace.read_text()
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_webhook_is_on_the_disk_before_redis_answers(tmp_path: Path) -> None:
    trace = await trace_of_one_webhook(tmp_path, "always")
    assert order(trace, MARK) == ["read", "append", "sync", "reply"]
    keep(way(trace, MARK), "server")


async def test_the_trace_tells_a_server_that_answers_first(tmp_path: Path) -> None:
    trace = await trace_of_one_webhook(tmp_path, "everysec")
    assert order(trace, MARK) == ["read", "append", "reply"]


async def test_what_a_replica_confirms_is_on_its_disk_before(tmp_path: Path) -> None:
    port = str(free_port())
    first, second = (
        Valkey(
            tmp_path / name,
            tmp_path / f"{name}.s",
            tmp_path / f"{name}.log",
            maxmemory="64mb",
            options=options,
        )
        for name, options in (
            ("first", {"port": port, "bind": "127.0.0.1", "repl-diskless-sync-delay": "0"}),
            ("second", {"replicaof": f"127.0.0.1 {port}"}),
        )
    )
    trace = tmp_path / "trace"
    try:
        for server in (first, second):
            await asyncio.to_thread(server.start)
        async with opened(f"unix://{tmp_path}/first.s", wait_replicas=1, wait_seconds=5) as (handover, redis):

            async def followed() -> bool:
                return bool((await redis.role())[2])

            await wait_for(followed)
            await handover.accept(offers(b"1"))
            async with traced(second.pid, trace):
                await handover.accept(offers(MARK.encode()))
                await wait_for(lambda: answered(trace))
        found = way(trace.read_text(), MARK)
        assert order(trace.read_text(), MARK) == ["read", "append", "sync", "reply"]
        assert "REPLCONF" in found[-1].line
        keep(found, "replica")
    finally:
        for server in (second, first):
            await asyncio.to_thread(server.stop)
