-- name: reserved_of
select reserved_id from outbox where reserved_id = any (%(ids)s)

-- name: unsent_by_id
-- In any state: an id that somebody has seen has left, also where nothing was found or the time was over.
select o.id from outbox o
where o.session_id = %(session)s and o.reserved_id = %(bare_id)s and o.state <> 'sent'

-- name: doubtful_by_text
select o.id from outbox o
where o.session_id = %(session)s and o.conversation_id = %(conversation)s and o.body = %(text)s
  and o.reserved_id is null and o.state in ('sending', 'indeterminate')
order by o.id limit 1

-- name: abandon
update outbox set state = 'indeterminate', not_before = %(now)s, reason = 'its worker is gone'
where state = 'sending' and bell <> %(bell)s

-- name: expire
update outbox set state = 'failed', reason = 'expired', settled_at = %(now)s
where state in ('pending', 'indeterminate') and expires_at <= %(now)s

-- name: due_sessions
-- With something to look up, or to send that nothing before it in its chat holds up: what is listed can be
-- worked on. A session whose way out is a proxy waits: nothing here can act through one yet, and direct is no
-- fall back.
select distinct s.id, s.name, s.server
from outbox o join sessions s on s.id = o.session_id
where o.not_before <= %(now)s and s.exit_policy = 'direct'
  and (o.state = 'indeterminate'
       or o.state = 'pending'
          and not exists (select from outbox e where e.conversation_id = o.conversation_id and e.id < o.id
                          and e.state in ('pending', 'sending', 'indeterminate')))

-- name: next_pending
select o.id, o.class as intent, o.ticket_id, o.conversation_id, o.reserved_id, o.attempts, c.chat_id,
       t.state as ticket_state, t.told_place, t.queue_id, t.entered_at, t.seq, n.locale, n.templates
from outbox o
join conversations c on c.id = o.conversation_id
join tenants n on n.tenant_id = o.tenant_id
left join tickets t on t.id = o.ticket_id
where o.session_id = %(session)s and o.state = 'pending' and o.not_before <= %(now)s
  and not exists (select from outbox e where e.session_id = o.session_id and e.state = 'sending')
  and not exists (select from outbox e where e.conversation_id = o.conversation_id and e.id < o.id
                  and e.state in ('pending', 'sending', 'indeterminate'))
order by o.id limit 1

-- name: place_of
select count(*) from tickets
where queue_id = %(queue)s and state = 'waiting' and (entered_at, seq) <= (%(entered_at)s, %(seq)s)

-- name: claim_intent
update outbox set state = 'sending', bell = %(bell)s, claimed_at = %(now)s, attempts = attempts + 1,
                  not_before = %(look_again)s, reserved_id = %(reserved_id)s, chat_id = %(chat)s, body = %(body)s, place = %(place)s, reason = null
where id = %(id)s and state = 'pending'

-- name: drop_intent
update outbox set state = 'dropped', reason = %(reason)s, settled_at = %(now)s where id = %(id)s

-- name: intent_for_settling
select o.id, o.state, o.attempts, o.session_id, o.conversation_id, o.ticket_id, o.body, o.place, o.reserved_id
from outbox o where o.id = %(id)s

-- name: drop_merged
update outbox later set state = 'dropped', reason = 'told by an earlier one', settled_at = %(now)s
from outbox o
where o.id = %(id)s and o.class = 'place' and later.class = 'place' and later.ticket_id = o.ticket_id
  and later.id <> o.id and later.state = 'pending'

-- name: settle_intent
update outbox set state = %(state)s, reason = %(reason)s, reserved_id = coalesce(%(bare_id)s, reserved_id),
                  not_before = coalesce(%(not_before)s, not_before),
                  settled_at = case when %(state)s in ('sent', 'failed') then %(now)s end
where id = %(id)s

-- name: told_place
update tickets set told_place = %(place)s where id = %(ticket)s

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
