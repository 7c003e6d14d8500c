"""`/sandbox`, as far as it is about webhooks: what became of them, and ones that WAHA never made."""

import httpx

from wsm.core.errors import BadInput
from wsm.sandbox.waha import asgi, asks, bodies, ids
from wsm.sandbox.waha.asgi import Answer, Request, Route
from wsm.sandbox.waha.state import Message, Session, World
from wsm.sandbox.waha.webhooks import EVENTS, Courier
from wsm.wire.signature import sign


class HookSteering:
    """Looks at WAHA's webhooks, and forges some."""

    def __init__(self, world: World, courier: Courier) -> None:
        self._world = world
        self._courier = courier
        self.routes: tuple[Route, ...] = (
            Route("GET /sandbox/deliveries", self._deliveries),
            Route("POST /sandbox/forge", asks.reading(asks.Forge, self._forge)),
            Route("POST /sandbox/emit", asks.reading(asks.Emit, self._emit)),
        )

    async def _deliveries(self, request: Request) -> Answer:
        wanted = {key: request.query[key] for key in ("session", "event", "state") if key in request.query}
        return asgi.json(
            [
                delivery
                for delivery in self._courier.log
                if all(getattr(delivery, key) == value for key, value in wanted.items())
            ]
        )

    async def _forge(self, asked: asks.Forge) -> Answer:
        session = known(self._world, asked.session)
        hooks = self._courier.webhooks(session)
        if not hooks:
            raise BadInput("session", "has no webhook")
        body = asked.body.encode() if asked.body is not None else self._forged(session, asked.text)
        key = hooks[0].hmac.key if hooks[0].hmac and hooks[0].hmac.key else ""
        try:
            answer = await self._courier.forge(hooks[0], body, _signatures(asked.signature, key, body))
        except httpx.HTTPError as exc:
            return asgi.json({"status": None, "error": type(exc).__name__})
        return asgi.json({"status": answer.status_code, "body": answer.text})

    def _forged(self, session: Session, text: str) -> bytes:
        linked(self._world, session.name)
        said = Message(
            id=ids.phone_id(),
            chat="5511900000000@c.us",
            from_me=False,
            source="app",
            body=text,
            timestamp=self._world.now_ms() // 1000,
            ack=2,
        )
        payload = bodies.message(self._world, session, said)
        wrapped = bodies.envelope(self._world, session, "message.any", payload, event_id=ids.event_id())
        return asgi.encode(wrapped)

    async def _emit(self, asked: asks.Emit) -> Answer:
        if asked.event not in EVENTS:
            raise BadInput("event", f"WAHA has none that is named {asked.event!r}")
        self._courier.emit(known(self._world, asked.session), asked.event, asked.payload)
        return asgi.json({"event": asked.event}, 201)


def known(world: World, name: str) -> Session:
    """Return a session. Raises BadInput."""
    session = world.sessions.get(name)
    if session is None:
        raise BadInput("session", f"no session is named {name!r}")
    return session


def linked(world: World, name: str) -> Session:
    """Return a session that is linked to a phone. Raises BadInput."""
    session = known(world, name)
    if session.account is None or name not in world.accounts:
        raise BadInput("session", f"{name!r} is linked to no phone")
    return session


def _signatures(kind: asks.Signature, key: str, body: bytes) -> list[bytes]:
    right = sign(key, body).encode()
    wrong = sign(f"not {key}", body).encode()
    return {
        asks.Signature.RIGHT: [right],
        asks.Signature.WRONG: [wrong],
        asks.Signature.MISSING: [],
        asks.Signature.SHORT: [right[:64]],
        asks.Signature.NON_ASCII: ["é".encode() * 64],
        asks.Signature.TWICE: [right, right],
    }[kind]
