"""Functions that block, in threads, and what ends them before their time.

Python can raise in another thread, which happens when that next runs Python: a call that blocks outside of
it is not broken. A coroutine is cancelled.
"""

import asyncio
import concurrent.futures
import contextlib
import ctypes
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rq.timeouts import BaseDeathPenalty, BaseTimeoutException

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that blocks in a thread that no end of the process waits for."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, exc: BaseException | None) -> None:
        if answer.done():
            return
        if exc is not None:
            answer.set_exception(exc)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, fault = None, None
        try:
            result = function(*arguments)
        except BaseException as exc:  # noqa: BLE001 (raised again where it is awaited)
            fault = exc
        with contextlib.suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(tell, result, fault)

    threading.Thread(target=run, name=f"wsm-{function.__name__}", daemon=True).start()
    return await answer


class JobStopped(BaseTimeoutException):
    """Somebody asked for the job's end."""


class HandedBack(BaseTimeoutException):
    """The worker ends before the job does; another one will begin it again."""


class Deadline(BaseDeathPenalty):
    """What may end a function before its time, in any thread: a timer, or `strike`.

    RQ's own class for threads writes its message into the exception's class, which all threads share, and may
    still strike after its end.
    """

    def __init__(self, timeout: float, exception: type[Exception], **_: object) -> None:
        super().__init__(timeout, exception)  # type: ignore[no-untyped-call]
        self._thread_id = threading.get_ident()
        self._lock = threading.Lock()
        self._is_open = False
        self._struck: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._timer: threading.Timer | None = None

    def setup_death_penalty(self) -> None:
        self._is_open = True
        if self._timeout > 0:
            exc = self._exception(f"Task exceeded maximum timeout value ({self._timeout} seconds)")
            self._timer = threading.Timer(self._timeout, self.strike, [exc])
            self._timer.daemon = True
            self._timer.start()

    def cancel_death_penalty(self) -> None:
        with self._lock:
            self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        threading.current_thread()  # a call into Python: what was struck is raised here at the latest

    def strike(self, exc: Exception) -> bool:
        """End the function with `exc`, once; False when it has ended. From any thread."""
        with self._lock:
            if not self._is_open or self._struck:
                return self._is_open
            self._struck = exc
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._cancel)
            else:
                _raise_in(self._thread_id, exc)
        return True

    def wait_for(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Any:
        """Run a coroutine on `loop` and return its result; when struck, after it has cleaned up."""
        with self._lock:
            self._loop = loop
        try:
            return asyncio.run_coroutine_threadsafe(self._on_loop(coroutine), loop).result()
        except concurrent.futures.CancelledError:
            if self._struck is None:
                raise
            raise self._struck from None
        finally:
            with self._lock:
                self._loop = self._task = None

    async def _on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        self._task = asyncio.current_task()
        if self._struck is not None:
            self._cancel()
        try:
            return await coroutine
        except (KeyboardInterrupt, SystemExit) as exc:  # would end the loop of all
            raise RuntimeError(f"{type(exc).__name__} in a coroutine") from exc

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _raise_in(thread_id: int, exc: Exception) -> None:
    """Raise in another thread. Python takes a class for that, so one is made that has the text in it."""

    def init(self: Exception) -> None:
        Exception.__init__(self, *exc.args)

    kind = type(exc)
    carrier = type(kind.__name__, (kind,), {"__init__": init, "__module__": kind.__module__})
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(carrier))
