-- phase: before
-- An agent who was removed keeps his row: tickets that he served name him.
alter table agents add column removed_at timestamptz;
