"""Whatever JSON a gateway makes of a webhook: it is read, it is kept, and it counts once."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsm.core.errors import BadInput
from wsm.core.events import Event, MessageReceived, Origin
from wsm.core.ids import EntryId, SessionName, TenantId
from wsm.wire.waha import head, read

NOW_MS = 1_795_157_451_958

NAMES = st.sampled_from(
    [
        "message",
        "message.any",
        "message.ack",
        "message.ack.group",
        "message.edited",
        "message.revoked",
        "message.reaction",
        "message.waiting",
        "poll.vote",
        "poll.vote.failed",
        "session.status",
        "presence.update",
        "command.close",
    ]
) | st.text(min_size=1, max_size=8)
IDS = st.sampled_from(
    ["false_1@c.us_A", "true_1@g.us_A_2@lid", "1@c.us_A", "123@g.us", "A", "false_", "_", "me", "x" * 99]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | IDS
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "id", "from", "to", "fromMe", "participant", "author", "source", "timestamp", "body", "hasMedia", "media",
    "ack", "replyTo", "reaction", "editedMessageId", "revokedMessageId", "after", "before", "vote", "poll",
    "status", "statuses", "group", "chatId", "chat", "by", "location", "vCards", "_data",
)  # fmt: skip
INNER = (
    "id", "messageId", "text", "selectedOptions", "timestamp", "url", "mimetype", "error", "key", "Info",
    "message", "Message", "type", "remoteJidAlt", "SenderAlt", "audioMessage", "ephemeralMessage",
)  # fmt: skip


def some_of(names: tuple[str, ...], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), values, max_size=8)


PAYLOADS = ANYTHING | some_of(FIELDS, ANYTHING | some_of(INNER, ANYTHING | some_of(INNER, ANYTHING)))
ENVELOPES = st.fixed_dictionaries(
    {"event": NAMES, "session": st.text(min_size=1, max_size=8), "payload": PAYLOADS},
    optional={"id": ANYTHING, "timestamp": ANYTHING, "me": ANYTHING, "engine": ANYTHING},
)


def reading(body: bytes, origin: Origin = Origin.WAHA, arrival_ms: int = NOW_MS) -> Event:
    return read(
        body,
        tenant=TenantId(7),
        session=SessionName("s"),
        origin=origin,
        entry=EntryId(f"{arrival_ms}-1"),
        received_at_ms=arrival_ms,
    )


@settings(max_examples=500)
@given(envelope=ENVELOPES, origin=st.sampled_from([*Origin][:-1]), ascii_only=st.booleans())
@example(
    envelope={"event": "message", "session": "s", "payload": {"id": "A", "source": ["api"]}},
    origin=Origin.WAHA,
    ascii_only=True,
)
@example(
    envelope={"event": "message", "session": "s", "payload": {"id": "A", "timestamp": 10**400}},
    origin=Origin.WAHA,
    ascii_only=True,
)
@example(
    envelope={"event": "message", "session": "s", "payload": {}, "timestamp": 1e-53},
    origin=Origin.WAHA,
    ascii_only=True,
)
def test_any_object_with_event_and_session_is_read(
    envelope: dict[str, Any], origin: Origin, ascii_only: bool
) -> None:
    body = json.dumps(envelope, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    event = reading(body, origin)
    assert head(body).session
    assert event.raw == body
    assert 1 <= len(event.key) <= 300
    assert event.key.isascii()
    assert 0 < event.order.sent_at_ms <= NOW_MS + 86_700_000
    assert 0 < event.order.stamped_at_ms <= NOW_MS + 86_700_000
    assert "\0" not in event.name + event.key + (event.chat or "")
    if isinstance(event, MessageReceived):
        assert "\0" not in event.body + event.id
        assert (event.body + event.id).encode()


@settings(max_examples=200)
@given(envelope=ENVELOPES, later_ms=st.integers(0, 10**6))
def test_a_redelivered_body_has_the_same_key(envelope: dict[str, Any], later_ms: int) -> None:
    body = json.dumps(envelope).encode()
    assert reading(body).key == reading(body, arrival_ms=NOW_MS + later_ms).key


@given(
    bare=st.text("0123456789ABCDEF", min_size=1, max_size=80),
    from_me=st.booleans(),
    forms=st.lists(
        st.tuples(
            st.sampled_from(["message", "message.any"]),
            st.sampled_from(["1@c.us", "5@lid", "1:3@s.whatsapp.net"]),
            st.sampled_from(["evt_1", "evt_2"]),
            st.sampled_from(["NOWEB", "GOWS", "WEBJS", "WPP"]),
        ),
        min_size=2,
        max_size=4,
    ),
)
def test_every_form_of_one_message_has_one_key(
    bare: str, from_me: bool, forms: list[tuple[str, str, str, str]]
) -> None:
    keys = {
        reading(
            json.dumps(
                {
                    "id": event_id,
                    "event": name,
                    "session": "s",
                    "engine": engine,
                    "payload": {"id": f"{str(from_me).lower()}_{chat}_{bare}", "fromMe": from_me},
                }
            ).encode()
        ).key
        for name, chat, event_id, engine in forms
    }
    assert len(keys) == 1


@given(st.binary(max_size=200))
def test_bytes_that_are_no_object_are_refused_by_the_fields_name(body: bytes) -> None:
    for function in (head, reading):
        with pytest.raises(BadInput, match=r"body|event|session"):
            function(body)
