"""A past of messages for a session: as many as it takes to have habits."""

from datetime import datetime, timedelta

import psycopg

from databases import Database as Urls
from wsm.core.ids import SessionAddress
from wsm.core.mute import QUARTER

_FILL = """
with known as (
    insert into contacts (tenant_id, name) values (%(tenant)s, 'Ana') returning id),
talk as (
    insert into conversations (tenant_id, session_id, contact_id, chat_id, kind)
    select %(tenant)s, s.id, known.id, 'ana@c.us', 'direct' from known, sessions s where s.name = %(session)s
    returning id, session_id)
insert into messages (tenant_id, sent_at, session_id, conversation_id, author, kind, from_me, bare_id,
                      stamped_at_ms, entry_ms, entry_n)
select %(tenant)s, at, talk.session_id, talk.id, 'customer', 'text', %(from_me)s, at::text, 0, 0, 0
from talk, generate_series(%(since)s, %(until)s::timestamptz, %(every)s) at
"""


_MONTHS = """
select ensure_month(at::date) from generate_series(date_trunc('month', %(since)s), %(until)s, '1 month') at
"""
_HEARD = "update sessions set heard_ms = extract(epoch from %(until)s) * 1000 where name = %(session)s"


def fill(
    urls: Urls,
    its: SessionAddress,
    until: datetime,
    *,
    days: float = 35,
    every: timedelta = QUARTER,
    from_me: bool = False,
) -> None:
    """Let messages have come in through a session until a moment, regularly, and be its newest ones."""
    values = {
        "tenant": its.tenant, "session": its.session, "since": until - timedelta(days=days), "until": until,
        "every": every, "from_me": from_me,
    }  # fmt: skip
    with psycopg.connect(urls.owner_url, autocommit=True) as owner:
        owner.execute("set search_path = wsm")
        for statement in (_MONTHS, _FILL, _HEARD):
            owner.execute(statement.encode(), values)
