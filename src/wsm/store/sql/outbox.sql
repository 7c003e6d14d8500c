-- name: evidence
-- The intents that own messages and acks among these ids tell of, in any state: an id that somebody has seen has
-- left, also where nothing was found or the time was over. And those in doubt that have no id, or one that nobody has
-- seen a file leave under.
select o.id, o.session_id, o.conversation_id, o.reserved_id, o.state, o.body, o.kind, o.intent
from json_to_recordset(%(seen)s) as e (session text, id text)
join sessions s on s.name = e.session
cross join lateral (
    select id, session_id, conversation_id, reserved_id, state, body, kind, class as intent from outbox
    where session_id = s.id and reserved_id = e.id offset 0) o
union all
select id, session_id, conversation_id, null, state, body, kind, class from outbox o
where state in ('sending', 'indeterminate')
  and (reserved_id is null or kind in ('image', 'file', 'voice', 'video')
       and exists (select from sessions s where s.id = o.session_id and not s.media_ids))
order by id

-- name: record_sent
-- It has left: the intent, what it told when it was claimed, and its row of history, unless its echo was there first.
with settled as (
    update outbox set state = 'sent', reason = null, reserved_id = %(bare_id)s, settled_at = %(now)s
    where id = %(id)s and state <> 'sent'
    returning session_id, conversation_id, ticket_id, class, place, word, claimed_at, body, args,
              case class when 'agent' then 'agent' else 'bot' end as author,
              case kind when 'file' then 'document' else kind end as kind),
told as (
    update tickets t
    set told_place = coalesce(settled.place, told_place),
        told_at = case when settled.place is null then told_at else settled.claimed_at end,
        told_updates = told_updates + case when settled.word in ('update', 'next') then 1 else 0 end,
        turn_told_at = case when settled.word in ('turn', 'turn_by') then settled.claimed_at else turn_told_at end,
        survey_until = case when settled.word = 'survey' then survey_until - survey_asked_at + settled.claimed_at
                            else survey_until end
    from settled
    where t.id = settled.ticket_id and settled.word is not null),
seen as (
    insert into inbound_dedupe (tenant_id, session_id, key, seen_at, message_month, message_id)
    select %(tenant)s, session_id, %(key)s, %(now)s, date_trunc('month', %(sent_at)s::timestamptz), nextval('message_ids')
    from settled
    on conflict do nothing
    returning message_id)
insert into messages (tenant_id, id, sent_at, session_id, conversation_id, ticket_id, author, kind, from_me, bare_id,
                      target_id, body, stamped_at_ms, entry_ms, entry_n)
select %(tenant)s, seen.message_id, %(sent_at)s, settled.session_id, settled.conversation_id, settled.ticket_id,
       settled.author, settled.kind, true, %(bare_id)s, settled.args ->> 'reply_to', settled.body, %(stamped_ms)s,
       %(stamped_ms)s, 0
from settled, seen

-- name: abandon
with abandoned as (
    update outbox set state = case when kind = any (%(again)s) then 'pending' else 'indeterminate' end,
                      not_before = %(now)s, reason = 'its worker is gone'
    where state = 'sending' and bell <> %(bell)s
    returning session_id)
update pace p set due_at = least(due_at, %(now)s) from abandoned a where p.session_id = a.session_id

-- name: expire
with over as (
    update outbox set state = 'failed', reason = 'expired', settled_at = %(now)s
    where id = any (array(select id from outbox where state in ('pending', 'indeterminate') and expires_at <= %(now)s
                          limit %(limit)s))
    returning class, kind)
select class as intent, kind, count(*) as ended from over group by class, kind

