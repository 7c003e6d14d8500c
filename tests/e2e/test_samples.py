"""Every sample and capture of WAHA goes the whole way, each to its own tenant, and is kept as what it is.

At the time that it bears it changes what it should; at the real one an old one is kept as stale and changes
nothing. What each is read as is the table of the reader's own test; where that is kept is said here.
"""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from e2e.house import STALE_AFTER, House, Seat, house, stamped_ms
from e2e.town import Ground
from unit.test_wire_samples import ROWS
from wsm.core.events import ChatKind
from wsm.core.ids import ChatId, ServerName, SessionAddress, SessionName, TenantId
from wsm.wire.signature import sign
from wsm.wire.waha import chat_kind

CAPTURE_KEY = "s3cr3t-key"
SAMPLE_KEY = "my-secret-key"
DOCUMENTED = "hmac.docs-vector"
HISTORY = {"MessageReceived", "MessageEdited", "MessageRevoked", "MessageReacted", "PollVoted"}
KINDS = {
    "MessageEdited": "edit",
    "MessageRevoked": "revoke",
    "MessageReacted": "reaction",
    "PollVoted": "vote",
}


class File(msgspec.Struct, frozen=True):
    """A sample, or a capture with its head, and the tenant that it goes to."""

    name: str
    head: bytes
    body: bytes
    seat: Seat

    @property
    def tenant(self) -> TenantId:
        """Whose it is."""
        return self.seat.address.tenant

    def to_own_address(self, body: bytes | None = None) -> bytes:
        """Write the request to the session's address, signed for the file's own body."""
        path = f"/webhooks/waha/{self.tenant}/{self.seat.address.session}"
        return request(path, sign(self.seat.secret, self.body), body or self.body)

    def to_hook(self, signature: str, body: bytes | None = None) -> bytes:
        """Write the request to the shared hook; a capture's as it was captured."""
        path = f"/webhooks/waha?server={self.seat.server}"
        if self.head:
            _, _, headers = self.head.partition(b"\r\n")
            return b"POST %s HTTP/1.1\r\n%s\r\n\r\n%s" % (path.encode(), headers, body or self.body)
        return request(path, signature, body or self.body)

    def flipped(self) -> bytes:
        """The body with one bit of its middle byte changed."""
        middle = len(self.body) // 2
        return self.body[:middle] + bytes([self.body[middle] ^ 1]) + self.body[middle + 1 :]


def request(path: str, signature: str, body: bytes) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: wsm",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Webhook-Hmac: {signature}",
        "X-Webhook-Hmac-Algorithm: sha512",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def files(folder: Path) -> list[File]:
    """Read all of them; the sessions' names are the bodies', so each stands at a server of its own."""
    raw = {path.stem: (b"", path.read_bytes()) for path in sorted((folder / "samples").glob("*.json"))}
    for path in sorted((folder / "captures").glob("*.http")):
        head, _, body = path.read_bytes().partition(b"\r\n\r\n")
        raw[path.stem] = (head, body)
    found = []
    for number, (name, (head, body)) in enumerate(raw.items(), 1):
        session = SessionName(json.loads(body)["session"])
        seat = Seat(SessionAddress(TenantId(number), session), ServerName(f"waha-{number}"))
        found.append(File(name, head, body, seat))
    return found


def secrets(every: list[File]) -> dict[ServerName, tuple[str, ...]]:
    return {each.seat.server: (CAPTURE_KEY if each.head else SAMPLE_KEY,) for each in every}


async def kept(at: House) -> dict[TenantId, dict[str, Any]]:
    """Everything that each tenant has in the database."""
    found: dict[TenantId, dict[str, Any]] = {}
    for what, query in {
        "history": "select m.tenant_id, m.kind, m.from_me, m.bare_id, m.late, m.raw, c.chat_id,"
        " (extract(epoch from m.sent_at) * 1000)::bigint as sent_at_ms"
        " from messages m join conversations c on c.id = m.conversation_id",
        "acks": "select tenant_id, from_me, bare_id, level, participant from message_acks",
        "events": "select tenant_id, name, stale, raw from session_events",
        "keys": "select tenant_id, key from inbound_dedupe",
        "tickets": "select tenant_id, state from tickets",
        "intents": "select tenant_id, class as intent from outbox",
        "observed": "select tenant_id, observed from sessions where observed <> 'UNKNOWN'",
    }.items():
        for row in await at.rows(query):
            mine = found.setdefault(TenantId(row.tenant_id), {})
            mine.setdefault(what, []).append(tuple(row[1:]))
    return found


