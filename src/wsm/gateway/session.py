"""WAHA's calls, each bound to one tenant's one session.

There is no call that takes a session's name, so none can reach another tenant's. What changes something is
asked once; what changes nothing is asked up to three times within ten seconds. Errors are those of `server`.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import httpx
import tenacity

from wsm.core.content import Content, Loaded, Seen, Target, Text, Typing
from wsm.core.errors import GatewayRefused, GatewayUnavailable, OutcomeUnknown
from wsm.core.ids import BareId, ChatId, SessionAddress
from wsm.gateway import answers, sending
from wsm.gateway.answers import Found, SessionInfo
from wsm.gateway.config import SessionConfig
from wsm.gateway.history import History
from wsm.gateway.lids import Lids
from wsm.gateway.login import Login
from wsm.gateway.server import Answer, Call, Server, Transient

_CONTROL_SECONDS = 45.0
"""For a session's start, stop and the like: WAHA waits 5 s for the session's lock and works 30 s at most."""
_PAGES = 20
_NOT_IMPLEMENTED = 501
_UNPROCESSABLE = 422
_NOT_FOUND = 404


class WahaSession:
    """One session of one tenant, through its own client, which is lent for each call.

    history  what the gateway keeps of its chats
    login    how it is paired
    lids     which phone is behind a hidden id
    """

    def __init__(
        self,
        address: SessionAddress,
        *,
        server: Server,
        lend: Callable[[], AbstractAsyncContextManager[httpx.AsyncClient]],
        has_exit: bool,
        send_timeout_seconds: float,
        look_timeout_seconds: float,
        may_move: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        self._server = server
        self._lend = lend
        self._has_exit = has_exit
        self._send_seconds = send_timeout_seconds
        self._look_seconds = look_timeout_seconds
        self._may_move = may_move
        self._name = quote(address.session, safe="")
        self.history = History(f"/api/{self._name}/chats", self._look)
        self.login = Login(f"/api/{self._name}/auth", self._look, self._log_in)
        self.lids = Lids(f"/api/{self._name}/lids", self._look)

    async def new_message_id(self) -> BareId | None:
        """Reserve a bare id for a message to send; None where the engine (501) or an old WAHA has none.

        Waits up to 15 s for the session to work.
        """
        try:
            answer = await self._look("new_message_id", f"/api/{self._name}/new-message-id")
        except GatewayRefused as exc:
            if exc.status == _NOT_IMPLEMENTED or exc.reason == "no_such_call":
                return None
            raise
        if (found := answers.bare_id(answer)) is None:
            raise GatewayUnavailable("unreadable answer")
        return found

    async def send(
        self,
        chat: ChatId,
        content: Content,
        *,
        id: BareId | None = None,  # noqa: A002 (WAHA's word)
        target: Target | None = None,
        media: Loaded | None = None,
    ) -> BareId | None:
        """Send something and return its bare id; None for what is no message of its own (`content.Said`).

        Never repeated here: WAHA sends again what has the same id.

        id      reserved by `new_message_id`; engines without own ids ignore it, and answer another one
        target  the message that it answers or acts on (`content.target_of`)
        media   its file, if it needs one

        Blocks up to the send time-out. That it returns means that the engine took it, not that it arrived.
        Raises BadInput when a target or a file is missing.
        """
        ask = sending.ask(self.address.session, chat, content, id=id, target=target, media=media)
        seconds = self._look_seconds if isinstance(content, Seen | Typing) else self._send_seconds
        call = Call(op=ask.op, method=ask.method, path=ask.path, body=ask.body, seconds=seconds, changes=True)
        answer = await self._ask(call)
        if not ask.is_message:
            return None
        if (found := answers.bare_id(answer.json())) is None:
            raise OutcomeUnknown("unreadable answer")
        return found

    async def send_text(self, chat: ChatId, text: str, *, id: BareId | None = None) -> BareId:  # noqa: A002
        """Send a text and return its bare id, as `send` does."""
        sent = await self.send(chat, Text(text=text), id=id)
        if sent is None:
            raise OutcomeUnknown("unreadable answer")
        return sent

    async def find_message(self, id: BareId) -> Found | None:  # noqa: A002 (WAHA's word)
        """Look a message up by its bare id (NOWEB with its store, GOWS); None when WAHA says it has none.

        Only WAHA's own `Message not found` is None: a missing session is a 404 too, and proves nothing.
        """
        path = f"/api/{self._name}/chats/all/messages/{quote(id, safe='')}"
        try:
            answer = await self._look("find_message", path, {"downloadMedia": "false"})
        except GatewayRefused as exc:
            if exc.status == _NOT_FOUND and exc.reason == "message_not_found":
                return None
            raise
        if (found := answers.found(answer)) is None or found.id != id:
            raise GatewayUnavailable("unreadable answer")
        return found

    async def own_messages(self, chat: ChatId, since_s: int) -> list[Found]:
        """List the own messages in a chat since a time in seconds, the newest first.

        Evidence for engines without own ids: matching by text is a guess. Raises GatewayUnavailable when
        there are more than can be listed, for half a list proves nothing.
        """
        listed: list[Found] = []
        for page in range(_PAGES):
            answer = await self.history.own(chat, since_s, page)
            if not answer:
                return listed
            listed += [message for message in map(answers.found, answer) if message]
        raise GatewayUnavailable("too many messages to look through")

    async def send_seen(self, chat: ChatId) -> None:
        """Mark the chat's messages as read."""
        await self.send(chat, Seen())

    async def start_typing(self, chat: ChatId) -> None:
        """Show the correspondent that somebody types."""
        await self.send(chat, Typing())

    async def stop_typing(self, chat: ChatId) -> None:
        """Take that back."""
        body = {"session": self.address.session, "chatId": chat}
        limit = self._look_seconds
        call = Call(
            op="stop_typing", method="POST", path="/api/stopTyping", body=body, seconds=limit, changes=True
        )
        await self._ask(call)

    async def create(self, config: SessionConfig, *, start: bool) -> None:
        """Create the session. Raises GatewayRefused, `already_exists`, when there is one."""
        body = {"name": self.address.session, "config": config.as_json(), "start": start}
        await self._control("create", "POST", "/api/sessions", body)

    async def get(self) -> SessionInfo:
        """Describe the session. Raises GatewayRefused with status 404 when there is none."""
        found, _ = await self._described()
        return found

    async def inspect(self, config: SessionConfig) -> tuple[SessionInfo, list[str]]:
        """Describe the session as `get` does, and name what of its configuration is not as it should be."""
        found, kept = await self._described()
        return found, config.differences(kept)

    async def probe(self, phone: str) -> bool:
        """Let the session ask WhatsApp whether its own number exists; False when no such answer comes.

        A live query on every engine: what answers is WhatsApp, not the gateway's memory (CONTRACT 7.6). A
        mute engine lets it hang for one to five minutes and then fails; nobody sees that it was asked. That
        it is answered does not prove that messages come in: an engine whose events are stuck may answer.

        phone  the session's own number, digits alone

        Blocks for the look time-out, and after a failure for that of another look. Raises GatewayUnavailable
        and GatewayRefused when nothing was found out of the session: the gateway is not reached or hangs, or
        the session says something else than WORKING.
        """
        query = {"session": self.address.session, "phone": phone}
        path = "/api/contacts/check-exists"
        call = Call(
            op="probe", method="GET", path=path, query=query, seconds=self._look_seconds, changes=True
        )
        try:
            answer = (await self._ask(call)).json()
        except GatewayRefused as exc:
            if exc.reason == "rate_limited":  # WhatsApp's own word
                return True
            raise
        except OutcomeUnknown as exc:
            if (await self.get()).status != "WORKING":
                raise GatewayUnavailable("the session is not working") from exc
            return False
        return isinstance(answer, dict) and answer.get("numberExists") is True

    async def update(self, config: SessionConfig) -> None:
        """Replace the configuration; a session that runs is started anew by it."""
        await self._control("update", "PUT", f"/api/sessions/{self._name}", {"config": config.as_json()})

    async def restart(self) -> None:
        """Stop and start the session. Its login stays."""
        await self._control("restart", "POST", f"/api/sessions/{self._name}/restart", {})

    async def logout(self) -> None:
        """Unlink the phone; the session asks for another one if it ran. An unknown one has none."""
        try:
            await self._control("logout", "POST", f"/api/sessions/{self._name}/logout", {})
        except GatewayRefused as exc:
            if exc.status != _NOT_FOUND or exc.reason == "no_such_call":
                raise

    async def start(self) -> None:
        """Start the session; one that runs stays as it is, which some versions call a refusal."""
        try:
            await self._control("start", "POST", f"/api/sessions/{self._name}/start", {})
        except GatewayRefused as exc:
            if exc.status != _UNPROCESSABLE or (await self.get()).status == "STOPPED":
                raise

    async def stop(self) -> None:
        """Stop the session and keep its login. An unknown one counts as stopped."""
        await self._control("stop", "POST", f"/api/sessions/{self._name}/stop", {})

    async def delete(self) -> None:
        """Unlink and forget the session. An unknown one counts as deleted."""
        await self._control("delete", "DELETE", f"/api/sessions/{self._name}", None)

    async def find_person(self, phone: str) -> ChatId | None:
        """Return the chat id of a phone number (digits alone); None when it is not on WhatsApp.

        It may have other digits: Brazilian numbers lose or get a 9. WhatsApp itself is asked each time.
        """
        query = {"phone": phone, "session": self.address.session}
        return answers.person(await self._look("find_person", "/api/contacts/check-exists", query))

    async def _described(self) -> tuple[SessionInfo, object]:
        """Describe the session, and return its configuration as the gateway keeps it, secrets and all."""
        answer = await self._look("get", f"/api/sessions/{self._name}")
        found = answers.session_info(answer)
        if found is None:
            raise GatewayUnavailable("unreadable answer")
        return found, answers.config_of(answer)

    async def _look(self, op: str, path: str, query: Mapping[str, str] = MappingProxyType({})) -> object:
        """Ask what changes nothing, again after a moment if the gateway was just not reached."""
        call = Call(
            op=op, method="GET", path=path, query=dict(query), seconds=self._look_seconds, changes=False
        )
        patience = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Transient),
            stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(10),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        )
        answer: Answer = await patience(self._ask, call)
        return answer.json()

    async def _log_in(self, op: str, path: str, body: dict[str, Any]) -> object:
        """Do something for a login, once."""
        limit = self._look_seconds
        call = Call(op=op, method="POST", path=path, body=body, seconds=limit, changes=True)
        return (await self._ask(call)).json()

    async def _control(self, op: str, method: str, path: str, body: dict[str, Any] | None) -> None:
        """Change the session itself, once, and only by who may."""
        if self._may_move is not None:
            self._may_move()
        call = Call(op=op, method=method, path=path, body=body, seconds=_CONTROL_SECONDS, changes=True)
        await self._ask(call)

    async def _ask(self, call: Call) -> Answer:
        async with self._lend() as http:
            return await self._server.ask(http, call, has_exit=self._has_exit)
