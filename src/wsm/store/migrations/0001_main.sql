-- phase: before
-- The whole of the data, from the first day on. tenant_id stands in every key; row-level security is forced
-- everywhere; wsm_app sees one tenant, wsm_system sees what a policy names, wsm_owner owns.

create function current_tenant() returns bigint language sql stable as
$$ select nullif(current_setting('wsm.tenant', true), '')::bigint $$;

create table tenants (
    tenant_id  bigint primary key,
    name       text not null default '',
    locale     text not null default 'pt-BR' check (locale in ('pt-BR', 'en')),
    templates  jsonb not null default '{}',
    time_zone  text not null default 'America/Sao_Paulo',
    created_at timestamptz not null default now()
);

create table waha_servers (
    name     text primary key,
    route    text not null default 'private' check (route in ('private', 'public')),
    capacity integer not null default 500 check (capacity > 0)
);

create table sessions (
    tenant_id   bigint not null references tenants,
    id          bigint generated always as identity,
    server      text not null references waha_servers,
    name        text not null check (name ~ '^[A-Za-z0-9_-]{1,54}$'),
    alias       text not null default '',
    phone       text,
    kid         text not null,
    generations integer[] not null default '{1}',
    desired     text not null default 'running' check (desired in ('running', 'stopped')),
    observed    text not null default 'UNKNOWN',
    observed_at_ms bigint not null default 0,
    engine      text,
    exit_policy text not null check (exit_policy in ('direct', 'proxy')),
    created_at  timestamptz not null default now(),
    primary key (tenant_id, id),
    unique (server, name),
    unique (name, tenant_id)
);

create table contacts (
    tenant_id  bigint not null references tenants,
    id         bigint generated always as identity,
    name       text,
    created_at timestamptz not null default now(),
    primary key (tenant_id, id)
);

-- Every id under which a correspondent is known: a phone (@c.us), a hidden id (@lid), a group.
create table contact_aliases (
    tenant_id  bigint not null,
    alias      text not null,
    contact_id bigint not null,
    primary key (tenant_id, alias),
    foreign key (tenant_id, contact_id) references contacts
);

-- handled_*: the order of the newest message that moved this conversation; what sorts before it is late.
create table conversations (
    tenant_id          bigint not null,
    id                 bigint generated always as identity,
    session_id         bigint not null,
    contact_id         bigint not null,
    chat_id            text not null,
    kind               text not null
                       check (kind in ('direct', 'group', 'status', 'newsletter', 'broadcast', 'other')),
    state              text not null default 'start' check (state in ('start', 'waiting', 'served', 'closed')),
    version            bigint not null default 0,
    handled_sent_ms    bigint not null default 0,
    handled_stamped_ms bigint not null default 0,
    handled_entry_ms   bigint not null default 0,
    handled_entry_n    bigint not null default 0,
    created_at         timestamptz not null default now(),
    primary key (tenant_id, id),
    unique (tenant_id, session_id, contact_id),
    foreign key (tenant_id, session_id) references sessions,
    foreign key (tenant_id, contact_id) references contacts
);

create table queues (
    tenant_id bigint not null references tenants,
    id        bigint generated always as identity,
    name      text not null default 'default',
    capacity  integer not null default 1 check (capacity >= 0),
    primary key (tenant_id, id),
    unique (tenant_id, name)
);

create table agents (
    tenant_id bigint not null references tenants,
    id        bigint generated always as identity,
    name      text not null,
    primary key (tenant_id, id),
    unique (tenant_id, name)
);

create table tickets (
    tenant_id       bigint not null,
    id              bigint generated always as identity,
    queue_id        bigint not null,
    conversation_id bigint not null,
    agent_id        bigint,
    state           text not null check (state in ('waiting', 'served', 'closed')),
    entered_at      timestamptz not null,
    seq             bigint generated always as identity,
    served_at       timestamptz,
    closed_at       timestamptz,
    closed_by       text,
    told_place      integer check (told_place > 0),
    primary key (tenant_id, id),
    foreign key (tenant_id, queue_id) references queues,
    foreign key (tenant_id, conversation_id) references conversations,
    foreign key (tenant_id, agent_id) references agents
);
create unique index tickets_one_open on tickets (tenant_id, conversation_id) where state <> 'closed';
create index tickets_line on tickets (tenant_id, queue_id, entered_at, seq) where state <> 'closed';

