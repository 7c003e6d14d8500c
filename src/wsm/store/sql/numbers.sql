-- name: lock_placement
-- Who places a session sees all that were placed before.
select pg_advisory_xact_lock(-4)

-- name: sessions_by_server
select server, count(*) as sessions from sessions group by server

-- name: confirm_phone
update sessions set phone = other_phone, other_phone = null
where tenant_id = %(tenant)s and id = %(id)s and other_phone = %(phone)s

-- name: own_message
-- How far an own message got: whether its echo or an ack came back as a webhook, and the highest level.
select exists (select from inbound_dedupe where session_id = %(session)s and key = %(key)s)
           or exists (select from message_acks where session_id = %(session)s and from_me and bare_id = %(bare_id)s)
           as heard,
       (select max(level) from message_acks where session_id = %(session)s and from_me and bare_id = %(bare_id)s
        and level >= 0) as level,
       exists (select from message_acks where session_id = %(session)s and from_me and bare_id = %(bare_id)s
               and level < 0) as refused
