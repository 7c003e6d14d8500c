-- name: ping
select current_setting('transaction_read_only') as read_only, (select count(*) from (select from tenants limit 1) t)

-- name: show_line
-- Who is served, who was put aside, and those who wait at the places asked for, queue by queue.
select t.id, t.state, t.entered_at, t.served_at, t.told_place, t.level, c.chat_id, s.name as session,
       q.name as queue, a.name as agent, t.place
from (
    (select *, null::bigint as place from tickets where state in ('served', 'parked')
     order by state desc, entered_at, seq limit %(many)s)
    union all
    select w.* from queues cross join lateral (
        select *, row_number() over (order by rank_at, seq) + %(first)s - 1 as place
        from (select * from tickets where queue_id = queues.id and state = 'waiting'
              order by rank_at, seq limit %(many)s offset %(first)s - 1) p) w) t
join queues q on q.id = t.queue_id
join conversations c on c.id = t.conversation_id
join sessions s on s.id = c.session_id
left join agents a on a.id = t.agent_id and t.state <> 'waiting'
where %(queue)s::text is null or q.name = %(queue)s
order by t.state = 'waiting', t.state = 'parked', t.queue_id, t.place, t.entered_at, t.seq

-- name: show_standing
select t.id, t.state, t.entered_at, t.served_at, t.told_place, t.level, c.chat_id, s.name as session,
       q.name as queue, a.name as agent,
       case when t.state = 'waiting' then (
           select count(*) from tickets w where w.queue_id = t.queue_id and w.state = 'waiting'
           and (w.rank_at, w.seq) <= (t.rank_at, t.seq)) end as place
from (select distinct contact_id from contact_aliases where alias = any (%(aliases)s)) w
join conversations c on c.contact_id = w.contact_id and c.merged_into is null
join tickets t on t.conversation_id = c.id and t.state <> 'closed'
join queues q on q.id = t.queue_id
join sessions s on s.id = c.session_id
left join agents a on a.id = t.agent_id and t.state <> 'waiting'
order by t.id

-- name: show_left_messages
-- Messages that were left because the line was too long, and nobody has taken since.
select t.id, t.closed_at, c.chat_id, s.name as session, q.name as queue
from tickets t
join queues q on q.id = t.queue_id
join conversations c on c.id = t.conversation_id
join sessions s on s.id = c.session_id
where t.ended = 'overflow' and c.state = 'closed'
  and not exists (select from tickets l where l.conversation_id = t.conversation_id and l.state = 'closed'
                  and l.ended is distinct from 'merged' and l.id > t.id)
  and not exists (select from outbox o where o.ticket_id = t.id and o.class = 'agent')
order by t.closed_at limit %(many)s

-- name: show_agents
select a.id, a.name, a.capacity, a.online, a.since,
       (select count(*) from tickets where agent_id = a.id and state = 'served') as served,
       (select array_agg(name order by id) from queues where id = any (a.queues)) as queues
from agents a
where a.removed_at is null or exists (select from tickets where agent_id = a.id and state = 'served')
order by a.name

-- name: show_queues
select q.id, q.name, q.capacity, q.ageing_minutes, q.max_length, q.max_wait_minutes, q.reopen_hours, q.pull, q.keeps,
       (select count(*) from tickets where queue_id = q.id and state = 'served') as served,
       (select count(*) from tickets where queue_id = q.id and state = 'waiting') as waiting,
       (select min(entered_at) from tickets where queue_id = q.id and state = 'waiting') as oldest_at,
       (select array_agg(name order by id) from sessions where queue_id = q.id) as sessions
from queues q order by q.id

-- name: tickets_of_agent
select c.chat_id, s.name as session, t.served_at
from agents a
join tickets t on t.agent_id = a.id and t.state = 'served'
join conversations c on c.id = t.conversation_id
join sessions s on s.id = c.session_id
where a.name = %(agent)s
order by t.served_at, t.id

