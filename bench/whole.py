"""A whole fleet between the phones and an instant gateway: wsm's own, or one on stock RQ.

Both stand on the same servers, each with one worker process unless more are asked for, take the same webhooks
and talk to the same gateway (`bench.phones`). Redis is emptied before a fleet starts.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import msgspec
import psycopg
import redis

from bench import webhooks
from bench.harness import Child, running, wait_until
from bench.peers import rq_hook
from bench.workers import rq
from wsm.sandbox.embedded import Embedded
from wsm.sandbox.site import UNPACED
from wsm.sandbox.supervisor import free_ports
from wsm.streams import keys

_FOUNDED = """
insert into waha_servers (name) values ('default') on conflict do nothing;
insert into tenants (tenant_id) select t from generate_series({first}, {last}) t on conflict do nothing;
insert into queues (tenant_id, capacity) select t, 1000000 from generate_series({first}, {last}) t
on conflict do nothing;
insert into sessions (tenant_id, server, name, kid, exit_policy)
select t, 'default', 'user_' || t, '{kid}', 'direct' from generate_series({first}, {last}) t
on conflict do nothing;
analyze tenants, queues, sessions
"""


class Fleet(msgspec.Struct, frozen=True):
    """A running fleet.

    port, gateway_port  where it takes webhooks, and where it expects its gateway
    front, workers      its processes
    """

    port: int
    gateway_port: int
    front: Sequence[Child]
    workers: Sequence[Child]
    redis_url: str

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return [child.pid for child in (*self.front, *self.workers)]

    def has_drained(self) -> bool:
        """Whether everything that it accepted was handled."""
        with redis.Redis.from_url(self.redis_url) as connection:
            waiting = int(connection.hget(keys.LOAD, "entries") or 0)
            started = connection.zcard(f"rq:wip:{rq_hook.QUEUE}")
            return waiting == 0 and not connection.llen(f"rq:queue:{rq_hook.QUEUE}") and not started

    def check(self) -> None:
        """Stop the run when one of its processes has ended."""
        for child in (*self.front, *self.workers):
            child.check()


def found(servers: Embedded, tenants: int) -> None:
    """Make so many tenants, each with a session and a queue in which nobody waits."""
    first = webhooks.FIRST_TENANT
    statements = _FOUNDED.format(first=first, last=first + tenants - 1, kid=webhooks.KID)
    with psycopg.connect(servers.database_url(), autocommit=True) as owner:
        owner.execute("set search_path = wsm")
        for statement in statements.split(";"):
            owner.execute(statement.encode())
        owner.execute(rq_hook.TABLES.encode())


@contextmanager
def wsm_fleet(servers: Embedded, *, workers: int = 1) -> Iterator[Fleet]:
    """Run `wsm ingest`, `wsm clock` and workers with their default settings."""
    port, gateway_port, *ops = free_ports(4 + workers)
    environ = {
        **webhooks.ENVIRON,
        "REDIS_URL": servers.redis_url,
        "DATABASE_URL": servers.database_url("wsm_app"),
        "WSM_SYSTEM_DATABASE_URL": servers.database_url("wsm_system"),
        "WSM_PACE": UNPACED,
        "WAHA_URL": f"http://127.0.0.1:{gateway_port}",
        "WAHA_API_KEY": "bench",
        "WSM_PORT": str(port),
    }
    names = ("ingest", "clock", *(f"worker-{number}" for number in range(workers)))
    with ExitStack() as stack:
        _empty(servers)
        children = [
            stack.enter_context(
                running(
                    f"whole-{name}",
                    "-m",
                    "wsm",
                    name.partition("-")[0],
                    environ={**environ, "WSM_OPS_PORT": str(its)},
                )
            )
            for name, its in zip(names, ops, strict=False)
        ]
        fleet = Fleet(port, gateway_port, children[:2], children[2:], servers.redis_url)
        for name, its in zip(names, ops, strict=False):
            wait_until(lambda at=its: _is_ready(at), name, beside=fleet.check)  # type: ignore[misc]
        yield fleet


@contextmanager
def rq_fleet(servers: Embedded, *, simple: bool, workers: int = 1) -> Iterator[Fleet]:
    """Run the hook of a team on stock RQ, with SimpleWorkers or workers that fork per job."""
    port, gateway_port = free_ports(2)
    environ = {
        "REDIS_URL": servers.redis_url,
        "DATABASE_URL": servers.database_url(),
        "WAHA_URL": f"http://127.0.0.1:{gateway_port}",
    }
    with ExitStack() as stack:
        _empty(servers)
        hook = stack.enter_context(
            running("whole-rq-hook", "-m", "bench.peers.rq_hook", str(port), environ=environ)
        )
        _, name, *options = rq(rq_hook.QUEUE, simple=simple)
        # As RQ's documents advise: what the jobs import is there before the worker forks.
        command = ("-c", f"import bench.peers.rq_hook, {name}; {name}.main()", *options)
        children = [
            stack.enter_context(running(f"whole-rq-{number}", *command, environ=environ))
            for number in range(workers)
        ]
        fleet = Fleet(port, gateway_port, [hook], children, servers.redis_url)
        wait_until(lambda: _listens(port), "the hook", beside=fleet.check)
        with redis.Redis.from_url(servers.redis_url) as connection:
            wait_until(lambda: connection.scard("rq:workers") == workers, "rq's workers", beside=fleet.check)
        yield fleet


def server_pids(servers: Embedded) -> tuple[int, int]:
    """Name Valkey and PostgreSQL."""
    return servers.valkey.pid, servers.postgres.pid


def _empty(servers: Embedded) -> None:
    with redis.Redis.from_url(servers.redis_url) as connection:
        connection.flushall()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _is_ready(port: int) -> bool:
    """Whether /readyz of a process of wsm answers 200."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: wsm\r\nConnection: close\r\n\r\n")
        return connection.recv(64).split()[1:2] == [b"200"]
    return False
