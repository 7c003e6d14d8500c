-- phase: before
-- Exits come from pools, which are settings: an account's secrets are in no table. A lease says which identity of
-- which pool a session has, and where that came out. A pool's identity is one session's while the lease lasts.
alter table proxy_leases
    alter column proxy_id drop not null,
    add column pool text not null,
    add column identity text not null,
    add column country text,
    add column verified_at timestamptz,
    add column trouble text check (trouble in ('drift', 'wrong_country', 'shared', 'quarantined')),
    add column quarantined_until timestamptz;
alter table sessions
    add column exit_pool text,
    add check ((exit_policy = 'proxy') = (exit_pool is not null));
create unique index proxy_leases_identity on proxy_leases (pool, identity) where released_at is null;
create index proxy_leases_quarantine on proxy_leases (exit_ip) where quarantined_until is not null;

-- Whether an address is in quarantine is asked across tenants.
grant select (tenant_id, exit_ip, quarantined_until) on proxy_leases to wsm_system;
create policy fleet on proxy_leases for select to wsm_system using (true);