-- name: ticket_of_conversation
select t.state, t.ended, q.name as queue, a.name as agent
from (select * from tickets where conversation_id = %(conversation)s and ended is distinct from 'merged'
      order by state = 'closed', id desc limit 1) t
join queues q on q.id = t.queue_id
left join agents a on a.id = t.agent_id and t.state = 'served'

-- name: command_refused
select r.detail ->> 'why' as why from (select id, what, detail from audit order by id desc limit 1000) r
where r.what = 'line.refused' and r.detail ->> 'ask' = %(key)s

-- name: command_seen
select d.seen_at from inbound_dedupe d join sessions s on s.id = d.session_id
where s.name = %(session)s and d.key = %(key)s

-- name: conversations_of_chat
select c.id, s.name as session, c.chat_id, c.state
from conversations c
join contact_aliases a on a.contact_id = c.contact_id
join sessions s on s.id = c.session_id
where a.alias = any (%(aliases)s) and (%(session)s::text is null or s.name = %(session)s) and c.merged_into is null
group by c.id, s.name, c.chat_id, c.state
order by c.id

-- name: show_history
select m.sent_at, m.author, m.kind, m.body, m.late, m.bare_id, m.target_id, m.media is not null as media,
       (select max(level) from message_acks a
        where a.session_id = m.session_id and a.from_me = m.from_me and a.bare_id = m.bare_id and a.level >= 0) as ack,
       (select coalesce(max(concat_ws(': ', a.code, a.reason)), '') from message_acks a
        where a.session_id = m.session_id and a.from_me = m.from_me and a.bare_id = m.bare_id and a.level < 0
        having count(*) > 0) as error
from messages m where m.conversation_id = %(conversation)s
order by m.sent_at, m.stamped_at_ms, m.entry_ms, m.entry_n, m.id

-- name: show_unsent
select o.created_at, o.class as intent, o.kind, o.state, o.reason, o.body from outbox o
where o.conversation_id = %(conversation)s and o.state not in ('sent', 'dropped')
order by o.id

-- name: show_outbox
-- What waits, and what has failed of late. told: the session's own wait and its end.
select o.id, s.name as session, o.class as intent, o.kind, o.state, o.reason, o.created_at, o.not_before, o.settled_at,
       o.cold, o.session_id, c.chat_id, p.due_at, p.waits, o.not_before > %(now)s as put_off
from outbox o
join sessions s on s.id = o.session_id
join conversations c on c.id = o.conversation_id
left join pace p on p.session_id = o.session_id
where (o.state in ('pending', 'sending', 'indeterminate')
       or o.state = 'failed' and o.settled_at > %(now)s - interval '1 day')
  and (%(session)s::text is null or s.name = %(session)s)
  and (%(conversation)s::bigint is null or o.conversation_id = %(conversation)s)
order by o.id limit 1000

-- name: show_paces
select s.id as session_id, s.name as session, p.due_at, p.waits, p.frozen_until, p.frozen_why, p.slowed_until,
       p.replies, p.firsts, p.campaigns
from pace p join sessions s on s.id = p.session_id
where %(session)s::text is null or s.name = %(session)s
order by s.id

-- name: show_audit
select id, at, what, conversation_id, ticket_id, detail from audit order by id

-- name: sessions_named
-- exit_*: of the exit that it has now.
select s.id, s.name, s.server, s.alias, s.kid, s.generations, s.phone, s.other_phone, s.observed, s.desired, s.engine,
       s.exit_pool, s.since_ms, s.dropped_ms, s.heard_ms, s.repairs, s.repaired_at, s.alarm, p.frozen_until, p.frozen_why,
       l.id is not null as has_exit, l.verified_at as exit_verified_at, l.trouble as exit_trouble
from sessions s
left join proxy_leases l on l.session_id = s.id and l.released_at is null
left join pace p on p.session_id = s.id
order by s.id

-- name: show_messages
select bare_id, from_me, author, kind, body, conversation_id, sent_at from messages order by sent_at, id
