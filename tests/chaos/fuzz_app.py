"""Input after input into real connections behind the parser, and every answer held against what it has to be.

The service has real doors, a real directory and real verifiers. What it submits is recorded; of every tenth
block it goes through the real Batcher and Handover to a Valkey as well, and is read back from there. In
another tenth there is no room: small budgets, and a submit that says no.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import msgspec

from chaos.fuzz_bodies import SENT_MS
from chaos.fuzz_inputs import SESSIONS, Input, expected, make, tenant_of
from ingesting import BODY_LIMIT, HOOK_SECRETS, MASTER_KEYS, listed
from wsm.core.errors import BadInput, MailboxFull, StreamsUnavailable, Unavailable
from wsm.core.events import Origin
from wsm.core.ids import EntryId, ServerName, SessionName, TenantId
from wsm.ingest.app import Ingest
from wsm.ingest.batch import Batcher, Item, Settle
from wsm.ingest.connection import Connection
from wsm.ingest.directory import LiveDirectory
from wsm.ingest.doors import Doors
from wsm.ingest.exchange import BodyBudget, Bounds, Crowd
from wsm.ingest.ops import Ops
from wsm.ingest.security import RefusalLog
from wsm.streams import keys
from wsm.streams.handover import Handover, Limits, Offer
from wsm.telemetry import ops_pages
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


Submit = Callable[[Item, Settle], None]


class Answer(msgspec.Struct):
    """What the client was told, as far as it came, and what was confirmed to be kept."""

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


def _kept_nowhere(_item: Item, settle: Settle) -> None:
    settle(None)


class Bench:
    """The service, and what is true of every answer. `sample` is handed each accepted event of a session."""

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
        """Give it `size` inputs at once. Raises Fault."""
        await self._directory.refresh()
        index = first // BLOCK
        is_real, is_scarce = index % _EVERY == 0, index % _EVERY == 5
        bodies = BodyBudget(200_000 if is_scarce else 64 * 1024 * 1024)
        batcher = Batcher(self._accept, timeout_seconds=30)
        inputs = [make(self._seed, number) for number in range(first, first + size)]

        def submit(number: int, item: Item, settle: Settle) -> None:
            if is_scarce and number % 3 == 0:
                settle(_SCARCITY[number % len(_SCARCITY)]())
            elif is_real:
                batcher.submit(item, settle)
            else:
                settle(None)

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
        self, given: Input, submit: Submit = _kept_nowhere, bodies: BodyBudget | None = None
    ) -> Answer:
        """Give a connection one input, as a parser tells it; whatever it raises comes out."""
        items: list[Item] = []

        def submitted(item: Item, settle: Settle) -> None:
            def settled(failure: Unavailable | None) -> None:
                if failure is None:
                    items.append(item)
                settle(failure)

            submit(item, settled)

        service = Ingest(
            doors=self._doors,
            submit=submitted,
            refusals=self._refusals,
            ops=Ops(ops_pages(_all_is_well)),
            clock=lambda: SENT_MS,
        )
        crowd = Crowd(service, Bounds(body_bytes=BODY_LIMIT), bodies or BodyBudget(1 << 26))
        connection = Connection(crowd)
        connection._parser = _Parsed(given.method.encode("latin-1"))  # type: ignore[assignment]
        client = _Client(given.client)
        connection.connection_made(client)
        connection.on_message_begin()
        connection.on_url(given.path + (b"?" + given.query if given.query else b""))
        for name, value in given.headers:
            connection.on_header(name, value)
        connection.on_headers_complete()
        for chunk in given.chunks:
            if len(given.chunks) > 1:
                await asyncio.sleep(0)
            connection.on_body(chunk)
        if given.left:
            connection.connection_lost(None)
        else:
            connection.on_message_complete()
            await client.answered.wait()
        return client.answer(given.method, items)

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
    if not answer.is_complete or b"location" in answer.headers:
        return f"complete: {answer.is_complete}, {answer.headers}"
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


class _Parsed:
    """What the parser says of a whole request of HTTP/1.1."""

    def __init__(self, method: bytes) -> None:
        self._method = method

    def get_method(self) -> bytes:
        return self._method

    def get_http_version(self) -> str:
        return "1.1"

    def should_keep_alive(self) -> bool:
        return True

    def should_upgrade(self) -> bool:
        return False


class _Client(asyncio.Transport):
    """The other end: what is written to it."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.answered = asyncio.Event()
        self._said = b""
        self._closing = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        assert not self._closing
        if data != b"HTTP/1.1 100 Continue\r\n\r\n":
            self._said += data
            self.answered.set()

    def close(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing

    def answer(self, method: str, items: list[Item]) -> Answer:
        """Read what was written; not a byte may be left over or missing."""
        if not self._said:
            return Answer(items=items)
        head, _, body = self._said.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        length = 0 if method == "HEAD" else int(headers[b"content-length"])
        status = int(start.split(b" ")[1])
        return Answer(status, headers, body, is_complete=len(body) == length, items=items)


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
