"""What crosses tenants, under the role `wsm_system`: provisioning, the directory, due work, the purge."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import psycopg

from wsm.core import hours, templates
from wsm.core.bot import Bot
from wsm.core.errors import BadInput, NotFound
from wsm.core.ids import ServerName, SessionAddress, TenantId
from wsm.core.notices import Policy
from wsm.core.placement import choose
from wsm.store.database import Database, Transaction

_RING_AGAIN = timedelta(hours=1)
_NAME_CHARACTERS = 60
QUEUE_VALUES = {
    "capacity": (0, 1_000_000),
    "ageing_minutes": (1, 10_080),
    "max_length": (0, 10_000),
    "max_wait_minutes": (0, 10_080),
    "reopen_hours": (0, 720),
    "pull": (False, True),
    "keeps": (False, True),
}
"""What may be said of a queue, and the bounds."""


async def add_tenant(database: Database, tenant: TenantId, *, name: str, locale: str, capacity: int) -> None:
    """Make a tenant with one queue of `capacity`. Safe to repeat. BadInput names a bad field."""
    if tenant <= 0 or tenant >= 2**63:
        raise BadInput("tenant", "a positive number below 2^63")
    if not 0 <= capacity < 2**31:
        raise BadInput("capacity", "how many customers are served at a time, at least 0")
    if locale not in {"pt-BR", "en"}:
        raise BadInput("locale", "`pt-BR` or `en`")
    async with database.transaction() as transaction:
        await transaction.run("add_tenant", tenant=tenant, name=name, locale=locale)
        await transaction.run("add_queue", tenant=tenant, capacity=capacity)


async def set_queue(
    database: Database,
    tenant: TenantId,
    queue: str,
    sessions: Sequence[str] = (),
    **values: int | bool | None,
) -> None:
    """Make a queue, or change what is not None of it, under the tenant's lock. BadInput names a bad value.

    sessions  whose customers enter here from now on
    values    of QUEUE_VALUES; 0 takes a limit away

    Whoever can be called by it is called by the tenant's next turn.
    """
    if not 1 <= len(queue) <= _NAME_CHARACTERS:
        raise BadInput("queue", f"a name of {_NAME_CHARACTERS} characters at most")
    for name, (least, most) in QUEUE_VALUES.items():
        value = values.setdefault(name, None)
        if value is not None and not least <= value <= most:
            raise BadInput(name, f"from {least} to {most}")
    async with database.transaction() as transaction:
        transaction.later("lock_lane", tenant=tenant)
        try:
            await transaction.run("set_queue", tenant=tenant, queue=queue, **values)
        except psycopg.errors.ForeignKeyViolation:
            raise BadInput("tenant", f"there is no tenant {tenant}") from None
        for session in sessions:
            if not await transaction.run("set_entrance", tenant=tenant, queue=queue, session=session):
                raise BadInput("session", f"tenant {tenant} has no session {session}")


async def add_session(
    database: Database,
    address: SessionAddress,
    *,
    server: ServerName,
    alias: str,
    kid: str,
    phone: str | None = None,
    exit_pool: str | None = None,
    desired: str = "running",
) -> None:
    """Make a session on a server. BadInput when the name is taken.

    exit_pool  where its exits come from; None: its way out is direct, which is a choice and never a fall back
    """
    with _session_refused(address):
        async with database.transaction() as transaction:
            await _insert_session(transaction, address, server, alias, kid, exit_pool, desired, phone)


async def place_session(
    database: Database,
    address: SessionAddress,
    *,
    server: ServerName | None,
    capacities: Mapping[ServerName, int],
    alias: str,
    kid: str,
    exit_pool: str | None = None,
    desired: str = "running",
) -> ServerName:
    """Make a session on a server, and return which: as `core.placement.choose` says. It stays there.

    Placements are made one after the other, so none puts a server above its capacity. Stopped sessions count,
    for they may start; deleted ones do not, and one that is started again returns to its server all the same.
    BadInput when there is no room or the name is taken.
    """
    with _session_refused(address):
        async with database.transaction() as transaction:
            transaction.later("lock_placement")
            rows = await transaction.rows("sessions_by_server")
            used = {ServerName(row.server): row.sessions for row in rows}
            chosen = choose(capacities, used, named=server)
            await _insert_session(transaction, address, chosen, alias, kid, exit_pool, desired, None)
    return chosen


async def confirm_phone(database: Database, tenant: TenantId, session: int, phone: str) -> None:
    """Let a session keep the number that it works with. BadInput when it is another one by now."""
    async with database.transaction() as transaction:
        if not await transaction.run("confirm_phone", tenant=tenant, id=session, phone=phone):
            raise BadInput("session", "works with another number by now: look again")


async def _insert_session(
    transaction: Transaction,
    address: SessionAddress,
    server: ServerName,
    alias: str,
    kid: str,
    exit_pool: str | None,
    desired: str,
    phone: str | None,
) -> None:
    transaction.later("add_server", name=server)
    await transaction.run(
        "add_session",
        tenant=address.tenant,
        server=server,
        name=address.session,
        alias=alias,
        kid=kid,
        exit_policy="direct" if exit_pool is None else "proxy",
        exit_pool=exit_pool,
        desired=desired,
        phone=phone,
    )


@contextmanager
def _session_refused(address: SessionAddress) -> Iterator[None]:
    """Say why the database does not take a session."""
    try:
        yield
    except psycopg.errors.UniqueViolation:
        raise BadInput("session", f"{address.session} exists") from None
    except psycopg.errors.ForeignKeyViolation:
        raise BadInput("tenant", f"there is no tenant {address.tenant}") from None
    except psycopg.errors.CheckViolation:
        raise BadInput("session", "letters, digits, `_` and `-` only, at most 54") from None


async def desire(database: Database, tenant: TenantId, session: int, desired: str) -> None:
    """Write what a session should be: `running` or `stopped`. Its repairs are counted anew from now on."""
    async with database.transaction() as transaction:
        await transaction.run("desire", tenant=tenant, id=session, desired=desired)


async def retire(database: Database, tenant: TenantId, session: int) -> None:
    """Let a session sign nothing more: it is in no directory until it should run again. Safe to repeat."""
    async with database.transaction() as transaction:
        await transaction.run("retire", tenant=tenant, id=session)


async def set_text(database: Database, tenant: TenantId, name: str, text: str | None) -> None:
    """Replace one of the texts that a tenant's customers read; None: the default again. BadInput: why not."""
    if text is not None:
        templates.check(name, text)
    async with database.transaction() as transaction:
        values = {"tenant": tenant, "name": name, "text": text}
        if not await transaction.run("set_text", **values):
            raise NotFound(f"there is no tenant {tenant}")


