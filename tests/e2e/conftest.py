"""Fixtures of the tests that run a whole site."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.telling import discard


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to start `wsm` in; what it keeps is removed afterwards."""
    found = tmp_path / "a folder with spaces"
    found.mkdir()
    yield found
    discard(found)