-- name: due_sessions
-- Whose time has come, or who has something to do and no time. pending: something to send that nothing before it in
-- its chat holds up. A session whose way out is a proxy waits (`held`) until it has one that came out where it
-- should: direct is no fall back. One that works with another number than its own waits until somebody confirms that.
select s.id, s.name, s.server, l.pool, l.identity,
       case when s.other_phone is not null then 'number' when s.exit_policy = 'proxy' and l.id is null then 'exit' end
           as held,
       exists (select from outbox o where o.session_id = s.id and o.state = 'indeterminate'
               and o.not_before <= %(now)s) as doubts,
       exists (select from outbox o where o.session_id = s.id and o.state = 'pending' and o.not_before <= %(now)s
               and not exists (select from outbox e where e.conversation_id = o.conversation_id
                               and (e.state in ('sending', 'indeterminate')
                                    or e.state = 'pending' and e.class = o.class and e.id < o.id))) as pending
from sessions s
left join pace p on p.session_id = s.id
left join proxy_leases l on s.exit_policy = 'proxy' and l.session_id = s.id and l.released_at is null
                        and l.verified_at is not null and l.trouble is null
where p.due_at <= %(now)s or p.due_at is null and exists (
    select from outbox o where o.session_id = s.id and o.state in ('pending', 'sending', 'indeterminate'))

-- name: next_pending
-- A session's pace, and of each class (to people who have written, and to those who never did) the first that may be
-- next: by when it may, in its chat in the order of writing; nothing while something is in flight, and nothing in a chat
-- with something in flight or in doubt. One row without an id where there is none.
-- (offset 0: each claim is looked up by its number, however many there are. between, and the class in the order: no
-- index but that of the heads has it, while by id alone the whole outbox looks cheap where much of it is pending.)
with p as materialized (
    select s.id as session, s.since_ms, s.engine, s.media_ids, n.locale, n.templates, n.time_zone as zone,
           %(now)s at time zone n.time_zone as local,
           coalesce(p.picks, 0) as picks, coalesce(p.replies, 0) as replies, coalesce(p.firsts, 0) as firsts,
           coalesce(p.total, 0) as total, p.next_at, p.next_first_at, p.warm_since, p.first_at, p.frozen_until,
           p.slowed_until,
           (%(curve)s::integer[])[1 + floor(extract(epoch from %(now)s - p.warm_since) / 86400)] as first_limit
    from sessions s
    join tenants n on n.tenant_id = s.tenant_id
    left join pace p on p.session_id = s.id
    where s.id = %(session)s)
