"""A PostgreSQL database of one test's own."""

from urllib.parse import urlsplit

import msgspec


class Database(msgspec.Struct, frozen=True):
    """A migrated, empty database; dropped after the test. URLs as libpq takes them.

    owner_url   the superuser
    app_url     `wsm_app`: bound by row-level security
    system_url  `wsm_system`: with its explicit policies
    """

    owner_url: str
    app_url: str
    system_url: str

    @property
    def name(self) -> str:
        """Its name on the server."""
        return urlsplit(self.owner_url).path.lstrip("/")
