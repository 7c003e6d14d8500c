"""Wait for a state that others bring about: the only place in the tests where time passes on purpose."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")
POLL_SECONDS = 0.01
_ASKED_SECONDS = 0.04
_SHARE = 0.1
"""A server that was asked for long is asked less often, for it costs both; the wait is longer by a tenth at
most. What lies in memory is looked at as often as ever, for a state may pass."""


@overload
async def wait_for(predicate: Callable[[], Awaitable[T]], timeout: float = ...) -> T: ...  # noqa: ASYNC109
@overload
async def wait_for(predicate: Callable[[], T], timeout: float = ...) -> T: ...  # noqa: ASYNC109
async def wait_for(predicate: Callable[[], Any], timeout: float = 10.0) -> Any:  # noqa: ASYNC109
    """Call `predicate` (it may be async) until it returns something true, and return that.

    Fails the test after `timeout` seconds with the last value seen.
    """
    began = time.monotonic()
    while True:
        answer = predicate()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        waited = time.monotonic() - began
        assert waited < timeout, f"still {value!r} after {timeout} s"
        rarest = _ASKED_SECONDS if inspect.isawaitable(answer) else POLL_SECONDS
        await asyncio.sleep(min(max(waited * _SHARE, POLL_SECONDS), rarest))


def wait_for_blocking(predicate: Callable[[], T], timeout: float = 10.0) -> T:
    """Do the same outside an event loop."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"still {value!r} after {timeout} s"
        time.sleep(POLL_SECONDS)  # noqa: TID251 (this is that wait_for)
    return value