async def texts(database: Database, tenant: TenantId) -> Any:
    """What a tenant's customers read: locale, time_zone, templates (his own), bot."""
    async with database.transaction() as transaction:
        row = await transaction.row("texts", tenant=tenant)
    if row is None:
        raise NotFound(f"there is no tenant {tenant}")
    return row


async def set_notices(database: Database, tenant: TenantId, policy: Policy) -> None:
    """Say when the customers of all of a tenant's queues are told their places."""
    async with database.transaction() as transaction:
        said = msgspec.json.encode(policy).decode()
        await transaction.run("set_notices", tenant=tenant, notices=said)


async def set_zone(database: Database, tenant: TenantId, zone: str) -> None:
    """Say in which time zone a tenant's hours are. BadInput: there is none of that name.

    Then let `rules.look_again` see what is open by it.
    """
    hours.check(hours.Hours(), zone)
    async with database.transaction() as transaction:
        if not await transaction.run("set_zone", tenant=tenant, zone=zone):
            raise NotFound(f"there is no tenant {tenant}")


async def set_bot(database: Database, tenant: TenantId, bot: Bot | None) -> None:
    """Say how a tenant's bot behaves; None: nobody answers by himself."""
    said = None if bot is None else msgspec.json.encode(bot).decode()
    async with database.transaction() as transaction:
        if not await transaction.run("set_bot", tenant=tenant, bot=said):
            raise NotFound(f"there is no tenant {tenant}")


async def directory(database: Database) -> list[Any]:
    """Every session that may sign: tenant_id, name, server, kid, generations, phone."""
    async with database.transaction() as transaction:
        return await transaction.rows("directory")


async def tenants(database: Database) -> list[Any]:
    """Every tenant: tenant_id, name, sessions (how many)."""
    async with database.transaction() as transaction:
        return await transaction.rows("tenants")


async def due_tenants(database: Database, now: datetime) -> list[Any]:
    """The tenants with sessions whose time to send has come: tenant_id, oldest (due_at), sessions."""
    async with database.transaction(now=now) as transaction:
        return await transaction.rows("due_tenants")


async def due_timers(database: Database, now: datetime, *, limit: int) -> list[Any]:
    """The timers whose time has come and that lie in no mailbox, the oldest first.

    Columns: tenant_id, id, kind, due_at, session (one of the tenant's). One that has lain there for an hour
    is shown again, should its entry be lost.
    """
    async with database.transaction(now=now) as transaction:
        return await transaction.rows("due_timers", limit=limit, again=now - _RING_AGAIN)


async def mark_rung(database: Database, timers: Sequence[tuple[int, int]], now: datetime) -> None:
    """Remember that timers, by tenant and number, lie in their mailboxes."""
    tenants, numbers = zip(*timers, strict=True)
    async with database.transaction(now=now) as transaction:
        await transaction.run("mark_rung", tenants=list(tenants), ids=list(numbers))


async def timers_waiting(database: Database, now: datetime) -> Any:
    """How many timers are due and lie in no mailbox, and since when the oldest is: timers, oldest."""
    async with database.transaction(now=now) as transaction:
        return await transaction.row("timers_waiting")


async def forgotten_tenants(database: Database) -> list[TenantId]:
    """The tenants with something to say and no time to look at it, which nothing should bring about."""
    async with database.transaction() as transaction:
        return [TenantId(row.tenant_id) for row in await transaction.rows("forgotten_tenants")]


async def waiting(database: Database, now: datetime) -> tuple[list[Any], list[Any]]:
    """Count sessions: those that wait to send (waits, sessions), and those held back (why, sessions)."""
    async with database.transaction(now=now) as transaction:
        waiting, frozen = await transaction.each(("waiting_sessions", {}), ("frozen_sessions", {}))
    return waiting, frozen


async def purge_dedupe(database: Database, before: datetime, *, limit: int = 5000) -> int:
    """Forget dedupe rows older than `before`, at most `limit` of them; returns how many."""
    async with database.transaction() as transaction:
        return await transaction.run("purge_dedupe", before=before, limit=limit)


async def ensure_month(database: Database, day: date) -> None:
    """Make the month of history that `day` falls into. Safe to repeat."""
    async with database.transaction() as transaction:
        await transaction.run("ensure_month", month=day)
