"""`/api`, `/ping` and `/health`: WAHA's REST, as far as wsm uses it.

Errors have WAHA's shapes: Nest's for 4xx, the waits' own for 422, and for 500 a stack and an echo of the
request with everything that stood in it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from wsm.core.errors import BadInput
from wsm.sandbox.waha import asgi, bodies, ids
from wsm.sandbox.waha.asgi import Answer, Request, Route
from wsm.sandbox.waha.faults import Fault, Queries, Wrong
from wsm.sandbox.waha.handset import Handset
from wsm.sandbox.waha.state import Engine, EngineError, Session, Status, World, now_ms

_EXISTS_SECONDS = 5.0
_STATUS_SECONDS = 10.0
_POLL_SECONDS = 0.5
_QUERY_SECONDS: Final = {Engine.WEBJS: 300.0, Engine.WPP: 300.0, Engine.NOWEB: 120.0, Engine.GOWS: 75.0}
_PRESENCES_OF_CHAT: Final = {"typing": "typing", "recording": "recording", "paused": "paused"}
_PRESENCES: Final = {"online", "offline"}
_NEW_MESSAGE_ID_SINCE: Final = (2026, 4, 3)
_NAMES: Final = {400: "Bad Request", 404: "Not Found", 422: "Unprocessable Entity", 501: "Not Implemented"}


class Rest:
    """WAHA's calls about sending, presence, contacts and the server."""

    def __init__(self, world: World, handset: Handset, environ: Mapping[str, str]) -> None:
        self._world = world
        self._handset = handset
        self._environ = environ
        self.routes: tuple[Route, ...] = (
            Route("GET /ping", self._ping),
            Route("GET /health", self._health),
            Route("GET /api/server/version", self._version),
            Route("GET /api/version", self._version),
            Route("GET /api/server/status", self._status),
            Route("GET /api/server/environment", self._started_with),
            Route("POST /api/sendText", self._send_text),
            Route("POST /api/sendSeen", self._signal("seen")),
            Route("POST /api/startTyping", self._signal("typing")),
            Route("POST /api/stopTyping", self._signal("paused")),
            Route("GET /api/contacts/check-exists", self._check_exists),
            Route("GET /api/files/{name}/{file}", self._file),
            Route("POST /api/{name}/presence", self._presence),
            Route("GET /api/{name}/new-message-id", self._new_message_id),
        )

    async def working(self, name: str) -> Session:
        """Return a session that works and is connected, or refuse as `in_status` does."""
        session = await self.in_status(name, Status.WORKING)
        if not session.connected:
            raise EngineError("Connection Closed")
        return session

    async def in_status(self, name: str, expected: Status) -> Session:
        """Return a session in a status, or wait as long as WAHA and refuse with its 422."""
        sessions = self._world.sessions
        if not await self._until(lambda: name in sessions and sessions[name].running, _EXISTS_SECONDS):
            raise asgi.Refused(asgi.json(_not_running(name), 422))
        session = sessions[name]
        if not await self._until(lambda: session.status is expected, _STATUS_SECONDS):
            refusal = {
                "error": "Session status is not as expected. Try again later or restart the session",
                "session": name,
                "status": session.status,
                "expected": [expected],
            }
            raise asgi.Refused(asgi.json(refusal, 422))
        return session

    async def _until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Look twice a second, at the sandbox's tempo."""
        for _ in range(int(seconds / _POLL_SECONDS)):
            if true():
                return True
            await self._world.pause(_POLL_SECONDS)
        return true()

    async def _ping(self, _request: Request) -> Answer:
        return asgi.json({"message": "pong"})

    async def _health(self, _request: Request) -> Answer:
        checks = {"mediaFiles.space": {"status": "up"}, "sessionsFiles.space": {"status": "up"}}
        return asgi.json({"status": "ok", "info": checks, "error": {}, "details": checks})

    async def _version(self, _request: Request) -> Answer:
        return asgi.json(bodies.environment(self._world))

    async def _status(self, _request: Request) -> Answer:
        started = self._world.started_at_ms
        worker = {"id": self._world.worker_id}
        return asgi.json({"startTimestamp": started, "uptime": now_ms() - started, "worker": worker})

    async def _started_with(self, _request: Request) -> Answer:
        return asgi.json(dict(self._environ))

    async def _new_message_id(self, request: Request, name: str) -> Answer:
        if not self._world.since(*_NEW_MESSAGE_ID_SINCE):
            raise refused(404, f"Cannot GET {request.path}")
        await self.working(name)
        if self._world.engine.in_browser:
            raise refused(501, "The method is not implemented by the engine.")
        return asgi.json({"id": ids.sent_id()})

    async def _send_text(self, request: Request) -> Answer:
        body = body_of(request)
        session = await self.working(_session_of(body))
        chat = ids.chat_id(_text(body, "chatId", "endsWith"))
        text = _text(body, "text", "matchAll")

        def leave() -> Answer:
            own = None if self._world.engine.in_browser else _given(body, "id")
            said = self._handset.send(session, chat, text, id=own, reply_to=_given(body, "reply_to"))
            return asgi.json(bodies.sent(self._world, session, said), 201)

        fault = self._world.faults.take(session.name, ids.owner(chat))
        sending = self._world.chores.spawn(self._send(request, fault, leave))
        await asyncio.wait({sending})
        return Answer(cut=True) if sending.cancelled() else sending.result()

    async def _send(self, request: Request, fault: Fault | None, leave: Callable[[], Answer]) -> Answer:
        """Send, or do what a fault says. It runs on when the caller has gone, and dies only with WAHA."""
        try:
            return await _gone_wrong(self._world, fault, leave) if fault else leave()
        except EngineError as exc:
            return failure(self._world, request, exc)

    def _signal(self, kind: str) -> Callable[[Request], Awaitable[Answer]]:
        async def answer(request: Request) -> Answer:
            body = body_of(request)
            session = await self.working(_session_of(body))
            chat = _text(body, "chatId", "endsWith")
            self._handset.signal(session, ids.chat_id(chat), kind)
            return asgi.json({} if kind == "seen" else {"result": True}, 201)

        return answer

    async def _presence(self, request: Request, name: str) -> Answer:
        body = body_of(request)
        presence, chat = body.get("presence"), body.get("chatId")
        if presence in _PRESENCES_OF_CHAT and not chat:
            raise refused(400, f"'chatId' is required for '{presence}' presence")
        if presence in _PRESENCES and chat:
            raise refused(400, f"'chatId' is not allowed for '{presence}' presence")
        if presence not in _PRESENCES_OF_CHAT and presence not in _PRESENCES:
            raise refused(400, ["presence must be one of: offline, online, typing, recording, paused"])
        session = await self.working(name)
        if chat:
            self._handset.signal(session, ids.chat_id(chat), _PRESENCES_OF_CHAT[presence])
        return asgi.json({"result": True}, 201)

    async def _check_exists(self, request: Request) -> Answer:
        session = await self.working(_session_of(request.query))
        phone = _text(request.query, "phone", "split")
        await self._ask_whatsapp(session)
        try:
            who = ids.person(phone)
        except BadInput:
            return asgi.json({"numberExists": False})
        return asgi.json({"numberExists": True, "chatId": ids.phone_chat(who)})

    async def _ask_whatsapp(self, session: Session) -> None:
        """Make the way of a live query, which a mute session cannot. Raises EngineError as engines do."""
        if not session.muted or session.queries is Queries.ANSWER:
            return
        if session.queries is Queries.HANG:
            await self._world.pause(_QUERY_SECONDS[self._world.engine])
        raise EngineError("2 UNKNOWN: info query timed out")

    async def _file(self, _request: Request, name: str, file: str) -> Answer:
        account = self._world.accounts.get(name)
        said = account.messages.get(file.partition(".")[0]) if account else None
        if said is None or said.media is None or said.media.error:
            gone = {
                "code": 404,
                "key": "FILE_NOT_FOUND",
                "message": "File not found",
                "details": "File not found or no longer available",
            }
            return asgi.json({"error": gone}, 404)
        return Answer(body=f"the file of {said.id}".encode(), content_type=said.media.mimetype)


