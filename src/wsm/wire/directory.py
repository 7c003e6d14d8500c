"""The directory of sessions, as the clock publishes it in Redis and ingest reads it: JSON, no secrets in it.

{"version": str, "sessions": [{"tenant": int, "session": str, "server": str, "kid": str,
                               "generations": [int], "me": str | null}]}
"""

import hashlib
from collections.abc import Iterable

import msgspec

from wsm.core.errors import BadInput
from wsm.core.ids import ServerName, SessionName, TenantId


class Listed(msgspec.Struct, frozen=True):
    """A session that may sign.

    kid          the id of the master key that its secrets derive from
    generations  of its secret that are valid now: one, and two during a rotation
    me           the number that it is logged in with, as digits or `…@c.us`; None while nobody knows
    """

    tenant: TenantId
    session: SessionName
    server: ServerName
    kid: str
    generations: tuple[int, ...]
    me: str | None = None


class Directory(msgspec.Struct, frozen=True):
    """All of them. Two directories of one version are the same."""

    version: str
    sessions: tuple[Listed, ...]


_decoder = msgspec.json.Decoder(Directory)


def directory(sessions: Iterable[Listed]) -> Directory:
    """Make the directory of some sessions; its version is a hash of what it says."""
    listed = tuple(sessions)
    return Directory(hashlib.sha256(msgspec.json.encode(listed)).hexdigest()[:16], listed)


def write(directory: Directory) -> bytes:
    """Encode for publishing."""
    return msgspec.json.encode(directory)


def read(body: bytes) -> Directory:
    """Decode what was published. Raises BadInput."""
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as exc:
        raise BadInput("directory", str(exc)) from exc
