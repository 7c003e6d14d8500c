"""Nobody else's: what the database itself keeps apart, whatever a query forgets.

`faults` reads the catalogue as a stranger would, so that a table, a policy or a grant of tomorrow is judged
too; one test breaks each rule and shows that it is seen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Json

from databases import Database as Urls
from outboxes import Outbox, fresh_id
from shop import START, Shop, shop
from wsm.core.errors import Unavailable
from wsm.core.ids import TenantId
from wsm.store.database import Database, listed
from wsm.store.queries import QUERIES

OWN = "(tenant_id = ( SELECT current_tenant() AS current_tenant))"
WITHOUT_TENANT = {"waha_servers", "migrations"}
FLEET_READS = {
    "tenants": None,
    "queues": None,
    "sessions": None,
    "waha_servers": None,
    "outbox": {"tenant_id", "state", "not_before", "created_at"},
    "inbound_dedupe": {"tenant_id", "session_id", "key", "seen_at"},
    "proxy_leases": {"tenant_id", "exit_ip", "quarantined_until"},
}
FLEET_WRITES = {"tenants", "queues", "sessions", "waha_servers"}
ANSWERS_ANYBODY = {"ping", "lock_lane", "ensure_month"}
ANA, BIA = "5511900000001", "5511900000002"
SECRET = "segredo deles"
OTHER = TenantId(77)
THEIRS = 1_000_001
"""The first id of the other tenant in every table."""

TABLES = """
select c.relname as name, c.relkind as kind, c.relispartition as part, c.relrowsecurity as secured,
       c.relforcerowsecurity as forced, pg_get_userbyid(c.relowner) as owner,
       exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id') as has_tenant,
       coalesce((select array_agg(distinct grantee::regrole::text) from aclexplode(c.relacl)
                 where grantee <> c.relowner), '{}') as grantees
from pg_class c where c.relnamespace = 'wsm'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
"""
POLICIES = "select * from pg_policies where schemaname = 'wsm'"
FOREIGN_KEYS = """
select k.conname as name, k.conrelid::regclass::text as child, k.confrelid::regclass::text as parent,
       'tenant_id' = any (select attname from pg_attribute a
                          where a.attrelid = k.conrelid and a.attnum = any (k.conkey)) as held
from pg_constraint k where k.contype = 'f' and k.connamespace = 'wsm'::regnamespace
"""
FUNCTIONS = """
select p.proname as name, p.prosecdef as definer, coalesce(p.proconfig::text, '') as config,
       has_function_privilege('public', p.oid, 'execute') as public
from pg_proc p where p.pronamespace = 'wsm'::regnamespace
"""
ROLES = """
select rolname as name, rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication as strong,
       exists (select from pg_auth_members m where m.member = r.oid) as member,
       exists (select from pg_class c where c.relowner = r.oid) as owner
