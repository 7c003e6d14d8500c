"""The catalogue keeps tenants apart, and each way to break that is seen."""

import psycopg
import pytest
from psycopg import sql

from catalogue import WITHOUT_TENANT, faults, faults_seen_by, owner_of
from databases import Database as Urls

BREAKING = {
    "alter policy one_tenant on messages using (true)": "policy messages.one_tenant: is not about",
    "alter policy one_tenant on outbox with check (true)": "policy outbox.one_tenant: is not about",
    "create policy more on agents to wsm_app using (true)": "agents: policies of wsm_app",
    "create policy more on agents to public using (true)": "agents: policies of wsm_app",
    "create policy more on agents to wsm_system using (true)": "policy agents.more: the system has",
    "create table notes (tenant_id bigint)": "notes: row-level security is not forced",
    "create table notes (id bigint)": "notes: without tenant_id",
    "create table notes (tenant_id bigint unique)": "notes: without tenant_id, or it may be null",
    "create table public.notes (id bigint)": "notes: in the schema public",
    "create view everything as select * from messages": "everything: no table",
    "create materialized view everything as select * from messages": "everything: no table",
    "create rule copy as on insert to audit do also select 1": "audit: a rule",
    "grant select on messages_2026_11 to wsm_app": "messages_2026_11: a partition granted",
    "grant select (body) on messages_2026_11 to wsm_app": "messages_2026_11: a partition granted",
    "grant select on messages_2026_11 to public": "messages_2026_11: a partition granted",
    "grant select on waha_servers to wsm_app": "waha_servers: granted to wsm_app",
    "grant select (name) on waha_servers to public": "waha_servers: granted to wsm_app",
    "grant select on audit to public": "audit: granted to public",
    "grant select on audit to pg_monitor": "audit: granted to pg_monitor",
    "grant select on messages to wsm_system": "messages.body: wsm_system reads",
    "grant select (body) on outbox to wsm_system": "outbox.body: wsm_system reads",
    "grant delete on contacts to wsm_system": "contacts.tenant_id: wsm_system reads",
    "grant execute on function ensure_month to public": "function ensure_month(date): not pinned",
    "alter function ensure_month reset search_path": "function ensure_month(date): not pinned",
    "create function spy() returns bigint language sql security definer set search_path = wsm, pg_temp"
    " return (select count(*) from messages); revoke execute on function spy from public": (
        "function spy(): acts with"
    ),
    "create function public.spy() returns bigint language sql return 1": "in the schema public",
    "alter table audit add unique (id), add foreign key (id) references audit (id)": "key of audit",
    "alter table contacts add unique (name)": "contacts: unique over all tenants in {name}",
    "grant usage on sequence contacts_id_seq to wsm_app": "sequence contacts_id_seq: open to wsm_app",
    "grant select on sequence message_ids to wsm_app": "sequence message_ids: open to wsm_app",
    "create sequence more; grant usage on sequence more to wsm_system": "sequence more: open to wsm_system",
    "alter default privileges in schema wsm grant select on tables to wsm_app": "what is made next",
    "grant create on schema wsm to wsm_app": "role wsm_app",
}
"""What wsm_owner could do by mistake, in a migration."""
BREAKING_ROLES = {
    "grant wsm_owner to wsm_app": "role wsm_app",
    "grant pg_read_all_data to wsm_app": "role wsm_app",
    "alter role wsm_app bypassrls": "role wsm_app",
    "alter role wsm_system bypassrls": "role wsm_system",
    "alter role wsm_app superuser": "role wsm_app",
    "alter role wsm_owner login": "role wsm_owner",
    "alter role wsm_app set wsm.tenant = '77'": "role wsm_app",
    "alter role all set wsm.tenant = '77'": "role wsm_app",
    "alter table audit owner to wsm_app": "audit: owned by wsm_app",
    "alter table audit owner to postgres": "audit: owned by postgres",
    "alter function ensure_month owner to postgres": "function ensure_month(date): owned by postgres",
    "alter sequence message_ids owner to postgres": "sequence message_ids: owned by postgres",
    "alter function current_tenant leakproof": "function current_tenant(): leakproof",
}
"""What an administrator could do."""
OF_EACH_TABLE = {
    "drop policy one_tenant on {}": "{}: policies of wsm_app: []",
    "alter table {} no force row level security": "{}: row-level security is not forced",
    "alter table {} disable row level security": "{}: row-level security is not forced",
}


@pytest.fixture
def with_a_month(database: Urls) -> Urls:
    """A database with a partition: what migrations leave has none."""
    with owner_of(database.owner_url) as owner:
        owner.execute("select ensure_month('2026-11-01')")
    return database


def test_the_catalogue_keeps_tenants_apart(with_a_month: Urls) -> None:
    assert faults(with_a_month.owner_url) == []


def test_whatever_breaks_the_isolation_is_seen(with_a_month: Urls) -> None:
    with owner_of(with_a_month.owner_url) as owner:
        for role, breaking in (("wsm_owner", BREAKING), ("postgres", BREAKING_ROLES)):
            if role == "wsm_owner":
                owner.execute("grant create on schema public to wsm_owner")
            for statement, seen in breaking.items():
                plant(owner, role, statement, seen)


def test_each_table_without_its_policy_or_its_force_is_seen(with_a_month: Urls) -> None:
    with owner_of(with_a_month.owner_url) as owner:
        query = (
            "select relname, relispartition as part from pg_class"
            " where relnamespace = 'wsm'::regnamespace and relkind in ('r', 'p')"
        )
        tables = [row for row in owner.execute(query) if row.relname not in WITHOUT_TENANT]
        assert len(tables) > 15
        for table in tables:
            for statement, seen in OF_EACH_TABLE.items():
                if not (table.part and "policy" in statement):  # nobody is granted a partition
                    plant(owner, "wsm_owner", statement.format(table.relname), seen.format(table.relname))


@pytest.mark.parametrize(
    "breaking",
    [
        "drop policy one_tenant on tickets",
        "grant select on messages_2026_11 to wsm_app",
        "alter table contacts no force row level security",
        "create view everything as select * from messages",
        "create function spy() returns bigint language sql security definer return 1",
    ],
)
def test_what_was_broken_for_good_is_seen_by_who_comes_later(with_a_month: Urls, breaking: str) -> None:
    with psycopg.connect(with_a_month.owner_url, options="-c search_path=wsm") as owner:
        owner.execute(breaking.encode())
    assert faults(with_a_month.owner_url)


def test_what_harms_nobody_is_let_be(with_a_month: Urls) -> None:
    harmless = "create view own_messages with (security_invoker = true) as select * from messages"
    with owner_of(with_a_month.owner_url) as owner, owner.transaction(force_rollback=True):
        owner.execute("set local role wsm_owner").execute(harmless.encode())
        owner.execute("select ensure_month('2026-12-01')")
        assert faults_seen_by(owner) == []


def plant(owner: psycopg.Connection[object], role: str, breaking: str, seen: str) -> None:
    """Break something as a role, demand that it is seen, and mend it."""
    with owner.transaction(force_rollback=True):
        owner.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        owner.execute(breaking.encode())
        owner.execute("reset role")
        found = faults_seen_by(owner)
        assert any(seen in fault for fault in found), f"{breaking}: {found}"
