-- phase: before
-- Files that are to be sent, each once per tenant, by its content. used_at: when it was last put in or sent; what
-- nobody used for long is purged. Nothing in it is worth compressing again.
create table media (
    tenant_id  bigint not null references tenants,
    id         bigint generated always as identity,
    sha256     bytea not null,
    mimetype   text not null,
    filename   text,
    bytes      bigint not null check (bytes > 0),
    content    bytea not null,
    created_at timestamptz not null,
    used_at    timestamptz not null,
    primary key (tenant_id, id),
    unique (tenant_id, sha256),
    check (bytes = octet_length(content))
);
alter table media alter column content set storage external;
create index media_age on media (used_at);

alter table media enable row level security;
alter table media force row level security;
create policy one_tenant on media to wsm_app using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update (used_at) on media to wsm_app;

grant select (tenant_id, id, used_at), delete on media to wsm_system;
create policy fleet_reads on media for select to wsm_system using (true);
create policy fleet_purges on media for delete to wsm_system using (true);
