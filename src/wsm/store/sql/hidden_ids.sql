-- name: ids_to_ask
-- Whose other id may be asked for now, the newest first: with one that is known of each kind. Who is nobody to ask
-- for, or is known by both, is among them, to be settled.
select c.id, h.alias as lid, p.alias as phone
from (select id, case when kind = 'direct' and merged_into is null then contact_id end as contact_id, ask_ids_at
      from conversations
      where session_id = %(session)s and ask_ids_at <= %(now)s
      order by ask_ids_at desc, id desc limit %(limit)s) c
left join lateral (select alias from contact_aliases where contact_id = c.contact_id and alias like '%%@lid'
                   order by alias limit 1) h on true
left join lateral (select alias from contact_aliases where contact_id = c.contact_id and alias like '%%@c.us'
                   order by alias limit 1) p on true
order by c.ask_ids_at desc, c.id desc

-- name: ids_asked
-- Asked again after a day, then ever more rarely: after as long as it has been unknown. Whoever a turn holds just now
-- is left as he is, and comes up again; waiting for him could meet that turn waiting for us.
update conversations c
set ask_ids_at = case when c.id = any (%(settled)s::bigint[]) then null
                      else %(now)s + least(greatest(%(at_least)s, %(now)s - c.created_at), %(at_most)s) end
where c.id in (select id from conversations where id = any (%(settled)s::bigint[] || %(asked)s::bigint[])
               for no key update skip locked)
