"""`/api`, `/ping` and `/health`: WAHA's REST, as far as wsm uses it.

Errors have WAHA's shapes: Nest's for 4xx, the waits' own for 422, and for 500 a stack and an echo of the
request with everything that stood in it.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from wsm.core.errors import BadInput
from wsm.sandbox.waha import asgi, bodies, ids
from wsm.sandbox.waha.asgi import Answer, Request, Route
from wsm.sandbox.waha.faults import Queries
from wsm.sandbox.waha.handset import Handset
from wsm.sandbox.waha.state import Engine, EngineError, Session, Status, World

_EXISTS_SECONDS = 5.0
_STATUS_SECONDS = 10.0
_POLL_SECONDS = 0.5
_QUERY_SECONDS: Final = {Engine.WEBJS: 300.0, Engine.WPP: 300.0, Engine.NOWEB: 120.0, Engine.GOWS: 75.0}
_PRESENCES_OF_CHAT: Final = {"typing": "typing", "recording": "recording", "paused": "paused"}
_PRESENCES: Final = {"online", "offline"}
_NEW_MESSAGE_ID_SINCE: Final = (2026, 4, 3)
_NAMES: Final = {400: "Bad Request", 404: "Not Found", 422: "Unprocessable Entity", 501: "Not Implemented"}


class Rest:
    """WAHA's calls about presence, contacts and the server, and what all calls have in common."""

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
        uptime = self._world.now_ms() - started
        return asgi.json({"startTimestamp": started, "uptime": uptime, "worker": worker})

    async def _started_with(self, _request: Request) -> Answer:
        return asgi.json(dict(self._environ))

    async def _new_message_id(self, request: Request, name: str) -> Answer:
        if not self._world.since(*_NEW_MESSAGE_ID_SINCE):
            raise refused(404, f"Cannot GET {request.path}")
        await self.working(name)
        if self._world.engine.in_browser:
            raise refused(501, "The method is not implemented by the engine.")
        return asgi.json({"id": ids.sent_id()})

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
        session = await self.working(session_of(request.query))
        phone = text_of(request.query, "phone", "split")
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
        data = self._world.files.get(said.id) or f"the file of {said.id}".encode()
        return Answer(body=data, content_type=said.media.mimetype)


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


def session_of(values: dict[str, Any]) -> str:
    """Return the session that a body or a query names, or refuse with 400."""
    name = values.get("session")
    if not isinstance(name, str) or not name:
        raise refused(400, "session is required")
    return name


def text_of(body: bodies.Json, key: str, stumbled: str) -> str:
    """Return a text, which WAHA does not validate: a missing one is a stumble further down."""
    if not isinstance(body.get(key), str):
        raise EngineError(f"Cannot read properties of undefined (reading '{stumbled}')")
    return str(body[key])


def given(body: bodies.Json, key: str) -> str | None:
    """Return a text that need not be there."""
    return str(body[key]) if body.get(key) else None
