"""Group commit of FINISH: bells that end while a call is out are settled together by the next one.

A call of its own for each bell was 7 tenths of the CPU of a worker whose turns do nothing, most of it in the
client: 173 µs a bell, and 52 in groups. One call is out at a time. A group that fails because of one of its
bells is settled again bell by bell, so that nobody suffers for another's; who was settled already then hears
that his bell is no longer his, which harms nothing.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from wsm.core.errors import StreamsUnavailable
from wsm.streams.scripts import Arguments
from wsm.telemetry import logger

log = logger("streams")

_MOST_BELLS = 128
_MOST_VALUES = 4000
"""Of a call, except that one bell always goes: it holds up Redis for some milliseconds at most."""

Call = Callable[[int | None, Sequence[Arguments]], Awaitable[Sequence[bool]]]


class _Waiting(msgspec.Struct):
    """A bell's values, the time it is settled at, and who waits for it."""

    now_ms: int | None
    bell: Arguments
    reply: asyncio.Future[bool]


class Finishing:
    """Collects bells and hands them to `call`, which answers for each whether it was still the caller's."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._queue: deque[_Waiting] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def settle(self, now_ms: int | None, bell: Arguments) -> bool:
        """Settle one bell with whatever others end now. Raises what the call raises.

        To cancel the wait takes nothing back: the bell is settled all the same.
        """
        waiting = _Waiting(now_ms, bell, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._sending is None or self._sending.done():
            # It begins in the loop's next turn: who ends in this one is still in the group.
            self._sending = asyncio.create_task(self._send_all())
        return await waiting.reply

    async def _send_all(self) -> None:
        while self._queue:
            await self._send(self._take())

    def _take(self) -> list[_Waiting]:
        """Take the next group off the queue: bells that are settled at one time."""
        group = [self._queue.popleft()]
        values = len(group[0].bell)
        while self._queue and len(group) < _MOST_BELLS and self._queue[0].now_ms == group[0].now_ms:
            values += len(self._queue[0].bell)
            if values > _MOST_VALUES:
                break
            group.append(self._queue.popleft())
        return group

    async def _send(self, group: Sequence[_Waiting]) -> None:
        """Settle a group and give everyone his answer."""
        try:
            answers = await self._call(group[0].now_ms, [waiting.bell for waiting in group])
        except StreamsUnavailable as exc:
            for waiting in group:
                _fail(waiting, StreamsUnavailable(str(exc)))
        except Exception as exc:  # a bug is its bell's, and told where that bell is seen to
            if len(group) == 1:
                _fail(group[0], exc)
            else:
                log.exception("finish_apart", bells=len(group))
                for waiting in group:
                    await self._send([waiting])
        else:
            for waiting, answer in zip(group, answers, strict=True):
                if not waiting.reply.done():
                    waiting.reply.set_result(answer)


def _fail(waiting: _Waiting, exc: Exception) -> None:
    if not waiting.reply.done():
        waiting.reply.set_exception(exc)