create sequence message_ids;
create table messages (
    tenant_id       bigint not null,
    id              bigint not null default nextval('message_ids'),
    sent_at         timestamptz not null,
    session_id      bigint not null,
    conversation_id bigint not null,
    ticket_id       bigint,
    author          text not null check (author in ('customer', 'agent', 'bot')),
    kind            text not null,
    from_me         boolean not null,
    bare_id         text not null,
    target_id       text,
    participant     text,
    body            text not null default '',
    media           jsonb,
    late            boolean not null default false,
    stamped_at_ms   bigint not null,
    entry_ms        bigint not null,
    entry_n         bigint not null,
    raw             bytea,
    primary key (tenant_id, sent_at, id),
    foreign key (tenant_id, conversation_id) references conversations
) partition by range (sent_at);
create index messages_history on messages (tenant_id, conversation_id, sent_at, stamped_at_ms, entry_ms, entry_n);

-- What was said of a message, also before the message itself is known here.
create table message_acks (
    tenant_id   bigint not null,
    session_id  bigint not null,
    from_me     boolean not null,
    bare_id     text not null,
    participant text not null default '',
    level       integer not null,
    at          timestamptz not null,
    primary key (tenant_id, session_id, from_me, bare_id, participant, level),
    foreign key (tenant_id, session_id) references sessions
);

create table session_events (
    tenant_id  bigint not null,
    id         bigint generated always as identity,
    session_id bigint not null,
    name       text not null,
    chat_id    text,
    key        text not null,
    at         timestamptz not null,
    stale      boolean not null default false,
    raw        bytea not null,
    primary key (tenant_id, id),
    unique (tenant_id, session_id, key),
    foreign key (tenant_id, session_id) references sessions
);

-- Each accepted event counts once per key; kept 60 days (WAHA retries for up to 44 hours). For own messages
-- it says in which month and under which id the history has them.
create table inbound_dedupe (
    tenant_id     bigint not null,
    session_id    bigint not null,
    key           text not null,
    seen_at       timestamptz not null,
    message_month date,
    message_id    bigint,
    primary key (tenant_id, session_id, key),
    foreign key (tenant_id, session_id) references sessions
);
create index inbound_dedupe_age on inbound_dedupe (seen_at);

-- An intent to say something. What is said is rendered when it is claimed.
create table outbox (
    tenant_id       bigint not null,
    id              bigint generated always as identity,
    session_id      bigint not null,
    conversation_id bigint not null,
    ticket_id       bigint,
    class           text not null,
    kind            text not null default 'text',
    args            jsonb not null default '{}',
    intent_key      text not null,
    not_before      timestamptz not null,
    expires_at      timestamptz not null,
    state           text not null default 'pending'
        check (state in ('pending', 'sending', 'indeterminate', 'sent', 'dropped', 'failed')),
    reserved_id     text,
    bell            text,
    attempts        integer not null default 0,
    claimed_at      timestamptz,
    settled_at      timestamptz,
    chat_id         text,
    body            text,
    place           integer,
    reason          text,
    created_at      timestamptz not null,
    primary key (tenant_id, id),
    unique (tenant_id, intent_key),
    foreign key (tenant_id, conversation_id) references conversations,
    foreign key (tenant_id, session_id) references sessions,
    foreign key (tenant_id, ticket_id) references tickets
);
-- Two moves of the line before the first is told are told once.
create unique index outbox_one_place on outbox (tenant_id, ticket_id) where class = 'place' and state = 'pending';
create index outbox_due on outbox (tenant_id, session_id, id) where state in ('pending', 'sending', 'indeterminate');
create index outbox_waiting on outbox (not_before) where state in ('pending', 'sending', 'indeterminate');
create index outbox_reserved on outbox (tenant_id, session_id, reserved_id) where reserved_id is not null;

create table timers (
    tenant_id       bigint not null,
    id              bigint generated always as identity,
    conversation_id bigint,
    kind            text not null,
    due_at          timestamptz not null,
    args            jsonb not null default '{}',
    primary key (tenant_id, id),
    foreign key (tenant_id, conversation_id) references conversations
);
create index timers_due on timers (due_at);

create table proxies (
    tenant_id bigint not null references tenants,
    id        bigint generated always as identity,
    provider  text not null,
    country   text not null default 'br',
    endpoint  text not null,
    primary key (tenant_id, id)
);

