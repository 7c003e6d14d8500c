"""What outlives a WAHA that is killed: credentials, devices' messages and what the customers received.

A file with a fact per line, written before anybody is told. A last line that was torn by the kill never was.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from wsm.sandbox.waha.state import Fact, World

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Fact).decode


def recall(path: Path, world: World) -> None:
    """Let everything become true again that is written there, and cut off what was torn."""
    if not path.exists():
        return
    whole = 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            _decode(line).become(world)
            whole += len(line)
    os.truncate(path, whole)


class Journal:
    """An open journal. It survives SIGKILL, not a power cut: a fact is in the page cache, not on the disk."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, fact: Fact) -> None:
        """Add a fact."""
        os.write(self._file, _encode(fact) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
