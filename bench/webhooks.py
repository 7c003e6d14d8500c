"""Webhooks as a WAHA would sign and send them: about 1 KB of JSON, from many tenants' sessions."""

from collections.abc import Iterator, Mapping

import msgspec

from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName, TenantId
from wsm.wire.directory import Directory, Listed, directory
from wsm.wire.signature import session_secret, sign

KID = "k1"
MASTER_KEY = bytes(range(32))
FIRST_TENANT = 1_460_561_546
_GENERATION = 1
_EPOCH = 1_790_000_000

ENVIRON: Mapping[str, str] = {"WSM_MASTER_KEYS": f"{KID}:{MASTER_KEY.hex()}", "WSM_MASTER_KEY_ID": KID}
"""What `wsm ingest` needs to know these signatures."""


def address(number: int) -> SessionAddress:
    """Name the session of the tenant with this number, from 0."""
    tenant = TenantId(FIRST_TENANT + number)
    return SessionAddress(tenant, SessionName(f"user_{tenant}"))


def path(its: SessionAddress) -> str:
    """Where its webhooks are posted to."""
    return f"/webhooks/waha/{its.tenant}/{its.session}"


def secret(its: SessionAddress) -> str:
    """What its webhooks are signed with."""
    return session_secret(MASTER_KEY, its, _GENERATION)


def known(tenants: int) -> Directory:
    """Make the directory that lists so many tenants, each with its session."""
    listed = (
        Listed(
            tenant=its.tenant, session=its.session, server=DEFAULT_SERVER, kid=KID, generations=(_GENERATION,)
        )
        for its in map(address, range(tenants))
    )
    return directory(listed)


def message(its: SessionAddress, number: int, *, chat: int = 0, at: int | None = None) -> bytes:
    """Write the body of an incoming message as the engine GOWS does.

    number  tells one message from another, in its id, its text and, without `at`, its timestamp
    chat    which customer of the tenant writes
    at      seconds since 1970
    """
    at = _EPOCH + number if at is None else at
    phone = f"5511{its.tenant % 10_000:04}{chat:05}"
    bare = f"3EB0{its.tenant:010X}{number:06X}"
    text = (
        f"good morning, this is message {number}: when does my order arrive? I have been waiting since Monday"
    )
    own = f"55119{its.tenant}"
    info = {
        "Chat": f"{phone}@s.whatsapp.net", "Sender": f"{phone}@s.whatsapp.net", "IsFromMe": False,
        "IsGroup": False, "AddressingMode": "", "SenderAlt": "", "RecipientAlt": "", "ID": bare,
        "Timestamp": "2026-09-21T14:13:20Z", "PushName": "Alice",
    }  # fmt: skip
    payload = {
        "id": f"false_{phone}@c.us_{bare}", "timestamp": at, "from": f"{phone}@c.us", "fromMe": False,
        "source": "app", "body": text, "to": None, "participant": None, "hasMedia": False, "media": None,
        "ack": 2, "location": None, "vCards": None, "ackName": "DEVICE", "replyTo": None,
        "_data": {"Info": info, "Message": {"conversation": text}},
    }  # fmt: skip
    body = {
        "id": f"evt_{its.tenant:016x}{number:010x}", "timestamp": at * 1000 + 120, "event": "message.any",
        "session": its.session,
        "me": {"id": f"{own}@c.us", "lid": f"1{own}@lid", "jid": f"{own}:42@s.whatsapp.net", "pushName": "A"},
        "payload": payload, "engine": "GOWS",
        "environment": {"version": "2026.7.1", "engine": "GOWS", "tier": "CORE", "browser": None,
                        "platform": "linux/x64", "worker": {"id": "waha-1"}},
    }  # fmt: skip
    return msgspec.json.encode(body)


def request(its: SessionAddress, body: bytes) -> bytes:
    """Write the signed request as it goes over the wire, keeping the connection."""
    head = (
        f"POST {path(its)} HTTP/1.1\r\nHost: wsm\r\nContent-Type: application/json\r\n"
        f"X-Webhook-Hmac: {sign(secret(its), body)}\r\nX-Webhook-Hmac-Algorithm: sha512\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def requests(tenants: int, each: int) -> Iterator[bytes]:
    """Write `each` messages of every tenant, the tenants in turn."""
    for number in range(each):
        for its in map(address, range(tenants)):
            yield request(its, message(its, number, chat=number % 5))
