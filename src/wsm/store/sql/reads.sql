-- name: ping
select current_setting('transaction_read_only') as read_only, (select count(*) from (select from tenants limit 1) t)

-- name: show_line
select t.id, t.state, t.entered_at, t.served_at, t.told_place, c.chat_id, s.name as session,
       case when t.state = 'waiting' then
           row_number() over (partition by t.queue_id, t.state order by t.entered_at, t.seq) end as place
from tickets t
join conversations c on c.id = t.conversation_id
join sessions s on s.id = c.session_id
where t.state <> 'closed'
order by t.state = 'waiting', t.entered_at, t.seq

-- name: conversations_of_chat
select c.id, s.name as session, c.chat_id, c.state
from conversations c
join contact_aliases a on a.contact_id = c.contact_id
join sessions s on s.id = c.session_id
where a.alias = any (%(aliases)s) and (%(session)s::text is null or s.name = %(session)s)
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
       o.cold, c.chat_id, p.due_at, p.waits, o.not_before > %(now)s as put_off
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
