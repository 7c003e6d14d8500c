"""Everybody's phones and an instant WAHA, in the caller's loop: who writes is told something.

A customer writes: that is one *message*. The gateway answers `new-message-id` and `sendText` at once, and
then posts what WAHA posts: the echo, an ack, and the agent's `#fim`, which closes the ticket, so that the
customer may write again. All of it costs about half a millisecond of CPU per message, in this process.
"""

import asyncio
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, cycle
from typing import Any, cast

import httptools
import msgspec

from bench import webhooks
from wsm.core.ids import SessionAddress, SessionName

_encode = msgspec.json.encode
_CONNECTIONS = 64
_OK = 300

Then = Callable[[], None]


class Town:
    """Customers of many sessions, and the gateway that these sessions are at.

    port      where webhooks are posted to
    sessions  whose customers write, in turn
    talks     whether the gateway tells of what it sent, and the agent closes
    first     the number of the first customer, for towns that follow each other on one database
    """

    def __init__(self, port: int, sessions: Sequence[SessionAddress], *, talks: bool, first: int = 0) -> None:
        self._poster = _Poster(port)
        self._seats = {its.session: _Seat(its) for its in sessions}
        self._in_turn = cycle(self._seats.values())
        self._talks = talks
        self._numbers = count(time.time_ns() // 1000)  # never the same twice on one database
        self._customers = count(first)
        self._resting: deque[tuple[_Seat, str]] = deque()
        self._writing: dict[tuple[SessionName, str], float] = {}
        self._then: Then = lambda: None
        self.latencies: list[float] = []
        """Seconds from the posting of a message to the request that sends its answer."""
        self.done = 0

    @property
    def refused(self) -> int:
        """How many webhooks were not answered with 2xx."""
        return self._poster.refused

    async def open(self, gateway_port: int) -> None:
        """Connect to where webhooks go, and answer at the gateway's port."""
        loop = asyncio.get_running_loop()
        await self._poster.open()
        self._server = await loop.create_server(lambda: _Gateway(self), "127.0.0.1", gateway_port)

    def close(self) -> None:
        """Answer no more."""
        self._server.close()
        self._poster.close()

    async def at_once(self, messages: int, in_flight: int, seconds: float = 180) -> None:
        """Let so many customers write, `in_flight` at the same time; return when all were answered."""
        left, ended, target = messages, asyncio.Event(), self.done + messages

        def more() -> None:
            nonlocal left
            if left > 0:
                left -= 1
                self._write()
            elif self.done >= target:
                ended.set()

        self._then = more
        for _ in range(min(in_flight, messages)):
            more()
        async with asyncio.timeout(seconds):
            await ended.wait()

    async def at_rate(self, messages: int, per_second: float, seconds: float = 60) -> int:
        """Let so many customers write, at a steady rate; return how many were not answered.

        seconds  how long to wait for the last answers; a latency of who got none is how long he has waited
        """
        target, began = self.done + messages, time.perf_counter()
        for number in range(messages):
            if (early := began + number / per_second - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            self._write()
        deadline = time.perf_counter() + seconds
        while self.done < target and time.perf_counter() < deadline:  # noqa: ASYNC110 (a count)
            await asyncio.sleep(0.01)
        self.latencies += [time.perf_counter() - since for since in self._writing.values()]
        return target - self.done

    def _write(self) -> None:
        """Let a customer write who rests, or else a new one."""
        if self._resting:
            seat, chat = self._resting.popleft()
        else:
            seat, chat = next(self._in_turn), f"55219{next(self._customers):08}@c.us"
        self._writing[seat.session, chat] = time.perf_counter()
        text = "Oi, preciso de ajuda com o meu pedido, por favor. Estou esperando desde segunda-feira."
        self._poster.post(seat.message(chat, text, next(self._numbers), own=False))

    def new_id(self) -> str:
        """Reserve an id."""
        return f"3EB0{next(self._numbers):018X}"

    def sent(self, session: SessionName, chat: str, text: str, id_: str) -> None:
        """Tell of a message that was sent, and let the agent close."""
        began = self._writing.pop((session, chat), None)
        if began is None:
            raise SystemExit(f"{chat} was told something twice")
        self.latencies.append(time.perf_counter() - began)
        if not self._talks:
            self._answered()
            return
        seat = self._seats[session]
        self._poster.post(seat.message(chat, text, next(self._numbers), own=True, id_=id_, source="api"))
        self._poster.post(seat.ack(chat, id_, next(self._numbers)))

        def closed() -> None:
            self._resting.append((seat, chat))
            self._answered()

        self._poster.post(seat.message(chat, "#fim", next(self._numbers), own=True), closed)

    def _answered(self) -> None:
        self.done += 1
        self._then()


class _Seat:
    """A session: what WAHA posts for it, signed."""

    def __init__(self, its: SessionAddress) -> None:
        self.session = its.session
        self._own = f"55119{its.tenant}@c.us"
        self._keyed = hmac.new(webhooks.secret(its).encode(), digestmod=hashlib.sha512)
        self._head = (
            f"POST {webhooks.path(its)} HTTP/1.1\r\nHost: wsm\r\nContent-Type: application/json\r\n"
            "X-Webhook-Hmac-Algorithm: sha512\r\n"
        ).encode()

    def message(
        self, chat: str, text: str, number: int, *, own: bool, id_: str = "", source: str = "app"
    ) -> bytes:
        """Write the webhook of a message."""
        bare = id_ or f"3A{number:018X}"
        now = time.time_ns() // 1_000_000
        whom, to = (self._own, chat) if own else (chat, self._own)
        info = {"Chat": chat, "Sender": whom, "IsFromMe": own, "IsGroup": False, "ID": bare,
                "Timestamp": "2026-11-20T12:00:00Z", "PushName": "Maria", "Type": "text"}  # fmt: skip
        payload = {
            "id": f"{'true' if own else 'false'}_{chat}_{bare}", "timestamp": now // 1000, "from": whom,
            "to": to, "fromMe": own, "source": source, "body": text, "hasMedia": False, "media": None,
            "ack": 1, "ackName": "SERVER", "vCards": [],
            "_data": {"Info": info, "Message": {"conversation": text}},
        }  # fmt: skip
        return self._signed("message.any", payload, now, number)

    def ack(self, chat: str, id_: str, number: int) -> bytes:
        """Write the webhook of an ack."""
        payload = {"id": f"true_{chat}_{id_}", "from": chat, "fromMe": True, "ack": 2, "ackName": "DEVICE"}
        return self._signed("message.ack", payload, time.time_ns() // 1_000_000, number)

    def _signed(self, event: str, payload: dict[str, Any], now: int, number: int) -> bytes:
        body = _encode(
            {
                "id": f"evt_{number:026x}", "timestamp": now, "event": event, "session": self.session,
                "me": {"id": self._own, "pushName": "Loja"}, "payload": payload, "engine": "GOWS",
                "environment": {"version": "2026.7.1", "engine": "GOWS", "tier": "CORE", "browser": None,
                                "platform": "linux/x64", "worker": {"id": "waha-1"}},
            }
        )  # fmt: skip
        mac = self._keyed.copy()
        mac.update(body)
        signature = mac.hexdigest().encode()
        return b"%bX-Webhook-Hmac: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            self._head,
            signature,
            len(body),
            body,
        )


class _Poster:
    """Posts requests over a few connections, one at a time on each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._waiting: deque[tuple[bytes, Then | None]] = deque()
        self._idle: list[_Client] = []
        self._open: set[_Client] = set()
        self.refused = 0

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_CONNECTIONS):
            await loop.create_connection(lambda: _Client(self), "127.0.0.1", self._port)

    def close(self) -> None:
        for client in list(self._open):
            client.close()

    def post(self, request: bytes, then: Then | None = None) -> None:
        """Post a request on an idle connection, or as soon as one is idle."""
        self._waiting.append((request, then))
        while self._idle and self._waiting:
            self._idle.pop().send(*self._waiting.popleft())

    def is_free(self, client: "_Client") -> None:
        """Take a connection for the next request."""
        self._open.add(client)
        if self._waiting:
            client.send(*self._waiting.popleft())
        else:
            self._idle.append(client)

    def lost(self, client: "_Client") -> None:
        """Forget a connection that was closed."""
        self._open.discard(client)
        if client in self._idle:
            self._idle.remove(client)


class _Client(asyncio.Protocol):
    def __init__(self, poster: _Poster) -> None:
        self._poster = poster
        self._parser = httptools.HttpResponseParser(self)
        self._then: Then | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._poster.is_free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self._poster.lost(self)

    def close(self) -> None:
        self._transport.close()

    def send(self, request: bytes, then: Then | None) -> None:
        self._then = then
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._poster.refused += self._parser.get_status_code() >= _OK
        then, self._then = self._then, None
        if then is not None:
            then()
        self._poster.is_free(self)


class _Gateway(asyncio.Protocol):
    """One connection to the gateway."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/new-message-id"):
            self._answer(b"200 OK", {"id": self._town.new_id()})
        elif self._url == b"/api/sendText":
            said = msgspec.json.decode(self._body)
            id_ = said.get("id") or self._town.new_id()
            self._answer(b"201 Created", {"id": f"true_{said['chatId']}_{id_}", "_data": {}})
            self._town.sent(said["session"], said["chatId"], said["text"], id_)
        else:
            self._answer(b"404 Not Found", {"error": "no such call"})

    def _answer(self, status: bytes, content: dict[str, Any]) -> None:
        body = _encode(content)
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)
