"""What a database's catalogue has against the isolation of tenants: read as a stranger would read it.

Every check asks the catalogue for all that is there and allows what stands below, so what is new (a table, a
partition, a sequence, a function, a view, a grant) is a fault until somebody has thought about it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

OWN = "(tenant_id = ( SELECT current_tenant() AS current_tenant))"
WITHOUT_TENANT = {"waha_servers", "migrations"}
FLEET_READS: Mapping[str, set[str] | None] = {
    "tenants": None,
    "queues": None,
    "sessions": None,
    "waha_servers": None,
    "outbox": {"tenant_id", "session_id", "state", "not_before", "created_at"},
    "pace": {"tenant_id", "session_id", "due_at", "waits", "frozen_until", "frozen_why"},
    "inbound_dedupe": {"tenant_id", "session_id", "key", "seen_at"},
    "proxy_leases": {"tenant_id", "exit_ip", "quarantined_until"},
    "media": {"tenant_id", "id", "used_at"},
    "timers": {"tenant_id", "id", "kind", "due_at", "rung_at"},
}
"""What the system reads across tenants, by column; None is all of it."""
FLEET_WRITES: Mapping[str, set[str] | None] = {
    "tenants": None,
    "queues": None,
    "sessions": None,
    "waha_servers": None,
    "timers": {"rung_at"},
}
"""What it writes, likewise."""
FLEET_DELETES = {"inbound_dedupe", "media"}
DEFINERS = {"ensure_month"}
"""Functions that run with their owner's rights."""
SEQUENCES = {"message_ids"}
"""Those that the application's role may draw from."""
ACROSS_TENANTS = {
    ("sessions", "{server,name}"),
    ("proxy_leases", "{identifier}"),
    ("proxy_leases", "{exit_ip}"),
    ("proxy_leases", "{pool,identity}"),
}
"""What must be unique over all tenants, though a refusal then tells that somebody else has it."""
ROLES = ("wsm_app", "wsm_system")

