-- phase: before
-- The line as agents live it. A ticket's place is `rank_at`: its entry, put forward or back by its level; it does not
-- change while it waits, so one index gives the order. agent_id: who serves it; of one that is not served, who served
-- this customer last. ended: how it ended.
alter table tickets
    drop constraint tickets_state_check,
    add constraint tickets_state_check check (state in ('waiting', 'served', 'parked', 'closed')),
    add column level smallint not null default 1 check (level between 0 and 2),
    add column rank_at timestamptz not null default now(),
    add column parked_at timestamptz,
    add column ended text
        check (ended in ('served', 'left', 'no_show', 'closed', 'overflow', 'merged', 'moved'));
update tickets set rank_at = entered_at, ended = case when state = 'closed' then
    case when served_at is null then 'closed' else 'served' end end;
alter table tickets add check (ended is null or state = 'closed');

drop index tickets_line;
create index tickets_line on tickets (tenant_id, queue_id, rank_at, seq) where state = 'waiting';
create index tickets_entered on tickets (tenant_id, queue_id, entered_at) where state = 'waiting';
create index tickets_served on tickets (tenant_id, queue_id, agent_id) where state = 'served';
create index tickets_of_agent on tickets (tenant_id, agent_id) where state = 'served';
create index tickets_parked on tickets (tenant_id, parked_at) where state = 'parked';
create index tickets_ended on tickets (tenant_id, conversation_id, id) where state = 'closed';
create index tickets_overflown on tickets (tenant_id, closed_at) where ended = 'overflow';

alter table conversations
    drop constraint conversations_state_check,
    add constraint conversations_state_check check (state in ('start', 'waiting', 'served', 'parked', 'closed'));

alter table queues
    add column ageing_minutes integer not null default 15 check (ageing_minutes between 1 and 10080),
    add column max_length integer check (max_length between 1 and 10000),
    add column max_wait_minutes integer check (max_wait_minutes between 1 and 10080),
    add column reopen_hours integer not null default 24 check (reopen_hours between 0 and 720),
    add column pull boolean not null default false,
    add column keeps boolean not null default true;

-- Where who writes to a session enters; the tenant's first queue if nothing is said.
alter table sessions add column queue_id bigint, add foreign key (tenant_id, queue_id) references queues;

-- queues: those that he serves, null for all.
alter table agents
    add column capacity integer not null default 1 check (capacity between 0 and 100),
    add column online boolean not null default false,
    add column since timestamptz,
    add column busy_at timestamptz,
    add column queues bigint[];

-- Two turns of a ticket before the first is told are told once.
create unique index outbox_one_turn on outbox (tenant_id, ticket_id) where class = 'turn' and state = 'pending';
