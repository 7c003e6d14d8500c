"""The commands for who looks after a running fleet: tenants, pauses, dead letters, the quarantine.

Lists never show what a customer wrote; `show` does, for the letters that it names. What is dropped is gone,
so each drop leaves a line in the log. Everything here may be repeated.
"""

import argparse
import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from wsm.config import Settings
from wsm.core.errors import BadInput, NotFound
from wsm.core.ids import TenantId
from wsm.core.moments import moment
from wsm.sandbox.screen import plain

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from wsm.streams.pauses import Paused

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 (it has no public name)

Work = Callable[[argparse.Namespace, Settings], Coroutine[Any, Any, int | None]]
"""What a command does; it may return an exit code."""


def tenant_number(text: str) -> TenantId:
    """Read a tenant off the command line."""
    number = int(text)
    if not 0 < number < 2**63:
        raise argparse.ArgumentTypeError("a tenant is a positive number below 2^63")
    return TenantId(number)


def add_verb(
    verbs: "Commands", name: str, work: Work, settings: Callable[[], Settings], text: str
) -> argparse.ArgumentParser:
    """Add a command. settings: reads them when it runs."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text)
    parser.set_defaults(run=lambda arguments: asyncio.run(work(arguments, settings())))
    return parser


class Desk:
    """Adds the commands to a parser. settings: reads them when a command runs."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings

    def add_tenant_verbs(self, verbs: "Commands") -> None:
        """Add `tenant list|show|pause|resume`."""
        self._verb(verbs, "list", _tenants, "every tenant, and who is paused")
        show = self._verb(verbs, "show", _tenant, "what waits for a tenant, and whether he is paused")
        pause = self._verb(
            verbs, "pause", _pause, "begin no turn and no delivery of a tenant; his mailbox fills"
        )
        resume = self._verb(verbs, "resume", _resume, "let a paused tenant go on")
        for parser in (show, pause, resume):
            parser.add_argument("tenant", type=tenant_number)
        pause.add_argument("--reason", default="by hand", help="shown to whoever asks; no customer's words")

    def add_letters(self, commands: "Commands") -> None:
        """Add `dead` and `quarantine`."""
        dead = commands.add_parser("dead", help="entries that failed for the last time")
        verbs = dead.add_subparsers(metavar="VERB", required=True)
        listed = self._verb(verbs, "list", _dead_list, "dead letters of a tenant, or how many each has")
        listed.add_argument("tenant", type=tenant_number, nargs="?")
        for name, work, text in (
            ("show", _dead_show, "dead letters with what they say"),
            ("replay", _dead_replay, "let dead letters return to the mailbox"),
            ("drop", _dead_drop, "forget dead letters for ever"),
        ):
            parser = self._verb(verbs, name, work, text)
            parser.add_argument("tenant", type=tenant_number)
            _name_letters(parser, every=name != "show")
        quarantine = commands.add_parser("quarantine", help="authentic webhooks that belong to no session")
        verbs = quarantine.add_subparsers(metavar="VERB", required=True)
        self._verb(verbs, "list", _quarantine_list, "what lies there")
        show = self._verb(verbs, "show", _quarantine_show, "webhooks with what they say")
        _name_letters(show, every=False)
        _name_letters(self._verb(verbs, "drop", _quarantine_drop, "forget them for ever"), every=True)

    def _verb(self, verbs: "Commands", name: str, work: Work, text: str) -> argparse.ArgumentParser:
        return add_verb(verbs, name, work, self._settings, text)


def _name_letters(parser: argparse.ArgumentParser, *, every: bool) -> None:
    parser.add_argument(
        "ids", nargs="*" if every else "+", type=_letter_id, metavar="ID", help="as `list` shows it"
    )
    if every:
        parser.add_argument("--all", action="store_true", help="all that there are now")


def _letter_id(text: str) -> str:
    milliseconds, _, counter = text.partition("-")
    if not (text.isascii() and milliseconds.isdigit() and counter.isdigit() and len(text) <= 40):  # noqa: PLR2004
        raise argparse.ArgumentTypeError("an id looks like 1763640000000-0")
    return text


# --- tenants


