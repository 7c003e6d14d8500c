"""Messages that arrive and leave: what WhatsApp, the linked phone and the customers' phones do.

What is sent reaches the customer and comes back as an echo and acks. What is said reaches the session, or
waits with WhatsApp until the session hears again, and then comes in a burst.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from wsm.sandbox.waha import bodies, ids, network
from wsm.sandbox.waha.state import (
    Arrived,
    Engine,
    Media,
    Message,
    Received,
    Session,
    Signal,
    Stored,
    World,
    now_ms,
)
from wsm.sandbox.waha.webhooks import Courier

_DOWNLOAD_SECONDS: Final = 2.0
_ACK_SECONDS: Final = 0.05
_IGNORED: Final = {"@g.us": "groups", "@newsletter": "channels", "status@broadcast": "status"}
_CHANGES: Final = {
    "message.reaction": bodies.reaction,
    "message.edited": bodies.edited,
    "message.revoked": bodies.revoked,
}


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer does: who writes what, and how it gets to the session.

    who           phone number of the author
    group         the group that it is written in
    as_lid        it comes under the hidden id
    twin          it comes under both: two events, one bare id
    copies        deliveries of the identical webhook
    sent_at_ms    when it was written, if not now
    late_seconds  how long a media file takes to download, if not WAHA's usual time; not scaled
    told          whether there is a webhook: one that was lost with a killed WAHA is as if it never was
    """

    who: str
    text: str
    push_name: str = "Customer"
    group: str | None = None
    id: str
    reply_to: str | None = None
    as_lid: bool = False
    twin: bool = False
    copies: int = 1
    sent_at_ms: int | None = None
    media: Media | None = None
    late_seconds: float | None = None
    told: bool = True


