-- name: open_line
-- Every queue, with the first of those who wait in it. What a queue's rows have in common is found once.
select q.*, h.*
from (select id as queue, name, capacity, ageing_minutes, max_length, max_wait_minutes, reopen_hours, pull, keeps,
             notices, manners, hours, handle_seconds, handle_sample, slots_lately,
             (select time_zone from tenants) as zone, (select bot from tenants) as bot,
             (select count(*) from tickets where queue_id = queues.id and state = 'served') as served,
             (select max(entered_at) from tickets where queue_id = queues.id and state = 'waiting') as newest_at,
             case when max_length is not null or not keeps and hours is not null and handle_seconds > 0 then (
                 select count(*) from (
                     select from tickets where queue_id = queues.id and state = 'waiting' order by rank_at, seq
                     limit coalesce(max_length, least(86400 / handle_seconds * slots_lately, 10000)) + %(limit)s) w)
             end as waiting
      from queues offset 0) q
left join lateral (
    select id, conversation_id, agent_id, state, level, entered_at, rank_at, seq, served_at
    from tickets where queue_id = q.queue and state = 'waiting' order by rank_at, seq limit %(limit)s) h on true
order by q.queue, h.rank_at, h.seq

-- name: line_agents
-- Who was removed is one as long as he serves somebody.
select a.*
from (select id, name, capacity, online, queues, since, busy_at, removed_at,
             (select count(*) from tickets where agent_id = agents.id and state = 'served') as served
      from agents offset 0) a
where a.removed_at is null or a.served > 0
order by a.id

-- name: known_tickets
-- The open ticket of each conversation of these people, and the last one that ended (not: became another one).
select t.*
from contact_aliases a cross join (select id from sessions where name = any (%(names)s)) s
cross join lateral (
    select id from conversations where session_id = s.id and contact_id = a.contact_id and merged_into is null
    offset 0) c
cross join lateral (
    select id, conversation_id, queue_id, agent_id, state, level, entered_at, rank_at, seq, served_at, parked_at,
           closed_at, ended, told_place, told_at, told_updates, asked_at, silence_at, survey_until
    from tickets where conversation_id = c.id and state <> 'closed'
    union all
    (select id, conversation_id, queue_id, agent_id, state, level, entered_at, rank_at, seq, served_at, parked_at,
            closed_at, ended, told_place, told_at, told_updates, asked_at, silence_at, survey_until
     from tickets where conversation_id = c.id and state = 'closed' and ended is distinct from 'merged'
     order by id desc limit 1)) t
where a.alias = any (%(aliases)s)

-- name: due_tickets
-- Who waits too long, who was put aside and did not come back, and whom an agent who is gone serves.
(select t.*
 from (select id, max_wait_minutes from queues where max_wait_minutes is not null) q cross join lateral (
     select id, conversation_id, queue_id, agent_id, state, level, entered_at, rank_at, seq, served_at, parked_at
     from tickets where queue_id = q.id and state = 'waiting'
     and entered_at <= %(now)s - q.max_wait_minutes * interval '1 minute' order by entered_at limit %(limit)s) t)
union all
(select id, conversation_id, queue_id, agent_id, state, level, entered_at, rank_at, seq, served_at, parked_at
 from tickets where state = 'parked' and parked_at <= %(parked_before)s order by parked_at limit %(limit)s)
union all
(select t.*
 from (select id from agents where not online and since <= %(gone_before)s) a cross join lateral (
     select id, conversation_id, queue_id, agent_id, state, level, entered_at, rank_at, seq, served_at, parked_at
     from tickets where agent_id = a.id and state = 'served') t
 limit %(limit)s)

-- name: open_tickets
insert into tickets (tenant_id, queue_id, conversation_id, agent_id, state, level, entered_at, rank_at, served_at,
                     parked_at, closed_at, closed_by, ended)
select %(tenant)s, t.queue, t.conversation, t.agent, t.state, t.level, t.entered_at, t.rank_at, t.served_at,
       t.parked_at, t.closed_at, t.closed_by, t.ended
from json_to_recordset(%(tickets)s) as t (
    place integer, queue bigint, conversation bigint, agent bigint, state text, level integer,
    entered_at timestamptz, rank_at timestamptz, served_at timestamptz, parked_at timestamptz,
    closed_at timestamptz, closed_by text, ended text)
order by t.place
returning id, conversation_id

-- name: keep_tickets
update tickets
set queue_id = t.queue, agent_id = t.agent, state = t.state, level = t.level, entered_at = t.entered_at,
    rank_at = t.rank_at, served_at = t.served_at, parked_at = t.parked_at, closed_at = t.closed_at,
    closed_by = t.closed_by, ended = t.ended, told_place = case when not t.again then told_place end,
    told_updates = case when t.again then 0 else told_updates end
from json_to_recordset(%(tickets)s) as t (
    ticket bigint, queue bigint, agent bigint, state text, level integer, entered_at timestamptz,
    rank_at timestamptz, served_at timestamptz, parked_at timestamptz, closed_at timestamptz, closed_by text,
    ended text, again boolean)
where id = t.ticket

-- name: keep_agents
update agents
set online = a.online, since = a.since, busy_at = a.busy_at, removed_at = case when a.removed then %(now)s::timestamptz end
from json_to_recordset(%(agents)s) as a (
    agent bigint, online boolean, since timestamptz, busy_at timestamptz, removed boolean)
where id = a.agent

-- name: set_agent
insert into agents as a (tenant_id, name, capacity, queues)
values (%(tenant)s, %(agent)s, coalesce(%(capacity)s, 1),
        (select array_agg(id order by id) from queues where name = any (%(queues)s)))
on conflict (tenant_id, name) do update
set capacity = coalesce(%(capacity)s, a.capacity), removed_at = null,
    queues = case when %(queues)s::text[] is null then a.queues else excluded.queues end
