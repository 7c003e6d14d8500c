"""The webhooks' service: routes, the order of the checks, and the one table of answers.

    POST /webhooks/waha/{tenant_id}/{session}    signed with that session's secret
    POST /webhooks/waha[?server={id}]            signed with the secret of that server's shared hook
    GET  /healthz, /readyz, /metrics             the ops app's

In this order: size (413), signature over the raw bytes (403), form (400), whose it is (403), append. A
request fails at the first that does not hold, and nothing after it was looked at. 200 is written after the
append is durable. Never a redirect: WAHA follows one without the body and takes its answer for the end.
"""

import re
import time
from collections.abc import Callable
from functools import cache, partial
from urllib.parse import parse_qsl

import msgspec
from prometheus_client import Counter

from wsm import telemetry
from wsm.core.errors import (
    BadInput,
    Forbidden,
    MailboxFull,
    NotFound,
    Refused,
    StreamsUnavailable,
    TooLarge,
    Unavailable,
    WsmError,
)
from wsm.core.ids import ServerName, SessionAddress, SessionName, TenantId
from wsm.ingest.batch import Item, Settle
from wsm.ingest.doors import Door, Doors
from wsm.ingest.exchange import Answer, Request
from wsm.ingest.ops import OPS_PATHS, Ops
from wsm.ingest.security import NO_PROXIES, RefusalLog, TrustedProxies
from wsm.streams.handover import Misfit
from wsm.wire import waha


class WrongMethod(Refused):
    """The path exists, the method does not."""


STATUS: dict[type[WsmError], int] = {
    BadInput: 400,
    Forbidden: 403,
    NotFound: 404,
    WrongMethod: 405,
    TooLarge: 413,
    Unavailable: 503,
}
"""What each class of error is answered with; a class that is not here has the answer of its base."""

_HOOK = b"/webhooks/waha"
_SESSION = re.compile(rb"/webhooks/waha/([1-9][0-9]{0,18})/([A-Za-z0-9_-]{1,54})\Z")
_MOST_FIELDS = 16
_UNSAID = {"session_unknown": "signature_mismatch", "server_unknown": "signature_mismatch"}
"""Reasons that are in the log and the counter, while the answer does not tell who exists."""
_WORDS: dict[type[WsmError], str] = {
    BadInput: "bad_input",
    NotFound: "not_found",
    WrongMethod: "wrong_method",
    TooLarge: "too_large",
    StreamsUnavailable: "streams_away",
}
"""The word of a class whose text is not a word already."""


def _json(status: int, fields: dict[str, str], *headers: bytes) -> Answer:
    return Answer(status, msgspec.json.encode(fields), *headers)


_ACCEPTED = _json(200, {"status": "accepted"})
_QUARANTINED = _json(200, {"status": "quarantined"})


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Ingest:
    """The service.

    submit         appends one item and tells when it is durable (`Batcher.submit`)
    ops            answers `OPS_PATHS`
    proxies        whose X-Forwarded-For is believed
    retry_after_seconds  what a 503 asks for; WAHA waits at least that long before each of its 15 repeats
    clock          milliseconds since 1970: the arrival that an entry bears
    """

    def __init__(
        self,
        *,
        doors: Doors,
        submit: Callable[[Item, Settle], None],
        refusals: RefusalLog,
        ops: Ops,
        proxies: TrustedProxies = NO_PROXIES,
        retry_after_seconds: int = 20,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._doors = doors
        self._submit = submit
        self._refusals = refusals
        self._ops = ops
        self._proxies = proxies
        self._retry_after = b"retry-after: %d" % retry_after_seconds
        self._clock = clock

    def begins(self, request: Request) -> None:
        """Refuse what no route takes: NotFound, WrongMethod."""
        if request.path in OPS_PATHS:
            self._ops.begins(request)
            return
        request.route = _SESSION.match(request.path)
        if request.route is None and request.path != _HOOK:
            raise NotFound("path")
        if request.method != b"POST":
            raise WrongMethod("method")

    def ends(self, request: Request) -> None:
        """Take one webhook. Raises what `STATUS` answers."""
        if request.path in OPS_PATHS:
            self._ops.ends(request)
            return
        body = request.body or b""
        door = self._door(request)
        request.known = door.known
        door.verify(request.values(b"x-webhook-hmac"), request.values(b"x-webhook-hmac-algorithm"), body)
        item = door.place(waha.head(body), body, self._clock())
        if isinstance(item, Misfit):
            self._submit(item, partial(self._settle, request, _QUARANTINED))
            return
        request.known = SessionAddress(item.tenant, item.session)
        self._submit(item, partial(self._settle, request, _ACCEPTED))

    def refuse(self, request: Request, exc: WsmError) -> Answer:
        """Turn an error into its answer, its count and, within the limits of the log, its line."""
        status = STATUS.get(type(exc)) or next(STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS)
        reason = _reason(exc)
        result = "unavailable" if isinstance(exc, Unavailable) else "refused"
        for counter in _counters(result, reason):
            counter.inc()
        self._refusals.note(
            status=status,
            reason=reason,
            address=self._proxies.client(request.peer, request.values(b"x-forwarded-for")),
            known=request.known,
            detail=str(exc) if isinstance(exc, StreamsUnavailable | BadInput) else None,
        )
        if isinstance(exc, BadInput):
            return _json(status, {"error": reason, "field": exc.field, "reason": exc.reason})
        if isinstance(exc, Unavailable):
            return _refusal(status, result, reason, self._retry_after)
        if isinstance(exc, WrongMethod):
            return _refusal(status, result, reason, b"allow: POST")
        return _refusal(status, result, reason)

    def _door(self, request: Request) -> Door:
        """Find what the path names. The raw path: no escapes, no dots."""
        named = request.route
        if named is None:
            return self._doors.of_hook(_server(request.query))
        address = SessionAddress(TenantId(int(named[1])), SessionName(named[2].decode()))
        return self._doors.of_session(address)

    @staticmethod
    def _settle(request: Request, answer: Answer, failure: Unavailable | None) -> None:
        """Answer a webhook whose append is known to be durable, or is not."""
        if failure is None:
            request.answer(answer)
        else:
            request.refuse(failure)


@cache
def _refusal(status: int, result: str, reason: str, *headers: bytes) -> Answer:
    """Write the answer of a word. It is asked for most when there is least time; the words are few."""
    return _json(status, {"error": result, "reason": _UNSAID.get(reason, reason)}, *headers)


@cache
def _counters(result: str, reason: str) -> tuple[Counter, Counter]:
    return telemetry.INGEST_REQUESTS.labels(result), telemetry.INGEST_REFUSED.labels(reason)


def _reason(exc: WsmError) -> str:
    """One word of a closed list, fit for a label."""
    match exc:
        case Forbidden():
            return exc.reason
        case MailboxFull():
            return f"mailbox_full_{exc.scope}"
    return next((_WORDS[kind] for kind in type(exc).__mro__ if kind in _WORDS), str(exc))


def _server(query: bytes) -> ServerName | None:
    """Read `server` off the query; None without one. Said twice, it names a server that cannot exist."""
    if not query:
        return None
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return ServerName("")
    named = [value for name, value in fields if name == "server"]
    if not named:
        return None
    return ServerName(named[0] if len(named) == 1 else "")
