"""Fixtures that every kind of test shares, and the running of `async def` tests.

With CI set hypothesis tries the same examples every time; elsewhere it goes on searching.

An `async def test_…` runs in an event loop of its own and fails after 60 s (another limit:
`@pytest.mark.deadline(seconds)`); hypothesis' `@given` works on it. Fixtures are ordinary functions: what
needs a loop is made inside the test. To wait for something, use `waiting.wait_for`.

One Valkey and one PostgreSQL serve a whole run. A test that asks for `redis_url` finds Valkey empty; one
that asks for `database` gets a migrated database of its own. A test may stop, kill or restart either
server through `embedded`: the next one that needs it finds it running.
"""

import asyncio
import gc
import inspect
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from hypothesis import settings

from certificates import Certificate, make
from databases import Database
from e2e.town import Ground
from wsm.sandbox.embedded import Embedded

DEADLINE_SECONDS = 60.0
MAXMEMORY = "256mb"
YOUNG = 10_000
"""How many objects are made before Python looks for garbage, as in wsm's own processes."""

_ROOM_BYTES = 6 * 2**30
VALKEY_DEFAULTS: dict[str, str] = {
    "maxmemory": MAXMEMORY,
    "maxmemory-policy": "noeviction",
    "appendfsync": "always",
    "min-replicas-to-write": "0",
}

_numbers = itertools.count(1)

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "deadline(seconds): how long an async test may take, instead of 60 s")
    gc.set_threshold(YOUNG)


def pytest_collection_finish() -> None:
    """Leave all modules and tests out of every later look for garbage: they stay."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Wrap an async test into a plain one, which pytest then calls."""
    mark = pyfuncitem.get_closest_marker("deadline")
    seconds = float(mark.args[0]) if mark else DEADLINE_SECONDS
    inner = getattr(pyfuncitem.obj, "hypothesis", None)
    if inner is not None and inspect.iscoroutinefunction(inner.inner_test):
        inner.inner_test = _plain(inner.inner_test, seconds)
    elif inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _plain(pyfuncitem.obj, seconds)


def _plain(test: Callable[..., Coroutine[Any, Any, None]], seconds: float) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def within_deadline() -> None:
            async with asyncio.timeout(seconds):
                await test(*args, **kwargs)

        with asyncio.Runner() as runner:
            runner.run(within_deadline())

    return run


@pytest.fixture(scope="session")
def waha_fixtures() -> Path:
    """The folder with WAHA's samples/, captures/ and openapi.json; tests of it are skipped without."""
    named = os.environ.get("WSM_WAHA_FIXTURES")
    if not named:
        pytest.skip("WSM_WAHA_FIXTURES names no folder with WAHA's samples and captures")
    return Path(named)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for 127.0.0.1."""
    return make(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """The run's two servers. Tests take `embedded`, which makes sure that they run.

    In memory where there is room for that: each test's own database is three hundred files.
    """
    shared = Path("/dev/shm")
    is_roomy = os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > _ROOM_BYTES
    home = Path(tempfile.mkdtemp("-wsm", dir=shared)) if is_roomy else tmp_path_factory.mktemp("home")
    home.chmod(0o711)  # root's PostgreSQL runs as `nobody`: where he cannot enter, his data lies on a disk
    found = Embedded(home, fresh=True, maxmemory=MAXMEMORY, fsync=False)
    try:
        found.start()
        yield found
    finally:
        found.discard()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def embedded(servers: Embedded) -> Embedded:
    """Both servers, running."""
    servers.start()
    return servers


@pytest.fixture
def redis_url(embedded: Embedded) -> str:
    """The URL of an empty Valkey; settings that tests play with are as they were."""
    with redis.Redis.from_url(embedded.redis_url) as client:
        assert client.config_get("unixsocket")["unixsocket"] == embedded.services.redis_socket
        for name, value in VALKEY_DEFAULTS.items():
            client.config_set(name, value)
        client.flushall()
    return embedded.redis_url


@pytest.fixture
def clean_redis(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the empty Valkey, for looking at keys; answers are bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def postgres_admin_url(embedded: Embedded) -> str:
    """The superuser's URL of the database `postgres`."""
    return embedded.database_url(database="postgres")


@pytest.fixture(scope="session")
def template(servers: Embedded) -> str:
    """The name of a migrated database that no test changes."""
    from wsm.store.migrate import migrate  # noqa: PLC0415 (most tests need no store)

    servers.start()
    name = "wsm_template"
    with psycopg.connect(servers.database_url(database="postgres"), autocommit=True) as admin:
        admin.execute(f"create database {name}")
    asyncio.run(migrate(servers.database_url(database=name)))
    return name


@pytest.fixture
def database(template: str, postgres_admin_url: str, embedded: Embedded) -> Iterator[Database]:
    """A migrated database of the test's own."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres_admin_url, autocommit=True) as admin:
        # Copied by files, a tenth of the time that PostgreSQL takes to log every page of a small template.
        admin.execute(f"create database {name} template {template} strategy file_copy")
    yield Database(
        owner_url=embedded.database_url("postgres", name),
        app_url=embedded.database_url("wsm_app", name),
        system_url=embedded.database_url("wsm_system", name),
    )
    embedded.start()
    with psycopg.connect(postgres_admin_url, autocommit=True) as admin:
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture
def ground(embedded: Embedded, redis_url: str, database: Database, tmp_path: Path) -> Ground:
    """The run's servers, emptied; a database and a home of the test's own."""
    assert redis_url == embedded.redis_url
    home = tmp_path / "home"
    home.mkdir()
    return Ground(embedded, database, home)
