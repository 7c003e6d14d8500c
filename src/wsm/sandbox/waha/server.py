"""The listener, and all of the sandbox wired together.

The listener is uvicorn's HTTP protocol on a socket of this loop, without uvicorn's own server: it opens and
closes at once, takes no signals, and can refuse connections and open again on the same port, while everything
behind it lives on.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from wsm.core.errors import BadInput
from wsm.sandbox.waha import asgi, rest, steering
from wsm.sandbox.waha.asgi import Answer, Request, Routes
from wsm.sandbox.waha.handset import Handset
from wsm.sandbox.waha.journal import Journal, recall
from wsm.sandbox.waha.lifecycle import Lifecycle
from wsm.sandbox.waha.rest import Rest
from wsm.sandbox.waha.rest_chats import ChatsRest
from wsm.sandbox.waha.rest_pairing import PairingRest
from wsm.sandbox.waha.rest_sends import SendsRest
from wsm.sandbox.waha.rest_sessions import SessionsRest
from wsm.sandbox.waha.state import Engine, EngineError, Session, Tempo, World, now_ms, nowhere
from wsm.sandbox.waha.steering import Steering
from wsm.sandbox.waha.steering_hooks import HookSteering
from wsm.sandbox.waha.webhooks import Courier

DEFAULT_VERSION = "2026.7.1"
_FOLLOW_UP_SECONDS = 0.02
_BACKLOG = 2048
_CALLERS = 100_000


class WahaSandbox:
    """A WAHA in this process.

    engine           whose shapes and habits it has
    api_key          what `X-Api-Key` must be
    host, port       where it listens; port 0 takes a free one
    tempo            how much faster than WAHA it waits and retries
    auto_scan        every QR code is scanned as soon as it is shown; otherwise `/sandbox/…/scan` does it
    global_webhooks  as `config.webhooks[]`, for all sessions and invisible in them
    version          what it says it is; some calls and keys are newer than 2026.2.1
    environ          the variables that it says it was started with
    state_file       where credentials, messages and inboxes outlive the process; without one they do not
    whatsapp         the address of a `sandbox.whatsapp.WhatsApp`, to which every running session keeps a
                     connection on its own way; without one there is no such connection
    now_ms           what its clock says: milliseconds since 1970
    callers          from which addresses `/api` was asked, in that order: the last 100,000

    Use it as an async context manager, or `start` and `stop` it; one that was stopped can be started again on
    its old port, with its accounts and phones and without its sessions, like a WAHA whose volume is there.
    """

    def __init__(
        self,
        *,
        engine: Engine | str = Engine.GOWS,
        api_key: str = "sandbox-key",
        host: str = "127.0.0.1",
        port: int = 0,
        tempo: Tempo | None = None,
        auto_scan: bool = True,
        global_webhooks: Iterable[dict[str, Any]] = (),
        version: str = DEFAULT_VERSION,
        environ: Mapping[str, str] | None = None,
        state_file: Path | None = None,
        whatsapp: tuple[str, int] | None = None,
        now_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.callers: deque[str] = deque(maxlen=_CALLERS)
        self.world = World(
            engine=Engine(engine),
            version=version,
            api_key=api_key,
            tempo=tempo or Tempo(),
            auto_scan=auto_scan,
            whatsapp=whatsapp,
            now_ms=now_ms,
        )
        self.courier = Courier(self.world, global_webhooks)
        handset = Handset(self.world, self.courier)
        self.lifecycle = Lifecycle(self.world, self.courier, handset)
        api = Rest(self.world, handset, environ or {})
        sessions = SessionsRest(self.world, self.lifecycle, api)
        chats = ChatsRest(self.world, api)
        pairing = PairingRest(self.world, self.lifecycle, api)
        sends = SendsRest(self.world, handset, api)
        control = Steering(self.world, self.courier, handset, self.lifecycle, self)
        hooks = HookSteering(self.world, self.courier)
        parts = (control, hooks, sessions, pairing, sends, chats, api)
        self._routes = Routes([route for part in parts for route in part.routes])
        self._listener = Listener(self._answer_http, host, port)
        self._reopening: asyncio.Task[None] | None = None
        self._journal: Journal | None = None
        self._state_file = state_file
        if state_file:
            recall(state_file, self.world)

    @property
    def base_url(self) -> str:
        """The URL of WAHA, and of `/sandbox`, while it runs."""
        return self.world.base_url

    @property
    def api_key(self) -> str:
        """What `X-Api-Key` must be."""
        return self.world.api_key

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        self.world.started_at_ms = self.world.now_ms()
        self.world.base_url = await self._listener.open()
        self.courier.open()
        if self._state_file:
            self._journal = Journal(self._state_file)
            self.world.journal = self._journal.write

    async def stop(self) -> None:
        """Stop listening, and drop what is pending. Raises what failed in the background: a bug here."""
        if self._reopening:
            self._reopening.cancel()
        await self._listener.close()
        await self.kill()
        await self.courier.aclose()
        if self._journal:
            self.world.journal = nowhere
            self._journal.close()
        failures, self.world.chores.failures = self.world.chores.failures, []
        if failures:
            raise BaseExceptionGroup("work in the background failed", failures)

    async def kill(self) -> None:
        """Lose what SIGKILL loses: sessions and pending webhooks. Accounts and phones stand outside."""
        await self.world.chores.cancel()
        self.courier.lose()
        self.lifecycle.lose()
        self.world.started_at_ms = self.world.now_ms()

    def refuse(self, seconds: float) -> None:
        """Refuse connections and break the open ones for a time, beginning after the answer to this."""
        self._reopening = asyncio.get_running_loop().create_task(self._refuse(seconds))

    async def idle(self, timeout_seconds: float = 30.0) -> bool:
        """Wait until nothing is pending; False when the time is over."""
        return await self.world.chores.idle(timeout_seconds)

    def session(self, name: str) -> Session:
        """Return a session. Raises KeyError."""
        return self.world.sessions[name]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _refuse(self, seconds: float) -> None:
        await asyncio.sleep(_FOLLOW_UP_SECONDS)
        await self._listener.close()
        await asyncio.sleep(seconds)
        await self._listener.open()

    async def _answer_http(self, scope: dict[str, Any], receive: asgi.Receive, send: asgi.Send) -> None:
        request = await asgi.read(scope, receive)
        if request.path.startswith("/api/"):
            self.callers.append(request.client[0])
        answer = await self._answer(request)
        if answer.cut:
            self._listener.cut(request.client)
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await asgi.write(send, answer)

    async def _answer(self, request: Request) -> Answer:
        if self._needs_key(request) and self._key_of(request) != self.world.api_key:
            return asgi.json({"message": "Unauthorized", "statusCode": 401}, 401)
        found = self._routes.find(request)
        if found is None:
            message = f"Cannot {request.method} {request.path}"
            return asgi.json({"message": message, "error": "Not Found", "statusCode": 404}, 404)
        handler, path = found
        try:
            return await handler(request, **path)
        except asgi.Refused as refusal:
            return refusal.answer
        except EngineError as exc:
            return rest.failure(self.world, request, exc)
        except BadInput as exc:
            return steering.explain(exc)

    def _needs_key(self, request: Request) -> bool:
        return request.path.startswith("/api/") or request.path == "/health"

    def _key_of(self, request: Request) -> str | None:
        return request.headers.get("x-api-key") or request.query.get("x-api-key")


class Listener:
    """A socket that answers HTTP/1.1 with an ASGI application."""

    def __init__(self, application: Any, host: str, port: int) -> None:
        self._config = uvicorn.Config(
            application,
            interface="asgi3",
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._config.load()
        self._host = host
        self._port = port
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Listen, and return the URL: always the same port."""
        loop = asyncio.get_running_loop()
        self._state = ServerState()
        self._server = await loop.create_server(self._protocol, self._host, self._port, backlog=_BACKLOG)
        self._port = self._server.sockets[0].getsockname()[1]
        return f"http://{self._host}:{self._port}"

    async def close(self) -> None:
        """Stop listening and break every connection."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        while self._state.connections:
            for connection in list(self._state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)

    def cut(self, client: asgi.Client) -> None:
        """Break one client's connection."""
        for connection in list(self._state.connections):
            if isinstance(connection, HttpToolsProtocol) and connection.client == client:
                connection.transport.abort()

    def _protocol(self) -> asyncio.Protocol:
        return HttpToolsProtocol(config=self._config, server_state=self._state, app_state={})


async def serve(
    host: str,
    port: int,
    *,
    engine: Engine | str = Engine.GOWS,
    api_key: str = "sandbox-key",
    tempo: Tempo | None = None,
    auto_scan: bool = True,
    global_webhooks: Iterable[dict[str, Any]] = (),
    state_file: Path | None = None,
    opened: Callable[[str], None] | None = None,
    stopping: asyncio.Event | None = None,
) -> None:
    """Run a sandbox until `stopping` is set or the task is cancelled. Raises OSError if the port is taken.

    opened  is told the base URL once it listens
    """
    sandbox = WahaSandbox(
        engine=engine,
        api_key=api_key,
        host=host,
        port=port,
        tempo=tempo,
        auto_scan=auto_scan,
        global_webhooks=global_webhooks,
        state_file=state_file,
    )
    async with sandbox:
        if opened:
            opened(sandbox.base_url)
        await (stopping or asyncio.Event()).wait()
