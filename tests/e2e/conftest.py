"""Fixtures of the tests that run a whole site."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from databases import Database
from e2e.telling import discard
from e2e.town import Ground
from wsm.sandbox.embedded import Embedded


@pytest.fixture
def ground(embedded: Embedded, redis_url: str, database: Database, tmp_path: Path) -> Ground:
    """The run's servers, emptied; a database and a home of the test's own."""
    assert redis_url == embedded.redis_url
    home = tmp_path / "home"
    home.mkdir()
    return Ground(embedded, database, home)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to start `wsm` in; what it keeps is removed afterwards."""
    found = tmp_path / "a folder with spaces"
    found.mkdir()
    yield found
    discard(found)
