"""What a deployment does to a site at work: processes end and begin, the schema changes in two steps."""

from pathlib import Path

from e2e.town import Town
from wsm.core.errors import Unavailable
from wsm.sandbox.site import PROCESSES
from wsm.store.migrate import migrate

_BEFORE = """-- phase: before
alter table conversations add column deploy_{n} text not null default 'new';
alter table messages add column deploy_{n} jsonb;
create table deploys_{n} (tenant_id bigint not null, id bigint not null, primary key (tenant_id, id));
"""
_AFTER = """-- phase: after
alter table messages drop column deploy_{n};
alter table conversations alter column deploy_{n} drop default, alter column deploy_{n} drop not null;
drop table deploys_{n};
"""


async def roll(at: Town) -> None:
    """Restart every process as an orchestrator does, one after another: each must end well."""
    for name in PROCESSES:
        await at.site.supervisor.ready(name)  # before it, a signal just ends it
        if (code := await at.site.supervisor.end(name)) != 0:
            raise AssertionError(f"{name} ended with {code} when it was told to")
        await at.site.supervisor.ready(name)


async def migrate_in_two_steps(at: Town, folder: Path, number: int) -> None:
    """Change tables that every turn uses: what comes before the new code, that code, what comes after it."""
    steps = {"before": f"{number}_0.sql", "after": f"{number}_1.sql"}
    for name, text in zip(steps.values(), (_BEFORE, _AFTER), strict=True):
        (folder / name).write_text(text.format(n=number))
    for phase, name in steps.items():
        applied = await migrate(at.ground.database.owner_url, phase=phase, folder=folder)
        if applied != [name]:
            raise Unavailable(f"{phase} applied {applied}")
        if phase == "before":
            await roll(at)