select p.*,
       case when p.replies >= %(reply_minute)s::integer then (
           select claimed_at from outbox where session_id = p.session and budget = 'reply'
           and number > p.replies - %(reply_minute)s::integer order by number limit 1) end as reply_minute,
       case when p.replies >= %(reply_day)s::integer then (
           select claimed_at from outbox where session_id = p.session and budget = 'reply'
           and number > p.replies - %(reply_day)s::integer order by number limit 1) end as reply_day,
       case when p.firsts >= p.first_limit then (
           select claimed_at from outbox where session_id = p.session and budget = 'first'
           and number > p.firsts - p.first_limit order by number limit 1) end as first_day,
       case when p.total >= %(all_minute)s::integer then (
           select claimed_at from outbox where session_id = p.session
           and total > p.total - %(all_minute)s::integer order by total limit 1) end as all_minute,
       case when p.total >= %(all_hour)s::integer then (
           select claimed_at from outbox where session_id = p.session
           and total > p.total - %(all_hour)s::integer order by total limit 1) end as all_hour,
       case when p.total >= %(all_day)s::integer then (
           select claimed_at from outbox where session_id = p.session
           and total > p.total - %(all_day)s::integer order by total limit 1) end as all_day,
       t.typing, t.typing_ends,
       o.id, o.class as intent, o.cold, o.created_at, o.kind, o.args, o.body, o.ticket_id, o.conversation_id,
       o.reserved_id, o.attempts, o.typing_until, o.intent_key,
       case when coalesce(o.args ->> 'target', o.args ->> 'reply_to') is not null then (
           select json_build_object('bare', m.bare_id, 'from_me', m.from_me, 'participant', m.participant)
           from messages m where m.conversation_id = o.conversation_id
           and m.bare_id = coalesce(o.args ->> 'target', o.args ->> 'reply_to')
           and m.kind not in ('edit', 'revoke', 'reaction', 'vote') order by m.sent_at limit 1) end as target, c.chat_id, c.kind as chat_kind, c.heard_at, c.bot_paused_until,
       tk.state as ticket_state, tk.told_place, tk.told_at as place_told_at, tk.told_updates, tk.asked_at, tk.silence_at,
       tk.served_at, c.human_until, q.notices, q.hours, q.handle_seconds, q.handle_sample, q.slots_lately,
       (select name from agents where id = tk.agent_id) as agent,
       case when o.class = 'place' then (
           select case when count(*) = 0 then q.capacity
                       else coalesce(sum(a.capacity) filter (
                           where a.online and (a.queues is null or q.id = any (a.queues))), 0) end
           from agents a where a.removed_at is null) end as slots,
       case when tk.state = 'waiting' and o.class = 'place' then (
           select count(*) from tickets w where w.queue_id = tk.queue_id and w.state = 'waiting'
           and (w.rank_at, w.seq) <= (tk.rank_at, tk.seq)) end as place,
       w.opted_out_at is not null as opted_out,
       (select max(claimed_at) from outbox e where e.conversation_id = o.conversation_id and e.id <> o.id
        and e.total is not null and e.claimed_at > %(now)s - interval '1 day') as told_at,
       case when o.class not in ('agent', 'turn') then (
           select claimed_at from outbox e where e.conversation_id = o.conversation_id and e.id <> o.id
           and e.total is not null and e.claimed_at > %(now)s - interval '1 day' and e.class not in ('agent', 'turn')
           order by claimed_at desc offset %(contact_day)s::integer - 1 limit 1) end as automated_at,
       case when o.class = 'bot' then (
           select count(*) from outbox e where e.conversation_id = o.conversation_id and e.class = 'bot'
           and e.id <> o.id and e.claimed_at > %(now)s - %(loop)s::interval) else 0 end as said,
       case when o.class = 'bot' then (
           select count(*) from outbox e where e.conversation_id = o.conversation_id and e.class = 'bot'
           and e.id <> o.id and e.claimed_at > %(now)s - %(loop)s::interval and e.body = o.body and o.body <> '') else 0 end as repeated,
       case when o.body <> '' and (o.class = 'campaign' or o.cold and o.class in ('bot', 'survey')) then (
           select count(distinct conversation_id) from outbox e where e.session_id = p.session
           and md5(e.body) = md5(o.body) and e.claimed_at > %(now)s - interval '1 day'
           and e.budget in ('first', 'campaign') and e.conversation_id <> o.conversation_id) else 0 end as same_text
from p
left join lateral (
    select h.* from unnest(%(classes)s::text[]) k (class) cross join (values (false), (true)) x (cold)
    cross join lateral (
        select o.* from outbox o
        where o.session_id = p.session and o.state = 'pending' and o.class between k.class and k.class
          and o.cold = x.cold and o.not_before <= %(now)s and o.expires_at > %(now)s
          and not exists (select from outbox e where e.conversation_id = o.conversation_id
                          and e.state in ('sending', 'indeterminate'))
          and not exists (select from outbox e where e.conversation_id = o.conversation_id
                          and e.class = o.class and e.id < o.id and e.state = 'pending')
        order by o.class, o.not_before, o.id limit 1) h
    where not exists (select from outbox e where e.session_id = p.session and e.state = 'sending')) o on true
left join lateral (
    select count(*) as typing, min(typing_until) as typing_ends from outbox
    where session_id = p.session and state = 'pending' and typing_until > %(now)s) t on true
left join conversations c on c.id = o.conversation_id
left join contacts w on w.id = c.contact_id
left join tickets tk on tk.id = o.ticket_id
left join queues q on q.id = tk.queue_id

