"""`/api/sessions` and pairing.

PUT replaces the whole configuration, and what is missing in it is gone. GET answers it verbatim. Every change
of a session's life holds the lock of its name.
"""

import base64
import re
import struct
import zlib
from typing import Any, Final

from wsm.sandbox.waha import asgi, bodies, ids, webhooks
from wsm.sandbox.waha.asgi import Answer, Request, Route
from wsm.sandbox.waha.lifecycle import Lifecycle
from wsm.sandbox.waha.rest import Rest, body_of, refused
from wsm.sandbox.waha.state import Session, Status, World

_START_IS_IDEMPOTENT_SINCE: Final = (2026, 7)
_KNOWN_TO_WAHA: Final[dict[str, Any]] = {
    "metadata": None,
    "proxy": {"server": None, "username": None, "password": None},
    "debug": None,
    "ignore": None,
    "client": None,
    "noweb": None,
    "gows": None,
    "webjs": None,
    "webhooks": {"url": None, "events": None, "hmac": None, "retries": None, "customHeaders": None},
}
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,54}\Z")


class SessionsRest:
    """WAHA's calls about sessions."""

    def __init__(self, world: World, lifecycle: Lifecycle, rest: Rest) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self._rest = rest
        self.routes: tuple[Route, ...] = (
            Route("GET /api/sessions", self._list),
            Route("POST /api/sessions", self._create),
            Route("GET /api/sessions/{name}", self._get),
            Route("PUT /api/sessions/{name}", self._update),
            Route("DELETE /api/sessions/{name}", self._delete),
            Route("GET /api/sessions/{name}/me", self._me),
            Route("POST /api/sessions/{name}/start", self._start),
            Route("POST /api/sessions/{name}/stop", self._stop),
            Route("POST /api/sessions/{name}/restart", self._restart),
            Route("POST /api/sessions/{name}/logout", self._logout),
            Route("GET /api/{name}/auth/qr", self._qr),
        )

    async def _list(self, request: Request) -> Answer:
        every = request.query.get("all") == "true"
        shown = [session for session in self._world.sessions.values() if every or session.running]
        return asgi.json([bodies.session_info(self._world, session) for session in shown])

    async def _create(self, request: Request) -> Answer:
        body = body_of(request)
        name = body.get("name") or f"session_{ids.event_id().removeprefix('evt_')}"
        if not isinstance(name, str) or not _NAME.match(name):
            raise refused(400, ["name must be letters, digits, '_' and '-', and at most 54 of them"])
        config = _config(body)
        async with self._lifecycle.alone(name):
            if name in self._world.sessions:
                raise refused(422, f"Session '{name}' already exists. Use PUT to update it.")
            session = self._lifecycle.create(name, config)
            if body.get("start"):
                self._lifecycle.start(session)
        return self._info(session, 201)

    async def _get(self, _request: Request, name: str) -> Answer:
        return self._info(self._known(name))

    async def _update(self, request: Request, name: str) -> Answer:
        config = _config(body_of(request))
        async with self._lifecycle.alone(name):
            session = self._known(name)
            was_running = session.running
            await self._lifecycle.stop(session)
            session.config = config
            if was_running:
                self._lifecycle.start(session)
        return self._info(session)

    async def _delete(self, _request: Request, name: str) -> Answer:
        async with self._lifecycle.alone(name):
            if session := self._world.sessions.get(name):
                await self._lifecycle.stop(session)
                await self._lifecycle.unpair(session)
                del self._world.sessions[name]
        return Answer()

    async def _me(self, _request: Request, name: str) -> Answer:
        session = self._world.sessions.get(name)
        if session is None or not session.running:
            raise refused(404, f"We didn't find a session with name '{name}'.")
        return asgi.json(bodies.me(self._world.engine, session.account) if session.account else None)

    async def _start(self, _request: Request, name: str) -> Answer:
        async with self._lifecycle.alone(name):
            session = self._known(name)
            if not session.running:
                self._lifecycle.start(session)
                await self._lifecycle.answer_for(session)
            elif not self._world.since(*_START_IS_IDEMPOTENT_SINCE):
                raise refused(422, f"Session '{name}' is already started.")
        return self._info(session, 201)

    async def _stop(self, _request: Request, name: str) -> Answer:
        async with self._lifecycle.alone(name):
            session = self._world.sessions.get(name)
            if session is None:
                return Answer(201)
            await self._lifecycle.stop(session)
        return self._info(session, 201)

    async def _restart(self, _request: Request, name: str) -> Answer:
        async with self._lifecycle.alone(name):
            session = self._known(name)
            await self._lifecycle.stop(session)
            self._lifecycle.start(session)
        return self._info(session, 201)

    async def _logout(self, _request: Request, name: str) -> Answer:
        async with self._lifecycle.alone(name):
            session = self._known(name)
            was_running = session.running
            await self._lifecycle.stop(session)
            await self._lifecycle.unpair(session)
            if was_running:
                self._lifecycle.start(session)
        return self._info(session, 201)

    async def _qr(self, request: Request, name: str) -> Answer:
        session = await self._rest.in_status(name, Status.SCAN_QR_CODE)
        if request.query.get("format") == "raw":
            return asgi.json({"value": session.qr})
        picture = _png(session.qr)
        if "application/json" in request.headers.get("accept", ""):
            return asgi.json({"mimetype": "image/png", "data": base64.b64encode(picture).decode()})
        return Answer(body=picture, content_type="image/png")

    def _known(self, name: str) -> Session:
        session = self._world.sessions.get(name)
        if session is None:
            raise refused(404, "Session not found")
        return session

    def _info(self, session: Session, status: int = 200) -> Answer:
        return asgi.json(bodies.session_info(self._world, session), status)


def _config(body: bodies.Json) -> dict[str, Any] | None:
    """Return the configuration that is kept: what WAHA does not know vanishes without a word."""
    config = body.get("config")
    if reason := webhooks.check(config):
        raise refused(400, [reason])
    return None if config is None else _whitelisted(config, _KNOWN_TO_WAHA)


def _whitelisted(value: Any, known: dict[str, Any] | None) -> Any:
    if isinstance(value, list):
        return [_whitelisted(item, known) for item in value]
    if known is None or not isinstance(value, dict):
        return value
    return {key: _whitelisted(item, known[key]) for key, item in value.items() if key in known}


def _png(text: str) -> bytes:
    """Draw a picture for a code: a real PNG of 29 × 29 dots, which no phone can read."""
    dots = zlib.compress(
        b"".join(
            b"\0" + bytes(ord(text[(row * 29 + column) % len(text)]) % 2 * 255 for column in range(29))
            for row in range(29)
        )
    )
    header = struct.pack(">IIBBBBB", 29, 29, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", dots), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
