"""A WAHA as wsm meets it: so many calls at once, none while it does not answer, and what its answers mean.

A call ends in an answer or in one of three errors, whose texts are fit for a log: WAHA repeats our requests
in its errors, with the text of the message and every secret, so nothing of a body is ever passed on.

    GatewayRefused      4xx, 501, and WhatsApp's own no (463, 429): nothing was done
    GatewayUnavailable  no connection, no free slot, circuit open, redirect, session not working: nothing was
                        done; and all of the next line for a call that changes nothing
    OutcomeUnknown      time-out, broken connection, 5xx, unreadable answer
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from wsm.core.errors import GatewayRefused, GatewayUnavailable, OutcomeUnknown, WsmError
from wsm.core.ids import ServerName
from wsm.gateway import answers
from wsm.gateway.breaker import Breaker, Signal
from wsm.gateway.client import CONNECT_SECONDS
from wsm.telemetry import GATEWAY_REQUESTS, GATEWAY_SECONDS, logger
from wsm.wire import waha

log = logger("gateway")

_ANSWER_BYTES = 16 * 1024 * 1024
_SLOT_SECONDS = 1.0
_HUNG_SECONDS = 5.0
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_WHATSAPP_REFUSED = frozenset({"reachout_timelock", "rate_limited"})
"""Inside of a 500: WhatsApp's own no, to the message itself or before it was made."""
_NOT_IMPLEMENTED = 501
_GATEWAY_ERRORS = frozenset({502, 503, 504})


class Transient(GatewayUnavailable):
    """It was not reached, or did not answer well, just now: a call that changes nothing may be repeated."""


class NotReached(Transient):
    """There was no connection: of the gateway's making, or of the exit's where one lies between."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call. op: its name in the metrics. changes: whether doing it twice, or half, would matter."""

    op: str
    method: str
    path: str
    seconds: float
    changes: bool
    query: dict[str, str] = {}
    body: dict[str, Any] | None = None
    accept: str = "application/json"


class Answer(msgspec.Struct, frozen=True):
    """A 2xx answer."""

    content: bytes

    def json(self) -> object:
        """Decode it; None when it is not JSON, which is no fact either."""
        return waha.decoded(self.content)


