"""What happened: every kind of entry that can come out of a mailbox.

`wire` reads bytes into these; `conversation` and `attendance` decide on them. All share the fields of
`Event`: where it happened, the key under which it counts once, and its place in the order of its chat.
"""

from enum import StrEnum

import msgspec

from wsm.core.content import Content, SendClass
from wsm.core.ids import BareId, ChatId, EntryId, SessionName, TenantId


class Origin(StrEnum):
    """Who wrote an entry. Set by the writer, never read from a body."""

    WAHA = "waha"
    CLOCK = "clock"
    WORKER = "worker"
    CLI = "cli"
    API = "api"
    CATCH_UP = "catch_up"
    """wsm itself, of a message that WAHA has and whose webhook never came."""
    UNKNOWN = "unknown"
    """A newer wsm, or nobody who is allowed to: such an entry cannot be read."""


class Order(msgspec.Struct, frozen=True, order=True):
    """An event's place in its chat: (payload timestamp, envelope timestamp, stream id).

    Both timestamps are milliseconds since 1970 and signed by WAHA; a missing one is taken from the
    arrival. `entry` is the stream id as two integers, so that ties are decided by arrival.
    """

    sent_at_ms: int
    stamped_at_ms: int
    entry: tuple[int, int]


class ChatKind(StrEnum):
    """What a chat id names. Only direct chats are ever answered."""

    DIRECT = "direct"
    GROUP = "group"
    STATUS = "status"
    NEWSLETTER = "newsletter"
    BROADCAST = "broadcast"
    OTHER = "other"


class Source(StrEnum):
    """How an own message left, as far as the gateway knows: through its API, or typed on the phone."""

    API = "api"
    APP = "app"


class Media(msgspec.Struct, frozen=True):
    """A media file as announced. `url` is short-lived (180 s by default) and may be missing."""

    mimetype: str | None = None
    filename: str | None = None
    url: str | None = None
    error: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What every event knows.

    tenant, session  the address it belongs to, proved by the signature or set by wsm itself
    key              counts once per (tenant, session, key), however often it is delivered
    order            its place in the order of the chat
    name             the event's name as the gateway sent it, or `command.<name>` for wsm's own
    entry            the stream entry that carried it
    raw              the body as it was signed, byte for byte
    chat             the chat it belongs to; None when it belongs to the session alone
    """

    tenant: TenantId
    session: SessionName
    key: str
    order: Order
    name: str
    entry: EntryId
    raw: bytes
    chat: ChatId | None = None


class MessageReceived(Event, frozen=True, kw_only=True):
    """A message stands in a chat: the correspondent's, or an own one (`from_me`).

    kind is one of text, image, video, voice, audio, document, sticker, location, contact, poll, album, media,
    system, other; `bot.RULES` says what becomes of each.
    twin is the other id (`@lid` or phone) of the same person when the body names one: of the correspondent
    in a direct chat, elsewhere of `participant`, who is the author inside a group or status.
    backfilled: it was fetched from the gateway, for no webhook had brought it.
    """

    chat: ChatId
    id: BareId
    from_me: bool
    source: Source | None
    kind: str
    body: str
    twin: ChatId | None = None
    participant: ChatId | None = None
    push_name: str | None = None
    media: Media | None = None
    reply_to: BareId | None = None
    backfilled: bool = False


class MessageAcked(Event, frozen=True, kw_only=True):
    """A message reached a level: -1 error, 0 pending, 1 server, 2 device, 3 read, 4 played.

    code, reason  of an error, as WhatsApp says them; until_ms: when it takes such messages again
    """

    chat: ChatId
    id: BareId
    from_me: bool
    level: int
    participant: ChatId | None = None
    code: str | None = None
    reason: str | None = None
    until_ms: int | None = None


class MessageEdited(Event, frozen=True, kw_only=True):
    """The text of `target` is now `body`; `id` is the edit's own id."""

    chat: ChatId
    id: BareId
    target: BareId
    from_me: bool
    body: str


class MessageRevoked(Event, frozen=True, kw_only=True):
    """`target` was deleted for everyone."""

    chat: ChatId
    id: BareId
    target: BareId
    from_me: bool


class MessageReacted(Event, frozen=True, kw_only=True):
    """A reaction to `target`; an empty text takes it back."""

    chat: ChatId
    id: BareId
    target: BareId
    from_me: bool
    text: str


class PollVoted(Event, frozen=True, kw_only=True):
    """A vote in the poll `target`: always the complete selection."""

    chat: ChatId
    id: BareId
    target: BareId
    from_me: bool
    options: tuple[str, ...]


class SessionStatusReported(Event, frozen=True, kw_only=True):
    """The session changed its status at `at_ms`. Statuses are the gateway's words; unknown ones are kept.

    locked    WhatsApp lets it write to nobody new; locked_until_ms: until then, None where it does not say
    """

    status: str
    at_ms: int
    engine: str | None = None
    locked: bool = False
    locked_until_ms: int | None = None


class Kept(Event, frozen=True, kw_only=True):
    """Anything else: labels, presence, groups, calls, names not known yet. Kept, and nothing follows."""


class CloseAsked(Event, frozen=True, kw_only=True):
    """Somebody asks to close the open ticket of a chat. `by` is who: `cli`, `api` or an agent's name."""

    chat: ChatId
    by: str


class SendAsked(Event, frozen=True, kw_only=True):
    """Somebody asks to send something into a chat.

    by          who: `cli`, `api` or an agent's name
    intent_key  names the intent: what bears the same one is sent once
    not_before_ms, expires_ms  it may leave between these; None: at once, and while its class may wait
    """

    chat: ChatId
    by: str
    content: Content
    send_class: SendClass
    intent_key: str
    not_before_ms: int | None = None
    expires_ms: int | None = None


class TimerDue(Event, frozen=True, kw_only=True):
    """A timer's time has come. `timer` names its row; one that is gone, or due later by now, is nothing.

    kind  one of `timers.TimerKind`, or of a later version
    """

    timer: int
    kind: str


class HiddenIdsTold(Event, frozen=True, kw_only=True):
    """A gateway said which phone stands behind hidden ids. pairs: `@lid` and `@c.us`; None: it does not know.

    What neither half is known of here is nothing: nobody becomes a contact by it.
    """

    pairs: tuple[tuple[ChatId, ChatId | None], ...]


HistoryEvent = MessageReceived | MessageEdited | MessageRevoked | MessageReacted | PollVoted
"""What becomes a row of a chat's history."""
