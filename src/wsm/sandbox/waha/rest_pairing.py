"""`/api/{session}/auth`: pairing without a picture, by a code that is typed on the phone or with a passkey.

A code is given while the session asks for one, and another one for every call. What a passkey would have
signed is not checked: any answer of WebAuthn's shape is the right one.
"""

import re
import secrets
from typing import Any, Final

from wsm.sandbox.waha import asgi, bodies
from wsm.sandbox.waha.asgi import Answer, Request, Route
from wsm.sandbox.waha.lifecycle import Lifecycle
from wsm.sandbox.waha.rest import Rest, body_of, refused
from wsm.sandbox.waha.state import Engine, Passkey, Session, Status, World

_PHONE: Final = re.compile(r"\+?[1-9][0-9]{6,14}\Z")
_LETTERS: Final = "123456789ABCDEFGHJKLMNPQRSTVWXYZ"
_ASSERTION: Final = ("clientDataJSON", "authenticatorData", "signature")


class PairingRest:
    """WAHA's calls about pairing, but for the picture."""

    def __init__(self, world: World, lifecycle: Lifecycle, rest: Rest) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self._rest = rest
        self.routes: tuple[Route, ...] = (
            Route("POST /api/{name}/auth/request-code", self._request_code),
            Route("GET /api/{name}/auth/passkey/challenge", self._challenge),
            Route("POST /api/{name}/auth/passkey", self._answer),
            Route("GET /api/{name}/auth/passkey/confirmation", self._confirmation),
            Route("POST /api/{name}/auth/passkey/confirm", self._confirm),
        )

    async def _request_code(self, request: Request, name: str) -> Answer:
        body = body_of(request)
        phone = body.get("phoneNumber")
        if not isinstance(phone, str) or not _PHONE.match(phone):
            raise refused(400, ["phoneNumber must be a mobile phone number in international format"])
        if self._world.engine is Engine.NOWEB and body.get("method"):
            raise refused(422, "NOWEB engine doesn't support requesting code with a method")
        session = await self._rest.in_status(name, Status.SCAN_QR_CODE)
        code = "".join(secrets.choice(_LETTERS) for _ in range(8))
        session.codes[phone.removeprefix("+")] = f"{code[:4]}-{code[4:]}"
        return asgi.json({"code": f"{code[:4]}-{code[4:]}"}, 201)

    async def _challenge(self, _request: Request, name: str) -> Answer:
        return asgi.json(bodies.challenge(self._pending(name, Status.PASSKEY_REQUIRED)))

    async def _answer(self, request: Request, name: str) -> Answer:
        body = body_of(request)
        signed: Any = body.get("response")
        missing = [key for key in ("id", "rawId", "type") if not isinstance(body.get(key), str)]
        if not isinstance(signed, dict):
            missing.append("response")
        else:
            missing += [f"response.{key}" for key in _ASSERTION if not isinstance(signed.get(key), str)]
        if missing:
            raise refused(400, [f"{key} must be a string" for key in missing])
        self._pending(name, Status.PASSKEY_REQUIRED)
        self._lifecycle.answer_passkey(self._session(name))
        return Answer(201)

    async def _confirmation(self, _request: Request, name: str) -> Answer:
        return asgi.json({"code": self._pending(name, Status.PASSKEY_CONFIRMATION_REQUIRED).code})

    async def _confirm(self, _request: Request, name: str) -> Answer:
        self._pending(name, Status.PASSKEY_CONFIRMATION_REQUIRED)
        self._lifecycle.confirm_passkey(self._session(name))
        return Answer(201)

    def _pending(self, name: str, status: Status) -> Passkey:
        session = self._session(name)
        if session.passkey is None or session.status is not status:
            raise refused(422, f"No passkey is pending: session '{name}' is {session.status}")
        return session.passkey

    def _session(self, name: str) -> Session:
        session = self._world.sessions.get(name)
        if session is None:
            raise refused(404, "Session not found")
        return session
