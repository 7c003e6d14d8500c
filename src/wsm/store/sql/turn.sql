-- name: lock_lane
select pg_advisory_xact_lock(%(tenant)s)

-- name: sessions_of_tenant
select id, name, server, phone, observed_at_ms from sessions

-- name: first_seen
insert into inbound_dedupe (tenant_id, session_id, key, seen_at)
select %(tenant)s, session_id, key, %(now)s
from unnest(%(sessions)s::bigint[], %(keys)s::text[]) as seen (session_id, key)
on conflict do nothing
returning session_id, key

-- name: contacts_by_alias
select alias, contact_id from contact_aliases where alias = any (%(aliases)s)

-- name: add_contact
insert into contacts (tenant_id, name) values (%(tenant)s, %(name)s) returning id

-- name: add_aliases
insert into contact_aliases (tenant_id, alias, contact_id)
select %(tenant)s, alias, contact_id from unnest(%(aliases)s::text[], %(contacts)s::bigint[]) as a (alias, contact_id)
on conflict do nothing

-- name: conversations_of_contacts
insert into conversations (tenant_id, session_id, contact_id, chat_id, kind)
select %(tenant)s, session_id, contact_id, chat_id, kind
from unnest(%(sessions)s::bigint[], %(contacts)s::bigint[], %(chats)s::text[], %(kinds)s::text[])
     as c (session_id, contact_id, chat_id, kind)
on conflict (tenant_id, session_id, contact_id) do update set chat_id = excluded.chat_id
returning id, session_id, contact_id, kind, state,
          handled_sent_ms, handled_stamped_ms, handled_entry_ms, handled_entry_n

-- name: move_conversation
update conversations
set version = version + 1, handled_sent_ms = %(sent_ms)s,
    handled_stamped_ms = %(stamped_ms)s, handled_entry_ms = %(entry_ms)s, handled_entry_n = %(entry_n)s
where id = %(id)s

-- name: queue_of_tenant
select id, capacity from queues order by id limit 1

-- name: open_line
select id, conversation_id, state, told_place from tickets
where queue_id = %(queue)s and state <> 'closed'
order by entered_at, seq

-- name: set_state
update conversations set state = %(state)s, version = version + 1 where id = %(id)s and state <> %(state)s

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
values (%(tenant)s, %(now)s, %(what)s, %(conversation)s, %(ticket)s, %(detail)s)

-- name: add_intent
insert into outbox (tenant_id, session_id, conversation_id, ticket_id, class, intent_key,
                    not_before, expires_at, created_at)
select %(tenant)s, c.session_id, c.id, %(ticket)s, %(intent)s, %(key)s, %(now)s, %(expires_at)s, %(now)s
from conversations c where c.id = %(conversation)s
on conflict do nothing

-- name: add_message
with added as (
    insert into messages (tenant_id, sent_at, session_id, conversation_id, ticket_id, author, kind, from_me,
                          bare_id, target_id, participant, body, media, late, stamped_at_ms,
                          entry_ms, entry_n, raw)
    values (%(tenant)s, %(sent_at)s, %(session)s, %(conversation)s, %(ticket)s, %(author)s, %(kind)s,
            %(from_me)s, %(bare_id)s, %(target)s, %(participant)s, %(body)s, %(media)s, %(late)s,
            %(stamped_ms)s, %(entry_ms)s, %(entry_n)s, %(raw)s)
    returning sent_at, id
)
update inbound_dedupe d set message_month = date_trunc('month', added.sent_at), message_id = added.id
from added where d.session_id = %(session)s and d.key = %(key)s

-- name: add_ack
insert into message_acks (tenant_id, session_id, from_me, bare_id, participant, level, at)
values (%(tenant)s, %(session)s, %(from_me)s, %(bare_id)s, %(participant)s, %(level)s, %(at)s)
on conflict do nothing

-- name: keep_event
insert into session_events (tenant_id, session_id, name, chat_id, key, at, stale, raw)
values (%(tenant)s, %(session)s, %(name)s, %(chat)s, %(key)s, %(at)s, %(stale)s, %(raw)s)
on conflict do nothing

-- name: observe_session
update sessions set observed = %(status)s, observed_at_ms = %(at_ms)s, engine = coalesce(%(engine)s, engine)
where id = %(session)s and observed_at_ms <= %(at_ms)s

-- name: ensure_month
select ensure_month(%(month)s)