-- name: claim_intent
-- It goes under its number: of its budget, and of all. What is no message has none.
with paced as (
    insert into pace (tenant_id, session_id, picks, replies, firsts, campaigns, total, next_at, next_first_at,
                      warm_since, first_at, due_at)
    select %(tenant)s, %(session)s, 1, (b.budget = 'reply')::integer, (b.budget = 'first')::integer,
           (b.budget = 'campaign')::integer, 1, %(next_at)s, %(next_first_at)s::timestamptz,
           %(warm_since)s::timestamptz, case when b.budget = 'first' then %(now)s::timestamptz end, %(now)s
    from (select %(budget)s::text as budget) b where b.budget is not null
    on conflict (tenant_id, session_id) do update
    set picks = pace.picks + %(picked)s, replies = pace.replies + excluded.replies,
        firsts = pace.firsts + excluded.firsts, campaigns = pace.campaigns + excluded.campaigns,
        total = pace.total + 1, next_at = excluded.next_at,
        next_first_at = coalesce(excluded.next_first_at, pace.next_first_at),
        warm_since = coalesce(excluded.warm_since, pace.warm_since),
        first_at = coalesce(excluded.first_at, pace.first_at)
    returning total, case %(budget)s::text when 'reply' then replies when 'first' then firsts else campaigns end as number),
claimed as (
    update outbox set state = 'sending', bell = %(bell)s, claimed_at = %(now)s, attempts = attempts + 1,
                      not_before = %(look_again)s, reserved_id = %(reserved_id)s, chat_id = %(chat)s, body = %(body)s,
                      place = %(place)s, word = %(word)s, reason = null, budget = %(budget)s,
                      number = (select number from paced), total = (select total from paced)
    where id = %(id)s and state = 'pending'
    returning id, class, conversation_id, ticket_id)
insert into audit (tenant_id, at, what, conversation_id, ticket_id, detail)
select %(tenant)s, %(now)s, 'claimed.' || class, conversation_id, ticket_id,
       json_build_object('place', %(place)s::integer, 'intent', id, 'word', %(word)s::text)
from claimed

-- name: type_intent
-- Somebody is shown to type it; it leaves when that is done.
with typed as (
    update outbox set typing_until = %(until)s, not_before = %(until)s, reason = 'typing'
    where id = %(id)s and state = 'pending')
insert into pace (tenant_id, session_id, picks, due_at) values (%(tenant)s, %(session)s, 1, %(now)s)
on conflict (tenant_id, session_id) do update set picks = pace.picks + 1

-- name: put_off
update outbox set not_before = %(until)s, reason = %(reason)s where id = %(id)s and state = 'pending'

-- name: set_aside
update outbox set not_before = %(until)s, reason = %(reason)s, attempts = attempts + %(tried)s
where id = %(id)s and state = 'pending'

-- name: rest
-- Nothing more can be done for a session now: the next moment is that of its pace, or when something of it comes due;
-- an hour at most, so that what expires meanwhile is told.
update pace p
set due_at = soon.at,
    waits = case when soon.at is null then null when soon.at = %(until)s::timestamptz then %(waits)s else 'later' end
from (select least(%(until)s::timestamptz,
                   (select %(now)s::timestamptz from outbox where session_id = %(session)s
                    and state = 'indeterminate' and not_before <= %(now)s limit 1),
                   (select min(not_before) from outbox where session_id = %(session)s
                    and state in ('pending', 'sending', 'indeterminate') and not_before > %(now)s),
                   (select %(now)s::timestamptz + interval '1 hour' from outbox where session_id = %(session)s
                    and state in ('pending', 'sending', 'indeterminate') limit 1)) as at) soon
where p.session_id = %(session)s

-- name: hold
-- A session that may not act now: it is looked at again.
insert into pace (tenant_id, session_id, due_at, waits) values (%(tenant)s, %(session)s, %(until)s, %(waits)s)
on conflict (tenant_id, session_id) do update set due_at = excluded.due_at, waits = excluded.waits

-- name: prove_media_ids
update sessions set media_ids = true where id = %(session)s and not media_ids

-- name: refuse_intent
with refused as (
    update outbox set state = %(state)s, reason = %(reason)s, settled_at = %(now)s
    where id = %(id)s and state = 'pending' returning class, conversation_id, ticket_id)
