-- phase: before
-- What waiting customers have been told: told_place when (told_at, the moment of the claim), how many unasked updates,
-- the question that is or was answered, when an apology was last due, and when he was told that it is his turn.
-- answered_at: a person has answered in it; survey_*: once per ticket.
alter table tickets
    add column told_at         timestamptz,
    add column told_updates    integer not null default 0,
    add column asked_at        timestamptz,
    add column silence_at      timestamptz,
    add column turn_told_at    timestamptz,
    add column answered_at     timestamptz,
    add column survey_asked_at timestamptz,
    add column survey_until    timestamptz,
    add column score           smallint check (score between 1 and 5);

-- How a queue's customers are told (core.notices.Policy), when it is open (core.hours.Hours; null: always), what
-- follows from silence (core.timers.Manners); and how quickly it served at the last measurement.
alter table queues
    add column notices        jsonb not null default '{}',
    add column hours          jsonb,
    add column manners        jsonb not null default '{}',
    add column handle_seconds double precision,
    add column handle_sample  integer not null default 0,
    add column slots_lately   integer not null default 0;
grant update (notices, hours, manners, handle_seconds, handle_sample, slots_lately) on queues to wsm_app;
create index tickets_closed on tickets (tenant_id, queue_id, closed_at) where state = 'closed' and served_at is not null;

-- How a tenant's bot behaves (core.bot.Bot); null: nobody answers by himself.
alter table tenants add column bot jsonb;

-- Until when a person has the conversation: the bot is silent.
alter table conversations add column human_until timestamptz;

-- Which of the texts an intent became: updates are counted. Only the turn itself is told once.
alter table outbox add column word text;
drop index outbox_one_turn;
create unique index outbox_one_turn on outbox (tenant_id, ticket_id)
    where class = 'turn' and state = 'pending' and args = '{}';

-- One timer of a kind for what it is about. rung_at: when its entry was last put into the mailbox.
alter table timers
    add column ticket_id bigint,
    add column queue_id  bigint,
    add column agent_id  bigint,
    add column rung_at   timestamptz,
    add foreign key (tenant_id, ticket_id) references tickets,
    add foreign key (tenant_id, queue_id) references queues,
    add foreign key (tenant_id, agent_id) references agents;
create unique index timers_one on timers (tenant_id, kind, conversation_id, ticket_id, queue_id, agent_id)
    nulls not distinct;
drop index timers_due;
create index timers_due on timers (due_at) where rung_at is null;
create index timers_rung on timers (rung_at) where rung_at is not null;
grant select (tenant_id, id, kind, due_at, rung_at), update (rung_at) on timers to wsm_system;
create policy fleet on timers to wsm_system using (true) with check (true);
