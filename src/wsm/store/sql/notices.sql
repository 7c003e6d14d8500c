-- name: tell_moved
-- The first ones in a line that moved, or all of it, are told where they stand now, where that is worth it.
with added as (
    insert into outbox (tenant_id, session_id, conversation_id, ticket_id, class, intent_key,
                        not_before, expires_at, created_at)
    select %(tenant)s, c.session_id, c.id, w.id, 'place', 'place:' || w.id || ':' || %(mark)s,
           greatest(%(now)s::timestamptz, w.told_at + %(every)s::interval), %(expires_at)s, %(now)s
    from (select id, conversation_id, told_place, told_at, told_updates,
                 row_number() over (order by rank_at, seq) as place
          from (select * from tickets where queue_id = %(queue)s and state = 'waiting'
                order by rank_at, seq limit %(many)s) front) w
    join conversations c on c.id = w.conversation_id
    where w.place < w.told_place and w.told_updates < %(at_most)s
      and (w.place <= %(near)s or w.told_place - w.place >= %(step)s)
    order by w.place
    on conflict do nothing
    returning session_id, not_before)
insert into pace (tenant_id, session_id, due_at)
select %(tenant)s, session_id, min(not_before) from added group by session_id
on conflict (tenant_id, session_id) do update set due_at = least(pace.due_at, excluded.due_at)

-- name: tell_place
-- Somebody asked for his place, or nothing moved for long: an intent that waits already may go now.
with told as (
    update tickets set asked_at = case when %(asked)s then %(now)s::timestamptz else asked_at end,
                       silence_at = case when %(asked)s then silence_at else %(now)s::timestamptz end
    where id = %(ticket)s and state = 'waiting'
    returning id, conversation_id),
moved as (
    update outbox o set not_before = %(now)s, expires_at = %(expires_at)s
    from told where o.ticket_id = told.id and o.class = 'place' and o.state = 'pending'
    returning o.session_id, o.not_before),
added as (
    insert into outbox (tenant_id, session_id, conversation_id, ticket_id, class, intent_key,
                        not_before, expires_at, created_at)
    select %(tenant)s, c.session_id, c.id, told.id, 'place', 'place:' || told.id || ':' || %(mark)s,
           %(now)s, %(expires_at)s, %(now)s
    from told join conversations c on c.id = told.conversation_id
    where not exists (select from moved)
    on conflict do nothing
    returning session_id, not_before)
insert into pace (tenant_id, session_id, due_at)
select %(tenant)s, session_id, min(not_before) from (select * from added union all select * from moved) a
group by session_id
on conflict (tenant_id, session_id) do update set due_at = least(pace.due_at, excluded.due_at)

-- name: add_says
-- Texts about tickets; what they say is looked at once more when they are claimed.
with added as (
    insert into outbox (tenant_id, session_id, conversation_id, ticket_id, class, args, intent_key,
                        not_before, expires_at, created_at)
    select %(tenant)s, c.session_id, c.id, s.ticket, s.class, s.args, s.key, %(now)s, %(expires_at)s, %(now)s
    from json_to_recordset(%(says)s) as s (
        place integer, conversation bigint, ticket bigint, class text, args jsonb, key text)
    join conversations c on c.id = s.conversation
    order by s.place
    on conflict do nothing
    returning session_id, not_before)
insert into pace (tenant_id, session_id, due_at)
select %(tenant)s, session_id, min(not_before) from added group by session_id
on conflict (tenant_id, session_id) do update set due_at = least(pace.due_at, excluded.due_at)

-- name: took_over
-- A person has spoken: what the bot was about to say is not said any more, and nothing it was asked is open. That a
-- wish was heard is said all the same.
with talk as (
    update conversations set human_until = %(until)s where id = %(conversation)s returning id),
ticket as (
    update tickets set answered_at = coalesce(answered_at, %(now)s) where id = %(ticket)s and state = 'served'),
burst as (
    delete from timers where conversation_id = %(conversation)s and kind = 'burst')
update outbox set state = 'dropped', reason = 'a person has spoken', settled_at = %(now)s
where conversation_id = (select id from talk) and class = 'bot' and state = 'pending'
  and split_part(intent_key, ':', 1) not in ('opted_out', 'opted_in')

-- name: bot_may_speak
update conversations set human_until = null where id = %(conversation)s and human_until is not null

-- name: ask_how_it_was
with asked as (
    update tickets set survey_asked_at = %(now)s, survey_until = %(until)s
    where id = %(ticket)s and state = 'closed' and answered_at is not null and survey_asked_at is null
    returning id, conversation_id),
added as (
    insert into outbox (tenant_id, session_id, conversation_id, ticket_id, class, args, intent_key,
                        not_before, expires_at, created_at)
    select %(tenant)s, c.session_id, c.id, asked.id, 'survey', '{"say": "survey"}', 'survey:' || asked.id,
           %(now)s, %(until)s, %(now)s
    from asked join conversations c on c.id = asked.conversation_id
    on conflict do nothing
    returning session_id, not_before)
insert into pace (tenant_id, session_id, due_at)
select %(tenant)s, session_id, min(not_before) from added group by session_id
on conflict (tenant_id, session_id) do update set due_at = least(pace.due_at, excluded.due_at)

-- name: score
update tickets set score = %(score)s::integer, survey_until = null where id = %(ticket)s and survey_until is not null

-- name: measure_queue
-- How quickly it served of late, and how many at once.
update queues q
set handle_seconds = m.seconds, handle_sample = m.sample, slots_lately = (
    select case when count(*) = 0 then q.capacity
                else coalesce(sum(a.capacity) filter (where a.online and (a.queues is null or q.id = any (a.queues))), 0) end
    from agents a where a.removed_at is null)
from (select percentile_cont(0.5) within group (order by extract(epoch from closed_at - served_at)) as seconds,
             count(*) as sample
      from (select closed_at, served_at from tickets
            where queue_id = %(queue)s and state = 'closed' and served_at is not null and closed_at >= %(since)s
              and ended is distinct from 'merged'
            order by closed_at desc limit 100) lately) m
where q.id = %(queue)s
