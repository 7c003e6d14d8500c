"""The proxy itself: who may pass, from which address he leaves, and what goes wrong on the way."""

import asyncio
import binascii
import time
from base64 import b64decode
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from wsm.sandbox.exits.ends import End, Head
from wsm.sandbox.exits.faults import (
    Answers502,
    Claims,
    CutsIdle,
    Dead,
    Dies,
    Drifts,
    F,
    Fault,
    Hangs,
    Orders,
    Refuses,
    Slow,
)
from wsm.sandbox.exits.identities import Exits, Identify, Identity, one_password
from wsm.sandbox.exits.listener import REMEMBERED, Listener
from wsm.sandbox.exits.passages import Ending, Over, Passage, Peer

_CONNECT_SECONDS = 10.0
_HEAD_SECONDS = 60.0
_SLOW_STEP_SECONDS = 0.05
_CHALLENGE = 'Proxy-Authenticate: Basic realm="exits"'
_STATUS = {
    Ending.MALFORMED: "400 Bad Request",
    Ending.UNAUTHORIZED: "407 Proxy Authentication Required",
    Ending.REFUSED: "407 Proxy Authentication Required",
    Ending.UNREACHABLE: "502 Bad Gateway",
    Ending.BAD_GATEWAY: "502 Bad Gateway",
}

_POLITE = frozenset({Ending.ANSWERED, Ending.IDLE})


class _Way(NamedTuple):
    """What a request wants: to be connected, with no path, or a path of a target."""

    host: str
    port: int
    path: bytes | None


def direct(peers: Iterable[Peer], *proxies: "ExitProxy") -> list[Peer]:
    """Return the connections, of those that a target recorded, that came through none of the proxies."""
    return [peer for peer in peers if not any(proxy.identity_at(peer[0]) for proxy in proxies)]


