"""Bodies that are almost a webhook: WAHA's own, changed in a few places, as values and as bytes.

What changes is chosen by the `Random` that is handed in, and by nothing else.
"""

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

from wsm.core.ids import SessionAddress

SENT_MS = 1_795_176_000_000
"""When the templates were sent: 2026-11-20 12:00 UTC."""
SENT = SENT_MS // 1000

ANA, BIA, GROUP = "5511900000001", "95511900000002@lid", "120363000000000001@g.us"
_NAMES = (
    "message", "message.any", "message.ack", "message.ack.group", "message.edited", "message.revoked",
    "message.reaction", "message.waiting", "poll.vote", "poll.vote.failed", "session.status", "group.v2.join",
    "presence.update", "call.received", "label.upsert", "engine.event", "command.close", "from.the.future",
)  # fmt: skip

_IMAGE = {"url": "http://waha/f.jpeg", "mimetype": "image/jpeg", "filename": None, "error": {"message": "x"}}
_PAYLOADS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("message.any", {
        "id": f"false_{ANA}@c.us_3EB0A1", "timestamp": SENT, "from": f"{ANA}@c.us", "fromMe": False,
        "source": "app", "body": "Olá! Quanto custa? 😀", "hasMedia": False, "participant": None,
        "_data": {"Info": {"Chat": f"{ANA}@s.whatsapp.net", "SenderAlt": BIA, "PushName": "Ana"},
                  "Message": {"conversation": "Olá"}},
    }),
    ("message", {
        "id": f"false_{BIA}_3EB0A2", "timestamp": SENT, "from": BIA, "fromMe": False, "source": "app",
        "body": "", "hasMedia": True, "media": _IMAGE, "replyTo": {"id": "3EB0A1", "body": "Olá"},
        "_data": {"key": {"remoteJid": BIA, "remoteJidAlt": f"{ANA}@s.whatsapp.net", "fromMe": False},
                  "message": {"ephemeralMessage": {"message": {"audioMessage": {"ptt": True}}}}},
    }),
    ("message.any", {
        "id": f"true_{GROUP}_3EB0A3_{ANA}@c.us", "timestamp": SENT, "from": GROUP, "to": GROUP,
        "fromMe": True, "author": f"{ANA}@c.us", "participant": f"{ANA}@c.us", "source": "api",
        "body": "#fim",
        "location": {"latitude": "1"}, "vCards": ["BEGIN:VCARD"], "_data": {"type": "chat"},
    }),
    ("message.ack", {
        "id": f"true_{ANA}@c.us_3EB0A4", "from": f"{ANA}@c.us", "to": "me", "participant": None,
        "fromMe": True, "ack": 3, "ackName": "READ", "timestamp": SENT,
    }),
    ("message.edited", {
        "id": f"false_{ANA}@c.us_3EB0A5", "from": f"{ANA}@c.us", "fromMe": False, "body": "outra coisa",
        "timestamp": SENT, "editedMessageId": "3EB0A1", "_data": {"latestEditSenderTimestampMs": SENT_MS},
    }),
    ("message.revoked", {
        "after": {"id": f"false_{ANA}@c.us_3EB0A6", "from": f"{ANA}@c.us", "timestamp": SENT},
        "before": {"id": f"false_{ANA}@c.us_3EB0A1", "body": "Olá"}, "revokedMessageId": "3EB0A1",
    }),
    ("message.reaction", {
        "id": f"false_{ANA}@c.us_3EB0A7", "from": f"{ANA}@c.us", "fromMe": False, "timestamp": SENT,
        "reaction": {"text": "👍", "messageId": f"true_{ANA}@c.us_3EB0A1"},
    }),
    ("poll.vote", {
        "vote": {"id": f"false_{ANA}@c.us_3EB0A8", "from": f"{ANA}@c.us", "fromMe": False,
                 "selectedOptions": ["sim", "não"], "timestamp": SENT_MS},
        "poll": {"id": f"true_{ANA}@c.us_3EB0A9", "fromMe": True},
    }),
    ("session.status", {
        "name": "s", "status": "WORKING",
        "statuses": [{"status": "STARTING", "timestamp": SENT_MS - 9}, {"status": "WORKING",
        "timestamp": SENT_MS}],
    }),
    ("presence.update", {"id": f"{ANA}@c.us", "presences": [{"participant": BIA, "lastSeen": None}]}),
    ("group.v2.join", {"group": {"id": GROUP, "subject": "Loja", "participants": [{"id": BIA}]}}),
    ("command.close", {"chat": f"{ANA}@c.us", "by": "cli"}),
)  # fmt: skip
_TEXTS = tuple(json.dumps(payload) for _, payload in _PAYLOADS)

LONG = "".join(chr(0x100 + number * 7919 % 5000) for number in range(9_000))
"""A text that neither compresses nor fits an index."""

