-- name: heard
select heard_ms, engine from sessions where id = %(id)s

-- name: hear
-- Not while something missed is still to be fetched: it is fetched from this mark on.
update sessions set heard_ms = %(at_ms)s where id = %(id)s and heard_ms < %(at_ms)s and caught_up_ms >= since_ms

-- name: heard_all
update sessions set heard_ms = %(at_ms)s where id = %(id)s and heard_ms < %(at_ms)s
