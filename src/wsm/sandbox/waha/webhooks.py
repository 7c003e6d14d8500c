"""Outgoing webhooks, with every habit of WAHA's.

Each event is a POST of its own for each subscribed URL: no queue, no order, no limit, no client time-out.
Everything that does not end in a 2xx is tried again, byte for byte; redirects are followed, and a 301 or 302
turns into a GET without body whose 200 counts as delivered. What is pending lives in memory only.
"""

import asyncio
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

import httpx
import msgspec

from wsm.sandbox.waha import asgi, bodies, ids
from wsm.sandbox.waha.state import Session, World
from wsm.wire.signature import sign

EVENTS: Final = frozenset({
    "session.status", "message", "message.any", "message.reaction", "message.ack", "message.ack.group",
    "message.waiting", "message.revoked", "message.edited", "group.v2.join", "group.v2.leave",
    "group.v2.update", "group.v2.participants", "presence.update", "poll.vote", "poll.vote.failed",
    "chat.archive", "call.received", "call.accepted", "call.rejected", "label.upsert", "label.deleted",
    "label.chat.added", "label.chat.deleted", "event.response", "event.response.failed", "engine.event",
    "group.join", "group.leave", "state.change",
})  # fmt: skip
_NOT_WILD: Final = frozenset({"state.change", "engine.event"})
_KEPT_DELIVERIES: Final = 10_000
_OK: Final = range(200, 300)
_CLIENTS: Final = 8
"""A pool of httpx looks at all its connections at every turn: 200 deliveries at once cost 5 ms of CPU each in
one pool and 1.4 ms in eight."""


class Policy(StrEnum):
    """How the delay grows from attempt to attempt."""

    CONSTANT = "constant"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"

    def delay(self, seconds: float, attempt: int) -> float:
        """Return the delay after the attempt numbered from 1; exponential ones have up to 20 % more."""
        if self is Policy.CONSTANT:
            return seconds
        if self is Policy.LINEAR:
            return seconds * attempt
        return float(seconds * 2**attempt * (1 + secrets.randbelow(200) / 1000))


class Retries(msgspec.Struct, frozen=True, rename="camel"):
    """`retries` of a webhook. `attempts` counts what follows the first one."""

    policy: Policy = Policy.CONSTANT
    delay_seconds: float = 2.0
    attempts: int = 15


class Hmac(msgspec.Struct, frozen=True):
    """`hmac` of a webhook; without a key nothing is signed."""

    key: str | None = None


class CustomHeader(msgspec.Struct, frozen=True):
    """One of `customHeaders`."""

    name: str
    value: str


class Webhook(msgspec.Struct, frozen=True, rename="camel"):
    """One webhook as a session's configuration, or WAHA's environment, has it."""

    url: str
    events: list[str]
    hmac: Hmac | None = None
    retries: Retries | None = None
    custom_headers: list[CustomHeader] | None = None

    def wants(self, event: str) -> bool:
        """Whether it is subscribed; `*` is all but two."""
        return event in self.events or ("*" in self.events and event not in _NOT_WILD)


