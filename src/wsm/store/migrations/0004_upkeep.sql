-- phase: before
-- What is known of a session by those who look after it. since_ms: since when it says what it says (a repeat of the
-- same status is no change); dropped_ms: when it last left WORKING, the newest ten; heard_ms: the newest message that
-- came in through it; caught_up_ms: the since_ms of the WORKING for which what was missed has been fetched;
-- other_phone: the number that it works with although `phone` is another one: nothing leaves until somebody
-- confirms it.
alter table sessions
    add column since_ms     bigint not null default 0,
    add column dropped_ms   bigint[] not null default '{}',
    add column heard_ms     bigint not null default 0,
    add column caught_up_ms bigint not null default 0,
    add column other_phone  text,
    add column repairs      integer not null default 0,
    add column repaired_at  timestamptz,
    add column alarm        text;
grant update (since_ms, dropped_ms, heard_ms, caught_up_ms, other_phone, repairs, repaired_at, alarm)
    on sessions to wsm_app;

-- An exit through which nothing could be reached at the last look.
alter table proxy_leases
    drop constraint proxy_leases_trouble_check,
    add constraint proxy_leases_trouble_check
        check (trouble in ('drift', 'wrong_country', 'shared', 'quarantined', 'dead'));
