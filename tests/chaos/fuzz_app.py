"""Input after input into the real ASGI app, and every answer held against what it has to be.

The app has real doors, a real directory and real verifiers. What it submits is recorded; of every tenth
block it goes through the real Batcher and Handover to a Valkey as well, and is read back from there. In
another tenth there is no room: small budgets, and a submit that says no.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from chaos.fuzz_bodies import SENT_MS
from chaos.fuzz_inputs import SESSIONS, Input, expected, make, tenant_of
from ingesting import BODY_LIMIT, HOOK_SECRETS, MASTER_KEYS, listed
from wsm.core.errors import BadInput, MailboxFull, StreamsUnavailable, Unavailable
from wsm.core.events import Origin
from wsm.core.ids import EntryId, ServerName, SessionName, TenantId
from wsm.ingest.app import Ingest
from wsm.ingest.batch import Batcher, Item
from wsm.ingest.directory import LiveDirectory
from wsm.ingest.doors import Doors
from wsm.ingest.guard import BodyBudget
from wsm.ingest.security import RefusalLog
from wsm.streams import keys
from wsm.streams.handover import Handover, Limits, Offer
from wsm.telemetry import ops_app
from wsm.wire import directory as published
from wsm.wire import waha

BLOCK = 200
_EVERY = 10
_STATED = {"bodies_in_flight", "mailbox_full_tenant", "mailbox_full_all", "streams_away", "queue_full"}
_SCARCITY: tuple[Callable[[], Unavailable], ...] = (
    lambda: MailboxFull("tenant"),
    lambda: MailboxFull("all"),
    lambda: StreamsUnavailable("as told"),
    lambda: Unavailable("queue_full"),
)


class Fault(AssertionError):
    """An input whose answer is wrong. `number` repeats it."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"input {number}: {what}")
        self.number = number


class Answer(msgspec.Struct):
    """What the app sent, as far as it came, and what it submitted."""

    starts: int = 0
    status: int = 0
    headers: dict[bytes, bytes] = {}
    body: bytes = b""
    is_complete: bool = False
    items: list[Item] = []


class Tally(msgspec.Struct):
    """What a run came to. kept: items that a Valkey gave back; events: what accepted bodies were read as."""

    inputs: int = 0
    accepted: int = 0
    kept: int = 0
    statuses: Counter[int] = msgspec.field(default_factory=Counter)
    events: Counter[str] = msgspec.field(default_factory=Counter)


async def _kept_nowhere(_item: Item) -> None:
    return None


