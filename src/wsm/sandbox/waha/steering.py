"""`/sandbox`: the other side of the screen, for a test, the story or a person without a phone.

Bad input is a 400 that names the field and the reason. Nothing here asks for a key.

    GET  /sandbox/status                    sessions, deliveries, what is pending, every phone's inbox
    GET  /sandbox/deliveries                ?session= &event= &state=
    GET  /sandbox/phones/{phone}            one phone: inbox, acts, signals, and all of it in its order
    POST /sandbox/say                       a customer writes                             Say
    POST /sandbox/type                      the agent types on the linked phone           Type
    POST /sandbox/react, /edit, /revoke     somebody changes a message                    Change
    POST /sandbox/ack                       a message reaches a level                     Ack
    POST /sandbox/acks                      the levels to come, of one phone or all       Acks
    POST /sandbox/sessions/{name}/scan      scan the QR code                              Scan
    POST /sandbox/sessions/{name}/enter-code  type the pairing code on the phone          EnterCode
    POST /sandbox/sessions/{name}/drop      the connection drops                          Drop
    POST /sandbox/sessions/{name}/mute      nothing comes in or goes out                  Mute
    POST /sandbox/sessions/{name}/unmute, /unlink
    POST /sandbox/sessions/{name}/restrict  the account may not begin chats               Restrict
    POST /sandbox/sessions/{name}/lift      and may again
    POST /sandbox/habits                    what versions of WAHA differ in               Habits
    GET, POST, DELETE /sandbox/faults       the next sends go wrong                       faults.Fault
    POST /sandbox/refuse                    connections are refused for a time            Refuse
    POST /sandbox/forge                     a webhook that WAHA did not sign              Forge
    POST /sandbox/emit                      any event with any payload                    Emit
    POST /sandbox/wait-idle                 until nothing is pending                      WaitIdle
    POST /sandbox/kill                      as SIGKILL: sessions and retries are gone
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from wsm.core.errors import BadInput
from wsm.sandbox.waha import asgi, asks, bodies, ids
from wsm.sandbox.waha.asgi import Answer, Request, Route
from wsm.sandbox.waha.contents import Media
from wsm.sandbox.waha.faults import Fault
from wsm.sandbox.waha.handset import Handset, Said
from wsm.sandbox.waha.lifecycle import Lifecycle
from wsm.sandbox.waha.state import Engine, Message, Passkey, Session, Status, Timelock, World, usual_phone
from wsm.sandbox.waha.steering_hooks import known, linked
from wsm.sandbox.waha.webhooks import Courier

_EVENTS: Final = {"react": "message.reaction", "edit": "message.edited", "revoke": "message.revoked"}
_COPIES: Final = range(1, 1001)


class Power(Protocol):
    """What the server itself can do."""

    async def kill(self) -> None:
        """Lose what SIGKILL loses."""

    def refuse(self, seconds: float) -> None:
        """Refuse connections for a time, from now on."""


class Steering:
    """Plays everybody but WAHA."""

    def __init__(
        self, world: World, courier: Courier, handset: Handset, lifecycle: Lifecycle, power: Power
    ) -> None:
        self._world = world
        self._courier = courier
        self._handset = handset
        self._lifecycle = lifecycle
        self._power = power
        self.routes: tuple[Route, ...] = (
            Route("GET /sandbox/status", self._status),
            Route("GET /sandbox/phones/{phone}", self._phone),
            Route("POST /sandbox/say", asks.reading(asks.Say, self._say)),
            Route("POST /sandbox/type", asks.reading(asks.Type, self._type)),
            *(
                Route(f"POST /sandbox/{word}", asks.reading(asks.Change, self._change(event)))
                for word, event in _EVENTS.items()
            ),
            Route("POST /sandbox/ack", asks.reading(asks.Ack, self._ack)),
            Route("POST /sandbox/acks", asks.reading(asks.Acks, self._acks)),
            Route("POST /sandbox/sessions/{name}/scan", asks.reading(asks.Scan, self._scan)),
            Route("POST /sandbox/sessions/{name}/enter-code", asks.reading(asks.EnterCode, self._enter_code)),
            Route("POST /sandbox/sessions/{name}/drop", asks.reading(asks.Drop, self._drop)),
            Route("POST /sandbox/sessions/{name}/mute", asks.reading(asks.Mute, self._mute)),
            Route("POST /sandbox/sessions/{name}/unmute", asks.reading(asks.Nothing, self._unmute)),
            Route("POST /sandbox/sessions/{name}/unlink", asks.reading(asks.Nothing, self._unlink)),
            Route("POST /sandbox/sessions/{name}/restrict", asks.reading(asks.Restrict, self._restrict)),
            Route("POST /sandbox/sessions/{name}/lift", asks.reading(asks.Nothing, self._lift)),
            Route("POST /sandbox/habits", asks.reading(asks.Habits, self._habits)),
            Route("GET /sandbox/faults", self._list_faults),
            Route("POST /sandbox/faults", asks.reading(Fault, self._add_fault)),
            Route("DELETE /sandbox/faults", self._clear_faults),
            Route("POST /sandbox/refuse", asks.reading(asks.Refuse, self._refuse)),
            Route("POST /sandbox/wait-idle", asks.reading(asks.WaitIdle, self._wait_idle)),
            Route("POST /sandbox/kill", asks.reading(asks.Nothing, self._kill)),
        )

    async def _status(self, _request: Request) -> Answer:
        world = self._world
        return asgi.json(
            {
                "engine": world.engine,
                "version": world.version,
                "pending": self._courier.pending,
                "unfinished": world.chores.unfinished,
                "sessions": {
                    name: {
                        "status": session.status,
                        "statuses": session.statuses,
                        "connected": session.connected,
                        "muted": session.muted,
                        "phone": session.account.phone if session.account else None,
                        "held": len(session.account.held) if session.account else 0,
                    }
                    for name, session in world.sessions.items()
                },
                "deliveries": list(self._courier.log),
                "phones": {who: phone.inbox for who, phone in world.phones.items()},
                "faults": world.faults.coming,
            }
        )

    async def _phone(self, _request: Request, phone: str) -> Answer:
        return asgi.json(self._world.phone(ids.person(phone)))

    async def _say(self, asked: asks.Say) -> Answer:
        if asked.session not in self._world.accounts:
            raise BadInput("session", f"{asked.session!r} is linked to no phone (yet)")
        if asked.duplicates not in _COPIES:
            raise BadInput("duplicates", "1 to 1000")
        if asked.group is not None and not asked.group.endswith(("@g.us", "@broadcast", "@newsletter")):
            raise BadInput("group", "a chat id that ends in @g.us, @broadcast or @newsletter")
        said = Said(
            who=_number(asked.phone),
            text=asked.text,
            push_name=asked.push_name,
            group=asked.group,
            id=asked.id or ids.phone_id(),
            reply_to=asked.reply_to,
            as_lid=asked.as_lid,
            twin=asked.twin,
            copies=asked.duplicates,
            sent_at_ms=asked.timestamp_ms,
            media=Media() if asked.media is True else asked.media or None,
            late_seconds=asked.late_seconds,
            told=asked.told,
        )
        if asked.delay_seconds > 0:
            self._world.chores.spawn(self._say_later(asked, said))
        else:
            self._handset.hear(asked.session, said)
        return asgi.json({"id": said.id}, 201)

    async def _say_later(self, asked: asks.Say, said: Said) -> None:
        await asyncio.sleep(asked.delay_seconds)
        self._handset.hear(asked.session, said)

    async def _type(self, asked: asks.Type) -> Answer:
        session = linked(self._world, asked.session)
        chat = ids.phone_chat(ids.person(asked.chat)) if "@" not in asked.chat else ids.chat_id(asked.chat)
        said = self._handset.send(
            session,
            chat,
            asked.text,
            id=asked.id,
            reply_to=asked.reply_to,
            source="app",
            told=asked.told,
        )
        return asgi.json({"id": said.id}, 201)

    def _change(self, event: str) -> Callable[[asks.Change], Awaitable[Answer]]:
        async def change(asked: asks.Change) -> Answer:
            session, target = self._stored(asked.session, asked.id)
            act = self._handset.change(session, event, target, asked.text, from_me=asked.from_me)
            return asgi.json({"id": act.id}, 201)

        return change

    async def _ack(self, asked: asks.Ack) -> Answer:
        session, target = self._stored(asked.session, asked.id)
        reader = ids.phone_chat(_number(asked.reader)) if asked.reader else None
        self._handset.acknowledge(session.name, target, _level("level", asked.level), reader, asked.error)
        return asgi.json({"id": target.id, "level": asked.level}, 201)

    async def _acks(self, asked: asks.Acks) -> Answer:
        levels = tuple(_level("levels", level) for level in asked.levels)
        if asked.phone is None:
            self._world.acks = levels
        else:
            self._world.phone(_number(asked.phone)).acks = levels
        return asgi.json({"levels": levels}, 201)

    async def _scan(self, asked: asks.Scan, name: str) -> Answer:
        session = self._asking(name)
        phone = _number(asked.phone) if asked.phone else usual_phone(name)
        if asked.passkey:
            return self._ask_passkey(session, phone, asked.push_name, asked.code)
        self._lifecycle.scan(session, phone, asked.push_name)
        return asgi.json({"phone": phone}, 201)

    async def _enter_code(self, asked: asks.EnterCode, name: str) -> Answer:
        session = self._asking(name)
        phone = next((phone for phone, code in session.codes.items() if code == asked.code), None)
        if phone is None:
            raise BadInput("code", "is none that the session shows")
        if asked.passkey:
            return self._ask_passkey(session, phone, "Loja", None)
        self._lifecycle.scan(session, phone)
        return asgi.json({"phone": phone}, 201)

    def _ask_passkey(self, session: Session, phone: str, push_name: str, code: str | None) -> Answer:
        if self._world.engine is not Engine.GOWS:
            raise BadInput("passkey", "is GOWS' alone")
        self._lifecycle.ask_passkey(session, Passkey(phone, push_name, secrets.token_urlsafe(32), code))
        return asgi.json({"phone": phone}, 201)

    async def _drop(self, asked: asks.Drop, name: str) -> Answer:
        session = linked(self._world, name)
        self._lifecycle.drop(session, asked.away_seconds)
        return self._say_status(session)

    async def _mute(self, asked: asks.Mute, name: str) -> Answer:
        session = linked(self._world, name)
        session.muted, session.queries = True, asked.queries
        return self._say_status(session)

    async def _unmute(self, _asked: asks.Nothing, name: str) -> Answer:
        session = linked(self._world, name)
        self._lifecycle.unmute(session)
        return self._say_status(session)

    async def _unlink(self, _asked: asks.Nothing, name: str) -> Answer:
        session = linked(self._world, name)
        self._lifecycle.unlink(session)
        return self._say_status(session)

    async def _restrict(self, asked: asks.Restrict, name: str) -> Answer:
        session = linked(self._world, name)
        session.strict = asked.strict
        self._lifecycle.restrict(session, Timelock(asked.enforcement_type, True, asked.until))
        return self._say_status(session)

    async def _lift(self, _asked: asks.Nothing, name: str) -> Answer:
        session = linked(self._world, name)
        if session.timelock is None:
            raise BadInput("session", f"{name!r} is not restricted")
        self._lifecycle.lift(session, session.timelock)
        return self._say_status(session)

    async def _habits(self, asked: asks.Habits) -> Answer:
        self._world.media_ids = asked.media_ids
        return asgi.json(asked, 201)

    async def _list_faults(self, _request: Request) -> Answer:
        return asgi.json(self._world.faults.coming)

    async def _add_fault(self, asked: Fault) -> Answer:
        if asked.times < 1:
            raise BadInput("times", "1 or more")
        phone = _number(asked.phone) if asked.phone else None
        self._world.faults.add(msgspec.structs.replace(asked, phone=phone))
        return asgi.json(self._world.faults.coming, 201)

    async def _clear_faults(self, _request: Request) -> Answer:
        self._world.faults.clear()
        return asgi.json([])

    async def _refuse(self, asked: asks.Refuse) -> Answer:
        self._power.refuse(asked.seconds)
        return asgi.json({"seconds": asked.seconds}, 201)

    async def _wait_idle(self, asked: asks.WaitIdle) -> Answer:
        idle = await self._world.chores.idle(asked.timeout_seconds)
        return asgi.json({"idle": idle, "pending": self._courier.pending})

    async def _kill(self, _asked: asks.Nothing) -> Answer:
        lost = self._courier.pending
        await self._power.kill()
        return asgi.json({"lost": lost})

    def _say_status(self, session: Session) -> Answer:
        return asgi.json({"session": session.name, "status": session.status}, 201)

    def _asking(self, name: str) -> Session:
        session = known(self._world, name)
        if session.status is not Status.SCAN_QR_CODE:
            raise BadInput("session", f"shows no QR code: it is {session.status}")
        return session

    def _stored(self, name: str, message: str) -> tuple[Session, Message]:
        session = linked(self._world, name)
        target = self._world.accounts[name].messages.get(ids.bare_of(message))
        if target is None:
            raise BadInput("id", f"{name!r} knows no message {message!r}")
        return session, target


def explain(exc: BadInput) -> Answer:
    """Answer 400 with the field and the reason."""
    return asgi.json({"field": exc.field, "reason": exc.reason}, 400)


def _number(phone: str) -> str:
    who = ids.person(phone)
    if not who.isdigit():
        raise BadInput("phone", f"{phone!r} is not a person's")
    return who


def _level(field: str, level: int) -> int:
    if level not in bodies.ACK_NAMES:
        raise BadInput(field, "-1 to 4")
    return level