from pg_roles r where rolname in ('wsm_app', 'wsm_system')
"""


def faults(owner: psycopg.Connection[Any]) -> list[str]:
    """What the catalogue has against the isolation of tenants; empty if nothing."""
    tables, policies, keys, functions, roles = (
        owner.execute(query.encode()).fetchall()
        for query in (TABLES, POLICIES, FOREIGN_KEYS, FUNCTIONS, ROLES)
    )
    found: list[str] = []
    for table in tables:
        own = [policy for policy in policies if policy.tablename == table.name]
        found += [f"{table.name}: {fault}" for fault in _of_table(table, own)]
    for policy in policies:
        found += [f"policy {policy.tablename}.{policy.policyname}: {fault}" for fault in _of_policy(policy)]
    for key in keys:
        if not key.held and key.parent not in WITHOUT_TENANT:
            found.append(f"key of {key.child} to {key.parent}: without tenant_id")
    for function in functions:
        if function.definer and (function.public or "search_path=wsm, pg_temp" not in function.config):
            found.append(f"function {function.name}: not pinned, or everybody's")
    return found + [f"role {role.name}" for role in roles if role.strong or role.member or role.owner]


@contextmanager
def owner_of(urls: Urls) -> Iterator[psycopg.Connection[Any]]:
    """Look at the database as its superuser."""
    with psycopg.connect(urls.owner_url, row_factory=namedtuple_row, autocommit=True) as owner:
        owner.execute("set search_path = wsm")
        yield owner


def _of_table(table: Any, policies: list[Any]) -> list[str]:
    if table.kind not in "rp":
        return ["no table: would be read with its owner's rights"]
    if table.owner != "wsm_owner":
        return [f"owned by {table.owner}"]
    if table.name in WITHOUT_TENANT:
        return [] if "wsm_app" not in table.grantees else ["granted to wsm_app"]
    found = [] if table.has_tenant else ["without tenant_id"]
    found += [] if table.secured and table.forced else ["row-level security is not forced"]
    if table.part:
        return found + ([f"a partition granted to {table.grantees}"] if table.grantees else [])
    of_app = [policy for policy in policies if policy.roles != ["wsm_system"]]
    if [policy.policyname for policy in of_app] != ["one_tenant"]:
        found.append(f"policies of wsm_app: {[policy.policyname for policy in of_app]}")
    return found + [f"granted to {each}" for each in table.grantees if each not in {"wsm_app", "wsm_system"}]


def _of_policy(policy: Any) -> list[str]:
    if policy.roles == ["wsm_system"]:
        return [] if policy.tablename in FLEET_READS else ["the system has no business there"]
    if policy.roles != ["wsm_app"] or policy.permissive != "PERMISSIVE" or policy.cmd != "ALL":
        return [f"for {policy.cmd} to {policy.roles}"]
    return [] if (policy.qual, policy.with_check) == (OWN, OWN) else ["is not about the own tenant alone"]


async def test_the_catalogue_keeps_tenants_apart(database: Urls) -> None:
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi"))  # with a month of history
    with owner_of(database) as owner:
        assert faults(owner) == []


BREAKING = {
    "drop policy one_tenant on tickets": "tickets: policies of wsm_app: []",
    "alter policy one_tenant on messages using (true)": "policy messages.one_tenant: is not about",
    "alter policy one_tenant on outbox with check (true)": "policy outbox.one_tenant: is not about",
    "alter table contacts no force row level security": "contacts: row-level security is not forced",
    "alter table audit disable row level security": "audit: row-level security is not forced",
    "create policy more on agents to wsm_app using (true)": "agents: policies of wsm_app",
    "create policy more on agents to wsm_system using (true)": "policy agents.more: the system has",
    "create table notes (tenant_id bigint)": "notes: row-level security is not forced",
    "create table notes (id bigint)": "notes: without tenant_id",
    "create view everything as select * from messages": "everything: no table",
    "grant select on messages_2026_11 to wsm_app": "messages_2026_11: a partition granted",
    "grant select on waha_servers to wsm_app": "waha_servers: granted to wsm_app",
    "grant execute on function ensure_month to public": "function ensure_month",
    "alter function ensure_month reset search_path": "function ensure_month",
    "alter table audit add unique (id), add foreign key (id) references audit (id)": "key of audit",
    "grant wsm_owner to wsm_app": "role wsm_app",
    "alter role wsm_system bypassrls": "role wsm_system",
}


def test_whatever_breaks_the_isolation_is_seen(database: Urls) -> None:
    with owner_of(database) as owner:
        owner.execute("select ensure_month('2026-11-01')")
        for breaking, seen in BREAKING.items():
            with owner.transaction(force_rollback=True):
                role = "postgres" if " role " in breaking or "wsm_owner" in breaking else "wsm_owner"
                owner.execute(f"set local role {role}".encode()).execute(breaking.encode())
                assert any(seen in fault for fault in faults(owner)), breaking


async def test_no_query_of_one_tenant_sees_or_changes_anything_of_another(database: Urls) -> None:
    async with shop(database) as mine:
        values = await found_theirs(mine, database)
        with owner_of(database) as owner:
            everything = theirs(owner)
            before = everything()
            for name in QUERIES:
                for tenant in (mine.tenant, OTHER):
                    found = await attempt(mine.database, mine.tenant, name, {**values, "tenant": tenant})
                    assert not [value for value in found if is_theirs(value)], name
                    assert everything() == before, name


async def test_without_a_tenant_nothing_is_seen_and_nothing_changes(database: Urls) -> None:
    async with shop(database) as mine:
        values = await found_theirs(mine, database)
        with owner_of(database) as owner:
            everything = theirs(owner)
            before = everything()
            for name in QUERIES.keys() - ANSWERS_ANYBODY:
                found = await attempt(mine.database, None, name, values)
                assert not any(found), name
            assert everything() == before


async def test_the_same_queries_do_see_their_own_tenant(database: Urls) -> None:
    async with shop(database) as mine:
        values = await found_theirs(mine, database)
        seeing = set()
        for name in QUERIES:
            found = await attempt(mine.database, OTHER, name, values)
            seeing |= {name for value in found if is_theirs(value)}
        assert seeing >= {
            *("show_line", "show_history", "show_audit", "show_messages", "open_line", "first_seen"),
            *("sessions_of_tenant", "contacts_by_alias", "conversations_of_chat", "known_chats"),
            *("evidence", "due_sessions"),
        }


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
            found = await attempt(at.database, at.tenant, statement, {})
            assert found == ["InsufficientPrivilege"], statement


def test_the_system_sees_what_its_policies_name_and_no_more(database: Urls) -> None:
    privileges = """
        select c.relname as table, a.attname as column,
               has_column_privilege('wsm_system', c.oid, a.attnum, 'select') as reads,
               has_column_privilege('wsm_system', c.oid, a.attnum, 'insert, update') as writes,
               has_table_privilege('wsm_system', c.oid, 'delete, truncate') as deletes
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = 'wsm'::regnamespace and c.relkind in ('r', 'p')
    """
    with owner_of(database) as owner:
        rows = owner.execute(privileges).fetchall()
    for row in rows:
        allowed = FLEET_READS.get(row.table, set())
        assert row.reads == (allowed is None or row.column in allowed), row
        assert row.writes == (row.table in FLEET_WRITES), row
        assert row.deletes == (row.table == "inbound_dedupe"), row


async def found_theirs(mine: Shop, urls: Urls) -> dict[str, Any]:
    """Found another tenant, fill his tables, and return every query's values, which name what is his."""
    _number_from(urls, THEIRS - 1)
    at = await Shop(mine.database, mine.system, tenant=OTHER).founded()
    box = Outbox(at)
    key = at.says(ANA, SECRET, id="3EB0THEIRS")
    await at.turn(key, at.says(BIA, SECRET), at.body("label.upsert", {"id": SECRET}))
    claimed = await box.must_claim(id=fresh_id())
    await at.turn(at.ack(f"{BIA}@c.us", "3EB0X", 2))
    _number_from(urls, 500)
    chat, soon = f"{ANA}@c.us", START + timedelta(hours=1)
    first: dict[str, Any] = dict.fromkeys(("id", "session", "conversation", "ticket", "queue"), THEIRS)
    lists = {"sessions": [THEIRS], "contacts": [THEIRS],
             "aliases": [chat], "keys": ["m|0|new"], "ids": [claimed.reserved_id],
             "names": [at.address.session]}  # fmt: skip
    rows = _rows_about(at, claimed.reserved_id)
    times = dict.fromkeys(("at", "before", "entered_at", "expires_at", "look_again", "not_before", "now",
                           "sent_at", "until"), soon)  # fmt: skip
    numbers = dict.fromkeys(("at_ms", "entry_ms", "entry_n", "sent_ms", "stamped_ms", "seq"), 2**41)
    texts = dict.fromkeys(("body", "by", "engine", "kid", "participant", "phone", "reason", "status",
                           "target", "what", "name", "server", "key"), "x")  # fmt: skip
    return {
        **first, **lists, **rows, **times, **numbers, **texts,
        "tenant": OTHER, "alias": chat, "author": "bot", "bare_id": claimed.reserved_id,
        "reserved_id": claimed.reserved_id, "bell": "another", "capacity": 9, "chat": chat,
        "detail": Json({}), "exit_policy": "direct", "from_me": True, "intent": "turn", "kind": "text",
        "late": False, "level": 3, "limit": 9, "locale": "en", "media": None, "month": START.date(),
        "place": 1, "raw": b"", "stale": False, "state": "sent", "text": claimed.text,
    }  # fmt: skip


