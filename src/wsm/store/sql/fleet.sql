-- name: add_server
insert into waha_servers (name) values (%(name)s) on conflict do nothing

-- name: add_tenant
insert into tenants (tenant_id, name, locale) values (%(tenant)s, %(name)s, %(locale)s) on conflict do nothing

-- name: add_queue
insert into queues (tenant_id, capacity) values (%(tenant)s, %(capacity)s) on conflict do nothing

-- name: set_queue
-- What is null stays as it is; 0 takes a limit away.
insert into queues as q (tenant_id, name, capacity, ageing_minutes, max_length, max_wait_minutes, reopen_hours,
                         pull, keeps)
values (%(tenant)s, %(queue)s, coalesce(%(capacity)s::integer, 1), coalesce(%(ageing_minutes)s::integer, 15),
        nullif(%(max_length)s::integer, 0), nullif(%(max_wait_minutes)s::integer, 0),
        coalesce(%(reopen_hours)s::integer, 24), coalesce(%(pull)s::boolean, false), coalesce(%(keeps)s::boolean, true))
on conflict (tenant_id, name) do update
set capacity = coalesce(%(capacity)s, q.capacity), ageing_minutes = coalesce(%(ageing_minutes)s, q.ageing_minutes),
    max_length = nullif(coalesce(%(max_length)s, q.max_length), 0),
    max_wait_minutes = nullif(coalesce(%(max_wait_minutes)s, q.max_wait_minutes), 0),
    reopen_hours = coalesce(%(reopen_hours)s, q.reopen_hours), pull = coalesce(%(pull)s, q.pull),
    keeps = coalesce(%(keeps)s, q.keeps)

-- name: set_entrance
update sessions set queue_id = (select id from queues where tenant_id = %(tenant)s and name = %(queue)s)
where tenant_id = %(tenant)s and name = %(session)s

-- name: add_session
insert into sessions (tenant_id, server, name, alias, kid, exit_policy, exit_pool, phone, desired)
values (%(tenant)s, %(server)s, %(name)s, %(alias)s, %(kid)s, %(exit_policy)s, %(exit_pool)s, %(phone)s,
        %(desired)s)

-- name: desire
-- A session that was retired runs with the next generation of its secret.
update sessions
set desired = %(desired)s, repairs = 0, repaired_at = null, alarm = null,
    generations = case when %(desired)s = 'running' and not 0 < any (generations)
                  then array[1 - (select min(g) from unnest(generations) g)] else generations end
where tenant_id = %(tenant)s and id = %(id)s

-- name: retire
-- What it has signed until now is refused from the next directory on; the negative number is not forgotten.
update sessions set generations = array[-(select max(g) from unnest(generations) g)]
where tenant_id = %(tenant)s and id = %(id)s and 0 < any (generations)

-- name: set_text
update tenants
set templates = case when %(text)s::text is null then templates - %(name)s::text
                     else templates || jsonb_build_object(%(name)s::text, %(text)s::text) end
where tenant_id = %(tenant)s

-- name: texts
select locale, time_zone, templates, bot from tenants where tenant_id = %(tenant)s

-- name: set_notices
update queues set notices = %(notices)s::jsonb where tenant_id = %(tenant)s

-- name: set_zone
update tenants set time_zone = %(zone)s where tenant_id = %(tenant)s

-- name: set_bot
update tenants set bot = %(bot)s::jsonb where tenant_id = %(tenant)s

-- name: tenants
select t.tenant_id, t.name, count(s.id) as sessions from tenants t
left join sessions s on s.tenant_id = t.tenant_id
group by t.tenant_id, t.name
order by t.tenant_id

-- name: directory
select tenant_id, name, server, kid, generations, phone from sessions where 0 < any (generations)
order by tenant_id, name

-- name: due_tenants
-- By the index on due_at alone: whoever waits costs nothing.
select tenant_id, min(due_at) as oldest, count(*) as sessions from pace where due_at <= %(now)s group by tenant_id

-- name: forgotten_tenants
-- Who has something to say and no time to be looked at: a bell finds it.
select distinct s.tenant_id from sessions s
left join pace p on p.tenant_id = s.tenant_id and p.session_id = s.id
where p.due_at is null and exists (
    select from outbox o where o.tenant_id = s.tenant_id and o.session_id = s.id
    and o.state in ('pending', 'sending', 'indeterminate'))

-- name: waiting_sessions
select waits, count(*) as sessions from pace where due_at is not null and waits is not null group by waits

-- name: frozen_sessions
select frozen_why as why, count(*) as sessions from pace where frozen_until > %(now)s group by frozen_why

-- name: due_timers
select t.tenant_id, t.id, t.kind, t.due_at, s.name as session
from ((select tenant_id, id, kind, due_at from timers where rung_at is null and due_at <= %(now)s
       order by due_at limit %(limit)s)
      union all
      (select tenant_id, id, kind, due_at from timers where rung_at <= %(again)s order by rung_at limit %(limit)s)) t
cross join lateral (select name from sessions where tenant_id = t.tenant_id order by id limit 1) s
order by t.due_at, t.id limit %(limit)s

-- name: mark_rung
update timers t set rung_at = %(now)s
from unnest(%(tenants)s::bigint[], %(ids)s::bigint[]) as r (tenant, id)
where t.tenant_id = r.tenant and t.id = r.id and t.due_at <= %(now)s

-- name: timers_waiting
select count(*) as timers, min(due_at) as oldest
from (select due_at from timers where due_at <= %(now)s and rung_at is null order by due_at limit 10000) t

-- name: purge_dedupe
delete from inbound_dedupe d using (
    select tenant_id, session_id, key from inbound_dedupe where seen_at < %(before)s limit %(limit)s) old
where d.tenant_id = old.tenant_id and d.session_id = old.session_id and d.key = old.key
