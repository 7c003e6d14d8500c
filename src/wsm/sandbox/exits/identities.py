"""Who may pass, and the address that he leaves from."""

import hashlib
import hmac
import re
import socket
from collections.abc import Callable

import msgspec

_COUNTRY = re.compile(r"(?:^|-)country-([a-zA-Z]{2})(?:-|$)")


class Identity(msgspec.Struct, frozen=True):
    """Whom a user name means. country: what the provider says of the exit, in two letters."""

    name: str
    country: str = "BR"


Identify = Callable[[str, str], Identity | None]
"""Tells by user name and password who it is; None: nobody who may pass."""


def one_password(password: str) -> Identify:
    """Take whole user names for identities, with one password for all.

    The country is the one in the name, as in `user-acme-country-br-session-1`, or else BR.
    """

    def identify(username: str, given: str) -> Identity | None:
        if not hmac.compare_digest(given.encode(), password.encode()):
            return None
        said = _COUNTRY.search(username)
        return Identity(username, said[1].upper()) if said else Identity(username)

    return identify


def can_tell_exits() -> bool:
    """Whether this machine's loopback has an address for every identity; macOS' has one in all."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.1.2.3", 0))
        except OSError:
            return False
    return True


class Exits:
    """Whose address is which. name: tells this provider's addresses from another one's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._exits: dict[str, str] = {}
        self._owners: dict[str, str] = {}

    def of(self, identity: str) -> str:
        """Return an identity's address, the same until it moves."""
        return self._exits.get(identity) or self.move(identity)

    def owner(self, address: str) -> str | None:
        """Return whose an address is or was."""
        return self._owners.get(address)

    def move(self, identity: str) -> str:
        """Give an identity an address that was nobody's before."""
        attempt = 0
        while (address := self._derived(identity, attempt)) in self._owners:
            attempt += 1
        self._owners[address] = identity
        self._exits[identity] = address
        return address

    def move_onto(self, identity: str, other: str) -> None:
        """Give an identity the address of another one, whose it stays."""
        self._exits[identity] = self.of(other)

    def _derived(self, identity: str, attempt: int) -> str:
        """Return an address that depends on the names alone; none of 127.0.0.0/24, where everybody lives."""
        words = f"{self._name}\0{identity}\0{attempt}"
        first, second, third = hashlib.sha256(words.encode()).digest()[:3]
        return f"127.{1 + first % 254}.{second}.{1 + third % 254}"
