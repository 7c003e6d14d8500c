"""What the sandbox knows: sessions, the accounts behind them, their messages, and the customers' phones.

A session lives in memory and dies with the process, as in WAHA. An account is what stands outside of it:
the linked phone with its stored credentials and messages. Customers' phones stand outside of everything:
what they received, they keep, and an id that was sent twice is there twice.
"""

import asyncio
import time
import zlib
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from wsm.sandbox.waha import ids
from wsm.sandbox.waha.chores import Chores
from wsm.sandbox.waha.contents import Content, Files, Media
from wsm.sandbox.waha.faults import Faults, Queries
from wsm.sandbox.waha.phones import Act, CustomerPhone, Received

if TYPE_CHECKING:
    from wsm.sandbox.waha.network import Line


class EngineError(Exception):
    """The engine failed: WAHA answers 500 with the text, a stack and the request."""


class Engine(StrEnum):
    """WAHA's engines: the libraries that speak to WhatsApp."""

    WEBJS = "WEBJS"
    WPP = "WPP"
    NOWEB = "NOWEB"
    GOWS = "GOWS"

    @property
    def in_browser(self) -> bool:
        """Whether it is a browser: no own message ids, `from` is the sender, FAILED restarts itself."""
        return self in {Engine.WEBJS, Engine.WPP}


class Status(StrEnum):
    """WAHA's session statuses; the two of passkeys are GOWS' alone."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    SCAN_QR_CODE = "SCAN_QR_CODE"
    PASSKEY_REQUIRED = "PASSKEY_REQUIRED"
    PASSKEY_CONFIRMATION_REQUIRED = "PASSKEY_CONFIRMATION_REQUIRED"
    WORKING = "WORKING"
    FAILED = "FAILED"


class Tempo(msgspec.Struct, frozen=True):
    """How much faster than WAHA: factors on its times in seconds.

    waits    its own waits: for a status before a 422, after a stop, between QR codes, for media and acks
    retries  the delays between the attempts of a webhook, a `Retry-After` included
    """

    waits: float = 0.05
    retries: float = 1.0


class Message(msgspec.Struct):
    """A message as a linked device knows it.

    chat          the chat id in the form in which it came: by phone or hidden id
    participant   the author in a group
    timestamp     seconds since 1970
    """

    id: str
    chat: str
    from_me: bool
    source: str
    body: str
    timestamp: int
    ack: int
    participant: str | None = None
    push_name: str = ""
    content: Content = Content()
    reply_to: str | None = None

    @property
    def media(self) -> Media | None:
        """Its file."""
        return self.content.media

    @property
    def full_id(self) -> str:
        """WAHA's id of it."""
        return ids.message_id(
            from_me=self.from_me, chat=self.chat, bare=self.id, participant=self.participant
        )


class Account(msgspec.Struct):
    """The WhatsApp account that a session is linked to, with the credentials that WAHA stores.

    linked  False once the device was removed on the phone: the credentials are there and useless.
    held    what WhatsApp keeps for the device while it is not connected or hears nothing
    """

    phone: str
    push_name: str
    linked: bool = True
    messages: dict[str, Message] = {}
    held: list[Callable[[], None]] = []


class StatusPoint(msgspec.Struct, frozen=True):
    """One of the last three statuses."""

    status: Status
    timestamp: int


class Passkey(msgspec.Struct, frozen=True):
    """A login that WhatsApp wants the account's passkey for.

    phone, push_name  whose login it is
    challenge         what the authenticator is to sign, in base64url
    code              to be compared with the one on the phone; None: WhatsApp needs no such comparison
    """

    phone: str
    push_name: str
    challenge: str
    code: str | None


class Timelock(msgspec.Struct, frozen=True, rename="camel"):
    """`reachoutTimelock`: the account may not write to people who never wrote to it. The end in seconds."""

    enforcement_type: str
    is_active: bool
    time_enforcement_ends: int | None


class Session:
    """A session of this WAHA, from its creation to its deletion.

    account    the linked account while connected or just disconnected; None before login
    connected  whether the engine's socket to WhatsApp is there; a WORKING session can be without it
    muted      WORKING, and nothing comes in or goes out
    proxy      `config.proxy` as it was at the last start: what is changed later has no effect before the next
    line       the connection to WhatsApp, where there is a WhatsApp to be connected to
    queries    what becomes of live queries while it is muted
    codes      pairing codes that were asked for, by phone number
    passkey    the login that waits for one
    timelock   what WhatsApp says of a restriction of the account, while there is one
    strict     and whether it lets first contacts fail
    """

    def __init__(self, name: str, config: dict[str, Any] | None) -> None:
        self.name = name
        self.config = config
        self.status = Status.STOPPED
        self.statuses: list[StatusPoint] = []
        self.account: Account | None = None
        self.connected = False
        self.muted = False
        self.queries = Queries.ANSWER
        self.qr = ""
        self.codes: dict[str, str] = {}
        self.passkey: Passkey | None = None
        self.timelock: Timelock | None = None
        self.strict = False
        self.life: asyncio.Task[None] | None = None
        self.activity_ms: int | None = None
        self.proxy: Any = None
        self.line: Line | None = None

    @property
    def running(self) -> bool:
        """Whether WAHA holds an engine for it: every status but STOPPED."""
        return self.status is not Status.STOPPED

    @property
    def reachable(self) -> bool:
        """Whether WhatsApp reaches it now."""
        return self.connected and not self.muted

    @property
    def linked(self) -> Account:
        """The linked account. Raises EngineError before login, as an engine does when asked for anything."""
        if self.account is None:
            raise EngineError("Connection Closed")
        return self.account

    def setting(self, *path: str) -> Any:
        """Return a value of the configuration, or None when any part of the path is missing."""
        value: Any = self.config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value


