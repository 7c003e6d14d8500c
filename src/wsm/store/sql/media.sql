-- name: put_media
-- The same content is one row, under the number that it had.
insert into media (tenant_id, sha256, mimetype, filename, bytes, content, created_at, used_at)
values (%(tenant)s, %(sha256)s, %(mimetype)s, %(filename)s, octet_length(%(content)s::bytea), %(content)s, %(now)s,
        %(now)s)
on conflict (tenant_id, sha256) do update set used_at = excluded.used_at
returning id

-- name: measure_media
select mimetype, bytes from media where id = %(id)s

-- name: take_media
update media set used_at = %(now)s where id = %(id)s returning mimetype, filename, content

-- name: show_media
select id, mimetype, filename, bytes, created_at, used_at from media order by id

-- name: purge_media
delete from media m using (
    select tenant_id, id from media where used_at < %(before)s limit %(limit)s) old
where m.tenant_id = old.tenant_id and m.id = old.id
