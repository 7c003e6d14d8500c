-- name: evidence
-- The intents that own messages and acks among these ids tell of, in any state: an id that somebody has seen has
-- left, also where nothing was found or the time was over. And those in doubt that have no id.
select o.id, o.session_id, o.conversation_id, o.reserved_id, o.state, o.body
from json_to_recordset(%(seen)s) as e (session text, id text)
join sessions s on s.name = e.session
cross join lateral (
    select id, session_id, conversation_id, reserved_id, state, body from outbox
    where session_id = s.id and reserved_id = e.id offset 0) o
union all
select id, session_id, conversation_id, reserved_id, state, body from outbox
where reserved_id is null and state in ('sending', 'indeterminate')
order by id

-- name: record_sent
-- It has left: the intent, the place that it told, and its row of history, unless its echo was there first.
with settled as (
    update outbox set state = 'sent', reason = null, reserved_id = %(bare_id)s, settled_at = %(now)s
    where id = %(id)s and state <> 'sent'
    returning session_id, conversation_id, ticket_id, place, body),
told as (
    update tickets t set told_place = settled.place from settled
    where t.id = settled.ticket_id and settled.place is not null),
seen as (
    insert into inbound_dedupe (tenant_id, session_id, key, seen_at, message_month, message_id)
    select %(tenant)s, session_id, %(key)s, %(now)s, date_trunc('month', %(sent_at)s::timestamptz), nextval('message_ids')
    from settled
    on conflict do nothing
    returning message_id)
insert into messages (tenant_id, id, sent_at, session_id, conversation_id, ticket_id, author, kind, from_me, bare_id,
                      body, stamped_at_ms, entry_ms, entry_n)
select %(tenant)s, seen.message_id, %(sent_at)s, settled.session_id, settled.conversation_id, settled.ticket_id,
       'bot', 'text', true, %(bare_id)s, settled.body, %(stamped_ms)s, %(stamped_ms)s, 0
from settled, seen

-- name: abandon
update outbox set state = 'indeterminate', not_before = %(now)s, reason = 'its worker is gone'
where state = 'sending' and bell <> %(bell)s

-- name: expire
update outbox set state = 'failed', reason = 'expired', settled_at = %(now)s
where state in ('pending', 'indeterminate') and expires_at <= %(now)s

-- name: due_sessions
-- With something to look up, or to send that nothing before it in its chat holds up: what is listed can be
-- worked on. A session whose way out is a proxy waits until it has one that came out where it should: direct is
-- no fall back. One that works with another number than its own waits until somebody confirms that.
select s.id, s.name, s.server, l.pool, l.identity,
       exists (select from outbox o where o.session_id = s.id and o.state = 'indeterminate'
               and o.not_before <= %(now)s) as doubts,
       exists (select from outbox o where o.session_id = s.id and o.state = 'pending' and o.not_before <= %(now)s
               and not exists (select from outbox e where e.session_id = o.session_id
                               and e.conversation_id = o.conversation_id and e.id < o.id
                               and e.state in ('pending', 'sending', 'indeterminate'))) as pending
from sessions s
left join proxy_leases l on s.exit_policy = 'proxy' and l.session_id = s.id and l.released_at is null
                        and l.verified_at is not null and l.trouble is null
where (s.exit_policy = 'direct' or l.id is not null) and s.other_phone is null and exists (
    select from outbox o where o.session_id = s.id and o.not_before <= %(now)s
    and o.state in ('pending', 'sending', 'indeterminate'))

-- name: next_pending
select o.id, o.class as intent, o.ticket_id, o.conversation_id, o.reserved_id, o.attempts, c.chat_id,
       t.state as ticket_state, t.told_place, n.locale, n.templates,
       case when t.state = 'waiting' then (
           select count(*) from tickets w where w.queue_id = t.queue_id and w.state = 'waiting'
           and (w.entered_at, w.seq) <= (t.entered_at, t.seq)) end as place
from outbox o
join conversations c on c.id = o.conversation_id
join tenants n on n.tenant_id = o.tenant_id
left join tickets t on t.id = o.ticket_id
where o.session_id = %(session)s and o.state = 'pending' and o.not_before <= %(now)s
  and not exists (select from outbox e where e.session_id = o.session_id and e.state = 'sending')
  and not exists (select from outbox e where e.session_id = o.session_id
                  and e.conversation_id = o.conversation_id and e.id < o.id
                  and e.state in ('pending', 'sending', 'indeterminate'))
order by o.id limit 1

-- name: claim_intent
with claimed as (
    update outbox set state = 'sending', bell = %(bell)s, claimed_at = %(now)s, attempts = attempts + 1,
                      not_before = %(look_again)s, reserved_id = %(reserved_id)s, chat_id = %(chat)s, body = %(body)s,
                      place = %(place)s, reason = null
    where id = %(id)s and state = 'pending'
    returning id, class, conversation_id, ticket_id)
insert into audit (tenant_id, at, what, conversation_id, ticket_id, detail)
select %(tenant)s, %(now)s, 'claimed.' || class, conversation_id, ticket_id,
       json_build_object('place', %(place)s::integer, 'intent', id)
from claimed

-- name: drop_intent
update outbox set state = 'dropped', reason = %(reason)s, settled_at = %(now)s where id = %(id)s

-- name: intent_for_settling
select state, attempts from outbox where id = %(id)s

-- name: drop_merged
update outbox later set state = 'dropped', reason = 'told by an earlier one', settled_at = %(now)s
from outbox o
where o.id = %(id)s and o.class = 'place' and later.class = 'place' and later.ticket_id = o.ticket_id
  and later.id <> o.id and later.state = 'pending'

-- name: settle_intent
update outbox set state = %(state)s, reason = %(reason)s, not_before = coalesce(%(not_before)s, not_before),
                  settled_at = case when %(state)s = 'failed' then %(now)s end
where id = %(id)s

-- name: doubtful_due
select o.id, o.session_id, s.name as session, s.server, o.chat_id, o.class as intent, o.body, o.reserved_id,
       o.claimed_at, o.attempts
from outbox o join sessions s on s.id = o.session_id
where o.session_id = %(session)s and o.state = 'indeterminate' and o.not_before <= %(now)s
order by o.id limit 20

-- name: postpone
update outbox set not_before = %(until)s, reason = %(reason)s
where session_id = %(session)s and state = 'pending' and not_before <= %(now)s

-- name: known_keys
select key from inbound_dedupe where session_id = %(session)s and key = any (%(keys)s)
