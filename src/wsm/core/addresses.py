"""Where a file may be fetched from: URLs that name somebody in the public internet, and nobody near us.

Of IPv6 only global unicast (2000::/3) without its special parts is allowed, so that every form that stands
for an IPv4 address (mapped, 6to4, NAT64, Teredo) is out by itself. The lists are IANA's registries of
special-purpose addresses.

A host that could be read as a number is one only in the usual form: `2130706433`, `0x7f.1` and `127.1` are
127.0.0.1 to some resolvers, and names to others.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from wsm.core.errors import BadInput

Address = IPv4Address | IPv6Address

_FIELD = "url"
_PORTS = {"http": 80, "https": 443}
_FIRST_FREE_PORT = 1024
"""Below it only the two of the web: no mail server, no SSH is talked to in our name."""
_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\Z"
)
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")
_VISIBLE = re.compile(r"[!-~]+\Z")
_NEVER = re.compile(r"[\\\ud800-\udfff]")
"""A backslash, which some read as a slash, and halves of characters: bytes that are no text."""
_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
            "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
            "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
_PUBLIC_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"))
)


class Place(msgspec.Struct, frozen=True):
    """Where a URL leads: host is a name in ASCII, or an address; target is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the request calls it: without the port that its scheme has anyway."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def is_public(address: Address) -> bool:
    """Whether an address is somebody's in the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None or address not in _PUBLIC_6:
        return False
    return not any(address in network for network in _NOT_PUBLIC_6)


def place_of(url: str) -> Place:
    """Take a URL apart. Raises BadInput, without repeating it, for one that nothing is fetched from.

    That its host is a name proves nothing: what it resolves to is judged by `is_public`.
    """
    if not _VISIBLE.match(url.encode("ascii", "replace").decode()) or _NEVER.search(url):
        raise BadInput(_FIELD, "has characters that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadInput(_FIELD, "is no URL") from None
    if parts.scheme not in _PORTS:
        raise BadInput(_FIELD, "begins with https:// or http://")
    if "@" in parts.netloc:
        raise BadInput(_FIELD, "must not have a name or a password in it")
    if port is not None and port not in _PORTS.values() and port < _FIRST_FREE_PORT:
        raise BadInput(_FIELD, "names a port that is not the web's")
    host = _host(parts.hostname or "")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.scheme, host, port or _PORTS[parts.scheme], _quoted(target))


def redirected(place: Place, location: str) -> Place:
    """Follow a redirection: judged anew, and never from https to http. Raises BadInput as `place_of` does."""
    try:
        leads_to = urljoin(f"{place.scheme}://{place.authority}{place.target}", location)
    except ValueError:
        raise BadInput(_FIELD, "leads to what is no URL") from None
    its = place_of(leads_to)
    if place.scheme == "https" and its.scheme != "https":
        raise BadInput(_FIELD, "leads from https:// to http://")
    return its


def is_listed(host: str, listed: tuple[str, ...]) -> bool:
    """Whether a host is on an allow list: as itself, or below `*.name`. An empty list has everybody on it."""
    if not listed:
        return True
    return any(
        host.endswith(each[1:]) if each.startswith("*.") else host == each
        for each in (entry.lower() for entry in listed)
    )


def _host(text: str) -> str:
    """Write a host the one way that is judged and connected to."""
    if ":" in text:
        return _literal(text)
    try:
        host = text.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        raise BadInput(_FIELD, "has no host") from None
    if not _HOST.match(host):
        raise BadInput(_FIELD, "has no host")
    return _literal(host) if _NUMBER.match(host.rpartition(".")[2]) else host


def _literal(text: str) -> str:
    """Take an address in its usual form, and none that is not public."""
    try:
        address = ip_address(text)
    except ValueError:
        raise BadInput(_FIELD, "has an address in an unusual form") from None
    if not is_public(address):
        raise BadInput(_FIELD, "leads to no public address")
    return str(address)


def _quoted(target: str) -> str:
    """Write what is not ASCII as a browser would."""
    return quote(target, safe="".join(map(chr, range(0x21, 0x7F))))
