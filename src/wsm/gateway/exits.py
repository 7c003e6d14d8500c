"""Where an exit comes out: asked through it, of the service that its provider or the operator names."""

import asyncio
import ipaddress

import httpx
import msgspec

from wsm.core.errors import GatewayUnavailable
from wsm.core.exits import Seen
from wsm.gateway.client import CONNECT_SECONDS

_LOOK_SECONDS = 15.0
_ANSWER_BYTES = 64 * 1024


async def look(http: httpx.AsyncClient, check_url: str) -> Seen:
    """Ask from which address and country one comes.

    Raises GatewayUnavailable with a reason that repeats no secret: the exit is dead, refuses the password or
    hangs, or the service does not answer as it should. Blocks for 15 s at most.
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
        raise GatewayUnavailable("exit: no answer in time") from exc
    except httpx.ProxyError as exc:
        refused = str(exc).startswith("407")
        raise GatewayUnavailable(f"exit: {'refuses the password' if refused else 'refused'}") from exc
    except httpx.HTTPError as exc:
        raise GatewayUnavailable(f"exit: {type(exc).__name__}") from exc
    if response.status_code == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        raise GatewayUnavailable("exit: refuses the password")
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
