"""The only way to build an HTTP client: its exit is what was said, or there is none.

Left alone, httpx takes proxies from the environment and goes direct where they do not match. One transport
for every URL leaves it no such way, and the exit is an argument that nobody can forget. A client costs 4 KB
and 0.06 ms with the shared TLS context, 13 KB once it has made a call; without it 1.7 MB and 36 ms.
"""

import re
import ssl
from functools import cache
from urllib.parse import SplitResult, urlsplit

import httpx

from wsm.core.errors import BadInput
from wsm.core.exits import Exit

CONNECT_SECONDS = 5.0
"""For a connection, with TLS and through a proxy. What took longer has sent nothing."""

_KEEP_ALIVE_SECONDS = 2.0
"""Well below the 5 s after which WAHA's Node closes an idle connection: a send that meets the closing has an
unknown outcome, and its customer waits for minutes."""
_IDLE_CONNECTIONS = 2
_HEADER_VALUE = re.compile(r"[!-~]+\Z")


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context that all clients of the process share. Takes about 40 ms at the first call."""
    return httpx.create_ssl_context(trust_env=False)


def check_url(field: str, url: str) -> SplitResult:
    """Take a URL apart. Raises BadInput, without repeating it, if nobody can be asked there."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and not parts.fragment
    except ValueError:
        fits = False
    if not fits:
        raise BadInput(field, "must be http:// or https:// with a host")
    if parts.username is not None or parts.password is not None:
        raise BadInput(field, "must not have a name or a password in it")
    return parts


def check(base_url: str, api_key: str) -> None:
    """Raise BadInput, without repeating a value, if no client can be built of these."""
    if check_url("url", base_url).query:
        raise BadInput("url", "must be http:// or https:// with a host, and without query")
    if not _HEADER_VALUE.match(api_key):
        raise BadInput("api_key", "must be visible ASCII characters")


def build(base_url: str, *, api_key: str, way: Exit | None, tls: ssl.SSLContext) -> httpx.AsyncClient:
    """Build a client of one gateway for one exit; None is a direct connection.

    Redirects are not followed, for what arrives there is not what was sent. How many connections there may
    be is the server's cap, not the client's. Raises BadInput as `check` does.
    """
    check(base_url, api_key)
    headers = {"X-Api-Key": api_key, "User-Agent": "wsm"}
    return _client(base_url, headers, way, tls, _KEEP_ALIVE_SECONDS)


def build_bare(way: Exit, *, tls: ssl.SSLContext) -> httpx.AsyncClient:
    """Build a client for anything else in the world: through an exit, and without a secret."""
    return _client("", {"User-Agent": "wsm"}, way, tls, 0)


def _client(
    base_url: str, headers: dict[str, str], way: Exit | None, tls: ssl.SSLContext, keep_alive_seconds: float
) -> httpx.AsyncClient:
    proxy = None
    if way is not None:
        proxy = httpx.Proxy(f"http://{way.server}", auth=(way.username, way.password))
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=_IDLE_CONNECTIONS,
        keepalive_expiry=keep_alive_seconds,
    )
    transport = httpx.AsyncHTTPTransport(proxy=proxy, verify=tls, trust_env=False, limits=limits)
    return httpx.AsyncClient(
        base_url=base_url, headers=headers, transport=transport, trust_env=False, follow_redirects=False
    )
