"""What can be asked of `/sandbox`: one shape per request, and how a body becomes one.

Unknown, missing and malformed fields are BadInput with the field and the reason.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from wsm.core.errors import BadInput
from wsm.sandbox.waha import asgi
from wsm.sandbox.waha.asgi import Answer, Request
from wsm.sandbox.waha.contents import Media
from wsm.sandbox.waha.faults import AckError, Queries

T = TypeVar("T")


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked for; a misspelt field is refused."""


class Say(Asked, frozen=True, kw_only=True):
    """A customer writes. `delay_seconds` waits before; the rest is `handset.Said`.

    media  true for a usual image, or what it is
    told   false: the device has the message, and its webhook is lost
    """

    session: str
    phone: str
    text: str
    push_name: str = "Customer"
    group: str | None = None
    id: str | None = None
    reply_to: str | None = None
    as_lid: bool = False
    twin: bool = False
    duplicates: int = 1
    timestamp_ms: int | None = None
    delay_seconds: float = 0.0
    media: bool | Media = False
    late_seconds: float | None = None
    told: bool = True


class Type(Asked, frozen=True, kw_only=True):
    """The agent types on the linked phone. told: as in `Say`."""

    session: str
    chat: str
    text: str
    id: str | None = None
    reply_to: str | None = None
    told: bool = True


class Change(Asked, frozen=True, kw_only=True):
    """Somebody reacts to, edits or revokes the message `id`: the customer, or the agent (`from_me`)."""

    session: str
    id: str
    text: str = ""
    from_me: bool = False


class Ack(Asked, frozen=True, kw_only=True):
    """The message `id` reaches a level, −1 to 4; in a group, on the phone of `reader`.

    error  why it did not arrive, with −1
    """

    session: str
    id: str
    level: int
    reader: str | None = None
    error: AckError | None = None


class Acks(Asked, frozen=True, kw_only=True):
    """The levels that messages reach after they left; of one phone, or of all that have no own."""

    levels: list[int]
    phone: str | None = None


class Scan(Asked, frozen=True, kw_only=True):
    """A phone scans the QR code; without a number the session's usual one.

    passkey  WhatsApp wants the account's passkey then (GOWS alone)
    code     … and a comparison of this code with the one on the phone
    """

    phone: str | None = None
    push_name: str = "Loja"
    passkey: bool = False
    code: str | None = None


class EnterCode(Asked, frozen=True, kw_only=True):
    """Somebody types a pairing code on the phone that it was asked for."""

    code: str
    passkey: bool = False


class Drop(Asked, frozen=True, kw_only=True):
    """The connection drops and does not come back for so long."""

    away_seconds: float = 0.0


class Mute(Asked, frozen=True, kw_only=True):
    """It goes on to say WORKING, and nothing comes in or goes out until it is restarted."""

    queries: Queries = Queries.HANG


class Restrict(Asked, frozen=True, kw_only=True):
    """WhatsApp lets the account begin no chats.

    until   when that ends, in seconds since 1970; it is only told, and `lift` ends it
    strict  false: it is told and has no effect
    """

    until: int | None = None
    enforcement_type: str = "DEFAULT"
    strict: bool = True


class Habits(Asked, frozen=True, kw_only=True):
    """What is documented nowhere. media_ids: GOWS and NOWEB send media under the id that is asked for."""

    media_ids: bool


class Refuse(Asked, frozen=True, kw_only=True):
    """Nobody is answered for so long: connections are refused, open ones break."""

    seconds: float


class Signature(StrEnum):
    """What is wrong with a forged webhook; `right` is not wrong at all."""

    WRONG = "wrong"
    MISSING = "missing"
    SHORT = "short"
    NON_ASCII = "non_ascii"
    TWICE = "twice"
    RIGHT = "right"


class Forge(Asked, frozen=True, kw_only=True):
    """A webhook that pretends to be a session's, to its first URL; without a body, a message in order."""

    session: str
    signature: Signature = Signature.WRONG
    body: str | None = None
    text: str = "forged"


class Emit(Asked, frozen=True, kw_only=True):
    """Any event, signed and wrapped as WAHA does, with any payload: for what the sandbox does not play."""

    session: str
    event: str
    payload: dict[str, Any]


class WaitIdle(Asked, frozen=True, kw_only=True):
    """Wait until every delivery, delay and ack is done."""

    timeout_seconds: float = 30.0


class Nothing(Asked, frozen=True, kw_only=True):
    """Nothing to say."""


def reading(shape: type[T], handler: Callable[..., Awaitable[Answer]]) -> asgi.Handler:
    """Read the body into a shape before the handler sees it. Raises BadInput with the field."""
    decoder = msgspec.json.Decoder(shape)

    async def read(request: Request, **path: str) -> Answer:
        try:
            asked = decoder.decode(request.body or b"{}")
        except msgspec.ValidationError as exc:
            raise BadInput(*_named(exc)) from None
        except msgspec.DecodeError as exc:
            raise BadInput("body", str(exc)) from None
        return await handler(asked, **path)

    return read


def _named(exc: msgspec.ValidationError) -> tuple[str, str]:
    """Split msgspec's message into the field, which stands at its end or in its middle, and the reason."""
    reason, _, path = str(exc).partition(" - at `$.")
    named = path.rstrip("`") or reason.partition(" field `")[2].rstrip("`")
    return named or "body", reason
