"""Work in the background that can be waited for, and dropped."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Chores:
    """Background work, of which most counts as unfinished business.

    A chore that raises is a bug of the sandbox: it is kept in `failures`, and stopping the sandbox raises it.
    """

    def __init__(self) -> None:
        self._all: set[asyncio.Task[Any]] = set()
        self._counted: set[asyncio.Task[Any]] = set()
        self.failures: list[BaseException] = []

    @property
    def unfinished(self) -> int:
        """How much counted work there is."""
        return len(self._counted)

    def spawn(self, work: Coroutine[Any, Any, T], *, counts: bool = True) -> asyncio.Task[T]:
        """Start it in the background."""
        task = asyncio.get_running_loop().create_task(work)
        self._all.add(task)
        if counts:
            self._counted.add(task)
        task.add_done_callback(self._done)
        return task

    async def idle(self, timeout_seconds: float) -> bool:
        """Wait until no counted work is left; False when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._counted:
                    await asyncio.wait(self._counted)
        except TimeoutError:
            return False
        return True

    async def cancel(self) -> None:
        """Drop everything where it stands, as SIGKILL does."""
        tasks = list(self._all)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._all.discard(task)
        self._counted.discard(task)
        if not task.cancelled() and (failure := task.exception()):
            self.failures.append(failure)
