-- phase: after
alter table proxy_leases drop column proxy_id;
drop table proxies;