insert into audit (tenant_id, at, what, conversation_id, ticket_id, detail)
select %(tenant)s, %(now)s, 'refused.' || class, conversation_id, ticket_id,
       json_build_object('intent', %(id)s::bigint, 'why', %(why)s::text) from refused

-- name: pause_bot
with paused as (
    update conversations set bot_paused_until = %(until)s
    where id = %(conversation)s and (bot_paused_until is null or bot_paused_until <= %(now)s)
    returning id)
insert into audit (tenant_id, at, what, conversation_id, detail)
select %(tenant)s, %(now)s, 'bot.paused', id, json_build_object('until', %(until)s::timestamptz) from paused

-- name: freeze
-- What is known longer than this changes nothing, and is told once.
with frozen as (
    insert into pace (tenant_id, session_id, frozen_until, frozen_why, slowed_until)
    values (%(tenant)s, %(session)s, %(until)s, %(why)s, %(slowed_until)s::timestamptz)
    on conflict (tenant_id, session_id) do update
    set frozen_until = excluded.frozen_until, frozen_why = excluded.frozen_why,
        slowed_until = greatest(pace.slowed_until, excluded.slowed_until)
    where pace.frozen_until is null or pace.frozen_until < excluded.frozen_until - interval '1 minute'
       or pace.slowed_until is distinct from greatest(pace.slowed_until, excluded.slowed_until)
    returning session_id)
insert into audit (tenant_id, at, what, detail)
select %(tenant)s, %(now)s, 'session.frozen', json_build_object('session', s.name, 'why', %(why)s::text,
       'until', %(until)s::timestamptz)
from frozen f join sessions s on s.id = f.session_id

-- name: drop_intent
update outbox set state = 'dropped', reason = %(reason)s, settled_at = %(now)s where id = %(id)s

-- name: intent_for_settling
select state, attempts from outbox where id = %(id)s

-- name: drop_merged
update outbox later set state = 'dropped', reason = 'told by an earlier one', settled_at = %(now)s
from outbox o
where o.id = %(id)s and o.class in ('place', 'turn') and later.class = o.class and later.ticket_id = o.ticket_id
  and later.id <> o.id and later.state = 'pending'

-- name: settle_intent
with settled as (
    update outbox set state = %(state)s, reason = %(reason)s, not_before = coalesce(%(not_before)s, not_before),
                      settled_at = case when %(state)s in ('failed', 'sent') then %(now)s end
    where id = %(id)s
    returning session_id, not_before)
update pace p set due_at = least(due_at, settled.not_before) from settled where p.session_id = settled.session_id

-- name: doubtful_due
select o.id, o.session_id, s.name as session, s.server, o.chat_id, o.class as intent, o.body, o.reserved_id,
       o.claimed_at, o.attempts, o.kind, s.engine, s.media_ids
from outbox o join sessions s on s.id = o.session_id
where o.session_id = %(session)s and o.state = 'indeterminate' and o.not_before <= %(now)s
order by o.id limit 20

-- name: postpone
-- The session waits, and not each of its messages; the first hundred say why.
with said as (
    update outbox set reason = %(reason)s
    where id in (select id from outbox where session_id = %(session)s and state = 'pending' and not_before <= %(now)s
                 order by not_before limit 100) and reason is distinct from %(reason)s)
update pace set due_at = %(until)s, waits = 'away' where session_id = %(session)s

-- name: uncount
-- Nobody heard of an attempt: its number is the next one's, unless another has been given since.
with its as (
    select session_id, budget, number, total from outbox where id = %(id)s),
back as (
    update pace p set total = p.total - 1, replies = p.replies - (its.budget = 'reply')::integer,
                      firsts = p.firsts - (its.budget = 'first')::integer,
                      campaigns = p.campaigns - (its.budget = 'campaign')::integer
    from its
    where p.session_id = its.session_id and p.total = its.total
      and its.number = case its.budget when 'reply' then p.replies when 'first' then p.firsts else p.campaigns end
    returning p.session_id)
update outbox set budget = null, number = null, total = null from back where id = %(id)s

-- name: known_keys
select key from inbound_dedupe where session_id = %(session)s and key = any (%(keys)s)