def expected(file: File, at_ms: int) -> dict[str, Any]:
    """What a tenant has after his file was handled at `at_ms`."""
    kind, detail, chat, sent, key = ROWS[file.name]
    event = json.loads(file.body)["event"]
    stamped = stamped_ms(file.body)
    if stamped is not None and stamped < at_ms - STALE_AFTER.total_seconds() * 1000:
        return {"events": [(event, True, file.body)]}
    wanted: dict[str, Any] = {"keys": [(key,)]}
    if kind in HISTORY:
        from_me = key[1:3] == "|1"
        bare_id = BARE_IDS.get(file.name) or key.split("|")[2]
        sent_at_ms = at_ms if sent == "-" else int(sent)
        row = (KINDS.get(kind, detail), from_me, bare_id, False, file.body, chat, sent_at_ms)
        wanted["history"] = [row]
        if kind == "MessageReceived" and not from_me and chat_kind(ChatId(chat)) is ChatKind.DIRECT:
            wanted |= {"tickets": [("served",)], "intents": [("turn",)]}
    elif kind == "MessageAcked":
        _, direction, bare_id, level, participant = key.split("|")
        wanted["acks"] = [(direction == "1", bare_id, int(level), participant)]
    else:
        wanted["events"] = [(event, False, file.body)]
        if kind == "SessionStatusReported":
            wanted["observed"] = [(detail,)]
    return wanted


BARE_IDS = {"message.group.minimal.NOWEB": "123@g.us"}
"""Where the key is not made of the message's id, because it is none."""


def differing(found: Mapping[TenantId, Any], wanted: Mapping[TenantId, Any], every: list[File]) -> str:
    return "\n".join(
        f"{each.name}: {found.get(each.tenant)}\n    not {wanted[each.tenant]}"
        for each in every
        if found.get(each.tenant) != wanted[each.tenant]
    )


@pytest.mark.deadline(180)
async def test_at_its_own_time_each_is_kept_as_what_it_is(ground: Ground, waha_fixtures: Path) -> None:
    every = files(waha_fixtures)
    wanted = {}
    async with house(ground, [each.seat for each in every], secrets(every)) as at:
        for each in every:
            at.now_ms = stamped_ms(each.body) or time.time_ns() // 1_000_000
            right, flipped = (
                (each.to_hook(""), each.to_hook("", each.flipped()))
                if each.head
                else (each.to_own_address(), each.to_own_address(each.flipped()))
            )
            assert await at.post(flipped) == 403, each.name
            assert await at.held(each.tenant) == [], each.name
            assert await at.post(right) == 200, each.name
            await at.handled(each.tenant)
            wanted[each.tenant] = expected(each, at.now_ms)
        found = await kept(at)
    assert found == wanted, differing(found, wanted, every)


async def test_at_the_real_time_the_old_ones_are_stale(ground: Ground, waha_fixtures: Path) -> None:
    every = files(waha_fixtures)
    published = json.loads((waha_fixtures / "samples-hmac.json").read_text())
    async with house(ground, [each.seat for each in every], secrets(every)) as at:
        for each in every:
            named = published.get(f"{each.name}.json", {})
            signature = named.get(f"hmac_sha512_key_{SAMPLE_KEY}", "")
            assert await at.post(each.to_hook(signature)) == 200, each.name
        for each in every:
            await at.handled(each.tenant)
        found = await kept(at)
        wanted = {each.tenant: expected(each, at.now_ms) for each in every}
    assert found == wanted, differing(found, wanted, every)
    stale = sum("keys" not in each for each in wanted.values())
    assert stale > len(every) / 2, "most of them are old"


async def test_the_captures_are_one_sessions_day(ground: Ground, waha_fixtures: Path) -> None:
    every = [each for each in files(waha_fixtures) if each.head]
    seat = every[0].seat
    async with house(ground, [seat], {seat.server: (CAPTURE_KEY,)}) as at:
        for each in every:
            at.now_ms = stamped_ms(each.body) or 0
            assert await at.post(msgspec.structs.replace(each, seat=seat).to_hook("")) == 200, each.name
            await at.handled(seat.address.tenant)
        found = (await kept(at))[seat.address.tenant]
    group, person = "120363000000000001@g.us", "5511977776666@c.us"
    assert [(kind, from_me, chat) for kind, from_me, _, _, _, chat, _ in found["history"]] == [
        ("text", False, person),
        ("text", False, group),
        ("text", True, person),
    ], "each message once, though it came as message and as message.any"
    assert found["acks"] == [(True, "3EB03C785F67C010964EF6", 1, "")]
    assert len(found["events"]) == 4
    assert found["observed"] == [("STARTING",)]
    assert found["tickets"] == [("served",)]


async def test_the_documented_vector_is_accepted_and_nothing_near_it(
    ground: Ground, waha_fixtures: Path
) -> None:
    [vector] = [each for each in files(waha_fixtures) if each.name == DOCUMENTED]
    published = json.loads((waha_fixtures / "samples-hmac.json").read_text())[f"{DOCUMENTED}.json"]
    signature = published[f"hmac_sha512_key_{SAMPLE_KEY}"]
    async with house(ground, [vector.seat], secrets([vector])) as at:
        at.now_ms = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
        for wrong in (signature[:-1], signature.upper(), signature[:-1] + "é", sign("other", vector.body)):
            assert await at.post(vector.to_hook(wrong)) == 403
        assert await at.held(vector.tenant) == []
        assert await at.post(vector.to_hook(signature)) == 200
        await at.handled(vector.tenant)
        assert (await kept(at))[vector.tenant]["events"] == [("message", False, vector.body)]
