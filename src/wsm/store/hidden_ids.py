"""Whose other id is missing: people whom a session knows by a phone alone, or by a hidden id alone."""

from collections.abc import Collection
from datetime import datetime, timedelta

import msgspec

from wsm.core.ids import ChatId, SessionAddress
from wsm.store.database import Database

_LOOKED_AT = 200
"""So many are looked at with one query; most are known by both ids and settled for ever."""


class Unknown(msgspec.Struct, frozen=True):
    """A conversation whose correspondent has one id only: exactly one of the two is None."""

    conversation: int
    lid: ChatId | None
    phone: ChatId | None


async def to_ask(
    database: Database, address: SessionAddress, session: int, now: datetime, *, most: int
) -> list[Unknown]:
    """List whose other id may be asked for now, the newest first, `most` at most.

    Who is known by both, or is no person, is not looked at again. Takes a millisecond where nobody is due,
    and a few where 200 are, however many conversations the session has.
    """
    async with database.transaction(address.tenant, now) as transaction:
        rows = await transaction.rows("ids_to_ask", session=session, limit=_LOOKED_AT)
        settled = [row.id for row in rows if (row.lid is None) == (row.phone is None)]
        if settled:
            transaction.later("ids_asked", settled=settled, asked=[], at_least=None, at_most=None)
    unknown = [
        Unknown(row.id, row.lid, row.phone) for row in rows if (row.lid is None) != (row.phone is None)
    ]
    return unknown[:most]


async def asked(
    database: Database,
    address: SessionAddress,
    conversations: Collection[int],
    now: datetime,
    *,
    at_least: timedelta,
    at_most: timedelta,
) -> None:
    """Remember that these were asked for. Again after as long as each was unknown, within these bounds."""
    async with database.transaction(address.tenant, now) as transaction:
        transaction.later(
            "ids_asked", settled=[], asked=list(conversations), at_least=at_least, at_most=at_most
        )
