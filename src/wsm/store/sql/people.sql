-- name: aliases_of
select contact_id, alias from contact_aliases where contact_id = any (%(contacts)s)

-- name: talks_of
-- Every conversation of contacts who are one person, with the ticket that is open in it, and how long it is.
-- (offset 0: each is looked up by its whole key.)
select c.id, c.session_id, c.contact_id, t.id as ticket, t.state, t.queue_id, t.rank_at, t.seq, t.served_at,
       (select count(*) from (select from messages where conversation_id = c.id limit %(counted)s) m) as messages
from sessions s cross join unnest(%(contacts)s::bigint[]) w (id)
cross join lateral (
    select id, session_id, contact_id from conversations
    where session_id = s.id and contact_id = w.id and merged_into is null offset 0) c
left join tickets t on t.conversation_id = c.id and t.state <> 'closed'
order by c.id

-- name: end_merged
-- Of two open tickets of a person one goes, and what was told of it is known of the one that stays: no worse place is
-- told than the last one, no more updates than are allowed. Nobody is told that it ended, nor asked how it was.
with pairs as (
    select * from json_to_recordset(%(tickets)s) as p (gone bigint, kept bigint)),
told as (
    select p.kept, min(least(g.told_place, f.place)) as place, max(g.told_at) as at, sum(g.told_updates) as updates,
           max(g.asked_at) as asked_at, max(g.silence_at) as silence_at, min(g.answered_at) as answered_at
    from pairs p join tickets g on g.id = p.gone
    left join lateral (
        select min(place) as place from outbox o where o.conversation_id = g.conversation_id and o.class = 'place'
        and o.state in ('sending', 'indeterminate') and o.ticket_id = g.id) f on true
    group by p.kept),
kept as (
    update tickets k
    set told_place = least(k.told_place, told.place), told_at = greatest(k.told_at, told.at),
        told_updates = k.told_updates + told.updates, asked_at = greatest(k.asked_at, told.asked_at),
        silence_at = greatest(k.silence_at, told.silence_at), answered_at = least(k.answered_at, told.answered_at)
    from told where k.id = told.kept),
free as (
    update agents set busy_at = %(now)s
    where id in (select g.agent_id from tickets g join pairs p on p.gone = g.id where g.state = 'served')),
untold as (
    update outbox o set state = 'dropped', reason = 'its ticket became another one', settled_at = %(now)s
    from pairs p join tickets g on g.id = p.gone
    where o.conversation_id = g.conversation_id and o.state = 'pending' and o.class in ('place', 'turn')
      and o.ticket_id = g.id),
quiet as (
    delete from timers t using pairs p
    where t.kind = any (%(kinds)s) and t.conversation_id is null and t.ticket_id = p.gone)
update tickets g set state = 'closed', ended = 'merged', closed_by = %(by)s, closed_at = %(now)s
from pairs p where g.id = p.gone

-- name: move_history
update messages m set conversation_id = p.kept
from json_to_recordset(%(talks)s) as p (gone bigint, kept bigint) where m.conversation_id = p.gone

-- name: move_tickets
update tickets t set conversation_id = p.kept
from (select f.id, p.kept from json_to_recordset(%(talks)s) as p (gone bigint, kept bigint)
      cross join lateral (
          select id from tickets where conversation_id = p.gone and state <> 'closed'
          union all select id from tickets where conversation_id = p.gone and state = 'closed') f) p
where t.id = p.id

-- name: move_intents
-- What was said, is being said, and is to be said. (By the three indexes that find it.)
update outbox o set conversation_id = p.kept
from (select f.id, p.kept from json_to_recordset(%(talks)s) as p (gone bigint, kept bigint)
      cross join lateral (
          select id from outbox where conversation_id = p.gone and state in ('pending', 'sending', 'indeterminate')
          union select id from outbox where conversation_id = p.gone and claimed_at is not null
          union select id from outbox where conversation_id = p.gone and claimed_at is null
                and state not in ('pending', 'sending', 'indeterminate')) f) p
