"""What the tests' ordinary jobs do, by import path; what happened stands in a list in Redis."""

import asyncio
import sys
import threading
from typing import Any

from redis import Redis
from rq import Retry, get_current_job
from rq.job import Job

TOLD = "test:told"
GATE = "test:gate"

_forever = threading.Event()
_blocked = [threading.Event()]


def _connected(url: str) -> Any:
    return Redis.from_url(url, socket_timeout=None)


def _here() -> Any:
    job = get_current_job()
    assert job is not None
    return job.connection


def told(connection: Any) -> list[str]:
    """What the chores have told, in order."""
    return [word.decode() for word in connection.lrange(TOLD, 0, -1)]


def tell(word: str) -> str:
    """Tell a word, and return it."""
    _here().rpush(TOLD, word)
    return word


def add(one: int, two: int = 0) -> int:
    """Return a sum."""
    return one + two


def nothing() -> None:
    """Return nothing."""


def thread_name() -> str:
    """Return the thread's name."""
    return threading.current_thread().name


def fail(text: str = "boom") -> None:
    """Fail, and tell of it."""
    _here().rpush(TOLD, "failed")
    raise ValueError(text)


def fail_times(times: int) -> int:
    """Fail so many times, then return how often it was called."""
    calls: int = _here().incr("test:calls")
    if calls <= times:
        raise ValueError("not yet")
    return calls


def ask_again() -> Any:
    """Ask for another try by the result, once."""
    calls: int = _here().incr("test:calls")
    return Retry(max=3) if calls == 1 else calls


def unwritable() -> object:
    """Return what JSON cannot say."""
    return object()


def leave() -> None:
    """Try to end the process."""
    sys.exit(3)


async def aleave() -> None:
    """The same, as a coroutine."""
    sys.exit(3)


async def aadd(one: int, two: int) -> int:
    """Return a sum, later."""
    await asyncio.sleep(0)
    return one + two


async def loop_id() -> int:
    """Return which loop it runs on."""
    return id(asyncio.get_running_loop())


async def afail() -> None:
    """Fail, later."""
    await asyncio.sleep(0)
    raise ValueError("later")


def spin(url: str, word: str = "spinning") -> None:
    """Run Python until somebody ends it."""
    with _connected(url) as connection:
        connection.rpush(TOLD, word)
    while True:
        _forever.wait(0.01)


async def await_for_ever(url: str) -> None:
    """Wait until somebody ends it, and tell that it has cleaned up."""
    with _connected(url) as connection:
        try:
            connection.rpush(TOLD, "waiting")
            await asyncio.Event().wait()
        finally:
            connection.rpush(TOLD, "cleaned up")


def block() -> None:
    """Block outside of Python, where nothing that is raised arrives."""
    tell("blocking")
    _blocked[-1].wait()


def unblock() -> None:
    """Let go of everything that blocks in this process."""
    _blocked[-1].set()
    _blocked.append(threading.Event())


async def hold_loop(url: str, seconds: float) -> None:
    """Do what a coroutine should not: block its loop."""
    with _connected(url) as connection:
        connection.rpush(TOLD, "holding")
        connection.blpop([GATE], seconds)


def through_gate(url: str) -> str:
    """Wait for somebody to open the gate."""
    with _connected(url) as connection:
        connection.rpush(TOLD, "at the gate")
        connection.blpop([GATE], 30)
    return "through"


def on_success(job: Job, connection: Any, result: Any, *_: Any) -> None:
    connection.rpush(TOLD, f"success {result}")


def on_failure(job: Job, connection: Any, kind: type, value: BaseException, _: Any) -> None:
    connection.rpush(TOLD, f"failure {kind.__name__}")


def on_stopped(job: Job, connection: Any) -> None:
    connection.rpush(TOLD, "stopped")


async def aon_success(job: Job, connection: Any, result: Any) -> None:
    await asyncio.sleep(0)
    connection.rpush(TOLD, f"async success {result}")


async def aon_failure(job: Job, connection: Any, kind: type, value: BaseException, _: Any) -> None:
    await asyncio.sleep(0)
    connection.rpush(TOLD, f"async failure {kind.__name__}")


async def aon_stopped(job: Job, connection: Any) -> None:
    await asyncio.sleep(0)
    connection.rpush(TOLD, "async stopped")


def raising_callback(*_: Any) -> None:
    raise RuntimeError("a call-back that raises")