class Bench:
    """The app, and what is true of every answer. `sample` is handed each accepted event of a session."""

    def __init__(self, seed: int, redis: Any, sample: Callable[[int, Offer], None]) -> None:
        self.tally = Tally()
        self._seed = seed
        self._redis = redis
        self._sample = sample
        self._directory = _directory()
        secrets = {ServerName(name): values for name, values in HOOK_SECRETS.items()}
        self._doors = Doors(self._directory, secrets)
        self._refusals = RefusalLog(lines=0)
        limits = Limits(1 << 20, 1 << 30, 1 << 30, 1 << 20)
        handover = Handover(redis, limits=limits, lease_seconds=4, turn_entries=200)
        self._accept = handover.accept

    async def block(self, first: int, size: int) -> None:
        """Give the app `size` inputs at once. Raises Fault."""
        await self._directory.refresh()
        index = first // BLOCK
        is_real, is_scarce = index % _EVERY == 0, index % _EVERY == 5
        bodies = BodyBudget(200_000 if is_scarce else 64 * 1024 * 1024)
        batcher = Batcher(self._accept, timeout_seconds=30)
        inputs = [make(self._seed, number) for number in range(first, first + size)]

        async def submit(number: int, item: Item) -> None:
            if is_scarce and number % 3 == 0:
                refuse = _SCARCITY[number % len(_SCARCITY)]
                raise refuse()
            if is_real:
                await batcher.submit(item)

        found = await asyncio.gather(
            *(self.say(given, partial(submit, number), bodies) for number, given in enumerate(inputs, first)),
            return_exceptions=True,
        )
        items: list[Item] = []
        for number, given, answer in zip(count(first), inputs, found, strict=False):
            if isinstance(answer, BaseException):
                raise Fault(number, f"escaped: {answer!r}") from answer
            if wrong := _wrong(given, answer, is_scarce=is_scarce):
                raise Fault(number, wrong)
            items += answer.items
            for item in answer.items:
                self._take(number, item)
            self.tally.statuses[answer.status] += 1
        if bodies.held_bytes:
            raise Fault(first, f"{bodies.held_bytes} bytes of bodies are still counted after the block")
        if is_real:
            await self._read_back(first, items)
        self.tally.inputs += size
        self.tally.accepted += len(items)

    async def say(
        self,
        given: Input,
        submit: Callable[[Item], Awaitable[None]] = _kept_nowhere,
        bodies: BodyBudget | None = None,
    ) -> Answer:
        """Give the app one input; whatever it raises comes out."""
        answer = Answer()

        async def submitted(item: Item) -> None:
            await submit(item)
            answer.items.append(item)

        app = Ingest(
            doors=self._doors,
            submit=submitted,
            bodies=bodies or BodyBudget(1 << 26),
            refusals=self._refusals,
            ops=ops_app(_all_is_well),
            body_limit_bytes=BODY_LIMIT,
            clock=lambda: SENT_MS,
        )
        chunks = iter(given.chunks)
        still = len(given.chunks)

        async def receive() -> dict[str, Any]:
            nonlocal still
            if len(given.chunks) > 1:
                await asyncio.sleep(0)
            chunk = next(chunks, None)
            if chunk is None:
                return {"type": "http.disconnect"}
            still -= 1
            return {"type": "http.request", "body": chunk, "more_body": still > 0 or given.left}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.starts += 1
                answer.status, answer.headers = message["status"], dict(message["headers"])
            else:
                answer.body += message.get("body", b"")
                answer.is_complete = not message.get("more_body", False)

        await app(_scope(given), receive, send)
        return answer

    def _take(self, number: int, item: Item) -> None:
        """Read an accepted body as a worker does."""
        session = item.session if isinstance(item, Offer) else "s"
        try:
            event = waha.read(
                item.body,
                tenant=TenantId(1),
                session=SessionName(session),
                origin=Origin.WAHA,
                entry=EntryId(f"{SENT_MS}-{number}"),
                received_at_ms=SENT_MS,
            )
        except BadInput as exc:
            raise Fault(number, f"accepted and not read: {exc}") from exc
        except Exception as exc:
            raise Fault(number, f"accepted, and its reader raised {exc!r}") from exc
        if not (0 < len(event.key) <= 400 and event.key.isascii() and "\0" not in event.key):
            raise Fault(number, f"its key is {event.key[:500]!r}")
        self.tally.events[type(event).__name__] += 1
        if isinstance(item, Offer):
            self._sample(number, item)

    async def _read_back(self, first: int, items: list[Item]) -> None:
        """Hold what was confirmed against what Valkey has; then empty it."""
        has: Counter[bytes] = Counter()
        names = [keys.QUARANTINE, *(keys.mailbox(address.tenant) for address in SESSIONS)]
        for name in names:
            for _, fields in await self._redis.xrange(name):
                has.update(fields.values())
        missing = Counter(item.body for item in items) - has
        if missing:
            raise Fault(first, f"{missing.total()} of {len(items)} confirmed are not in Valkey")
        self.tally.kept += len(items)
        await self._redis.flushdb()


def _wrong(given: Input, answer: Answer, *, is_scarce: bool) -> str | None:
    """Say what is wrong with an answer."""
    allowed = expected(given)
    if answer.status == 0:
        return f"no answer, expected {set(allowed)}" if allowed else None
    if answer.starts != 1 or not answer.is_complete or b"location" in answer.headers:
        return f"{answer.starts} answers, complete: {answer.is_complete}, {answer.headers}"
    if answer.status == 503 and is_scarce and given.method == "POST":
        return _wrong_503(answer)
    if answer.status not in allowed:
        return f"{answer.status} {answer.body[:200]!r}, expected {set(allowed)}"
    return _wrong_item(given, answer)


def _wrong_item(given: Input, answer: Answer) -> str | None:
    """Hold what was submitted against the answer: one item for a webhook's 200, and none otherwise."""
    is_webhook = answer.status == 200 and given.method == "POST"
    if len(answer.items) != is_webhook:
        return f"{answer.status} with {len(answer.items)} items submitted"
    tenant = tenant_of(given)
    for item in answer.items:
        if item.body != given.body:
            return "another body was submitted"
        if tenant is not None and isinstance(item, Offer) and item.tenant != tenant:
            return f"it went to tenant {item.tenant}"
    return None


def _wrong_503(answer: Answer) -> str | None:
    reason = msgspec.json.decode(answer.body)["reason"]
    if reason not in _STATED or b"retry-after" not in answer.headers or answer.items:
        return f"503 for {reason!r}, {answer.headers}, {len(answer.items)} items"
    return None


def _scope(given: Input) -> dict[str, Any]:
    path = unquote_to_bytes(given.path).decode("utf-8", "replace")
    return {
        "type": "http",
        "method": given.method,
        "path": path,
        "raw_path": given.path,
        "query_string": given.query,
        "headers": list(given.headers),
        "client": (given.client, 1),
    }


def _directory() -> LiveDirectory:
    sessions = [listed(address, generations=generations) for address, generations in SESSIONS.items()]
    board = published.directory(sessions)

    async def version() -> str:
        return board.version

    async def read() -> bytes:
        return published.write(board)

    return LiveDirectory(version=version, read=read, master_keys=MASTER_KEYS, max_age_seconds=60)


async def _all_is_well() -> dict[str, str]:
    return {"loop": "ok"}
