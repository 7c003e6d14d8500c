-- name: set_timers
-- One of a kind for what it is about. Of those of which the sooner counts, one that runs and is due before runs on.
insert into timers (tenant_id, kind, conversation_id, ticket_id, queue_id, due_at, args)
select %(tenant)s, t.kind, t.conversation, t.ticket, t.queue, t.due, t.args
from json_to_recordset(%(timers)s) as t (
    place integer, kind text, conversation bigint, ticket bigint, queue bigint, due timestamptz, args jsonb)
order by t.place
on conflict (tenant_id, kind, conversation_id, ticket_id, queue_id, agent_id)
do update set args = excluded.args,
    due_at = case when %(sooner)s then least(timers.due_at, excluded.due_at) else excluded.due_at end,
    rung_at = case when %(sooner)s and timers.due_at <= excluded.due_at then timers.rung_at end

-- name: take_timers
-- Those whose time has come, with the tickets that they are about as they are now: of a talk, its newest one.
-- The places are counted in one walk along each queue, however many timers ask for them.
with taken as (
    delete from timers where id = any (%(timers)s) and due_at <= %(now)s
    returning id, kind, conversation_id, ticket_id, queue_id, args),
places as (
    select l.id, l.place
    from (select t.queue_id, max(t.rank_at) as rank_at
          from taken k join tickets t on t.id = k.ticket_id
          where t.state = 'waiting' group by t.queue_id) last
    cross join lateral (
        select id, row_number() over (order by rank_at, seq) as place
        from tickets where queue_id = last.queue_id and state = 'waiting' and rank_at <= last.rank_at
        offset 0) l)
select k.id as timer, k.kind, coalesce(k.conversation_id, t.conversation_id) as talk, k.queue_id as of_queue, k.args,
       t.id, t.conversation_id, t.queue_id, t.agent_id, t.state, t.level, t.entered_at, t.rank_at, t.seq, t.served_at,
       t.parked_at, t.closed_at, t.ended, t.told_place, t.told_at, t.told_updates, t.asked_at, t.silence_at,
       t.turn_told_at, h.heard_at, h.said_at, coalesce(c.human_until > %(now)s, false) as human,
       p.place
from taken k
left join tickets t on t.id = coalesce(
    k.ticket_id,
    (select id from tickets where conversation_id = k.conversation_id and state <> 'closed'),
    (select id from tickets where conversation_id = k.conversation_id and state = 'closed'
     and ended is distinct from 'merged' order by id desc limit 1))
left join places p on p.id = t.id
left join conversations c on c.id = k.conversation_id
left join lateral (
    select max(m.sent_at) filter (where m.author = 'customer') as heard_at,
           max(m.sent_at) filter (where m.author = 'agent') as said_at
    from messages m
    where t.state = 'served' and m.conversation_id = t.conversation_id
      and m.sent_at >= date_trunc('second', t.served_at)) h on true
order by k.id

-- name: tend_next
-- The next look at waits, parkings and agents that take long; not at once again, where the last one changed nothing.
-- open: the queues that are, with the beginning of their hours: a wait counts from there on.
insert into timers (tenant_id, kind, due_at)
select %(tenant)s, 'tend', greatest(min(d.at), %(now)s::timestamptz + interval '1 minute')
from (
    select (select greatest(entered_at, o.since) from tickets where queue_id = q.id and state = 'waiting'
            order by entered_at limit 1) + q.max_wait_minutes * interval '1 minute' as at
    from json_to_recordset(%(open)s) as o (queue bigint, since timestamptz)
    join queues q on q.id = o.queue where q.max_wait_minutes is not null
    union all
    select min(parked_at) + %(parked)s::interval from tickets where state = 'parked'
    union all
    select a.since + %(gone)s::interval from agents a
    where not a.online and exists (select from tickets where agent_id = a.id and state = 'served')) d
having min(d.at) is not null
on conflict (tenant_id, kind, conversation_id, ticket_id, queue_id, agent_id)
do update set due_at = least(timers.due_at, excluded.due_at), rung_at = null

-- name: rules_of_queue
select q.id, q.hours, q.notices, q.manners, n.time_zone
from queues q join tenants n on n.tenant_id = q.tenant_id
where q.name = %(queue)s

-- name: queues_with_hours
select id from queues where hours is not null order by id

-- name: set_rules
update queues set hours = coalesce(%(hours)s::jsonb, hours), notices = coalesce(%(notices)s::jsonb, notices),
                  manners = coalesce(%(manners)s::jsonb, manners)
where id = %(id)s

-- name: forget_hours
update queues set hours = null where id = %(id)s
