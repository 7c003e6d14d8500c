"""Sessions as they are looked after: what was seen of them, what was done, and what a person should know."""

from datetime import datetime
from typing import Any

from wsm.core.ids import SessionAddress
from wsm.core.moments import milliseconds
from wsm.core.mute import PAST, Past, past, quarter, start_of
from wsm.store.database import Database


async def every(system: Database) -> list[Any]:
    """Every session: tenant_id, id, name, server, kid, generations, phone, other_phone, desired, observed,
    since_ms, engine, exit_pool, dropped_ms, heard_ms, caught_up_ms, repairs, repaired_at, alarm."""
    async with system.transaction() as transaction:
        return await transaction.rows("watched")


async def observe(
    database: Database, address: SessionAddress, session: int, status: str, engine: str | None, now: datetime
) -> None:
    """Remember the status that a gateway was asked for at `now`, unless a newer one is known."""
    async with database.transaction(address.tenant, now) as transaction:
        await transaction.run(
            "observe_session",
            session=session,
            status=status,
            at_ms=milliseconds(now),
            engine=engine,
            returned=False,
        )


async def learn_phone(database: Database, address: SessionAddress, session: int, phone: str) -> None:
    """Remember the number that a session works with: its own if it had none, else as the other one."""
    async with database.transaction(address.tenant) as transaction:
        await transaction.run("learn_phone", session=session, phone=phone)


async def note_repair(
    database: Database,
    address: SessionAddress,
    session: int,
    *,
    epoch: int,
    repairs: int,
    desired: str,
    now: datetime,
) -> bool:
    """Count a step that is about to be taken.

    False when it must not be: somebody else took one meanwhile (`repairs` is how many there were), the lease
    `epoch` has ended, or the session should be something else than `desired` by now.
    """
    values = {"session": session, "epoch": epoch, "repairs": repairs, "desired": desired}
    async with database.transaction(address.tenant, now) as transaction:
        return bool(await transaction.run("note_repair", **values))


async def forget_repairs(database: Database, address: SessionAddress, session: int, repairs: int) -> None:
    """Forget what was done, unless more has been done since."""
    async with database.transaction(address.tenant) as transaction:
        await transaction.run("forget_repairs", session=session, repairs=repairs)


async def set_alarm(
    database: Database, address: SessionAddress, session: int, alarm: str | None, now: datetime
) -> None:
    """Keep what a person should know, None when all is well; a change is a line of the tenant's audit."""
    async with database.transaction(address.tenant, now) as transaction:
        await transaction.run("set_alarm", session=session, alarm=alarm)


async def last_heard(
    database: Database, address: SessionAddress, session: int, now: datetime
) -> datetime | None:
    """Return when a customer last wrote to a session; None when nobody did as far back as `core.mute` looks.

    Takes a millisecond, but beside another session of the tenant that hears much as long as `past_of`.
    """
    async with database.transaction(address.tenant) as transaction:
        row = await transaction.row("last_heard", session=session, since=now - PAST)
    last: datetime | None = row and row.sent_at
    return last


async def past_of(database: Database, address: SessionAddress, session: int, now: datetime) -> Past:
    """Read in which quarters of an hour a customer wrote to a session, as far back as `core.mute` looks.

    Takes 5 to 30 ms, with 10^4 as with 10^6 messages of the tenant; a session that hears little beside one
    that hears much costs the reading of all that the other heard, 20 ms for 10^5.
    """
    since = quarter(now - PAST)
    async with database.transaction(address.tenant) as transaction:
        row = await transaction.row(
            "heard_quarters", session=session, since=start_of(since), quarters=quarter(now) - since
        )
    return past(since, (row and row.heard) or ())


async def caught_up(database: Database, address: SessionAddress, session: int, since_ms: int) -> None:
    """Remember that what was missed before the WORKING of `since_ms` has been fetched."""
    async with database.transaction(address.tenant) as transaction:
        await transaction.run("caught_up", session=session, since_ms=since_ms)
