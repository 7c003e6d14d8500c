"""Pasts of sessions: weeks of messages, written into the history at once."""

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


def fill(
    urls: Urls,
    its: SessionAddress,
    *,
    days: float = 35,
    until: datetime,
    every: timedelta = QUARTER,
    from_me: bool = False,
) -> None:
    """Let a session have a past of messages."""
    since = until - timedelta(days=days)
    with psycopg.connect(urls.owner_url, autocommit=True) as owner:
        owner.execute("set search_path = wsm")
        for month in {
            since.date().replace(day=1),
            until.date().replace(day=1),
            (since + timedelta(15)).date(),
        }:
            owner.execute("select ensure_month(%s)", (month,))
        values = {"tenant": its.tenant, "session": its.session, "since": since, "until": until}
        owner.execute(_FILL.encode(), {**values, "every": every, "from_me": from_me})