where o.id = p.id

-- name: move_timers
-- One of a kind: that of the conversation that stays.
with pairs as (
    select * from json_to_recordset(%(talks)s) as p (gone bigint, kept bigint)),
doubled as (
    delete from timers t using pairs p
    where t.conversation_id = p.gone and exists (
        select from timers k where k.kind = t.kind and (
            k.conversation_id = p.kept
            or k.id < t.id and k.conversation_id in (select gone from pairs o where o.kept = p.kept))))
update timers t set conversation_id = p.kept from pairs p
where t.conversation_id = p.gone and not exists (
    select from timers k where k.kind = t.kind and (
        k.conversation_id = p.kept
        or k.id < t.id and k.conversation_id in (select gone from pairs o where o.kept = p.kept)))

-- name: leave_talks
-- What goes says what it became; so does what had become it before.
update conversations c
set merged_into = p.kept, version = version + 1, state = case when state = 'start' then state else 'closed' end
from json_to_recordset(%(talks)s) as p (gone bigint, kept bigint)
where c.id = p.gone or c.merged_into = p.gone

-- name: keep_talks
-- What is known of either is known of the one that stays; it is answered under the id that was heard last.
update conversations c
set chat_id = newest.chat_id, handled_sent_ms = newest.handled_sent_ms,
    handled_stamped_ms = newest.handled_stamped_ms, handled_entry_ms = newest.handled_entry_ms,
    handled_entry_n = newest.handled_entry_n, heard_at = known.heard_at, bot_paused_until = known.bot_paused_until,
    human_until = known.human_until, created_at = known.created_at, version = known.version + 1,
    state = coalesce((select state from tickets t where t.conversation_id = k.kept and t.state <> 'closed'),
                     case when c.state = 'start' and not known.ended then 'start' else 'closed' end)
from (select distinct kept from json_to_recordset(%(talks)s) as p (gone bigint, kept bigint)) k
cross join lateral (
    select min(heard_at) as heard_at, max(bot_paused_until) as bot_paused_until, max(human_until) as human_until,
           min(created_at) as created_at, max(version) as version, bool_or(state = 'closed') as ended
    from conversations where id = k.kept or merged_into = k.kept) known
cross join lateral (
    select * from conversations where id = k.kept or merged_into = k.kept
    order by handled_sent_ms desc, handled_stamped_ms desc, handled_entry_ms desc, handled_entry_n desc, id
    limit 1) newest
where c.id = k.kept

-- name: merge_contacts
-- An opt-out of either holds. Every conversation, also one that went before, is the one contact's.
with pairs as (
    select * from json_to_recordset(%(contacts)s) as p (gone bigint, kept bigint)),
gone as (
    update contacts w set merged_into = p.kept from pairs p where w.id = p.gone or w.merged_into = p.gone),
named as (
    update contact_aliases a set contact_id = p.kept from pairs p where a.contact_id = p.gone),
talks as (
    update conversations c set contact_id = t.contact
    from json_to_recordset(%(owners)s) as t (talk bigint, contact bigint)
    where c.id = t.talk or c.merged_into = t.talk)
update contacts w
set name = coalesce(w.name, known.name), opted_out_at = greatest(w.opted_out_at, known.opted_out_at),
    created_at = least(w.created_at, known.created_at)
from (select p.kept, min(g.name) as name, max(g.opted_out_at) as opted_out_at, min(g.created_at) as created_at
      from pairs p join contacts g on g.id = p.gone group by p.kept) known
where w.id = known.kept

-- name: warm_merged
-- Who has written under one id is answered under the other, too.
with warmed as (
    update outbox o set cold = false
    from conversations c, (select distinct kept from json_to_recordset(%(talks)s) as p (gone bigint, kept bigint)) k
    where c.id = k.kept and c.heard_at is not null and o.conversation_id = c.id and o.state = 'pending' and o.cold
    returning o.session_id)
update pace p set due_at = least(due_at, %(now)s) from warmed where p.session_id = warmed.session_id
