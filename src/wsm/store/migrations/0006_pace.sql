-- phase: before
-- How fast a session may send, and when to look at it again. One row for each session that ever had something to say.
--
-- due_at        when to ring for it; null when it has nothing to say. Written under the tenant's lock by who adds
--               intents and by the end of each run; a failure leaves it in the past
-- waits         why it waits until then (core.pacing.Why)
-- picks         how often something was chosen; of each ten one is whoever has waited longest
-- replies, firsts, campaigns, total   how many claims of each budget, and in all, there ever were
-- next_at, next_first_at   the pause after the last claim, and after the last first contact, with its jitter
-- warm_since, first_at     when the warm-up of first contacts began, and when the last of them was claimed
-- frozen_until  until when WhatsApp lets it write to nobody new, and why; slowed_until: until when it is slower
create table pace (
    tenant_id     bigint not null,
    session_id    bigint not null,
    due_at        timestamptz,
    waits         text,
    picks         bigint not null default 0,
    replies       bigint not null default 0,
    firsts        bigint not null default 0,
    campaigns     bigint not null default 0,
    total         bigint not null default 0,
    next_at       timestamptz,
    next_first_at timestamptz,
    warm_since    timestamptz,
    first_at      timestamptz,
    frozen_until  timestamptz,
    frozen_why    text,
    slowed_until  timestamptz,
    primary key (tenant_id, session_id),
    foreign key (tenant_id, session_id) references sessions
);
create index pace_due on pace (due_at) where due_at is not null;
alter table pace enable row level security;
alter table pace force row level security;
create policy one_tenant on pace to wsm_app using (tenant_id = (select current_tenant()))
    with check (tenant_id = (select current_tenant()));
grant select, insert, update on pace to wsm_app;
grant select (tenant_id, session_id, due_at, waits, frozen_until, frozen_why) on pace to wsm_system;
create policy fleet on pace for select to wsm_system using (true);

-- cold: nobody has written in this conversation yet: a first contact. budget, number, total: what a claim was counted
-- under, and its place there and among all of the session. typing_until: until when somebody is shown to type it.
alter table outbox
    add column cold         boolean not null default false,
    add column budget       text check (budget in ('reply', 'first', 'campaign')),
    add column number       bigint,
    add column total        bigint,
    add column typing_until timestamptz;
drop index outbox_due;
drop index outbox_waiting;
create index outbox_heads on outbox (tenant_id, session_id, class, cold, not_before, id) where state = 'pending';
create index outbox_typing on outbox (tenant_id, session_id, typing_until)
    where state = 'pending' and typing_until is not null;
create index outbox_chat on outbox (tenant_id, conversation_id, class, id)
    where state in ('pending', 'sending', 'indeterminate');
create index outbox_soon on outbox (tenant_id, session_id, not_before)
    where state in ('pending', 'sending', 'indeterminate');
create index outbox_doubtful on outbox (tenant_id, session_id) where state in ('sending', 'indeterminate');
create index outbox_expiring on outbox (tenant_id, expires_at) where state in ('pending', 'indeterminate');
create index outbox_numbers on outbox (tenant_id, session_id, budget, number) where number is not null;
create index outbox_totals on outbox (tenant_id, session_id, total) where total is not null;
create index outbox_told on outbox (tenant_id, conversation_id, claimed_at) where claimed_at is not null;
create index outbox_same_text on outbox (tenant_id, session_id, md5(body), claimed_at)
    where budget in ('first', 'campaign');
grant select (session_id) on outbox to wsm_system;

-- heard_at: when a customer first wrote in it. bot_paused_until: until when nothing automatic is said in it, because it
-- went round in circles.
alter table conversations
    add column heard_at timestamptz,
    add column bot_paused_until timestamptz;
update conversations c set heard_at = to_timestamp(greatest(1, handled_sent_ms) / 1000.0)
where exists (select from messages m where m.tenant_id = c.tenant_id and m.conversation_id = c.id and not m.from_me);
alter table contacts add column opted_out_at timestamptz;

-- media_ids: whether this session's engine was seen to send a file under the id that it was given.
alter table sessions add column media_ids boolean not null default false;
grant update (media_ids) on sessions to wsm_app;

-- What a refusal by WhatsApp said of itself.
alter table message_acks add column code text, add column reason text;

-- What waits now is looked at once.
insert into pace (tenant_id, session_id, due_at)
select tenant_id, session_id, min(not_before) from outbox where state in ('pending', 'sending', 'indeterminate')
group by tenant_id, session_id;
