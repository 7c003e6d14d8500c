"""Messages that arrive and leave: what WhatsApp, the linked phone and the customers' phones do.

What is sent reaches the customer and comes back as an echo and acks. What is said reaches the session, or
waits with WhatsApp until the session hears again, and then comes in a burst.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from wsm.sandbox.waha import bodies, ids, network
from wsm.sandbox.waha.contents import Content, Media
from wsm.sandbox.waha.faults import AckError, Fault
from wsm.sandbox.waha.phones import Act, Received, Signal
from wsm.sandbox.waha.state import Acted, Arrived, Engine, Message, Session, Stored, World
from wsm.sandbox.waha.webhooks import Courier

_DOWNLOAD_SECONDS: Final = 2.0
_ACK_SECONDS: Final = 0.05
_IGNORED: Final = {"@g.us": "groups", "@newsletter": "channels", "status@broadcast": "status"}
_CHANGES: Final = {
    "message.reaction": bodies.reaction,
    "message.edited": bodies.edited,
    "message.revoked": bodies.revoked,
}
_ACTS: Final = {"message.reaction": "reaction", "message.edited": "edit", "message.revoked": "revoke"}


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer does: who writes what, and how it gets to the session.

    who           phone number of the author
    group         the group that it is written in
    as_lid        it comes under the hidden id
    twin          it comes under both: two events, one bare id
    copies        deliveries of the identical webhook
    sent_at_ms    when it was written, if not now
    content       what it is beside its text, unless `media` says it
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
    content: Content = Content()
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
            timestamp=(said.sent_at_ms or self._world.now_ms()) // 1000,
            ack=2,
            participant=author if said.group else None,
            push_name=said.push_name,
            content=Content(kind=said.media.kind, media=said.media) if said.media else said.content,
            reply_to=said.reply_to,
        )
        self._reach(name, lambda session: self._arrive(session, message, said))

    def send(
        self,
        session: Session,
        chat: str,
        text: str,
        *,
        content: Content = Content(),  # noqa: B008 (frozen)
        id: str | None = None,  # noqa: A002 (WAHA's word for it)
        reply_to: str | None = None,
        source: str = "api",
        told: bool = True,
        refused: Fault | None = None,
    ) -> Message:
        """Let an own message leave: through the API, or typed on the phone (`source` app).

        A used id is not looked for: the message leaves again under it. told: as in `Said`. refused: WhatsApp
        answers with an error ack, and it arrives nowhere. Raises EngineError when no account is linked (any
        more).
        """
        account = session.linked
        message = Message(
            id=id or (ids.sent_id() if source == "api" else ids.phone_id()),
            chat=chat,
            from_me=True,
            source=source,
            body=text,
            timestamp=self._world.now_ms() // 1000,
            ack=1 if self._world.engine is Engine.GOWS else 0,
            participant=ids.phone_chat(account.phone) if chat.endswith("@g.us") else None,
            push_name=account.push_name,
            content=content,
            reply_to=reply_to,
        )
        self._world.learn(Stored(session.name, message))
        self._reach(session.name, lambda now: self._leave(now, message, told=told, refused=refused))
        return message

    def acknowledge(
        self,
        name: str,
        message: Message,
        level: int,
        reader: str | None = None,
        error: AckError | None = None,
    ) -> None:
        """Let a message reach a level; in a group `reader` is whose phone says so.

        error  why it did not arrive
        """

        def happen(session: Session) -> None:
            known = session.linked.messages.get(message.id, message)  # it may have been edited since
            known.ack = level
            self._world.learn(Stored(name, known))
            self._say_ack(session, known, reader, error)

        self._reach(name, happen)

    def change(
        self,
        session: Session,
        event: str,
        target: Message,
        text: str,
        *,
        from_me: bool,
        source: str = "app",
        refused: Fault | None = None,
    ) -> Message:
        """React to, edit or revoke a message; `event` says which. The act has an id of its own.

        source, refused: as in `send`. A target that the session does not know is named all the same.
        """
        same_id = self._world.engine.in_browser and event == "message.edited"
        act = msgspec.structs.replace(
            target,
            id=target.id if same_id else (ids.sent_id() if source == "api" else ids.phone_id()),
            from_me=from_me,
            source=source,
            body=text,
            timestamp=self._world.now_ms() // 1000,
            content=Content(),
            reply_to=None,
        )
        payload = _CHANGES[event](self._world, session, act, target)
        if event == "message.edited" and target.id in session.linked.messages:
            self._world.learn(Stored(session.name, msgspec.structs.replace(target, body=text)))

        def happen(now: Session) -> None:
            self._courier.emit(now, event, payload)
            if refused:
                failed = msgspec.structs.replace(act, ack=-1)
                self._say_ack(now, failed, None, refused.error)
            elif from_me:
                self._act(now, _ACTS[event], act, target)

        self._reach(session.name, happen)
        return act

    def signal(self, session: Session, chat: str, kind: str, named: list[str] | None = None) -> None:
        """Let a customer see that the session read, types or stopped typing.

        named  the messages that it read, if the call named them
        """
        self._world.phone(ids.owner(chat)).see(Signal(session.name, kind, self._world.now_ms(), named or []))

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
        if message.media is None:
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
            content = msgspec.structs.replace(message.content, media=failed)
            return msgspec.structs.replace(message, content=content)
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

    def _leave(self, session: Session, message: Message, *, told: bool, refused: Fault | None) -> None:
        if refused is None:
            self._deliver(session, message)
        if told and not _ignored(session, message.chat):
            if message.media:
                self._world.chores.spawn(self._echo_late(session.name, message))
            else:
                self._echo(session, message)
        if refused:
            self._world.chores.spawn(self._answer_with_error(session.name, message, refused.error))
        else:
            self._world.chores.spawn(self._answer_with_acks(session.name, message))

    def _deliver(self, session: Session, message: Message) -> None:
        """Let it arrive on the customer's phone, and in a session of this WAHA that has the number."""
        who, content = ids.owner(message.chat), message.content
        received = Received(
            session=session.name,
            chat=message.chat,
            id=message.id,
            text=message.body,
            source=message.source,
            at_ms=self._world.now_ms(),
            reply_to=message.reply_to,
            kind=content.kind,
            media=content.media,
            location=content.location,
            vcards=content.vcards,
            poll=content.poll,
        )
        self._world.learn(Arrived(who, received))
        if session.line:
            session.line.say(message.id)
        own = session.linked.phone
        for name, known in self._world.accounts.items():
            if known.phone == who:
                self.hear(name, Said(who=own, text=message.body, id=message.id, content=content))

    def _act(self, session: Session, kind: str, act: Message, target: Message) -> None:
        """Let the customer see what the session did to a message."""
        seen = Act(session.name, kind, act.id, target.id, act.body, self._world.now_ms())
        self._world.learn(Acted(ids.owner(act.chat), seen))
        if session.line and act.source == "api":
            session.line.say(act.id)

    def _echo(self, session: Session, message: Message) -> None:
        self._courier.emit(session, "message.any", bodies.message(self._world, session, message))

    async def _echo_late(self, name: str, message: Message) -> None:
        """Echo a message with a file once WAHA has downloaded what it sent itself."""
        await self._world.pause(_DOWNLOAD_SECONDS)
        message = await self._downloaded(name, message)
        self._reach(name, lambda session: self._echo(session, message))

    def _say_ack(
        self, session: Session, message: Message, reader: str | None, error: AckError | None
    ) -> None:
        event = "message.ack.group" if message.participant else "message.ack"
        self._courier.emit(session, event, bodies.ack(self._world, session, message, reader, error))

    async def _answer_with_error(self, name: str, message: Message, error: AckError | None) -> None:
        await self._world.pause(_ACK_SECONDS)
        self.acknowledge(name, message, -1, error=error)

    async def _answer_with_acks(self, name: str, message: Message) -> None:
        own = self._world.phone(ids.owner(message.chat)).acks
        for level in self._world.acks if own is None else own:
            await self._world.pause(_ACK_SECONDS)
            self.acknowledge(name, message, level)


def _ignored(session: Session, chat: str) -> bool:
    """Whether `config.ignore` filters a chat out; sending is not affected."""
    for ending, setting in _IGNORED.items():
        if chat.endswith(ending):
            return bool(session.setting("ignore", setting))
    return chat.endswith("@broadcast") and bool(session.setting("ignore", "broadcast"))