_WORDS = (
    "", " ", "\0", "a\0b", "\ud83d", "\udc00x", "😀", "me", "_", "false_", "true_1@c.us",
    "false_1@c.us_A_2@lid",
    "true_x@lid__1@c.us", "@", "@c.us", "1@c.us\n", "1:3@s.whatsapp.net", "5@weird.server", "0@lid",
    "status@broadcast", "1@newsletter", "x" * 300, "9" * 5_000, "1795176000", "1e400", "nan", "-inf",
    "１２３", "1_000", "'; drop table messages; --", "../../etc", "%s%n", "\u2028", "\ufeff", "#fim", "null",
    "{}",
    "api", "app", "GOWS", "NOWEB", "WEBJS", "audio/ogg; codecs=opus", f"{ANA}@c.us", BIA, GROUP, *_NAMES,
)  # fmt: skip
_NUMBERS = (
    0, -1, 1, 2, 4, 5, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(10**30), 10**400, -2.5, 1e-9, 0.1, 1e308,
    float("inf"), float("nan"), SENT, SENT_MS, SENT + 0.5, SENT * 10**6, 99_999_999_999, 10**11, 10**14,
)  # fmt: skip
_WEIRD: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    {"": {}},
    [None] * 50,
    {"id": {}},
    *_NUMBERS,
    *_WORDS,
)
_SNIPPETS = (
    b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud83d", b"\\ude00", b"\\u0000", b"\\",
    b'"',
    b"{", b"}", b"[", b"]", b",", b":", b"//", b"NaN", b"Infinity", b"1e999", b"-", b"\n", b" ", b"\t",
    b'"event":"x",', b'"session":null,', b'"payload":[],', b"\x1f", b"\x80",
)  # fmt: skip


def webhook(address: SessionAddress, event: str, payload: object, number: int) -> dict[str, Any]:
    """A webhook as WAHA sends it."""
    return {
        "id": f"evt_{number:026d}", "timestamp": SENT_MS, "event": event, "session": address.session,
        "me": {"id": "5511999990000@c.us", "pushName": "Loja", "lid": BIA}, "payload": payload,
        "engine": "GOWS", "environment": {"version": "2026.11.1", "tier": "PLUS"}, "metadata": {},
    }  # fmt: skip


def body(chance: Random, address: SessionAddress, number: int) -> tuple[bytes, bool]:
    """Make a body for a session; say whether it is one as WAHA sends it."""
    drawn = chance.random()
    if drawn < 0.02:
        return chance.choice(_NO_WEBHOOKS)(chance), False
    index = chance.randrange(len(_PAYLOADS))
    whole = webhook(address, _PAYLOADS[index][0], json.loads(_TEXTS[index]), number)
    if drawn < 0.15:
        return json.dumps(whole, ensure_ascii=False).encode(), True
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        _change(chance, whole)
    try:
        text = json.dumps(whole, ensure_ascii=chance.random() < 0.7)
    except RecursionError:
        return b"[" * 2_000, False
    made = text.encode("utf-8", "surrogatepass")
    if drawn < 0.35:
        made = _bitten(chance, made)
    return made, False


def _change(chance: Random, whole: dict[str, Any]) -> None:
    """Change one value, name or place of it, anywhere inside."""
    parent: Any = whole
    key: Any = chance.choice((*whole, "payload", "payload", "payload")) if whole else "payload"
    while (inner := parent[key] if _has(parent, key) else None) and isinstance(inner, dict | list):
        if chance.random() < 0.15:
            break
        parent, key = inner, chance.choice([*inner] if isinstance(inner, dict) else range(len(inner)))
    what = chance.random()
    if what < 0.6 or not _has(parent, key):
        _put(parent, key, copy.copy(chance.choice(_WEIRD)))
    elif what < 0.72:
        del parent[key]
    elif what < 0.8 and isinstance(parent, dict):
        parent[chance.choice(_WORDS)] = parent.pop(key)
    elif what < 0.88:
        _put(parent, key, _nested(chance, parent[key]))
    elif what < 0.94:
        _put(parent, key, json.loads(chance.choice(_TEXTS)))
    else:
        _put(parent, key, chance.choice((LONG, "x" * chance.randrange(20_000), chance.choice(_WORDS) * 40)))


def _has(parent: Any, key: Any) -> bool:
    return key in parent if isinstance(parent, dict) else key < len(parent)


def _put(parent: Any, key: Any, value: Any) -> None:
    parent[key] = value


def _nested(chance: Random, value: Any) -> Any:
    """Wrap a value, up to and beyond the depth that is accepted."""
    for _ in range(chance.choice((1, 2, 9, 60, 180, 195, 198, 199, 200, 205, 300))):
        value = [value] if chance.random() < 0.5 else {"a": value}
    return value


def _bitten(chance: Random, made: bytes) -> bytes:
    """Change some bytes, whatever they mean."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(made) + 1)
        what = chance.randrange(6)
        if what == 0:
            made = made[:at]
        elif what == 1:
            made = made[:at] + bytes((chance.randrange(256),)) + made[at + 1 :]
        elif what == 2:
            made = made[:at] + made[at + chance.randrange(1, 9) :]
        elif what == 3:
            made = made[:at] + made[at:][: chance.randrange(1, 200)] + made[at:]
        else:
            made = made[:at] + chance.choice(_SNIPPETS) + made[at:]
    return made


_NO_WEBHOOKS: tuple[Callable[[Random], bytes], ...] = (
    lambda chance: b"",
    lambda chance: b" " * chance.randrange(50),
    lambda chance: chance.randbytes(chance.randrange(300)),
    lambda chance: chance.choice((b"[", b"{", b'{"a":', b"[{")) * chance.choice((1, 100, 201, 1_000, 16_000)),
    lambda chance: b"[" * (depth := chance.choice((1, 199, 200, 201, 990, 1_000, 5_000))) + b"]" * depth,
    lambda chance: chance.choice((b"null", b"1", b'"x"', b"true", b"[]", b"{}", b"-", b"9" * 5_000)),
    lambda chance: b'{"event":"message","session":' + b"9" * chance.choice((1, 400, 5_000)) + b"}",
    lambda chance: b'{"event":"' + b"\\ud83d" * chance.randrange(5_000) + b'","session":"s"}',
    lambda chance: b'"' + b"\\" * chance.randrange(9_000),
)