class Linked(msgspec.Struct, frozen=True, tag=True):
    """A phone was linked to a session: WAHA stores credentials."""

    session: str
    phone: str
    push_name: str

    def become(self, world: "World") -> None:
        """Begin an account without messages."""
        world.accounts[self.session] = Account(phone=self.phone, push_name=self.push_name)


class Removed(msgspec.Struct, frozen=True, tag=True):
    """The device was removed on the phone: the stored credentials are worth nothing."""

    session: str

    def become(self, world: "World") -> None:
        """Mark the account."""
        world.accounts[self.session].linked = False


class Forgotten(msgspec.Struct, frozen=True, tag=True):
    """WAHA wiped the credentials, and with them the device's messages."""

    session: str

    def become(self, world: "World") -> None:
        """Drop the account."""
        del world.accounts[self.session]


class Stored(msgspec.Struct, frozen=True, tag=True):
    """A device has a message, new or changed."""

    session: str
    message: Message

    def become(self, world: "World") -> None:
        """Keep it under its bare id."""
        world.accounts[self.session].messages[self.message.id] = self.message


class Arrived(msgspec.Struct, frozen=True, tag=True):
    """A customer received a message."""

    phone: str
    received: Received

    def become(self, world: "World") -> None:
        """Put it into the inbox, once more."""
        world.phone(self.phone).receive(self.received)


class Acted(msgspec.Struct, frozen=True, tag=True):
    """A customer's phone saw an act of the session's."""

    phone: str
    act: Act

    def become(self, world: "World") -> None:
        """Let it change what it acts on."""
        world.phone(self.phone).undergo(self.act)


Fact = Linked | Removed | Forgotten | Stored | Arrived | Acted


class World:
    """Everything there is. `base_url` is known once the listener is open.

    journal   is told of all that stands outside of WAHA's memory, before it is said to anybody
    now_ms    the clock that everything happens by
    whatsapp  where sessions connect to; None: they are connected as soon as they want to be
    media_ids whether media are sent under a chosen id, which no version promises and newer ones of GOWS and
              NOWEB do
    """

    def __init__(
        self,
        *,
        engine: Engine,
        version: str,
        api_key: str,
        tempo: Tempo,
        auto_scan: bool,
        whatsapp: tuple[str, int] | None = None,
        now_ms: Callable[[], int],
    ) -> None:
        self.now_ms = now_ms
        self.engine = engine
        self.version = version
        self.api_key = api_key
        self.tempo = tempo
        self.auto_scan = auto_scan
        self.whatsapp = whatsapp
        self.worker_id: str | None = None
        self.base_url = ""
        self.started_at_ms = now_ms()
        self.sessions: dict[str, Session] = {}
        self.accounts: dict[str, Account] = {}
        self.phones: dict[str, CustomerPhone] = {}
        self.acks: tuple[int, ...] = (1, 2)
        self.media_ids = False
        self.files = Files()
        self.faults = Faults()
        self.chores = Chores()
        self.journal: Callable[[Fact], None] = nowhere

    def since(self, *version: int) -> bool:
        """Whether this WAHA is of that version or newer."""
        return tuple(int(part) for part in self.version.split(".")) >= version

    def phone(self, who: str) -> CustomerPhone:
        """Return a customer's phone; every number has one."""
        return self.phones.setdefault(who, CustomerPhone())

    def learn(self, fact: Fact) -> None:
        """Let something become true outside of WAHA's memory, and write it down."""
        self.journal(fact)
        fact.become(self)

    async def pause(self, seconds: float) -> None:
        """Wait as long as WAHA would, at this sandbox's tempo."""
        await asyncio.sleep(seconds * self.tempo.waits)


def nowhere(_fact: Fact) -> None:
    """Write nothing down."""


def now_ms() -> int:
    """Return the time of day in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def usual_phone(session: str) -> str:
    """Return the number that a session is linked to unless the scan says another: the same at every start."""
    return f"55119{zlib.crc32(session.encode()) % 100_000_000:08d}"