_TABLES = """
select n.nspname as schema, c.relname as name, c.relkind as kind, c.relispartition as part,
       c.relrowsecurity as secured, c.relforcerowsecurity as forced, pg_get_userbyid(c.relowner) as owner,
       'security_invoker=true' = any (coalesce(c.reloptions, '{}')) as invoked,
       exists (select from pg_attribute a
               where a.attrelid = c.oid and a.attname = 'tenant_id' and a.attnotnull) as has_tenant,
       exists (select from pg_rewrite r where r.ev_class = c.oid and r.rulename <> '_RETURN') as ruled,
       coalesce((select array_agg(distinct grantee) from (
           select coalesce(nullif(x.grantee, 0)::regrole::text, 'public') as grantee
           from aclexplode(c.relacl) x where x.grantee <> c.relowner
           union all
           select coalesce(nullif(x.grantee, 0)::regrole::text, 'public')
           from pg_attribute a, aclexplode(a.attacl) x where a.attrelid = c.oid) g), '{}') as grantees
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
"""
_POLICIES = "select * from pg_policies where schemaname = 'wsm'"
_FOREIGN_KEYS = """
select k.conname as name, k.conrelid::regclass::text as child, k.confrelid::regclass::text as parent,
       'tenant_id' = any (select attname from pg_attribute a
                          where a.attrelid = k.conrelid and a.attnum = any (k.conkey)) as held
from pg_constraint k where k.contype = 'f' and k.connamespace = 'wsm'::regnamespace
"""
_UNIQUE = """
select t.relname as table, (select array_agg(a.attname order by k.n)::text
       from unnest(i.indkey) with ordinality k (number, n)
       join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number) as columns
from pg_index i join pg_class t on t.oid = i.indrelid
where i.indisunique and t.relnamespace = 'wsm'::regnamespace
"""
_FUNCTIONS = """
select p.oid::regprocedure::text as signature, p.proname as name, n.nspname as schema, p.prosecdef as definer,
       p.proleakproof as leakproof, pg_get_userbyid(p.proowner) as owner,
       l.lanpltrusted or l.lanname = 'sql' as tame, coalesce(p.proconfig::text, '') as config,
       has_function_privilege('public', p.oid, 'execute') as public
from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
where n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
"""
_SEQUENCES = """
select c.oid::regclass::text as name, pg_get_userbyid(c.relowner) as owner, r.role,
       has_sequence_privilege(r.role, c.oid, 'usage') as draws,
       has_sequence_privilege(r.role, c.oid, 'select, update') as looks
from pg_class c, unnest(%s::text[]) r (role) where c.relkind = 'S' and c.relnamespace = 'wsm'::regnamespace
"""
_ROLES = """
select rolname as name, rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication as strong,
       exists (select from pg_auth_members m where m.member = r.oid) as member,
       exists (select from pg_shdepend d where d.refobjid = r.oid and d.deptype = 'o') as owner,
       exists (select from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase,
               unnest(s.setconfig) each
               where s.setrole in (0, r.oid) and d.datname is not distinct from
                     case when s.setdatabase <> 0 then current_database() end
               and each ~ '^(wsm\\.|row_security|search_path|role)') as preset,
       has_database_privilege(rolname, current_database(), 'create')
       or has_schema_privilege(rolname, 'wsm', 'create')
       or has_schema_privilege(rolname, 'public', 'create') as creates
from pg_roles r where rolname = any (%s)
"""
_OWNER = """
select rolsuper or rolbypassrls or rolcanlogin or rolcreaterole as strong
from pg_roles where rolname = 'wsm_owner'
"""
_DEFAULTS = """
select coalesce(nullif(x.grantee, 0)::regrole::text, 'public') as grantee, d.defaclobjtype as kind
from pg_default_acl d, aclexplode(d.defaclacl) x where x.grantee <> d.defaclrole and d.defaclobjtype <> 'f'
"""
_SYSTEM = """
select c.relname as table, a.attname as column,
       has_column_privilege('wsm_system', c.oid, a.attnum, 'select') as reads,
       has_column_privilege('wsm_system', c.oid, a.attnum, 'insert, update') as writes,
       has_table_privilege('wsm_system', c.oid, 'delete, truncate') as deletes
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'wsm'::regnamespace and c.relkind in ('r', 'p')
"""


