-- name: own_session
-- A lease that ran out is anybody's; each taking has an epoch of its own.
insert into session_owner as o (tenant_id, session_id, owner, until)
values (%(tenant)s, %(session)s, %(owner)s, clock_timestamp() + %(seconds)s * interval '1 second')
on conflict (tenant_id, session_id) do update
    set owner = excluded.owner, epoch = o.epoch + 1, until = excluded.until
    where o.until <= clock_timestamp()
returning epoch

-- name: keep_session
update session_owner set until = clock_timestamp() + %(seconds)s * interval '1 second'
where session_id = %(session)s and epoch = %(epoch)s and until > clock_timestamp()

-- name: leave_session
update session_owner set until = clock_timestamp() where session_id = %(session)s and epoch = %(epoch)s
