-- phase: before
-- ask_ids_at: from when on its gateway is asked for the id of its correspondent that is missing, the phone's or the
-- hidden one; null: both are known, or there are none. Those that there are may be asked for at once.
alter table conversations add column ask_ids_at timestamptz default now();
create index conversations_ask_ids on conversations (tenant_id, session_id, ask_ids_at) where ask_ids_at is not null;
