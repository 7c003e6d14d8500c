"""One text from a session to a number: a person's check that the number works, from the exit to the ack.

It is no intent of the outbox. An intent waits for its turn, for as long as it takes, in a conversation that
must be there; a check is about now, to a number that may never have written, and who asked for it stands by:
what became of it is his to judge, and to repeat or not. So it is sent once, under a reserved id where the
engine has them, never repeated here, and an unknown outcome is looked for and told as what it is (P4). Its
echo comes back like that of anything sent through the API, and is kept as an own message.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec

from wsm.core.errors import BadInput, GatewayRefused, GatewayUnavailable, OutcomeUnknown
from wsm.core.ids import BareId, ChatId, TenantId
from wsm.gateway.waha import WahaSession
from wsm.store import reads
from wsm.store.database import Database

SERVER, DEVICE = 1, 2
"""Levels of an ack: WhatsApp's server has it; the customer's phone has it."""
_LOOK_SECONDS = 0.5


class Trial(msgspec.Struct, frozen=True):
    """What became of it.

    certain  False: the gateway did not say whether it left, and no evidence came in time
    level    how far it got: 0 taken by the engine, 1 at WhatsApp, 2 on the phone, 3 read
    refused  WhatsApp said no after the engine had taken it
    heard    its echo or an ack came to wsm as a webhook
    """

    certain: bool
    level: int = 0
    refused: bool = False
    heard: bool = False


async def try_out(
    database: Database,
    gateway: WahaSession,
    session: int,
    phone: str,
    text: str,
    *,
    patience_seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> Trial:
    """Send a text to a number (digits alone) and wait for what becomes of it.

    Raises BadInput when the number is not on WhatsApp, GatewayUnavailable when the session does not work, and
    GatewayRefused: then nothing was sent. Blocks for the time of a send and `patience_seconds`.
    """
    info = await gateway.get()
    if info.status != "WORKING":
        raise GatewayUnavailable(f"the session does not work: it is {info.status}")
    chat = await _chat(gateway, phone)
    id_ = await gateway.new_message_id()
    certain = True
    try:
        sent = await gateway.send_text(chat, text, id=id_)
    except OutcomeUnknown:
        if id_ is None:
            return Trial(certain=False)
        sent, certain = id_, False
    watch = _Watch(database, gateway, session, sent, can_look=id_ is not None)
    return await watch.until_told(Trial(certain), patience_seconds, monotonic)


async def _chat(gateway: WahaSession, phone: str) -> ChatId:
    """Under which id somebody is reached; a gateway that cannot be asked is told the number itself."""
    try:
        chat = await gateway.find_person(phone)
    except GatewayRefused:
        return ChatId(f"{phone}@c.us")
    if chat is None:
        raise BadInput("phone", "is not on WhatsApp")
    return chat


class _Watch:
    """Looks for what is known of one own message: what came by webhook, and what the gateway has."""

    def __init__(
        self, database: Database, gateway: WahaSession, session: int, sent: BareId, *, can_look: bool
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._tenant: TenantId = gateway.address.tenant
        self._session = session
        self._id = sent
        self._can_look = can_look

    async def until_told(self, trial: Trial, seconds: float, monotonic: Callable[[], float]) -> Trial:
        """Look until it is on the phone and wsm has heard of it, was refused, or the time is over."""
        over_at = monotonic() + seconds
        while True:
            trial = await self._look(trial)
            told = trial.refused or (trial.level >= DEVICE and trial.heard)
            if told or monotonic() >= over_at:
                return trial
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, trial: Trial) -> Trial:
        kept = await reads.own_message(self._database, self._tenant, self._session, self._id)
        found = await self._at_the_gateway()
        level = max(trial.level, kept.level or 0, found or 0)
        return Trial(
            certain=trial.certain or kept.heard or found is not None,
            level=level,
            refused=kept.refused or (found is not None and found < 0),
            heard=kept.heard,
        )

    async def _at_the_gateway(self) -> int | None:
        """Ask the gateway for the level, as long as it can be asked; None: it has no such message."""
        if not self._can_look:
            return None
        try:
            found = await self._gateway.find_message(self._id)
        except GatewayRefused:
            self._can_look = False
            return None
        except GatewayUnavailable:
            return None
        return None if found is None else found.ack or 0
