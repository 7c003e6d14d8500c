"""The jobs that every contender runs: they do nothing, or wait, and then leave a mark.

A mark is one byte appended to the file that BENCH_PROGRESS names: a system call of about a microsecond, the
same for all, right from threads, tasks and forked processes. The harness reads progress off the file's size.
"""

import asyncio
import os
import time

WAIT_SECONDS = 0.2

_marks = (
    os.open(os.environ["BENCH_PROGRESS"], os.O_WRONLY | os.O_APPEND) if "BENCH_PROGRESS" in os.environ else -1
)


def empty() -> None:
    """Do nothing."""
    os.write(_marks, b".")


def take(_message: bytes) -> None:
    """Do nothing with a message."""
    os.write(_marks, b".")


def wait() -> None:
    """Wait as for a gateway, in a thread's or a process' own time."""
    time.sleep(WAIT_SECONDS)  # noqa: TID251 (the job is to sleep)
    os.write(_marks, b".")


async def wait_on_the_loop() -> None:
    """Wait as for a gateway, beside others."""
    await asyncio.sleep(WAIT_SECONDS)
    os.write(_marks, b".")
