"""Fetching a file from a URL that somebody gave us: through the session's own exit, from the internet alone.

Who names a URL chooses whom we connect to, so nothing of it is trusted. A name is resolved once; all its
addresses must be public; and the address that was judged is the one that is connected to, or that the exit is
asked to connect to: the exit resolves nothing, and DNS that changes its mind changes nothing. TLS verifies
the name, not the address. Redirections are followed here, three at most, each judged like the first. httpx
can do none of this through a proxy, so it is httpcore with a network of our own (`_Pinned`).

A file is cut off at its limit and at a time for everything; what is compressed on the way is refused, for
it could grow. Raises

    BadInput, Refused   the URL or its answer is not to be had: the same would happen again
    TooLarge            over the limit
    SourceUnavailable   not reached, too slow, or an answer that says so (429, 5xx); no room for it
    ExitFailed          nothing is reached through the exit

and no text of these repeats a URL.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address
from urllib.parse import unquote

import httpcore
import msgspec

from wsm.core.addresses import Address, Place, is_listed, is_public, place_of, redirected
from wsm.core.content import check_filename
from wsm.core.errors import BadInput, ExitFailed, NotFound, Refused, SourceUnavailable, TooLarge
from wsm.core.exits import Exit
from wsm.gateway.client import CONNECT_SECONDS
from wsm.gateway.names import Resolver

REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK, _GONE, _PASSING = 200, frozenset({404, 410}), frozenset({408, 425, 429})
_SERVERS_FAULT = 500
_ANSWER_BYTES = 8 * 1024
_SECONDS = 30.0
_PASSWORD_REFUSED = 407
_EXIT_SAYS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r]")
_BROKEN = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError)
"""What httpcore raises, and what it lets through: bytes in a TLS connection that are no record of it."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a name."""
Take = Callable[[int], None]
"""Takes room for so many bytes. Raises NoRoom when there is none."""


def _free(_bytes: int) -> None:
    """Take what nobody counts."""


class Fetched(msgspec.Struct, frozen=True):
    """A file. mimetype, filename: what its host calls it, to be believed or not."""

    content: bytes
    mimetype: str | None
    filename: str | None