-- Rows stay as history; uniqueness is among the unreleased ones.
create table proxy_leases (
    tenant_id   bigint not null,
    id          bigint generated always as identity,
    session_id  bigint not null,
    proxy_id    bigint not null,
    identifier  text not null,
    exit_ip     inet,
    leased_at   timestamptz not null,
    released_at timestamptz,
    primary key (tenant_id, id),
    foreign key (tenant_id, session_id) references sessions,
    foreign key (tenant_id, proxy_id) references proxies
);
create unique index proxy_leases_identifier on proxy_leases (identifier) where released_at is null;
create unique index proxy_leases_session on proxy_leases (tenant_id, session_id) where released_at is null;
create unique index proxy_leases_exit on proxy_leases (exit_ip) where released_at is null;

create table session_owner (
    tenant_id  bigint not null,
    session_id bigint not null,
    owner      text not null,
    epoch      bigint not null default 1,
    until      timestamptz not null,
    primary key (tenant_id, session_id),
    foreign key (tenant_id, session_id) references sessions
);

create table tenant_keys (
    tenant_id    bigint not null references tenants,
    kid          text not null,
    wrapped      bytea not null,
    created_at   timestamptz not null default now(),
    destroyed_at timestamptz,
    primary key (tenant_id, kid)
);

create table credentials (
    tenant_id  bigint not null,
    session_id bigint not null,
    type       text not null,
    id         text not null,
    epoch      bigint not null,
    blob       bytea not null,
    primary key (tenant_id, session_id, type, id),
    foreign key (tenant_id, session_id) references sessions
);

-- What happened to the line and what was told, in the order in which it was committed: written under the
-- tenant's lock, so that a reader can replay the line and check every notice.
create table audit (
    tenant_id       bigint not null references tenants,
    id              bigint generated always as identity,
    at              timestamptz not null,
    what            text not null,
    conversation_id bigint,
    ticket_id       bigint,
    detail          jsonb not null default '{}',
    primary key (tenant_id, id)
);

do $$
declare name text;
begin
    foreach name in array array[
        'tenants', 'sessions', 'contacts', 'contact_aliases', 'conversations', 'queues', 'agents', 'tickets',
        'messages', 'message_acks', 'session_events', 'inbound_dedupe', 'outbox', 'timers', 'proxies',
        'proxy_leases', 'session_owner', 'tenant_keys', 'credentials', 'audit']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy one_tenant on %I to wsm_app using (tenant_id = (select current_tenant()))
                        with check (tenant_id = (select current_tenant()))', name);
        execute format('grant select, insert, update on %I to wsm_app', name);
    end loop;
end $$;
revoke insert, update on tenants, sessions, queues from wsm_app;
grant update (phone, observed, observed_at_ms, engine) on sessions to wsm_app;
revoke update on audit, session_events, message_acks from wsm_app;
grant usage on sequence message_ids to wsm_app;
grant delete on timers to wsm_app;

-- What crosses tenants, named one by one: provisioning, the directory, due deliveries, the purge.
grant select, insert, update on tenants, queues, sessions, waha_servers to wsm_system;
create policy fleet on tenants to wsm_system using (true) with check (true);
create policy fleet on queues to wsm_system using (true) with check (true);
create policy fleet on sessions to wsm_system using (true) with check (true);
grant select (tenant_id, state, not_before, created_at) on outbox to wsm_system;
create policy fleet on outbox for select to wsm_system using (true);
grant select (tenant_id, session_id, key, seen_at), delete on inbound_dedupe to wsm_system;
create policy fleet_reads on inbound_dedupe for select to wsm_system using (true);
create policy fleet_purges on inbound_dedupe for delete to wsm_system using (true);

-- A month of history, made when it is first needed. Attaching takes no lock that readers would wait for.
create function ensure_month(month date) returns void language plpgsql security definer
set search_path = wsm, pg_temp as $$
declare
    first date := date_trunc('month', month);
    part text := format('messages_%s', to_char(first, 'YYYY_MM'));
begin
    perform pg_advisory_xact_lock(-3);
    if to_regclass('wsm.' || part) is not null then
        return;
    end if;
    execute format('create table %I (like messages including defaults including constraints)', part);
    execute format('alter table %I enable row level security', part);
    execute format('alter table %I force row level security', part);
    execute format('alter table messages attach partition %I for values from (%L) to (%L)',
                   part, first at time zone 'UTC', (first + interval '1 month') at time zone 'UTC');
end $$;
revoke execute on function ensure_month(date) from public;
grant execute on function ensure_month(date) to wsm_app, wsm_system;
grant execute on function current_tenant() to wsm_app, wsm_system;
grant usage on schema wsm to wsm_app, wsm_system;
