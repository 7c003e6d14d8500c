"""What a tenant has said of his queues: when they are open, what is told, and what follows from silence."""

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from wsm.core.errors import BadInput, NotFound
from wsm.core.hours import Hours, check
from wsm.core.ids import TenantId
from wsm.core.notices import Manners, Policy
from wsm.core.timers import TimerKind
from wsm.store.database import Database, listed
from wsm.store.lane import locked

_R = TypeVar("_R")
Rules = Hours | Policy | Manners
_COLUMNS: dict[type[Rules], str] = {Hours: "hours", Policy: "notices", Manners: "manners"}


async def change(database: Database, tenant: TenantId, queue: str, rules: Rules, now: datetime) -> None:
    """Give a queue rules of one kind, in place of those that it had.

    Raises BadInput for hours that cannot be kept, NotFound when there is no such queue. Hours are looked at
    at once: whether it is open now, and when that ends.
    """
    async with locked(database, tenant, now) as transaction:
        row = await transaction.row("rules_of_queue", queue=queue)
        if row is None:
            raise NotFound(f"tenant {tenant} has no queue {queue}")
        if isinstance(rules, Hours):
            check(rules, row.time_zone)
            transaction.later("set_timers", timers=_look_at(now, row.id), sooner=False)
        values = dict.fromkeys(_COLUMNS.values())
        column = _COLUMNS[type(rules)]
        transaction.later("set_rules", id=row.id, **{**values, column: msgspec.json.encode(rules).decode()})


async def always_open(database: Database, tenant: TenantId, queue: str, now: datetime) -> None:
    """Take a queue's hours away. Raises NotFound when there is no such queue."""
    async with locked(database, tenant, now) as transaction:
        row = await transaction.row("rules_of_queue", queue=queue)
        if row is None:
            raise NotFound(f"tenant {tenant} has no queue {queue}")
        transaction.later("forget_hours", id=row.id)
        transaction.later("set_timers", timers=_look_at(now, row.id), sooner=False)


async def look_again(database: Database, tenant: TenantId, now: datetime) -> None:
    """Have the hours of all of a tenant's queues looked at: his clock is another one. May be repeated."""
    async with locked(database, tenant, now) as transaction:
        if rows := await transaction.rows("queues_with_hours"):
            transaction.later("set_timers", timers=_look_at(now, *(row.id for row in rows)), sooner=False)


async def rules(database: Database, tenant: TenantId, queue: str) -> tuple[Hours | None, Policy, Manners]:
    """Return a queue's rules, with what is not said as it is by default. Raises NotFound."""
    async with database.transaction(tenant) as transaction:
        row = await transaction.row("rules_of_queue", queue=queue)
    if row is None:
        raise NotFound(f"tenant {tenant} has no queue {queue}")
    hours = None if row.hours is None else read(row.hours, Hours)
    return hours, read(row.notices, Policy), read(row.manners, Manners)


def read(said: Any, kind: type[_R]) -> _R:
    """Read rules as they were said or stored. Raises BadInput."""
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as exc:
        raise BadInput(kind.__name__.lower(), str(exc)) from None


def _look_at(now: datetime, *queues: int) -> str:
    hours = {"kind": TimerKind.HOURS, "due": now, "args": {}}
    return listed([{"place": place, "queue": queue, **hours} for place, queue in enumerate(queues)])
