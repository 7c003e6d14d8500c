-- name: lock_lane
select pg_advisory_xact_lock(%(tenant)s)

-- name: sessions_of_tenant
select id, name, heard_ms, caught_up_ms >= since_ms as caught_up from sessions where name = any (%(names)s)

-- name: first_seen
-- What becomes history gets its number here, so that nothing of this has to be written twice.
insert into inbound_dedupe (tenant_id, session_id, key, seen_at, message_month, message_id)
select %(tenant)s, s.id, e.key, %(now)s, e.month, case when e.month is not null then nextval('message_ids') end
from json_to_recordset(%(events)s) as e (place integer, session text, key text, month date)
join sessions s on s.name = e.session
order by e.place
on conflict do nothing
returning session_id, key, message_id

-- name: contacts_by_alias
select alias, contact_id from contact_aliases where alias = any (%(aliases)s)

-- name: known_chats
-- (offset 0: each is looked up by its whole key, however many conversations a tenant has.)
select a.alias, a.contact_id, c.*
from contact_aliases a cross join (select id from sessions where name = any (%(names)s)) s
left join lateral (
    select id, session_id, chat_id, kind, state, handled_sent_ms, handled_stamped_ms, handled_entry_ms, handled_entry_n
    from conversations where session_id = s.id and contact_id = a.contact_id offset 0) c on true
where a.alias = any (%(aliases)s)

-- name: add_contact
-- A person nobody knew: all his ids, and his conversation with each session that he wrote to.
with made as (
    insert into contacts (tenant_id, name) values (%(tenant)s, %(name)s) returning id),
named as (
    insert into contact_aliases (tenant_id, alias, contact_id)
    select %(tenant)s, alias, made.id from made, unnest(%(aliases)s::text[]) as alias)
insert into conversations (tenant_id, session_id, contact_id, chat_id, kind)
select %(tenant)s, c.session, made.id, c.chat, c.kind
from made, json_to_recordset(%(chats)s) as c (session bigint, chat text, kind text)
returning id, session_id, chat_id, kind, state, handled_sent_ms, handled_stamped_ms, handled_entry_ms, handled_entry_n

-- name: add_aliases
insert into contact_aliases (tenant_id, alias, contact_id)
select %(tenant)s, alias, contact_id from unnest(%(aliases)s::text[], %(contacts)s::bigint[]) as a (alias, contact_id)
on conflict do nothing

-- name: add_conversation
insert into conversations (tenant_id, session_id, contact_id, chat_id, kind)
values (%(tenant)s, %(session)s, %(contact)s, %(chat)s, %(kind)s)
returning id, session_id, chat_id, kind, state, handled_sent_ms, handled_stamped_ms, handled_entry_ms, handled_entry_n

-- name: move_conversation
update conversations
set version = version + 1, state = %(state)s, chat_id = %(chat)s, handled_sent_ms = %(sent_ms)s,
    handled_stamped_ms = %(stamped_ms)s, handled_entry_ms = %(entry_ms)s, handled_entry_n = %(entry_n)s
where id = %(id)s

-- name: set_state
update conversations set state = %(state)s, version = version + 1 where id = %(id)s and state <> %(state)s

-- name: open_line
select q.id as queue, q.capacity, t.id, t.conversation_id, t.state
from (select id, capacity from queues order by id limit 1) q
left join tickets t on t.queue_id = q.id and t.state <> 'closed'
order by t.entered_at, t.seq

-- name: open_ticket
insert into tickets (tenant_id, queue_id, conversation_id, state, entered_at, served_at)
select %(tenant)s, %(queue)s, %(conversation)s, %(state)s,
       greatest(%(now)s, (select max(entered_at) from tickets where queue_id = %(queue)s and state <> 'closed')),
       case when %(state)s = 'served' then %(now)s end
returning id

-- name: serve_ticket
update tickets set state = 'served', served_at = %(now)s where id = %(ticket)s and state = 'waiting'

-- name: close_ticket
update tickets set state = 'closed', closed_at = %(now)s, closed_by = %(by)s
where id = %(ticket)s and state <> 'closed'

-- name: write_audit
insert into audit (tenant_id, at, what, conversation_id, ticket_id, detail)
select %(tenant)s, %(now)s, a.what, a.conversation, a.ticket, a.detail
from json_to_recordset(%(lines)s) as a (place integer, what text, conversation bigint, ticket bigint, detail jsonb)
order by a.place

-- name: add_intents
insert into outbox (tenant_id, session_id, conversation_id, ticket_id, class, intent_key,
                    not_before, expires_at, created_at)
select %(tenant)s, (select session_id from conversations where id = i.conversation), i.conversation, i.ticket,
       i.intent, i.key, %(now)s, %(expires_at)s, %(now)s
from json_to_recordset(%(intents)s) as i (place integer, conversation bigint, ticket bigint, intent text, key text)
order by i.place
on conflict do nothing

-- name: add_messages
insert into messages (tenant_id, id, sent_at, session_id, conversation_id, ticket_id, author, kind, from_me, bare_id,
                      target_id, participant, body, media, late, stamped_at_ms, entry_ms, entry_n, raw)
select %(tenant)s, m.id, m.sent_at, m.session, m.conversation, m.ticket, m.author, m.kind, m.from_me, m.bare_id,
       m.target, m.participant, m.body, m.media, m.late, m.stamped_ms, m.entry_ms, m.entry_n, decode(m.raw, 'base64')
from json_to_recordset(%(messages)s) as m (
    id bigint, sent_at timestamptz, session bigint, conversation bigint, ticket bigint, author text, kind text,
    from_me boolean, bare_id text, target text, participant text, body text, media jsonb, late boolean,
    stamped_ms bigint, entry_ms bigint, entry_n bigint, raw text)

-- name: add_ack
insert into message_acks (tenant_id, session_id, from_me, bare_id, participant, level, at)
values (%(tenant)s, %(session)s, %(from_me)s, %(bare_id)s, %(participant)s, %(level)s, %(at)s)
on conflict do nothing

-- name: keep_event
insert into session_events (tenant_id, session_id, name, chat_id, key, at, stale, raw)
values (%(tenant)s, %(session)s, %(name)s, %(chat)s, %(key)s, %(at)s, %(stale)s, %(raw)s)
on conflict do nothing

-- name: observe_session
-- A webhook says WORKING when it has come back: it was away, though nothing in between may have been heard of. Who
-- asks (`returned` is false) only learns that it still works.
update sessions
set observed = %(status)s, observed_at_ms = %(at_ms)s, engine = coalesce(%(engine)s, engine),
    since_ms = case when observed = %(status)s and not (%(returned)s and %(status)s = 'WORKING')
        then since_ms else %(at_ms)s end,
    dropped_ms = case when observed = 'WORKING' and %(status)s <> 'WORKING'
        then (dropped_ms || %(at_ms)s::bigint)[greatest(1, cardinality(dropped_ms) - 8):] else dropped_ms end
where id = %(session)s and observed_at_ms <= %(at_ms)s

-- name: ensure_month
select ensure_month(%(month)s)
