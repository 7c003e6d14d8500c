"""What leaves through WAHA: all kinds of messages, acts on earlier ones, that a chat is seen or typed in.

Each goes wrong as `faults` says. A restriction of the account is WhatsApp's own fault of that kind: GOWS
hears it as an error at once, the others as an error ack.

What the engines make of a message that they do not know: NOWEB and GOWS ask nobody and send; the browsers
look for it first and fail (read in their libraries, not seen).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from wsm.sandbox.waha import answers, asgi, bodies, ids
from wsm.sandbox.waha.asgi import Answer, Request, Route
from wsm.sandbox.waha.contents import Kind
from wsm.sandbox.waha.faults import AckError, Fault, Wrong
from wsm.sandbox.waha.handset import Handset
from wsm.sandbox.waha.rest import Rest, body_of, failure, given, refused, session_of, text_of
from wsm.sandbox.waha.sendables import READERS, Reader
from wsm.sandbox.waha.state import Engine, EngineError, Message, Session, World

Leave = Callable[[Fault | None], Answer]
"""Lets something leave, and answers. The fault is what WhatsApp says of it later, if it says anything."""

_SIGNALS: Final = {"sendSeen": "seen", "startTyping": "typing", "stopTyping": "paused"}
_FAILS_WITH: Final = {
    Wrong.FAIL_BEFORE: "2 UNKNOWN: info query timed out",
    Wrong.FAIL_AFTER: "2 UNKNOWN: info query timed out",
    Wrong.FAIL_THEN_SEND: "Maximum execution time is exceeded",
    Wrong.ERROR_463: "2 UNKNOWN: server returned error 463",
}
_OVERLIMIT: Final = {Engine.GOWS: "2 UNKNOWN: info query returned status 429: rate-overlimit"}
_MALFORMED: Final = "Message id be in format false_11111111111@c.us_AAAAAAAAAAAAAAAAAAAA[_participant]"
_PARTS: Final = {3, 4}


class SendsRest:
    """WAHA's calls that bring something to a chat."""

    def __init__(self, world: World, handset: Handset, rest: Rest) -> None:
        self._world = world
        self._handset = handset
        self._rest = rest
        message = "/api/{name}/chats/{chat}/messages/{message}"
        self.routes: tuple[Route, ...] = (
            *(Route(f"POST /api/{call}", self._sends(call, read)) for call, read in READERS.items()),
            *(Route(f"POST /api/{call}", self._signals(call, kind)) for call, kind in _SIGNALS.items()),
            Route("PUT /api/reaction", self._react),
            Route(f"PUT {message}", self._edit),
            Route(f"DELETE {message}", self._delete),
        )

    def _sends(self, call: str, read: Reader) -> Callable[[Request], Awaitable[Answer]]:
        async def send(request: Request) -> Answer:
            body = body_of(request)
            session = await self._rest.working(session_of(body))
            chat = ids.chat_id(text_of(body, "chatId", "endsWith"))
            what = await read(self._world, body)
            takes_id = what.data is None or self._world.media_ids
            own = given(body, "id") if takes_id and not self._world.engine.in_browser else None

            def leave(refused_by: Fault | None) -> Answer:
                said = self._handset.send(
                    session,
                    chat,
                    what.text,
                    content=what.content,
                    id=own,
                    reply_to=given(body, "reply_to"),
                    refused=refused_by,
                )
                if what.data is not None:
                    self._world.files.keep(said.id, what.data)
                return asgi.json(self._sent(session, said), 201)

            return await self._perform(request, session, chat, call, leave)

        return send

    def _sent(self, session: Session, said: Message) -> bodies.Json:
        """Answer a send; NOWEB makes a message of a poll alone."""
        if self._world.engine is Engine.NOWEB and said.content.kind is Kind.POLL:
            return bodies.message(self._world, session, said)
        return bodies.sent(self._world, session, said)

    def _signals(self, call: str, kind: str) -> Callable[[Request], Awaitable[Answer]]:
        async def signal(request: Request) -> Answer:
            body = body_of(request)
            session = await self._rest.working(session_of(body))
            chat = ids.chat_id(text_of(body, "chatId", "endsWith"))
            named = [str(each) for each in body.get("messageIds") or []]

            def leave(_refused_by: Fault | None) -> Answer:
                self._handset.signal(session, chat, kind, named)
                return asgi.json({} if kind == "seen" else {"result": True}, 201)

            return await self._perform(request, session, chat, call, leave)

        return signal

    async def _react(self, request: Request) -> Answer:
        body = body_of(request)
        session = await self._rest.working(session_of(body))
        target = self._target(session, text_of(body, "messageId", "split"), None)
        text = str(body.get("reaction") or "")
        return await self._act(request, session, "message.reaction", target, text)

    async def _edit(self, request: Request, name: str, chat: str, message: str) -> Answer:
        session = await self._rest.working(name)
        target = self._target(session, message, chat, bare=self._world.engine is Engine.GOWS)
        text = text_of(body_of(request), "text", "matchAll")
        return await self._act(request, session, "message.edited", target, text)

    async def _delete(self, request: Request, name: str, chat: str, message: str) -> Answer:
        session = await self._rest.working(name)
        target = self._target(session, message, chat)
        return await self._act(request, session, "message.revoked", target, "")

    async def _act(
        self, request: Request, session: Session, event: str, target: Message, text: str
    ) -> Answer:
        def leave(refused_by: Fault | None) -> Answer:
            act = self._handset.change(
                session, event, target, text, from_me=True, source="api", refused=refused_by
            )
            return answers.acted(self._world, session, event, act, target)

        return await self._perform(request, session, target.chat, _CALLS[event], leave)

    def _target(self, session: Session, message: str, chat: str | None, *, bare: bool = False) -> Message:
        """Return the message that an act is meant for, in the chat that the call names."""
        parts = message.split("_")
        if len(parts) not in _PARTS and not (bare and len(parts) == 1):
            raise EngineError(_MALFORMED)
        where = ids.chat_id(chat or parts[1])
        found = session.linked.messages.get(ids.bare_of(message))
        if found and ids.owner(found.chat) == ids.owner(where):
            return found
        if found is None and self._world.engine.in_browser:
            raise EngineError(f"Message {message} not found")
        if found:
            return msgspec.structs.replace(found, chat=where)
        own = parts[0] == "true"
        return Message(ids.bare_of(message), where, own, "app", "", timestamp=0, ack=0)

    async def _perform(
        self, request: Request, session: Session, chat: str, call: str, leave: Leave
    ) -> Answer:
        """Do it, or what a fault says, though the caller may go: it dies only with WAHA."""
        who = ids.owner(chat)
        fault = self._world.faults.take(session.name, who, call)
        if fault is None and call not in _SIGNALS:
            fault = self._restricted(session, who)
        sending = self._world.chores.spawn(self._send(request, fault, leave))
        await asyncio.wait({sending})
        return Answer(cut=True) if sending.cancelled() else sending.result()

    def _restricted(self, session: Session, who: str) -> Fault | None:
        """Return what becomes of a message to somebody who never wrote, while the account may not begin."""
        lock = session.timelock
        if lock is None or not (lock.is_active and session.strict):
            return None
        if any(not said.from_me and ids.owner(said.chat) == who for said in session.linked.messages.values()):
            return None
        if self._world.engine is Engine.GOWS:
            return Fault(Wrong.ERROR_463)
        if self._world.engine.in_browser:
            return Fault(Wrong.ERROR_ACK)
        ends = lock.time_enforcement_ends
        until = None if ends is None else datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        error = AckError("463", True, "account_restricted", until, lock.enforcement_type)
        return Fault(Wrong.ERROR_ACK, error=error)

    async def _send(self, request: Request, fault: Fault | None, leave: Leave) -> Answer:
        try:
            return await _gone_wrong(self._world, fault, leave) if fault else leave(None)
        except asgi.Refused as refusal:
            return refusal.answer
        except EngineError as exc:
            return failure(self._world, request, exc)


