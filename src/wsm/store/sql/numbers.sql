-- name: lock_placement
-- Who places a session sees all that were placed before.
select pg_advisory_xact_lock(-4)

-- name: sessions_by_server
-- Without those that were deleted at their gateway.
select server, count(*) as sessions from sessions where 0 < any (generations) group by server

-- name: confirm_phone
update sessions set phone = other_phone, other_phone = null
where tenant_id = %(tenant)s and id = %(id)s and other_phone = %(phone)s

-- name: own_message
-- How far an own message got: whether its echo or an ack came back as a webhook, and the highest level.
select a.acks > 0 or exists (select from inbound_dedupe where session_id = s.id and key = %(key)s) as heard,
       a.level, a.refused
from sessions s
cross join lateral (
    select count(*) as acks, max(level) filter (where level >= 0) as level, coalesce(bool_or(level < 0), false) as refused
    from message_acks where session_id = s.id and from_me and bare_id = %(bare_id)s) a
where s.id = %(session)s