async def _tenants(_: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import fleet_writes, mailroom  # noqa: PLC0415 (each command loads its own parts)
    from wsm.store import fleet  # noqa: PLC0415
    from wsm.streams.pauses import Pauses  # noqa: PLC0415

    async with mailroom(settings) as redis, fleet_writes(settings) as database:
        paused = {each.tenant: each for each in await Pauses(redis).all()}
        rows = await fleet.tenants(database)
    for row in rows:
        rests = paused.pop(row.tenant_id, None)
        state = _state(rests)
        print(f"{row.tenant_id:<20} sessions {row.sessions:<4} {state}  {row.name}".rstrip())
    for rests in paused.values():
        print(f"{rests.tenant:<20} unknown here  {_state(rests)}")
    if not rows:
        print("there are no tenants")


async def _tenant(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.depth import held_by  # noqa: PLC0415
    from wsm.streams.pauses import Pauses  # noqa: PLC0415

    async with mailroom(settings) as redis:
        held = await held_by(redis, arguments.tenant)
        rests = next((each for each in await Pauses(redis).all() if each.tenant == arguments.tenant), None)
    print(
        f"state    {f'paused since {_time(rests.at_ms)} by {rests.by}: {rests.reason}' if rests else 'runs'}"
    )
    print(f"mailbox  {held.entries} entries, {held.bytes} bytes, {held.parked} chats put aside")
    for kind, bell in held.bells.items():
        print(f"{kind:<8} {bell}")
    print(f"dead     {held.dead} letters")


async def _pause(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.pauses import Pauses  # noqa: PLC0415

    async with mailroom(settings) as redis:
        changed = await Pauses(redis).pause(arguments.tenant, arguments.reason)
    print(
        f"tenant {arguments.tenant} {'is paused' if changed else 'was paused already; he has a new reason'}"
    )


async def _resume(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.pauses import Pauses  # noqa: PLC0415

    async with mailroom(settings) as redis:
        changed = await Pauses(redis).resume(arguments.tenant)
    print(f"tenant {arguments.tenant} {'goes on' if changed else 'was not paused'}")


# --- dead letters


async def _dead_list(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.letters import DeadLetters  # noqa: PLC0415

    async with mailroom(settings) as redis:
        if arguments.tenant is None:
            counts = await DeadLetters(redis).tenants()
            print(
                "\n".join(f"{tenant:<20} {count}" for tenant, count in counts) or "there are no dead letters"
            )
            return
        letters = await DeadLetters(redis).read(arguments.tenant)
    for each in letters:
        told = f"{plain(each.session) or '-':<24} {_event(each.body):<20} {len(each.body)} bytes"
        print(f"{each.id:<18} {_time(each.died_at_ms)}  {told}  {each.reason}")
    if not letters:
        print("there are no dead letters")


async def _dead_show(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.letters import DeadLetters  # noqa: PLC0415

    async with mailroom(settings) as redis:
        letters = await DeadLetters(redis).read(arguments.tenant, arguments.ids)
    for each in letters:
        print(f"{each.id}  entry {each.entry}  {each.origin or '-'}  {each.session or '-'}  {each.reason}")
        print(plain(each.body.decode(errors="replace"), indent=0))
    _require_found(arguments.ids, [each.id for each in letters])


async def _dead_replay(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.letters import DeadLetters  # noqa: PLC0415

    async with mailroom(settings) as redis:
        dead = DeadLetters(redis)
        there = [each.id for each in await dead.read(arguments.tenant, _ids(arguments))]
        returned = await dead.replay(arguments.tenant, there)
        print(f"{returned} returned to the mailbox{await _rests(redis, arguments.tenant)}")
    _require_found(arguments.ids, there)


async def _dead_drop(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.letters import DeadLetters  # noqa: PLC0415

    async with mailroom(settings) as redis:
        dead = DeadLetters(redis)
        there = [each.id for each in await dead.read(arguments.tenant, _ids(arguments))]
        dropped = await dead.drop(arguments.tenant, there)
    _note("dead_letters_dropped", settings, dropped, there, tenant=arguments.tenant)
    print(f"{dropped} dropped")
    _require_found(arguments.ids, there)


# --- the quarantine


async def _quarantine_list(_: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.letters import Quarantine  # noqa: PLC0415

    async with mailroom(settings) as redis:
        found = await Quarantine(redis).read()
    for each in found:
        told = f"{plain(each.session):<24} {_event(each.body):<20} {len(each.body)} bytes"
        print(f"{each.id:<18} {each.server:<12} {told}  {each.reason}")
    if not found:
        print("the quarantine is empty")


async def _quarantine_show(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.letters import Quarantine  # noqa: PLC0415

    async with mailroom(settings) as redis:
        found = await Quarantine(redis).read(arguments.ids)
    for each in found:
        print(f"{each.id}  {each.server}  {plain(each.session)}  {each.reason}")
        print(plain(each.body.decode(errors="replace"), indent=0))
    _require_found(arguments.ids, [each.id for each in found])


async def _quarantine_drop(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import mailroom  # noqa: PLC0415
    from wsm.streams.letters import Quarantine  # noqa: PLC0415

    async with mailroom(settings) as redis:
        quarantine = Quarantine(redis)
        there = [each.id for each in await quarantine.read(_ids(arguments))]
        dropped = await quarantine.drop(there)
    _note("quarantine_dropped", settings, dropped, there)
    print(f"{dropped} dropped")
    _require_found(arguments.ids, there)


def _ids(arguments: argparse.Namespace) -> Sequence[str]:
    """The ids that are named; none of them for all, which must have been asked for."""
    if bool(arguments.ids) == arguments.all:
        raise BadInput("ID", "name the letters, or say --all")
    named: Sequence[str] = arguments.ids
    return named


def _require_found(asked: Sequence[str], found: Sequence[str]) -> None:
    if missing := [id_ for id_ in asked if id_ not in found]:
        raise NotFound(f"there is no {', '.join(missing)}")


async def _rests(redis: "Redis", tenant: TenantId) -> str:
    """Say why what returned will not be handled at once."""
    from wsm.streams.pauses import Pauses  # noqa: PLC0415

    paused = any(each.tenant == tenant for each in await Pauses(redis).all())
    return "; it waits, for the tenant is paused" if paused else ""


def _note(event: str, settings: Settings, count: int, ids: Sequence[str], **about: object) -> None:
    """Leave a line of what was dropped, and by which user of the machine."""
    from wsm import telemetry  # noqa: PLC0415

    telemetry.configure_logging("cli", settings.log_level)
    telemetry.logger("cli").warning(event, count=count, ids=list(ids), uid=os.getuid(), **about)


def _event(body: bytes) -> str:
    """Name the event of a body, and nothing else of it."""
    from wsm.wire.waha import head  # noqa: PLC0415

    try:
        return plain(head(body).event)
    except BadInput:
        return "?"


def _state(rests: "Paused | None") -> str:
    if rests is None:
        return "runs"
    return f"paused since {_time(rests.at_ms)} by {rests.by}: {rests.reason}"


def _time(at_ms: int) -> str:
    return f"{moment(at_ms):%Y-%m-%d %H:%M:%S}"