class ExitProxy(Listener):
    """An HTTP proxy with an exit address for every identity.

    identify     who may pass; by default anybody with `password`, as `one_password` says
    name         tells its exit addresses from those of another proxy
    hosts        names that it knows, with their addresses; all begin with 127
    port, connections  as of a Listener

    seen         every passage in its order, open and ended ones, the last 100,000
    countries    what it says of an identity's exit, where that is not what `identify` said
    """

    def __init__(
        self,
        identify: Identify | None = None,
        *,
        password: str = "sandbox-password",  # noqa: S107 (of the sandbox alone)
        name: str = "provider",
        hosts: Mapping[str, str] | None = None,
        port: int = 0,
        connections: int = 256,
    ) -> None:
        super().__init__(port=port, connections=connections)
        self._identify = identify or one_password(password)
        self._hosts = {"localhost": "127.0.0.1", **(hosts or {})}
        self._orders = Orders()
        self._exits = Exits(name)
        self._open: dict[Passage, list[End]] = {}
        self.seen: deque[Passage] = deque(maxlen=REMEMBERED)
        self.countries: dict[str, str] = {}

    # What is asked of it from outside.

    def exit_of(self, identity: str) -> str:
        """Return the address that an identity leaves from: always the same one, until it drifts."""
        return self._exits.of(identity)

    def identity_at(self, address: str) -> str | None:
        """Return whose exit an address is or was."""
        return self._exits.owner(address)

    def country_of(self, peer: Peer) -> str | None:
        """Return where the provider says that somebody is who comes through it now; None for others."""
        return next((each.country for each in self._open if each.leaves_from == peer), None)

    def fault(self, fault: Fault, *, of: str | None = None, times: int | None = None) -> None:
        """Do something wrong from now on, to one identity or to all, until `mend`.

        times  only to so many passages that begin after this. One that begins counts for everything that is
               ordered for it, whether it comes to that or not. Of a kind the latest order counts.
        """
        self._orders.add(fault, of, times)

    def mend(self, kind: type[Fault] = Fault, *, of: str | None = None) -> None:
        """Take back what was ordered: of one kind or all, for one identity or whoever. Exits stay."""
        self._orders.drop(kind, of)

    def cut(self, *, of: str | None = None) -> None:
        """Reset both connections of every open passage, of one identity or of all."""
        for passage, ends in self._open.items():
            if of in {None, passage.identity}:
                passage.end(Ending.CUT)
                for end in ends:
                    end.reset()

    # One connection.

    async def _serve(self, client: End) -> None:
        while await self._pass(client):
            pass

    async def _pass(self, client: End) -> bool:
        """Serve one request; return whether another one may follow."""
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await client.head()
            if head is None:
                return False
            way = _way(head)
        except TimeoutError:
            return False
        except Over as over:
            if over.ending is Ending.MALFORMED:
                await client.answer(_STATUS[Ending.MALFORMED])
            return False
        passage = Passage(is_tunnel=way.path is None, host=way.host, port=way.port)
        self.seen.append(passage)
        self._open[passage] = [client]
        try:
            return await self._through(client, head, way, passage)
        except Over as over:
            passage.end(over.ending)
            await self._explain(client, passage)
            return False
        finally:
            del self._open[passage]
            passage.end(Ending.STOPPED)
            passage.ended_at = time.monotonic()

    async def _explain(self, client: End, passage: Passage) -> None:
        """Answer for a passage that came to nothing; one that was under way is broken."""
        ending = passage.ending or Ending.STOPPED
        status = _STATUS.get(ending)
        if ending is Ending.TARGET and not passage.is_tunnel and not passage.received_bytes:
            status = _STATUS[Ending.UNREACHABLE]
        if status:
            await client.answer(status, *([_CHALLENGE] if status.startswith("407") else []))
        elif ending not in _POLITE:
            client.reset()

    async def _through(self, client: End, head: Head, way: _Way, passage: Passage) -> bool:
        identity = self._authorized(head)
        passage.identity = identity.name
        passage.faults = self._orders.take(identity.name)
        await self._stumble(client, passage)
        target = await self._leave(identity, way, passage)
        self._open[passage].append(target)
        try:
            if way.path is None:
                await self._tunnel(client, target, passage)
                return False
            return await self._forward(client, target, head, way.path, passage)
        except Over:
            target.reset()
            raise
        finally:
            await target.aclose()

    def _authorized(self, head: Head) -> Identity:
        scheme, _, value = head.get(b"proxy-authorization").partition(b" ")
        try:
            username, colon, password = b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Over(Ending.UNAUTHORIZED) from None
        identity = self._identify(username, password) if colon and scheme.lower() == b"basic" else None
        if identity is None:
            raise Over(Ending.UNAUTHORIZED)
        return identity

    async def _stumble(self, client: End, passage: Passage) -> None:
        """Do wrong what is done wrong before anything goes out."""
        if self._fault(Dead, passage):
            raise Over(Ending.DEAD)
        if self._fault(Refuses, passage):
            raise Over(Ending.REFUSED)
        if self._fault(Hangs, passage):
            passage.end(Ending.HUNG)
            await client.ignored()
            raise Over(Ending.HUNG)
        if self._fault(Answers502, passage):
            raise Over(Ending.BAD_GATEWAY)

    def _fault(self, kind: type[F], passage: Passage) -> F | None:
        return self._orders.find(kind, passage.identity, passage.faults)

    # The way out.

    async def _leave(self, identity: Identity, way: _Way, passage: Passage) -> End:
        """Connect to the target from the identity's own address."""
        self._drift(identity.name, passage)
        claimed = self._fault(Claims, passage)
        said = self.countries.get(identity.name, identity.country)
        passage.country = claimed.country if claimed else said
        try:
            address = IPv4Address(self._hosts.get(way.host, way.host))
            if not address.is_loopback:
                raise Over(Ending.UNREACHABLE)
            async with asyncio.timeout(_CONNECT_SECONDS):
                streams = await asyncio.open_connection(
                    str(address), way.port, local_addr=(self._exits.of(identity.name), 0)
                )
        except (OSError, ValueError):
            raise Over(Ending.UNREACHABLE) from None
        target = End(*streams, Ending.TARGET)
        passage.leaves_from = target.here
        return target

    def _drift(self, identity: str, passage: Passage) -> None:
        fault = self._fault(Drifts, passage)
        if fault and fault.onto is not None:
            self._exits.move_onto(identity, fault.onto)
        elif fault:
            self._exits.move(identity)

    # What passes.

    async def _tunnel(self, client: End, target: End, passage: Passage) -> None:
        await client.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        there = self._pump(client, target, passage, Ending.CLIENT)
        back = self._pump(target, client, passage, Ending.TARGET)
        await _beside([there, back], [self._watch(passage)])

    async def _pump(self, source: End, sink: End, passage: Passage, ending: Ending) -> None:
        while data := await source.read():
            await self._carry(data, sink, passage, is_back=ending is Ending.TARGET)
        passage.end(ending)
        sink.finish()

    async def _watch(self, passage: Passage) -> None:
        """End a tunnel that is idle for too long."""
        while True:
            news = self._orders.news
            fault = self._fault(CutsIdle, passage)
            left = None if fault is None else passage.moved_at + fault.seconds - time.monotonic()
            if left is not None and left <= 0:
                raise Over(Ending.IDLE)
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await news.wait()

    async def _forward(self, client: End, target: End, head: Head, path: bytes, passage: Passage) -> bool:
        """Pass a request on and its answer back; return whether the client may ask again."""
        kept: list[bool] = []

        async def ask() -> None:
            request = head.written(head.first[0], path, b"HTTP/1.1", closes=True)
            await self._carry(request, target, passage, is_back=False)
            async for data in client.body(head, to_the_end=False):
                await self._carry(data, target, passage, is_back=False)
            kept.append(not head.is_last)
            await client.gone()
            raise Over(Ending.CLIENT)

        async def answer() -> None:
            kept.append(await self._answer(client, target, head, passage))
            passage.end(Ending.ANSWERED)  # the client may leave in this moment

        await _beside([answer()], [ask()])
        if len(kept) == 1:  # answered before the end of the request
            await client.leave()
        return kept == [True, True]

    async def _answer(self, client: End, target: End, asked: Head, passage: Passage) -> bool:
        while True:
            head = await target.head()
            if head is None:
                raise Over(Ending.TARGET)
            bodiless = head.is_bodiless(asked.first[0])
            framed = bodiless or head.is_framed
            closes = not head.is_interim and (asked.is_last or not framed)
            await self._carry(head.written(*head.first, closes=closes), client, passage, is_back=True)
            if not bodiless:
                async for data in target.body(head, to_the_end=True):
                    await self._carry(data, client, passage, is_back=True)
            if not head.is_interim:
                return framed

    async def _carry(self, data: bytes, sink: End, passage: Passage, *, is_back: bool) -> None:
        """Pass bytes on: slowly, or not to their end, if that is ordered."""
        while data:
            slow = self._fault(Slow, passage)
            size = max(1, int(slow.bytes_per_second * _SLOW_STEP_SECONDS)) if slow else len(data)
            piece, data = data[:size], data[size:]
            if slow:
                await asyncio.sleep(len(piece) / slow.bytes_per_second)
            dies = self._fault(Dies, passage) if is_back else None
            if dies:
                piece = piece[: max(0, dies.after_bytes - passage.received_bytes)]
            await sink.write(piece)
            self._count(len(piece), passage, is_back=is_back)
            if dies and passage.received_bytes >= dies.after_bytes:
                raise Over(Ending.DIED)

    def _count(self, size: int, passage: Passage, *, is_back: bool) -> None:
        passage.moved_at = time.monotonic()
        if is_back:
            passage.received_bytes += size
        else:
            passage.sent_bytes += size


def _way(head: Head) -> _Way:
    """Read what a request wants. Raises Over if a proxy cannot do it."""
    method, target, _ = head.first
    try:
        url = urlsplit(f"//{target.decode('ascii')}" if method == b"CONNECT" else target.decode("ascii"))
        port = url.port
    except ValueError:
        raise Over(Ending.MALFORMED) from None
    if method == b"CONNECT" and url.hostname and port:
        return _Way(url.hostname, port, None)
    if method == b"CONNECT" or url.scheme != "http" or not url.hostname:
        raise Over(Ending.MALFORMED)
    query = f"?{url.query}" if url.query else ""
    return _Way(url.hostname, port or 80, f"{url.path or '/'}{query}".encode())


async def _beside(works: list[Coroutine[Any, Any, None]], aside: list[Coroutine[Any, Any, None]]) -> None:
    """Run until all of `works` are done, or one of any raises Over, and raise that; nothing goes on."""
    over: Over | None = None
    try:
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(each) for each in aside]
            await asyncio.wait([group.create_task(each) for each in works])
            for other in others:
                other.cancel()
    except* Over as several:
        over = next(each for each in several.exceptions if isinstance(each, Over))
    if over:
        raise over
