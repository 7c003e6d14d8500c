"""Where an exit comes out: asked through it, of the service that its provider or the operator names."""

import asyncio
import ipaddress
import ssl

import httpx
import msgspec

from wsm.core.errors import ExitFailed, GatewayUnavailable
from wsm.core.exits import Seen
from wsm.gateway.client import CONNECT_SECONDS

_LOOK_SECONDS = 15.0
_ANSWER_BYTES = 64 * 1024
_OF_A_PROXY = frozenset({502, 503, 504})
"""What a proxy answers that reaches nothing, where it forwards and makes no tunnel."""


async def look(http: httpx.AsyncClient, check_url: str) -> Seen:
    """Ask from which address and country one comes.

    Raises ExitFailed when nothing is reached through the exit: it is dead, refuses the password or hangs.
    Raises GatewayUnavailable when the service answers otherwise than it should, which says nothing of the
    exit. Neither text repeats a secret. Blocks for 15 s at most.
    """
    try:
        async with (
            asyncio.timeout(_LOOK_SECONDS),
            http.stream(
                "GET", check_url, timeout=httpx.Timeout(_LOOK_SECONDS, connect=CONNECT_SECONDS)
            ) as response,
        ):
            content = b""
            async for part in response.aiter_bytes():
                content += part
                if len(content) > _ANSWER_BYTES:
                    raise GatewayUnavailable("exit: the check answers too much")
    except (TimeoutError, httpx.TimeoutException) as exc:
        raise ExitFailed("exit: no answer in time") from exc
    except httpx.ProxyError as exc:
        refused = str(exc).startswith("407")
        raise ExitFailed(f"exit: {'refuses the password' if refused else 'refused'}") from exc
    except (httpx.HTTPError, ssl.SSLError) as exc:  # httpx lets what breaks TLS through
        raise ExitFailed(f"exit: {type(exc).__name__}") from exc
    if response.status_code == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        raise ExitFailed("exit: refuses the password")
    if response.status_code in _OF_A_PROXY:
        raise ExitFailed(f"exit: answered {response.status_code}")
    if not response.is_success:
        raise GatewayUnavailable(f"exit: the check answered {response.status_code}")
    return _read(content)


def _read(content: bytes) -> Seen:
    """Read `ip` and `country`, plain or as Decodo nests them: `proxy.ip`, `country.code`."""
    try:
        its = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        its = None
    its = its if isinstance(its, dict) else {}
    proxy, country = its.get("proxy"), its.get("country")
    said = its.get("ip") or (proxy.get("ip") if isinstance(proxy, dict) else None)
    code = country.get("code") if isinstance(country, dict) else country
    try:
        address = str(ipaddress.ip_address(said if isinstance(said, str) else ""))
    except ValueError:
        raise GatewayUnavailable("exit: the check names no address") from None
    return Seen(address, code.lower() if isinstance(code, str) and code else None)
