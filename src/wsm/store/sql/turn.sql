-- name: lock_lane
select pg_advisory_xact_lock(%(tenant)s)

-- name: sessions_of_tenant
select id, name, engine, queue_id, heard_ms, caught_up_ms >= since_ms as caught_up
from sessions where name = any (%(names)s)

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
select a.alias, a.contact_id, w.opted_out_at is not null as opted_out, c.*
from contact_aliases a
join contacts w on w.id = a.contact_id
cross join (select id from sessions where name = any (%(names)s)) s
left join lateral (
    select id, session_id, chat_id, kind, state, human_until, handled_sent_ms, handled_stamped_ms, handled_entry_ms,
           handled_entry_n,
           (select args ->> 'since' from timers where kind = 'burst' and conversation_id = conversations.id)::timestamptz
               as burst_since,
           heard_at
    from conversations where session_id = s.id and contact_id = a.contact_id and merged_into is null offset 0) c on true
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
returning id, session_id, chat_id, kind, state, handled_sent_ms, handled_stamped_ms, handled_entry_ms, handled_entry_n,
          heard_at

-- name: add_aliases
insert into contact_aliases (tenant_id, alias, contact_id)
select %(tenant)s, alias, contact_id from unnest(%(aliases)s::text[], %(contacts)s::bigint[]) as a (alias, contact_id)
on conflict do nothing

-- name: add_conversation
insert into conversations (tenant_id, session_id, contact_id, chat_id, kind)
values (%(tenant)s, %(session)s, %(contact)s, %(chat)s, %(kind)s)
returning id, session_id, chat_id, kind, state, handled_sent_ms, handled_stamped_ms, handled_entry_ms, handled_entry_n,
          heard_at

-- name: move_conversation
update conversations
set version = version + 1, state = %(state)s, chat_id = %(chat)s, handled_sent_ms = %(sent_ms)s,
    handled_stamped_ms = %(stamped_ms)s, handled_entry_ms = %(entry_ms)s, handled_entry_n = %(entry_n)s,
    heard_at = coalesce(heard_at, case when %(heard)s then %(now)s::timestamptz end)
where id = %(id)s

-- name: warm_up
-- Somebody who was written to first has answered: what waits for him is a reply now.
with warmed as (
    update outbox set cold = false where conversation_id = %(conversation)s and state = 'pending' and cold
    returning session_id)
update pace p set due_at = least(due_at, %(now)s) from warmed where p.session_id = warmed.session_id

-- name: set_state
update conversations set state = %(state)s, version = version + 1 where id = %(id)s and state <> %(state)s

-- name: write_audit
insert into audit (tenant_id, at, what, conversation_id, ticket_id, detail)
select %(tenant)s, %(now)s, a.what, a.conversation, a.ticket, a.detail
from json_to_recordset(%(lines)s) as a (place integer, what text, conversation bigint, ticket bigint, detail jsonb)
order by a.place

-- name: add_intents
-- A notice has no body before it is claimed. What is refused from the start is kept with its reason. Whoever rings for
-- deliveries is told when to come.
with added as (
    insert into outbox (tenant_id, session_id, conversation_id, ticket_id, class, kind, args, body, intent_key,
                        not_before, expires_at, state, reason, settled_at, created_at, cold)
    select %(tenant)s, c.session_id, i.conversation, i.ticket, i.class, i.kind, i.args, i.body, i.key, i.not_before,
           i.expires_at, case when i.refused is null then 'pending' else 'failed' end, i.refused,
           case when i.refused is not null then %(now)s::timestamptz end, %(now)s,
           c.kind = 'direct' and c.heard_at is null
    from json_to_recordset(%(intents)s) as i (
        place integer, conversation bigint, ticket bigint, class text, kind text, args jsonb, body text, key text,
        not_before timestamptz, expires_at timestamptz, refused text)
    join conversations c on c.id = i.conversation
    order by i.place
    on conflict do nothing
    returning session_id, not_before, state)
insert into pace (tenant_id, session_id, due_at)
select %(tenant)s, session_id, min(not_before) from added where state = 'pending' group by session_id
on conflict (tenant_id, session_id) do update set due_at = least(pace.due_at, excluded.due_at)

-- name: manners
select locale, templates from tenants where tenant_id = %(tenant)s

-- name: opt_out
-- At once: what waits to be said to him by itself is dropped, and he is told so once.
with wished as (
    update contacts w set opted_out_at = %(now)s from conversations c
    where c.id = %(conversation)s and w.id = c.contact_id and w.opted_out_at is null returning w.id),
dropped as (
    update outbox o set state = 'dropped', reason = 'opted_out', settled_at = %(now)s
    from conversations c, wished
    where c.contact_id = wished.id and o.conversation_id = c.id and o.state = 'pending'
      and o.class in ('bot', 'survey', 'campaign')),
audited as (
    insert into audit (tenant_id, at, what, conversation_id)
    select %(tenant)s, %(now)s, 'contact.opted_out', %(conversation)s from wished)
select id from wished

-- name: opt_in
with wished as (
    update contacts w set opted_out_at = null from conversations c
    where c.id = %(conversation)s and w.id = c.contact_id and w.opted_out_at is not null returning w.id),
audited as (
    insert into audit (tenant_id, at, what, conversation_id)
    select %(tenant)s, %(now)s, 'contact.opted_in', %(conversation)s from wished)
select id from wished

-- name: targets
-- Which messages are there that something answers or acts on. Edits and the like may bear the id of their original.
select m.conversation_id, m.bare_id, m.from_me, m.participant
from json_to_recordset(%(targets)s) as t (conversation bigint, target text)
cross join lateral (
    select conversation_id, bare_id, from_me, participant from messages
    where conversation_id = t.conversation and bare_id = t.target
      and kind not in ('edit', 'revoke', 'reaction', 'vote') limit 1) m

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
insert into message_acks (tenant_id, session_id, from_me, bare_id, participant, level, at, code, reason)
values (%(tenant)s, %(session)s, %(from_me)s, %(bare_id)s, %(participant)s, %(level)s, %(at)s, %(code)s, %(reason)s)
on conflict do nothing

-- name: keep_event
insert into session_events (tenant_id, session_id, name, chat_id, key, at, stale, raw)
values (%(tenant)s, %(session)s, %(name)s, %(chat)s, %(key)s, %(at)s, %(stale)s, %(raw)s)
on conflict do nothing

-- name: observe_session
-- A webhook says WORKING when it has come back: it was away, though nothing in between may have been heard of. Who
-- asks (`returned` is false) only learns that it still works. What waited for its return waits no longer.
with woken as (
    update pace set due_at = least(due_at, %(now)s)
    where session_id = (select session_id from pace where session_id = %(session)s and waits = 'away'
                        and %(status)s = 'WORKING' for update skip locked))
update sessions
set observed = %(status)s, observed_at_ms = %(at_ms)s, engine = coalesce(%(engine)s, engine),
    since_ms = case when observed = %(status)s and not (%(returned)s and %(status)s = 'WORKING')
        then since_ms else %(at_ms)s end,
    dropped_ms = case when observed = 'WORKING' and %(status)s <> 'WORKING'
        then (dropped_ms || %(at_ms)s::bigint)[greatest(1, cardinality(dropped_ms) - 8):] else dropped_ms end
where id = %(session)s and observed_at_ms <= %(at_ms)s

-- name: ensure_month
select ensure_month(%(month)s)
