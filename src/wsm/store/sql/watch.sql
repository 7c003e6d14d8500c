-- name: watched
-- Every session, as those see it who look after all of them.
select tenant_id, id, name, server, kid, generations, phone, other_phone, desired, observed, since_ms, engine,
       exit_pool, dropped_ms, heard_ms, caught_up_ms, repairs, repaired_at, alarm
from sessions order by tenant_id, id

-- name: note_repair
-- Counted before it is done, and only by who may do it: a step that its doer did not survive is counted as well.
update sessions s set repairs = s.repairs + 1, repaired_at = %(now)s
from session_owner o
where s.id = %(session)s and s.repairs = %(repairs)s and s.desired = %(desired)s
  and o.session_id = s.id and o.epoch = %(epoch)s and o.until > clock_timestamp()

-- name: forget_repairs
update sessions set repairs = 0, repaired_at = null where id = %(session)s and repairs = %(repairs)s

-- name: set_alarm
with told as (
    update sessions set alarm = %(alarm)s where id = %(session)s and alarm is distinct from %(alarm)s
    returning name)
insert into audit (tenant_id, at, what, detail)
select %(tenant)s, %(now)s, 'session.' || coalesce(%(alarm)s, 'well'), json_build_object('session', name) from told

-- name: learn_phone
-- The first number that it works with is its own; another one waits for a person.
update sessions
set phone = coalesce(phone, %(phone)s), other_phone = case when phone <> %(phone)s then %(phone)s end
where id = %(session)s
  and (phone is null or other_phone is distinct from case when phone <> %(phone)s then %(phone)s end)

-- name: caught_up
update sessions set caught_up_ms = %(since_ms)s where id = %(session)s

-- name: last_heard
select sent_at from messages where session_id = %(session)s and not from_me and sent_at >= %(since)s
order by sent_at desc limit 1

-- name: heard_quarters
-- For each quarter the first row that fits, by the key (tenant_id, sent_at): as many short looks as there are
-- quarters, however many messages. (limit 1: as a mere `exists` all of them are read and joined.)
select array_agg(n) as heard from generate_series(0, %(quarters)s - 1) n
cross join lateral (
    select from messages
    where session_id = %(session)s and not from_me
      and sent_at >= %(since)s::timestamptz + n * interval '15 minutes'
      and sent_at < %(since)s::timestamptz + (n + 1) * interval '15 minutes'
    limit 1) heard
