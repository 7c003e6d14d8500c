"""The way of sessions to WhatsApp: through the proxy of their configuration, as each engine reads it.

GOWS        builds `http://user:password@server` and escapes nothing, so a scheme in `server` leads nowhere
NOWEB       takes `server` with `http://` or without; uses a user name or a password alone, too
WEBJS, WPP  take `server` with `http://` or without
GOWS, WEBJS, WPP  use user name and password only if both are set
no `server`  direct, whatever was wanted: WAHA has no such thing as "through a proxy or not at all"

A proxy is asked by CONNECT; none over TLS or SOCKS is spoken here, and no name is looked up. What comes to
the other end is a line of text for what the engine does there: `session user_77`, then the bare id of every
message that leaves, or `media user_77`.
"""

import asyncio
import re
from base64 import b64encode
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from wsm.sandbox.waha.state import Engine, Session, World

_USER_INFO = re.compile(r"[A-Za-z0-9._:~!$&'()*+,;=%@-]*\Z")
_LOOPBACK = re.compile(r"127(\.\d{1,3}){3}\Z")
_HTTP_PORT = 80
_DIAL_SECONDS = 20.0
"""How long NOWEB waits for a connection; taken for the others, of whom it is not known."""


class NotReached(Exception):
    """There is no way to WhatsApp. Says why; WAHA tells nobody but its log."""


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy, with the user name and the password if they are used."""

    host: str
    port: int
    credentials: tuple[str, str] | None


class Line:
    """An open connection to WhatsApp."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, words: str) -> None:
        """Write a line, without waiting."""
        if not self._writer.is_closing():
            self._writer.write(f"{words}\n".encode())

    async def ask(self, words: str) -> bytes:
        """Write a line and return the line that answers it. Raises OSError and EOFError."""
        self.say(words)
        return await self._reader.readuntil(b"\n")

    async def tunnel(self, address: tuple[str, int], proxy: Proxy) -> None:
        """Let the proxy at the other end connect this to an address. Raises NotReached, OSError, EOFError."""
        place = f"{address[0]}:{address[1]}"
        head = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if proxy.credentials:
            known = b64encode(":".join(proxy.credentials).encode()).decode()
            head.append(f"Proxy-Authorization: Basic {known}")
        self._writer.write("\r\n".join([*head, "", ""]).encode())
        answer = (await self._reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
        if answer[1:2] != [b"200"]:
            raise NotReached(f"the proxy answered {answer[1:2]}")

    async def ended(self) -> None:
        """Return when the other end has left or the connection broke."""
        try:
            while await self._reader.read(1024):
                pass
        except OSError:
            pass

    def hang_up(self) -> None:
        """Break it."""
        self._writer.transport.abort()


def proxy_of(engine: Engine, setting: Any) -> Proxy | None:
    """Read `config.proxy` as an engine does; None is a direct connection. Raises NotReached of nonsense."""
    its = setting if isinstance(setting, dict) else {}
    server, username, password = (str(its.get(name) or "") for name in ("server", "username", "password"))
    if not server:
        return None
    known = bool(username and password)
    if engine is Engine.GOWS:
        return _as_go_reads(f"http://{username}:{password}@{server}" if known else f"http://{server}")
    place = urlsplit(f"//{server.removeprefix('http://')}")
    try:
        host, port = place.hostname, place.port or _HTTP_PORT
    except ValueError:
        raise NotReached("no proxy's address") from None
    if not host or place.path.strip("/"):
        raise NotReached("no proxy's address, or another scheme than http")
    known = known or (engine is Engine.NOWEB and bool(username or password))
    return Proxy(host, port, (username, password) if known else None)


async def call(world: World, session: Session) -> Line:
    """Connect a session to WhatsApp, on the way with which it was started.

    Raises NotReached when the proxy is dead, refuses, leads nowhere, or has not answered for too long.
    """
    return await _dialled(world, proxy_of(world.engine, session.proxy), f"session {session.name}")


async def fetch_media(world: World, session: Session) -> None:
    """Fetch a file from WhatsApp: NOWEB directly, whatever proxy it has, the others on the session's way.

    Raises NotReached. Nothing happens where there is no WhatsApp to be asked.
    """
    if world.whatsapp is not None:
        proxy = None if world.engine is Engine.NOWEB else proxy_of(world.engine, session.proxy)
        (await _dialled(world, proxy, f"media {session.name}")).hang_up()


def _as_go_reads(url: str) -> Proxy:
    """Take a URL apart as GOWS' library does."""
    try:
        place = urlsplit(url)
        host, port = place.hostname, place.port or _HTTP_PORT
    except ValueError:
        raise NotReached("no URL") from None
    user_info, at, _ = place.netloc.rpartition("@")
    if not host or not _USER_INFO.match(user_info):
        raise NotReached("no URL")
    name, _, password = user_info.partition(":")
    return Proxy(host, port, (unquote(name), unquote(password)) if at else None)


async def _dialled(world: World, proxy: Proxy | None, words: str) -> Line:
    address = world.whatsapp
    if address is None:
        raise NotReached("there is no WhatsApp")
    host, port = (proxy.host, proxy.port) if proxy else address
    if not _LOOPBACK.match(host):
        raise NotReached("not on this machine")
    try:
        async with asyncio.timeout(_DIAL_SECONDS * world.tempo.waits):
            line = Line(*await asyncio.open_connection(host, port))
            try:
                if proxy:
                    await line.tunnel(address, proxy)
                await line.ask(words)
            except BaseException:
                line.hang_up()
                raise
            return line
    except (OSError, EOFError, asyncio.LimitOverrunError) as exc:
        raise NotReached(type(exc).__name__) from exc