async def _gone_wrong(world: World, fault: Fault, leave: Callable[[], Answer]) -> Answer:
    """Do what a fault says."""
    match fault.kind:
        case Wrong.FAIL_BEFORE:
            raise EngineError("2 UNKNOWN: info query timed out")
        case Wrong.ERROR_463:
            raise EngineError("2 UNKNOWN: server returned error 463")
        case Wrong.FAIL_AFTER:
            leave()
            raise EngineError("2 UNKNOWN: info query timed out")
        case Wrong.FAIL_THEN_SEND:
            world.chores.spawn(_in_vain(_later(fault.seconds, leave)))
            raise EngineError("Maximum execution time is exceeded")
        case Wrong.HANG:
            return await _later(fault.seconds, leave)
        case Wrong.HANG_AFTER:
            answer = leave()
            await asyncio.sleep(fault.seconds)
            return answer
        case Wrong.CUT_AFTER:
            leave()
            return Answer(cut=True)
        case Wrong.CUT_BEFORE:
            return Answer(cut=True)


async def _later(seconds: float, leave: Callable[[], Answer]) -> Answer:
    await asyncio.sleep(seconds)
    return leave()


async def _in_vain(sending: Awaitable[Answer]) -> None:
    """Do it, though nobody is told how it went."""
    with contextlib.suppress(EngineError):
        await sending


def refused(status: int, message: str | list[str]) -> asgi.Refused:
    """Make a refusal of Nest's shape."""
    return asgi.Refused(
        asgi.json({"message": message, "error": _NAMES[status], "statusCode": status}, status)
    )


def failure(world: World, request: Request, exc: EngineError) -> Answer:
    """Answer 500 as WAHA does: with a stack, and with everything that was asked."""
    try:
        body = request.json()
    except msgspec.DecodeError:
        body = {}
    text = str(exc)
    return asgi.json(
        {
            "statusCode": 500,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "exception": {
                "stack": f"Error: {text}\n    at processTicksAndRejections (node:internal/process)",
                "message": text,
                "name": "Error",
            },
            "request": {
                "path": request.path,
                "method": request.method,
                "body": body,
                "query": request.query,
            },
            "version": bodies.environment(world),
        },
        500,
    )


def _not_running(name: str) -> bodies.Json:
    return {
        "error": f"We didn't find a session with name '{name}'.\n"
        f"Please start it first by using POST /api/sessions/{name}/start request",
        "session": name,
    }


def body_of(request: Request) -> bodies.Json:
    """Return the body, an object, or refuse with 400."""
    try:
        body = request.json()
    except msgspec.DecodeError as exc:
        raise refused(400, str(exc)) from None
    if not isinstance(body, dict):
        raise refused(400, "the body must be an object")
    return body


def _session_of(values: dict[str, Any]) -> str:
    name = values.get("session")
    if not isinstance(name, str) or not name:
        raise refused(400, "session is required")
    return name


def _text(body: bodies.Json, key: str, stumbled: str) -> str:
    """Return a text, which WAHA does not validate: a missing one is a stumble further down."""
    if not isinstance(body.get(key), str):
        raise EngineError(f"Cannot read properties of undefined (reading '{stumbled}')")
    return str(body[key])


def _given(body: bodies.Json, key: str) -> str | None:
    return str(body[key]) if body.get(key) else None
