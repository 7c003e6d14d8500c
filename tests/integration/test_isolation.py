"""Nobody else's: what the database itself keeps apart, whatever a query forgets.

What its catalogue says about that is judged in test_catalogue.py; every query is asked for another tenant's,
with its predicates and without, in tests/property/test_isolation_properties.py.
"""

import random
from contextlib import suppress

import psycopg

from databases import Database as Urls
from shop import START, shop
from strangers import strangers
from wsm.core.ids import TenantId
from wsm.store.database import Database

ANSWERS_ANYBODY = {"ping", "lock_lane", "ensure_month"}
ANA = "5511900000001"


async def test_without_a_tenant_nothing_is_seen_and_nothing_changes(database: Urls) -> None:
    async with strangers(database, random.Random(1)) as both:
        await both.live([(0, "told")], [(0, "told"), (0, "acks")])
        both.asks = None
        answered = {
            name.removesuffix(", bare") for name, value in both.answers() if value not in ("", None, 0)
        }
        assert answered <= ANSWERS_ANYBODY
        assert not both.changed()


async def test_the_same_queries_do_see_their_own_tenant(database: Urls) -> None:
    async with strangers(database, random.Random(1)) as both:
        await both.live([(0, "told")], [(0, "told"), (0, "acks"), (1, "ends")])
        both.asks = both.theirs.tenant
        assert both.heard().keys() >= {
            *(
                "show_line, bare",
                "show_audit",
                "show_messages",
                "open_line",
                "due_sessions",
                "sessions_named",
            ),
            *("show_history, bare", "evidence, bare", "known_tickets, bare", "contacts_by_alias, bare"),
            *("conversations_of_chat, bare", "lease, bare", "leases, bare"),
            *("read contacts", "lock tickets", "change outbox", "read inbound_dedupe"),
        }
        assert both.changed()


async def test_nothing_of_a_tenant_outlives_his_transaction(database: Urls) -> None:
    store = Database(database.app_url, connections=1)
    await store.open()
    try:
        async with shop(database) as mine:
            await mine.turn(mine.says(ANA, "oi"))
            for error in ((), (ArithmeticError,)):
                with suppress(ArithmeticError):
                    async with store.transaction(mine.tenant) as transaction:
                        pid = transaction._connection.info.backend_pid
                        assert await transaction.rows("show_messages")
                        for kind in error:
                            raise kind
                async with store.transaction() as transaction:
                    assert transaction._connection.info.backend_pid == pid, "the same connection"
                    assert await transaction.rows("show_messages") == []
                    assert await transaction.rows("sessions_named") == []
    finally:
        await store.close()


async def test_a_tenant_cannot_do_what_the_system_provisions_or_what_is_final(database: Urls) -> None:
    async with shop(database) as at:
        for statement in (
            "update sessions set name = 'user_99'",
            "update sessions set exit_policy = 'direct'",
            "update queues set capacity = 99",
            "update tenants set locale = 'en'",
            "update audit set what = 'nothing'",
            "delete from messages",
            "delete from inbound_dedupe",
            "truncate messages",
            "select * from waha_servers",
            "select * from migrations",
            "create table mine (id int)",
            "set role wsm_owner",
        ):
            assert await attempt(at.database, at.tenant, statement) == "InsufficientPrivilege", statement


async def attempt(store: Database, tenant: TenantId, statement: str) -> str | None:
    """Run a statement of a tenant. Returns why it was refused."""
    try:
        async with store.transaction(tenant, START) as transaction:
            await transaction._connection.execute(statement.encode())
    except psycopg.Error as exc:
        return type(exc).__name__
    return None