class Fetching:
    """Fetches files.

    limit_bytes  of one file
    hosts        the only ones that are asked, as `addresses.is_listed` reads them; empty: all
    seconds      for everything, redirections included
    resolve, may_reach  how a name becomes addresses (None: `names.Resolver`), and which of them it may be
    """

    def __init__(
        self,
        *,
        limit_bytes: int,
        hosts: tuple[str, ...] = (),
        seconds: float = _SECONDS,
        resolve: Resolve | None = None,
        may_reach: Callable[[Address], bool] = is_public,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._hosts = hosts
        self._seconds = seconds
        self._resolve = resolve or Resolver()
        self._may_reach = may_reach

    async def fetch(self, url: str, *, way: Exit | None, tls: ssl.SSLContext, take: Take = _free) -> Fetched:
        """Fetch a file.

        way   the exit that it is fetched through; None is a direct connection
        take  asked for room for each part that comes, in bytes; what it raises ends the fetch. A host that
              hangs has sent nothing, and takes no room

        Blocks for the time limit at most. Raises what the module's docstring says.
        """
        place = place_of(url)
        try:
            async with asyncio.timeout(self._seconds):
                for _ in range(REDIRECTS + 1):
                    answer = await self._get(place, way, tls, take)
                    if isinstance(answer, Fetched):
                        return answer
                    place = redirected(place, answer)
        except TimeoutError as exc:
            raise SourceUnavailable("media: not fetched in time") from exc
        raise Refused(f"media: more than {REDIRECTS} redirections")

    async def _get(self, place: Place, way: Exit | None, tls: ssl.SSLContext, take: Take) -> Fetched | str:
        """Ask once. Returns the file, or where it is said to be instead."""
        network = _Pinned(await self._address(place), way)
        url = httpcore.URL(
            scheme=place.scheme.encode(),
            host=place.host.encode(),
            port=place.port,
            target=place.target.encode(),
        )
        headers = [
            ("Host", place.authority),
            ("User-Agent", "wsm"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        timeouts = {"connect": CONNECT_SECONDS, "read": self._seconds, "write": self._seconds}
        try:
            async with (
                httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=network) as pool,
                pool.stream("GET", url, headers=headers, extensions={"timeout": timeouts}) as response,
            ):
                return await self._read(place, response, take)
        except _BROKEN as exc:
            raise SourceUnavailable(f"media: not reached: {type(exc).__name__}") from exc

    async def _address(self, place: Place) -> Address:
        """Find the address to connect to. One that may not be reached refuses the name with all others."""
        if not is_listed(place.host, self._hosts):
            raise BadInput("url", "its host is not among media_hosts")
        try:
            found = [ip_address(each) for each in await self._addresses(place)]
        except ValueError:
            raise BadInput("url", "its host has no usable address") from None
        if not found or not all(map(self._may_reach, found)):
            raise BadInput("url", "leads to no public address")
        return found[0]

    async def _addresses(self, place: Place) -> Sequence[str]:
        try:
            return [str(ip_address(place.host))]
        except ValueError:
            return await self._resolve(place.host, place.port)

    async def _read(self, place: Place, response: httpcore.Response, take: Take) -> Fetched | str:
        headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in headers:
            return headers[b"location"]
        _check(response.status)
        if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
            raise Refused("media: compressed on the way")
        length = headers.get(b"content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self.limit_bytes:
            raise TooLarge(self.limit_bytes)
        content = bytearray()
        async for part in response.aiter_stream():
            if len(content) + len(part) > self.limit_bytes:
                raise TooLarge(self.limit_bytes)
            take(len(part))
            content += part
        said = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        return Fetched(bytes(content), said or None, _filename(place))


class _Pinned(httpcore.AsyncNetworkBackend):
    """A network that leads to one address, whatever is asked for: directly, or through an exit."""

    def __init__(self, address: Address, way: Exit | None) -> None:
        self._address = address
        self._way = way
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 (it was resolved and judged before)
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's)
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the address."""
        more = {"local_address": local_address, "socket_options": socket_options}
        if self._way is None:
            return await self._network.connect_tcp(str(self._address), port, timeout, **more)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(timeout):
                stream = await self._network.connect_tcp(self._way.host, self._way.port, timeout)
                try:
                    await self._tunnel(stream, self._way, port)
                except BaseException:
                    await stream.aclose()
                    raise
        except TimeoutError as exc:
            raise ExitFailed("exit: no answer in time") from exc
        except (httpcore.NetworkError, httpcore.TimeoutException) as exc:
            raise ExitFailed(f"exit: {type(exc).__name__}") from exc
        return stream

    async def _tunnel(self, stream: httpcore.AsyncNetworkStream, way: Exit, port: int) -> None:
        """Let the exit connect to the address. Raises ExitFailed, SourceUnavailable when it cannot."""
        address = f"[{self._address}]" if self._address.version == 6 else str(self._address)  # noqa: PLR2004
        credentials = base64.b64encode(f"{way.username}:{way.password}".encode()).decode()
        lines = (
            f"CONNECT {address}:{port} HTTP/1.1",
            f"Host: {address}:{port}",
            f"Proxy-Authorization: Basic {credentials}",
        )
        await stream.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = await stream.read(_ANSWER_BYTES)
            answer += part
            if not part or len(answer) > _ANSWER_BYTES:
                raise ExitFailed("exit: no answer that makes sense")
        said = _EXIT_SAYS.match(answer)
        if said is None:
            raise ExitFailed("exit: no answer that makes sense")
        status = int(said[1])
        if status == _PASSWORD_REFUSED:
            raise ExitFailed("exit: refuses the password")
        if status != _OK:
            raise SourceUnavailable(f"media: not reached through the exit, which answered {status}")


def _check(status: int) -> None:
    """Raise what an answer means that has no file in it."""
    if status == _OK:
        return
    if status in _PASSING or status >= _SERVERS_FAULT:
        raise SourceUnavailable(f"media: its host answered {status}")
    if status in _GONE:
        raise NotFound("media: there is no such file")
    raise Refused(f"media: its host answered {status}")


def _filename(place: Place) -> str | None:
    """Read a file's name off the path; None when there is none that fits."""
    name = unquote(place.target.partition("?")[0].rpartition("/")[2])
    try:
        check_filename(name)
    except BadInput:
        return None
    return name