class State(StrEnum):
    """Where a delivery is. `lost`: it was pending when the process was killed."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    LOST = "lost"


class Delivery(msgspec.Struct):
    """One event on its way to one URL. answers: per attempt the status, or the name of the error."""

    id: str
    event: str
    session: str
    url: str
    request_id: str
    message: str | None
    created_at_ms: int
    state: State = State.PENDING
    answers: list[int | str] = []


class Attempt(msgspec.Struct, frozen=True):
    """One POST of a delivery. began, ended: by the monotonic clock; answer as in `Delivery.answers`."""

    delivery: Delivery
    body: bytes
    began: float
    ended: float
    answer: int | str


def unwatched(_attempt: Attempt) -> None:
    """Look away."""


class Courier:
    """Makes webhooks of events and carries them. watch: is told of every attempt when it has ended."""

    def __init__(self, world: World, global_webhooks: Iterable[dict[str, Any]] = ()) -> None:
        self._world = world
        self.make_global(global_webhooks)
        self._clients: list[httpx.AsyncClient] = []
        self._turns = itertools.count()
        self.log: deque[Delivery] = deque(maxlen=_KEPT_DELIVERIES)
        self.watch: Callable[[Attempt], None] = unwatched

    def make_global(self, webhooks: Iterable[dict[str, Any]]) -> None:
        """Tell these for every session, beside each session's own."""
        self._global = msgspec.convert(list(webhooks), list[Webhook])

    def open(self) -> None:
        """Be ready to post."""
        self._clients = [_client(self._world.version) for _ in range(_CLIENTS)]

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients:
            await client.aclose()
        self._clients = []

    @property
    def pending(self) -> int:
        """How many deliveries are under way or waiting for their next attempt."""
        return sum(delivery.state is State.PENDING for delivery in self.log)

    def emit(self, session: Session, event: str, payload: bodies.Json, *, copies: int = 1) -> None:
        """Tell everybody who subscribed, in the background. copies: deliveries of the identical request."""
        self.emit_all(session, [event], payload, copies=copies)

    def emit_all(
        self, session: Session, events: Sequence[str], payload: bodies.Json, *, copies: int = 1
    ) -> None:
        """Tell of one thing under several names: one id for all of them, but in the browser engines."""
        session.activity_ms = self._world.now_ms()
        shared = ids.event_id()
        for event in events:
            own = ids.event_id() if self._world.engine.in_browser else shared
            body = bodies.envelope(self._world, session, event, payload, event_id=own)
            for webhook in self.webhooks(session):
                if webhook.wants(event):
                    self._send(webhook, body, copies)

    def webhooks(self, session: Session) -> list[Webhook]:
        """Return the session's webhooks and the global ones; a URL in both is told twice."""
        return [*msgspec.convert(session.setting("webhooks") or [], list[Webhook]), *self._global]

    async def forge(self, webhook: Webhook, body: bytes, signatures: Sequence[bytes]) -> httpx.Response:
        """Post a body that WAHA never made, once. Raises httpx.HTTPError."""
        headers = [("Content-Type", "application/json"), ("X-Webhook-Request-Id", ids.request_id())]
        signed = [(b"X-Webhook-Hmac", signature) for signature in signatures]
        raw = [(name.encode(), value.encode()) for name, value in headers]
        return await self._post(webhook.url, body, raw + signed)

    def lose(self) -> None:
        """Mark what is pending as lost, after its chores were cancelled."""
        for delivery in self.log:
            if delivery.state is State.PENDING:
                delivery.state = State.LOST

    async def _post(
        self, url: str, body: bytes, headers: Sequence[tuple[str, str]] | Sequence[tuple[bytes, bytes]]
    ) -> httpx.Response:
        client = self._clients[next(self._turns) % _CLIENTS]
        return await client.post(url, content=body, headers=headers)

    def _send(self, webhook: Webhook, body: bodies.Json, copies: int) -> None:
        encoded = asgi.encode(body)
        delivery = Delivery(
            id=body["id"],
            event=body["event"],
            session=body["session"],
            url=webhook.url,
            request_id=ids.request_id(),
            message=_message_of(body["payload"]),
            created_at_ms=body["timestamp"],
        )
        headers = _headers(webhook, delivery, encoded)
        for copy in range(copies):
            carried = delivery if copy == 0 else msgspec.structs.replace(delivery, answers=[])
            self.log.append(carried)
            self._world.chores.spawn(self._carry(webhook, carried, encoded, headers))

    async def _carry(
        self, webhook: Webhook, delivery: Delivery, body: bytes, headers: list[tuple[str, str]]
    ) -> None:
        retries = webhook.retries or Retries()
        for attempt in range(1, retries.attempts + 2):
            at_least, began = 0.0, time.monotonic()
            answer: int | str
            try:
                response = await self._post(webhook.url, body, headers)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                answer = type(exc).__name__
            else:
                answer = response.status_code
                at_least = _retry_after(response)
            delivery.answers.append(answer)
            self.watch(Attempt(delivery, body, began, time.monotonic(), answer))
            if answer in _OK:
                delivery.state = State.DELIVERED
                return
            if attempt <= retries.attempts:
                delay = max(at_least, retries.policy.delay(retries.delay_seconds, attempt))
                await asyncio.sleep(delay * self._world.tempo.retries)
        delivery.state = State.GIVEN_UP


def check(config: Any) -> str | None:
    """Return what WAHA's validation says against a session's configuration, or None."""
    if config is None:
        return None
    if not isinstance(config, dict):
        return "config must be an object"
    try:
        webhooks = msgspec.convert(config.get("webhooks") or [], list[Webhook])
    except msgspec.ValidationError as exc:
        return f"config.webhooks: {exc}"
    for number, webhook in enumerate(webhooks):
        if not webhook.url.startswith(("http://", "https://")):
            return f"config.webhooks.{number}.url must be a URL address"
        for event in webhook.events:
            if event != "*" and event not in EVENTS:
                return f"config.webhooks.{number}.each value in events must be one of the known events"
    return None


def _client(version: str) -> httpx.AsyncClient:
    """Make a client as axios is: patient, trusting, following redirects, idle sockets kept for 4 s."""
    return httpx.AsyncClient(
        headers={
            "Accept": "application/json, text/plain, */*",
            "User-Agent": f"WAHA/{version}",
            "Accept-Encoding": "gzip, deflate",
        },
        timeout=None,  # noqa: S113 (WAHA has none)
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=4.0),
        follow_redirects=True,
        verify=False,  # noqa: S501 (WAHA does not verify)
        trust_env=False,
    )


def _headers(webhook: Webhook, delivery: Delivery, body: bytes) -> list[tuple[str, str]]:
    headers = [("Content-Type", "application/json")]
    headers += [(header.name, header.value) for header in webhook.custom_headers or []]
    headers += [
        ("X-Webhook-Request-Id", delivery.request_id),
        ("X-Webhook-Timestamp", str(delivery.created_at_ms)),
    ]
    if webhook.hmac and webhook.hmac.key:
        headers += [
            ("X-Webhook-Hmac", sign(webhook.hmac.key, body)),
            ("X-Webhook-Hmac-Algorithm", "sha512"),
        ]
    return headers


def _message_of(payload: bodies.Json) -> str | None:
    full = payload.get("id")
    return ids.bare_of(full) if isinstance(full, str) else None


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that a `Retry-After` asks for: a number, a date, or nothing."""
    text = response.headers.get("retry-after", "")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