_CALLS: Final = {"message.reaction": "reaction", "message.edited": "edit", "message.revoked": "delete"}


async def _gone_wrong(world: World, fault: Fault, leave: Leave) -> Answer:
    """Do what a fault says."""
    match fault.kind:
        case Wrong.ERROR_ACK:
            return leave(fault)
        case Wrong.FAIL_AFTER:
            leave(None)
            raise EngineError(_FAILS_WITH[fault.kind])
        case Wrong.FAIL_THEN_SEND:
            world.chores.spawn(_in_vain(_later(fault.seconds, leave)))
            raise EngineError(_FAILS_WITH[fault.kind])
        case Wrong.HANG:
            return await _later(fault.seconds, leave)
        case Wrong.HANG_AFTER:
            answer = leave(None)
            await asyncio.sleep(fault.seconds)
            return answer
        case Wrong.CUT_AFTER:
            leave(None)
            return Answer(cut=True)
        case _:
            return _not_sent(world, fault)


def _not_sent(world: World, fault: Fault) -> Answer:
    """Answer for what never left."""
    match fault.kind:
        case Wrong.RATE_OVERLIMIT:
            raise EngineError(_OVERLIMIT.get(world.engine, "rate-overlimit"))
        case Wrong.NOT_IMPLEMENTED:
            raise refused(501, f"The method is not implemented by '{world.engine}' engine.")
        case Wrong.TOO_MANY:
            headers = () if fault.retry_after is None else (("Retry-After", fault.retry_after),)
            return Answer(429, b"Too Many Requests", "text/plain", headers=headers)
        case Wrong.CUT_BEFORE:
            return Answer(cut=True)
        case _:
            raise EngineError(_FAILS_WITH[fault.kind])


async def _later(seconds: float, leave: Leave) -> Answer:
    await asyncio.sleep(seconds)
    return leave(None)


async def _in_vain(sending: Awaitable[Answer]) -> None:
    """Do it, though nobody is told how it went."""
    with contextlib.suppress(EngineError):
        await sending
