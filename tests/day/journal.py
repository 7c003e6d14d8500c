"""What PostgreSQL itself writes down of a day: every ticket's, agent's and claim's change, in its order.

Triggers write it in the very transactions that change the rows. All of these hold the tenant's lock from
their first read to their COMMIT, so the numbers give the order in which one tenant's changes counted; `tx`
says which of them became true in the same moment. wsm knows nothing of it.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import psycopg
from psycopg.rows import namedtuple_row

_INSTALL = """
create schema judge;
create table judge.journal (
    n bigint generated always as identity primary key, tx bigint not null, tenant bigint not null,
    what text not null, row jsonb not null);
create function judge.note() returns trigger language plpgsql security definer as $$
begin
    insert into judge.journal (tx, tenant, what, row)
    values (pg_current_xact_id()::text::bigint, new.tenant_id, tg_argv[0], to_jsonb(new) - 'raw');
    return null;
end $$;
grant usage on schema judge to wsm_app, wsm_system;
grant execute on function judge.note() to wsm_app, wsm_system;
create trigger judge_opened after insert on wsm.tickets for each row execute function judge.note('ticket');
create trigger judge_moved after update on wsm.tickets for each row
    when ((old.state, old.queue_id, old.agent_id, old.level, old.entered_at, old.ended)
          is distinct from (new.state, new.queue_id, new.agent_id, new.level, new.entered_at, new.ended))
    execute function judge.note('ticket');
create trigger judge_claimed after update on wsm.outbox for each row
    when (new.state = 'sending' and new.attempts > old.attempts) execute function judge.note('claim');
create trigger judge_agent after insert or update on wsm.agents for each row
    execute function judge.note('agent');
create trigger judge_audit after insert on wsm.audit for each row
    when (new.what like 'ticket.%' or new.what like 'agent.%') execute function judge.note('audit');
"""


class Note(msgspec.Struct, frozen=True):
    """A row as it became. what: `ticket`, `claim`, `agent` or `audit`."""

    n: int
    tx: int
    tenant: int
    what: str
    row: Mapping[str, Any]


async def install(owner_url: str) -> None:
    """Begin to write."""
    async with await psycopg.AsyncConnection.connect(owner_url, autocommit=True) as connection:
        await connection.execute(_INSTALL.encode())


async def notes(owner_url: str) -> list[Note]:
    """Read all of it, in its order."""
    async with await psycopg.AsyncConnection.connect(owner_url, row_factory=namedtuple_row) as connection:
        rows = await (
            await connection.execute("select n, tx, tenant, what, row from judge.journal order by n")
        ).fetchall()
    return [Note(*row) for row in rows]
