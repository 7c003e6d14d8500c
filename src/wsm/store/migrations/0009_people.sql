-- phase: before
-- Two contacts that turn out to be one person become one: the other, and its conversations, are kept as what their
-- numbers led to (merged_into: the one that is left, never one that went itself). Everything that hung on them hangs on
-- what is left; the audit, which nobody rewrites, tells which became which.
alter table contacts add column merged_into bigint, add foreign key (tenant_id, merged_into) references contacts;
alter table conversations
    add column merged_into bigint,
    add foreign key (tenant_id, merged_into) references conversations,
    drop constraint conversations_tenant_id_session_id_contact_id_key;
create unique index conversations_one on conversations (tenant_id, session_id, contact_id) where merged_into is null;
create index conversations_merged on conversations (tenant_id, merged_into) where merged_into is not null;
create index contacts_merged on contacts (tenant_id, merged_into) where merged_into is not null;

-- All the ids of one.
create index contact_aliases_of on contact_aliases (tenant_id, contact_id);

-- What was never claimed and is over is found by its conversation, too.
create index outbox_unsaid on outbox (tenant_id, conversation_id)
    where claimed_at is null and state not in ('pending', 'sending', 'indeterminate');