class Handset:
    """The far side of the screen."""

    def __init__(self, world: World, courier: Courier) -> None:
        self._world = world
        self._courier = courier

    def hear(self, name: str, said: Said) -> None:
        """Let a customer write to a session."""
        author = ids.lid_chat(said.who) if said.as_lid else ids.phone_chat(said.who)
        message = Message(
            id=said.id,
            chat=said.group or author,
            from_me=False,
            source="app",
            body=said.text,
            timestamp=(said.sent_at_ms or now_ms()) // 1000,
            ack=2,
            participant=author if said.group else None,
            push_name=said.push_name,
            media=said.media,
            reply_to=said.reply_to,
        )
        self._reach(name, lambda session: self._arrive(session, message, said))

    def send(
        self,
        session: Session,
        chat: str,
        text: str,
        *,
        id: str | None = None,  # noqa: A002 (WAHA's word for it)
        reply_to: str | None = None,
        source: str = "api",
        told: bool = True,
    ) -> Message:
        """Let an own message leave: through the API, or typed on the phone (`source` app).

        A used id is not looked for: the message leaves again under it. told: as in `Said`. Raises
        EngineError when no account is linked (any more).
        """
        account = session.linked
        message = Message(
            id=id or (ids.sent_id() if source == "api" else ids.phone_id()),
            chat=chat,
            from_me=True,
            source=source,
            body=text,
            timestamp=now_ms() // 1000,
            ack=1 if self._world.engine is Engine.GOWS else 0,
            participant=ids.phone_chat(account.phone) if chat.endswith("@g.us") else None,
            push_name=account.push_name,
            reply_to=reply_to,
        )
        self._world.learn(Stored(session.name, message))
        self._reach(session.name, lambda now: self._leave(now, message, told=told))
        return message

    def acknowledge(self, name: str, message: Message, level: int, reader: str | None = None) -> None:
        """Let a message reach a level; in a group `reader` is whose phone says so."""

        def happen(session: Session) -> None:
            message.ack = level
            self._world.learn(Stored(name, message))
            event = "message.ack.group" if message.participant else "message.ack"
            self._courier.emit(session, event, bodies.ack(self._world, session, message, reader))

        self._reach(name, happen)

    def change(self, session: Session, event: str, target: Message, text: str, *, from_me: bool) -> Message:
        """React to, edit or revoke a message; `event` says which. The act has an id of its own."""
        same_id = self._world.engine.in_browser and event == "message.edited"
        act = msgspec.structs.replace(
            target,
            id=target.id if same_id else ids.phone_id(),
            from_me=from_me,
            source="app",
            body=text,
            timestamp=now_ms() // 1000,
            media=None,
            reply_to=None,
        )
        payload = _CHANGES[event](self._world, session, act, target)
        if event == "message.edited":
            self._world.learn(Stored(session.name, msgspec.structs.replace(target, body=text)))
        self._reach(session.name, lambda now: self._courier.emit(now, event, payload))
        return act

    def signal(self, session: Session, chat: str, kind: str) -> None:
        """Let a customer see that the session read, types or stopped typing."""
        self._world.phone(ids.owner(chat)).signals.append(Signal(session.name, kind, now_ms()))

    def catch_up(self, session: Session) -> None:
        """Let everything arrive that WhatsApp held while the session did not hear."""
        account = session.linked
        held, account.held = account.held, []
        for happen in held:
            happen()

    def _reach(self, name: str, happen: Callable[[Session], None]) -> None:
        """Do it now if WhatsApp reaches the session, or when it does again; never for who logged out."""
        session = self._world.sessions.get(name)
        if session and session.reachable:
            happen(session)
        elif account := self._world.accounts.get(name):
            account.held.append(lambda: self._reach(name, happen))

    def _arrive(self, session: Session, message: Message, said: Said) -> None:
        self._world.learn(Stored(session.name, message))
        if said.media is None:
            self._tell(session, message, said)
        else:
            self._world.chores.spawn(self._tell_late(session.name, message, said))

    async def _tell_late(self, name: str, message: Message, said: Said) -> None:
        """Tell of a media message once its file is there."""
        usual = _DOWNLOAD_SECONDS * self._world.tempo.waits
        await asyncio.sleep(usual if said.late_seconds is None else said.late_seconds)
        message = await self._downloaded(name, message)
        self._reach(name, lambda session: self._tell(session, message, said))

    async def _downloaded(self, name: str, message: Message) -> Message:
        """Let the engine fetch the file of a message, and tell if it could not."""
        session = self._world.sessions.get(name)
        if session is None or message.media is None:
            return message
        try:
            await network.fetch_media(self._world, session)
        except network.NotReached:
            failed = msgspec.structs.replace(message.media, error="the file was not downloaded")
            return msgspec.structs.replace(message, media=failed)
        return message

    def _tell(self, session: Session, message: Message, said: Said) -> None:
        if not said.told or _ignored(session, message.chat):
            return
        forms = [message]
        if said.twin:
            other = ids.phone_chat(said.who) if said.as_lid else ids.lid_chat(said.who)
            changed: dict[str, Any] = {"participant": other} if said.group else {"chat": other}
            forms.append(msgspec.structs.replace(message, **changed))
        for form in forms:
            payload = bodies.message(self._world, session, form)
            self._courier.emit_all(session, ["message", "message.any"], payload, copies=said.copies)

    def _leave(self, session: Session, message: Message, *, told: bool) -> None:
        who = ids.owner(message.chat)
        received = Received(
            session=session.name,
            chat=message.chat,
            id=message.id,
            text=message.body,
            source=message.source,
            at_ms=now_ms(),
            reply_to=message.reply_to,
        )
        self._world.learn(Arrived(who, received))
        if session.line:
            session.line.say(message.id)
        if told and not _ignored(session, message.chat):
            self._courier.emit(session, "message.any", bodies.message(self._world, session, message))
        self._world.chores.spawn(self._answer_with_acks(session.name, message, who))
        own = session.linked.phone
        for name, known in self._world.accounts.items():
            if known.phone == who:
                self.hear(name, Said(who=own, text=message.body, id=message.id))

    async def _answer_with_acks(self, name: str, message: Message, who: str) -> None:
        own = self._world.phone(who).acks
        for level in self._world.acks if own is None else own:
            await self._world.pause(_ACK_SECONDS)
            self.acknowledge(name, message, level)


def _ignored(session: Session, chat: str) -> bool:
    """Whether `config.ignore` filters a chat out; sending is not affected."""
    for ending, setting in _IGNORED.items():
        if chat.endswith(ending):
            return bool(session.setting("ignore", setting))
    return chat.endswith("@broadcast") and bool(session.setting("ignore", "broadcast"))