def _rows_about(at: Shop, bare_id: str | None) -> dict[str, Any]:
    """What the queries that take a list of rows are given."""
    chat, session = f"{ANA}@c.us", at.address.session
    whose = {"place": 1, "id": THEIRS, "session": THEIRS, "conversation": THEIRS, "ticket": THEIRS}
    message = {**whose, "id": THEIRS + 900, "sent_at": START, "author": "bot", "kind": "text",
               "from_me": True, "bare_id": "x", "body": "x", "late": False,
               "stamped_ms": 1, "entry_ms": 1, "entry_n": 1}  # fmt: skip
    return {
        "events": listed([{"place": 1, "session": session, "key": "m|0|new", "month": START.date()}]),
        "seen": listed([{"session": session, "id": bare_id}]),
        "chats": listed([{"session": THEIRS, "chat": chat, "kind": "direct"}]),
        "lines": listed([{**whose, "what": "x", "detail": {}}]),
        "intents": listed([{**whose, "intent": "turn", "key": "x"}]),
        "messages": listed([message]),
    }


def _number_from(urls: Urls, number: int) -> None:
    """Let every sequence go on after a number."""
    sequences = (
        "select oid::regclass from pg_class where relkind = 'S' and relnamespace = 'wsm'::regnamespace"
    )
    with psycopg.connect(urls.owner_url, autocommit=True) as owner:
        owner.execute(f"select setval(s.oid, {number}) from ({sequences}) s".encode())


async def attempt(store: Database, tenant: TenantId | None, name: str, values: dict[str, Any]) -> list[Any]:
    """Run a query, or a statement, of a tenant, and commit. Returns every value that it answered."""
    if name == "conversations_of_chat":
        values = values | {"session": None}
    try:
        async with store.transaction(tenant, START) as transaction:
            cursor = await transaction._connection.execute(QUERIES.get(name, name.encode()), values)
            rows = await cursor.fetchall() if cursor.description else []
    except psycopg.errors.InsufficientPrivilege as exc:
        return [type(exc).__name__] if name not in QUERIES else []
    except (psycopg.Error, Unavailable):
        return []
    return [value for row in rows for value in row]


def is_theirs(value: object) -> bool:
    """Whether an answer is a number or a text of the other tenant's."""
    return value in range(THEIRS, THEIRS + 1000) or SECRET in str(value) or "3EB0" in str(value)


def theirs(owner: psycopg.Connection[Any]) -> Callable[[], object]:
    """Return what digests everything that the other tenant has."""
    names = [table.name for table in owner.execute(TABLES.encode()) if table.has_tenant and not table.part]
    parts = [f"select '{name}' || t::text as x from {name} t where tenant_id = {OTHER}" for name in names]
    query = f"select count(*), md5(string_agg(x, ';' order by x)) from ({' union all '.join(parts)}) u"
    return lambda: owner.execute(query.encode()).fetchone()
