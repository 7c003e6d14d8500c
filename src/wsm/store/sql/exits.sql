-- name: lock_session
select exit_pool from sessions where id = %(session)s for no key update

-- name: take_lease
insert into proxy_leases (tenant_id, session_id, pool, identifier, identity, leased_at)
values (%(tenant)s, %(session)s, %(pool)s, %(identifier)s, %(identity)s, %(now)s)
on conflict do nothing

-- name: lease
select id, session_id, pool, identifier, identity, host(exit_ip) as address, country, verified_at, trouble
from proxy_leases where session_id = %(session)s and released_at is null

-- name: judge_lease
update proxy_leases set exit_ip = %(address)s, country = %(country)s, trouble = %(trouble)s, verified_at = %(now)s
where id = %(id)s and released_at is null

-- name: fail_lease
update proxy_leases set trouble = 'dead', verified_at = %(now)s where id = %(id)s and released_at is null

-- name: release_lease
update proxy_leases set released_at = %(now)s where session_id = %(session)s and released_at is null

-- name: quarantine_lease
update proxy_leases set quarantined_until = %(until)s, trouble = 'quarantined'
where id = (select max(id) from proxy_leases where session_id = %(session)s and exit_ip is not null)
returning host(exit_ip) as address

-- name: quarantined
select from proxy_leases where exit_ip = %(address)s and quarantined_until > %(now)s limit 1

-- name: leases
select identifier, pool, host(exit_ip) as address, country, trouble, leased_at, verified_at, released_at
from proxy_leases where session_id = %(session)s order by id