@contextmanager
def owner_of(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Look at a database as its superuser, whose URL this is."""
    with psycopg.connect(url, row_factory=namedtuple_row, autocommit=True) as owner:
        owner.execute("set search_path = wsm")
        yield owner


def faults(url: str) -> list[str]:
    """What the catalogue of the database at a superuser's URL has against the isolation; empty if nothing."""
    with owner_of(url) as owner:
        return faults_seen_by(owner)


def faults_seen_by(owner: psycopg.Connection[Any]) -> list[str]:
    """The same through a connection, which sees what it has not committed."""
    policies = _asked(owner, _POLICIES)
    found: list[str] = []
    for table in _asked(owner, _TABLES):
        own = [policy for policy in policies if policy.tablename == table.name]
        found += [f"{table.name}: {fault}" for fault in _of_table(table, own)]
    for policy in policies:
        found += [f"policy {policy.tablename}.{policy.policyname}: {fault}" for fault in _of_policy(policy)]
    for key in _asked(owner, _FOREIGN_KEYS):
        if not key.held and key.parent not in WITHOUT_TENANT:
            found.append(f"key of {key.child} to {key.parent}: without tenant_id")
    for unique in _asked(owner, _UNIQUE):
        known = (unique.table, unique.columns) in ACROSS_TENANTS or unique.table in WITHOUT_TENANT
        if not known and "tenant_id" not in unique.columns:
            found.append(f"{unique.table}: unique over all tenants in {unique.columns}")
    for function in _asked(owner, _FUNCTIONS):
        found += [f"function {function.signature}: {fault}" for fault in _of_function(function)]
    return [*found, *_of_sequences(owner), *_of_roles(owner), *_of_system(owner)]


def _asked(owner: psycopg.Connection[Any], query: str, *values: Any) -> list[Any]:
    return owner.execute(query.encode(), values or None).fetchall()


def _of_table(table: Any, policies: list[Any]) -> list[str]:
    if table.schema != "wsm":
        return [f"in the schema {table.schema}"]
    if table.kind not in "rp":
        is_view_of_who_asks = table.kind == "v" and table.invoked
        return [] if is_view_of_who_asks else ["no table: would be read with its owner's rights"]
    if table.name in WITHOUT_TENANT:
        return [] if not {"wsm_app", "public"} & {*table.grantees} else ["granted to wsm_app"]
    found = [] if table.owner == "wsm_owner" else [f"owned by {table.owner}"]
    found += [] if table.has_tenant else ["without tenant_id, or it may be null"]
    found += [] if table.secured and table.forced else ["row-level security is not forced"]
    found += ["a rule: would act with its owner's rights"] if table.ruled else []
    if table.part:
        return found + ([f"a partition granted to {table.grantees}"] if table.grantees else [])
    of_app = [policy for policy in policies if policy.roles != ["wsm_system"]]
    if [policy.policyname for policy in of_app] != ["one_tenant"]:
        found.append(f"policies of wsm_app: {[policy.policyname for policy in of_app]}")
    return found + [f"granted to {each}" for each in table.grantees if each not in ROLES]


def _of_policy(policy: Any) -> list[str]:
    if policy.roles == ["wsm_system"]:
        return [] if policy.tablename in FLEET_READS else ["the system has no business there"]
    if policy.roles != ["wsm_app"] or policy.permissive != "PERMISSIVE" or policy.cmd != "ALL":
        return [f"for {policy.cmd} to {policy.roles}"]
    return [] if (policy.qual, policy.with_check) == (OWN, OWN) else ["is not about the own tenant alone"]


def _of_function(function: Any) -> list[str]:
    found = [] if function.schema == "wsm" else [f"in the schema {function.schema}"]
    found += [] if function.owner == "wsm_owner" else [f"owned by {function.owner}"]
    found += (
        ["leakproof, or in a language that may do anything"]
        if function.leakproof or not function.tame
        else []
    )
    if function.definer:
        found += [] if function.name in DEFINERS else ["acts with its owner's rights"]
        if function.public or "search_path=wsm, pg_temp" not in function.config:
            found.append("not pinned, or everybody's")
    return found


def _of_sequences(owner: psycopg.Connection[Any]) -> list[str]:
    found = []
    for each in _asked(owner, _SEQUENCES, list(ROLES)):
        if each.owner != "wsm_owner":
            found.append(f"sequence {each.name}: owned by {each.owner}")
        if each.looks or (each.draws and (each.role != "wsm_app" or each.name not in SEQUENCES)):
            found.append(f"sequence {each.name}: open to {each.role}")
    return found


def _of_roles(owner: psycopg.Connection[Any]) -> list[str]:
    found = [
        f"role {role.name}"
        for role in _asked(owner, _ROLES, list(ROLES))
        if role.strong or role.member or role.owner or role.preset or role.creates
    ]
    found += ["role wsm_owner" for role in _asked(owner, _OWNER) if role.strong]
    return found + [f"what is made next is granted to {each.grantee}" for each in _asked(owner, _DEFAULTS)]


def _of_system(owner: psycopg.Connection[Any]) -> list[str]:
    """What the system's role may do beyond what stands above."""
    found = []
    for row in _asked(owner, _SYSTEM):
        may = [
            allowed is None or row.column in allowed
            for allowed in (FLEET_READS.get(row.table, set()), FLEET_WRITES.get(row.table, set()))
        ]
        expected = (*may, row.table in FLEET_DELETES)
        if (row.reads, row.writes, row.deletes) != expected:
            found.append(f"{row.table}.{row.column}: wsm_system reads, writes, deletes: {row[2:]}")
    return found