class Server:
    """One WAHA. Shared by all its sessions.

    concurrent_calls  so many at once; another one waits a second for a slot, then it is unavailable. While
                      none has ended for five seconds it is so at once: waiting would cost its caller's place

    From the start of `ask` to the first byte on the wire pass at most 6 s (slot, connection).
    """

    def __init__(
        self, name: ServerName, *, concurrent_calls: int = 64, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrent_calls)
        self._breaker = Breaker(clock=clock)
        self._ended_at = clock()

    async def ask(self, client: httpx.AsyncClient, call: Call, *, has_exit: bool = False) -> Answer:
        """Make a call through a session's client. Blocks for the call's time and 6 s at most.

        has_exit  an exit lies between: if nothing is reached through it, that says nothing of the gateway
        """
        started = self._clock()
        result = "cancelled"
        try:
            answer = await self._admitted(client, call, has_exit=has_exit)
            result = "ok"
        except WsmError as exc:
            result = next(word for kind, word in _RESULTS if isinstance(exc, kind))
            raise
        finally:
            GATEWAY_REQUESTS.labels(call.op, result).inc()
            GATEWAY_SECONDS.labels(call.op).observe(self._clock() - started)
        return answer

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        hangs = self._slots.locked() and self._clock() - self._ended_at > _HUNG_SECONDS
        try:
            async with asyncio.timeout(0 if hangs else _SLOT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise GatewayUnavailable("too many calls at once") from None
        try:
            yield
        finally:
            self._ended_at = self._clock()
            self._slots.release()

    async def _admitted(self, client: httpx.AsyncClient, call: Call, *, has_exit: bool) -> Answer:
        """Ask if the breaker lets it through, and report to the breaker whatever happens."""
        before = self._breaker.circuit
        if not self._breaker.admits():
            raise GatewayUnavailable("the gateway does not answer")
        signal = Signal.ABANDONED
        try:
            async with self._slot():
                status, headers, content = await _exchange(client, call)
            signal = Signal.FAILED if status in _GATEWAY_ERRORS else Signal.ANSWERED
        except (Transient, OutcomeUnknown) as exc:
            if not (has_exit and isinstance(exc, NotReached)):
                signal = Signal.FAILED
            raise
        finally:
            self._breaker.tell(signal)
            if self._breaker.circuit is not before:
                log.warning("gateway_circuit", server=self.name, before=before, now=self._breaker.circuit)
        return _judged(call, status, headers, content)


class _Departure:
    """Whether a request is on its way: not before there is a connection, with TLS and through an exit.

    limit  ends a call that has none after `CONNECT_SECONDS`; from the departure on, after the call's time
    """

    limit: asyncio.Timeout

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.is_over = False

    async def trace(self, event: str, about: dict[str, Any]) -> None:
        """Hear what httpcore does. What it asks an exit, CONNECT, is no request of ours."""
        if event == "http11.send_request_headers.started" and about["request"].method != b"CONNECT":
            self.is_over = True
            self.limit.reschedule(asyncio.get_running_loop().time() + self._seconds)


async def _exchange(client: httpx.AsyncClient, call: Call) -> tuple[int, httpx.Headers, bytes]:
    """Send and read: the status, the headers and the body, whatever they are."""
    limits = httpx.Timeout(call.seconds, connect=CONNECT_SECONDS)
    headers = {"Accept": call.accept}
    if call.body is not None:
        headers["Content-Type"] = "application/json"
    departure = _Departure(call.seconds)
    try:
        async with (
            asyncio.timeout(CONNECT_SECONDS) as departure.limit,
            client.stream(
                call.method,
                call.path,
                params=call.query,
                content=None if call.body is None else msgspec.json.encode(call.body),
                headers=headers,
                timeout=limits,
                extensions={"trace": departure.trace},
            ) as response,
        ):
            content = b""
            async for part in response.aiter_bytes():
                content += part
                if len(content) > _ANSWER_BYTES:
                    raise _uncertain(call, "answer too long")
    except _NO_CONNECTION as exc:
        raise NotReached(f"not reached: {type(exc).__name__}") from exc
    except (TimeoutError, httpx.HTTPError, ssl.SSLError) as exc:  # httpx lets what breaks TLS through
        if departure.is_over:
            raise _broken(call, exc) from exc
        raise NotReached(f"not reached: {type(exc).__name__}") from exc
    return response.status_code, response.headers, content


def _judged(call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """Say what an answer means."""
    answer = Answer(content)
    if httpx.codes.is_success(status):
        return answer
    if httpx.codes.is_redirect(status):
        raise GatewayUnavailable(f"gateway answered {status}: redirected")
    if status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        raise GatewayUnavailable("the exit refuses the password")
    refusal = answer.json()
    reason = answers.reason(status, refusal)
    if reason == "session_not_working":
        raise GatewayUnavailable(f"gateway answered {status}: {reason}")
    if httpx.codes.is_client_error(status) or status == _NOT_IMPLEMENTED or reason in _WHATSAPP_REFUSED:
        raise GatewayRefused(
            status,
            reason,
            retry_after_seconds=answers.seconds_to_wait(headers),
            until=answers.until(refusal),
        )
    raise _uncertain(call, f"gateway answered {status}: {reason}")


def _broken(call: Call, exc: Exception) -> OutcomeUnknown | Transient:
    if isinstance(exc, TimeoutError | httpx.TimeoutException):
        return _uncertain(call, "no answer in time")
    return _uncertain(call, f"connection broken: {type(exc).__name__}")


def _uncertain(call: Call, text: str) -> OutcomeUnknown | Transient:
    return OutcomeUnknown(text) if call.changes else Transient(text)


_RESULTS = ((GatewayRefused, "refused"), (GatewayUnavailable, "unavailable"), (WsmError, "unknown"))
