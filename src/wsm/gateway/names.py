"""Names of hosts that strangers chose, asked for in threads of their own.

The machine's resolver blocks, and asks a name server that does not answer for half a minute and more. Whose
name server that is, is the stranger's choice. The loop's own threads are six on a machine of two cores, and
every connection of the process that begins with a name needs one: so they are not used here.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from wsm.core.errors import BadInput, SourceUnavailable

_AT_ONCE = 32
_SECONDS = 10.0
_NO_SUCH_HOST = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class Resolver:
    """Asks the machine's resolver.

    at_once  so many names at most are being asked for, whether somebody still waits or not
    seconds  that anybody waits
    """

    def __init__(
        self,
        *,
        at_once: int = _AT_ONCE,
        seconds: float = _SECONDS,
        look_up: Callable[..., Sequence[Any]] = socket.getaddrinfo,
    ) -> None:
        self._at_once = at_once
        self._seconds = seconds
        self._look_up = look_up
        self._asked: dict[str, Future[Sequence[str]]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return a name's addresses, IPv4 first.

        Raises BadInput when there is no such host or it has none, SourceUnavailable when nobody says so in
        time or too many names are asked for already. A name that is being asked for is asked for once.
        """
        answer = self._asked.get(host) or self._ask(host, port)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            raise SourceUnavailable("media: nobody says in time which address its host has") from None
        except socket.gaierror as exc:
            if exc.errno in _NO_SUCH_HOST:
                raise BadInput("url", "its host does not exist") from exc
            raise SourceUnavailable("media: its host cannot be resolved") from exc

    def _ask(self, host: str, port: int) -> Future[Sequence[str]]:
        if len(self._asked) >= self._at_once:
            raise SourceUnavailable("media: too many hosts do not say which address they have")
        answer: Future[Sequence[str]] = Future()
        answer.set_running_or_notify_cancel()  # who stops waiting ends nothing
        self._asked[host] = answer
        # Not one of a pool: no end of the process waits for it.
        threading.Thread(
            target=self._answer, args=(host, port, answer), name="wsm-names", daemon=True
        ).start()
        return answer

    def _answer(self, host: str, port: int, answer: Future[Sequence[str]]) -> None:
        try:
            found = self._look_up(host, port, type=socket.SOCK_STREAM)
            addresses = [
                str(each[4][0]) for each in sorted(found, key=lambda each: each[0] is not socket.AF_INET)
            ]
        except BaseException as exc:  # noqa: BLE001 (raised again where it is awaited)
            del self._asked[host]
            answer.set_exception(exc)
        else:
            del self._asked[host]
            answer.set_result(addresses)
