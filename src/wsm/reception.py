"""The commands for who decides what customers are told and when: texts, hours, notices, the bot.

What is said here is checked before it is kept, and holds from the next message on. Everything may be
repeated.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from wsm.config import Settings
from wsm.core.bot import Bot
from wsm.core.errors import BadInput
from wsm.core.hours import Hours, days_said
from wsm.core.notices import Manners, Policy
from wsm.core.templates import DEFAULT_LOCALE, DEFAULTS, VARIABLES
from wsm.desk import add_verb, tenant_number
from wsm.sandbox.screen import plain

if TYPE_CHECKING:
    from wsm.desk import Commands

_NUMBERS = tuple(name for name in Manners.__struct_fields__ if name != "survey")


def add_texts(tenant_verbs: "Commands", settings: Callable[[], Settings]) -> None:
    """Add `tenant text set|show|reset`, `tenant zone` and `tenant bot`."""
    text = tenant_verbs.add_parser("text", help="what a tenant's customers read")
    verbs = text.add_subparsers(metavar="VERB", required=True)
    shown = add_verb(verbs, "show", _text_show, settings, "every text, and what may stand in it")
    shown.add_argument("tenant", type=tenant_number)
    for name, work, told in (
        ("set", _text_set, "replace a text; one that could not be sent is refused"),
        ("reset", _text_reset, "go back to the text that wsm brings along"),
    ):
        parser = add_verb(verbs, name, work, settings, told)
        parser.add_argument("tenant", type=tenant_number)
        parser.add_argument("name", help="as `show` lists it")
        if name == "set":
            parser.add_argument("text", help="plain text, with variables like {place}")
    zone = add_verb(
        tenant_verbs,
        "zone",
        _zone,
        settings,
        "the time zone of a tenant's hours; without a name, which it is",
    )
    zone.add_argument("tenant", type=tenant_number)
    zone.add_argument("zone", nargs="?", help="like America/Sao_Paulo")
    bot = add_verb(
        tenant_verbs, "bot", _bot, settings, "when an answer is wanted, and how long a bot is silent"
    )
    bot.add_argument("tenant", type=tenant_number)
    bot.add_argument("--off", action="store_true", help="nobody answers by himself")
    for field, told in (
        ("debounce", "seconds of pause that end a burst; 0: each message is one"),
        ("longest", "seconds after which a burst ends without a pause"),
        ("pause-hours", "how long a person who stepped in keeps the bot silent"),
    ):
        bot.add_argument(f"--{field}", type=int, default=getattr(Bot(), field.replace("-", "_")), help=told)


def add_rules(queue_verbs: "Commands", settings: Callable[[], Settings]) -> None:
    """Add `queue hours|notices|manners`: without an option each shows what holds."""
    hours = add_verb(queue_verbs, "hours", _hours, settings, "when a queue is open")
    hours.add_argument(
        "--open", action="append", metavar="DAYS HOURS", help="like 'mon-fri 09:00-12:00 13:00-18:00'; repeat"
    )
    hours.add_argument(
        "--holiday", action="append", metavar="DATE[=HOURS]", default=[], help="like 2026-12-25; repeat"
    )
    hours.add_argument(
        "--entering", choices=["wait", "message"], default="wait", help="who writes while it is closed"
    )
    hours.add_argument("--always", action="store_true", help="it is always open")
    notices = add_verb(queue_verbs, "notices", _notices, settings, "when customers are told their places")
    manners = add_verb(queue_verbs, "manners", _manners, settings, "what follows when a customer is silent")
    for parser, fields in ((notices, Policy.__struct_fields__), (manners, _NUMBERS)):
        for field in fields:
            parser.add_argument(f"--{field.replace('_', '-')}", type=int)
    manners.add_argument("--survey", choices=["on", "off"], help="whether they are asked how it was")
    for parser in (hours, notices, manners):
        parser.add_argument("tenant", type=tenant_number)
        parser.add_argument("queue")


async def _text_show(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import fleet_writes  # noqa: PLC0415 (each command loads its own parts)
    from wsm.store import fleet  # noqa: PLC0415

    async with fleet_writes(settings) as database:
        row = await fleet.texts(database, arguments.tenant)
    defaults = DEFAULTS.get(row.locale, DEFAULTS[DEFAULT_LOCALE])
    for name, variables in VARIABLES.items():
        own = row.templates.get(name)
        allowed = " ".join(f"{{{each}}}" for each in variables)
        print(f"{name:<15} {'own' if own else 'default':<8} {allowed}".rstrip())
        print(plain(own if isinstance(own, str) else defaults[name], indent=4))


async def _text_set(arguments: argparse.Namespace, settings: Settings) -> None:
    await _set_text(arguments, settings, arguments.text)


async def _text_reset(arguments: argparse.Namespace, settings: Settings) -> None:
    if arguments.name not in VARIABLES:
        raise BadInput(f"templates.{arguments.name}", "no such text")
    await _set_text(arguments, settings, None)


async def _set_text(arguments: argparse.Namespace, settings: Settings, text: str | None) -> None:
    from wsm.bootstrap import fleet_writes  # noqa: PLC0415
    from wsm.store import fleet  # noqa: PLC0415

    async with fleet_writes(settings) as database:
        await fleet.set_text(database, arguments.tenant, arguments.name, text)
    print(f"{arguments.name} is {'the default again' if text is None else 'set'}")


async def _zone(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import fleet_writes, tenant_reads, utc_now  # noqa: PLC0415
    from wsm.store import fleet, rules  # noqa: PLC0415

    async with fleet_writes(settings) as database:
        if arguments.zone is not None:
            await fleet.set_zone(database, arguments.tenant, arguments.zone)
        row = await fleet.texts(database, arguments.tenant)
    if arguments.zone is not None:
        async with tenant_reads(settings) as database:
            await rules.look_again(database, arguments.tenant, utc_now())
    print(row.time_zone)


async def _bot(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import fleet_writes  # noqa: PLC0415
    from wsm.store import fleet  # noqa: PLC0415
    from wsm.store.rules import read  # noqa: PLC0415

    said = {name: getattr(arguments, name) for name in Bot.__struct_fields__}
    bot = None if arguments.off else read(said, Bot)
    async with fleet_writes(settings) as database:
        await fleet.set_bot(database, arguments.tenant, bot)
    print("nobody answers by himself" if bot is None else _written(bot))


async def _hours(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads, utc_now  # noqa: PLC0415
    from wsm.store import rules  # noqa: PLC0415

    tenant, queue = arguments.tenant, arguments.queue
    async with tenant_reads(settings) as database:
        if arguments.always:
            await rules.always_open(database, tenant, queue, utc_now())
        elif arguments.open is not None:
            await rules.change(database, tenant, queue, _hours_said(arguments), utc_now())
        hours, *_ = await rules.rules(database, tenant, queue)
    print("always open" if hours is None else _written(hours))


def _hours_said(arguments: argparse.Namespace) -> Hours:
    week: dict[str, tuple[str, ...]] = {}
    for text in arguments.open:
        week |= days_said(text)
    holidays = {}
    for text in arguments.holiday:
        day, _, spans = text.partition("=")
        holidays[day] = tuple(spans.split())
    return Hours(week=week, holidays=holidays, entering=arguments.entering)


async def _notices(arguments: argparse.Namespace, settings: Settings) -> None:
    said = {name: getattr(arguments, name) for name in Policy.__struct_fields__}
    await _change(arguments, settings, Policy, said)


async def _manners(arguments: argparse.Namespace, settings: Settings) -> None:
    said = {name: getattr(arguments, name) for name in _NUMBERS}
    said["survey"] = None if arguments.survey is None else arguments.survey == "on"
    await _change(arguments, settings, Manners, said)


async def _change(
    arguments: argparse.Namespace,
    settings: Settings,
    kind: type[Policy | Manners],
    said: dict[str, int | bool | None],
) -> None:
    """Change what is said of a queue's rules, the others stay; then show what holds."""
    from wsm.bootstrap import tenant_reads, utc_now  # noqa: PLC0415
    from wsm.store import rules  # noqa: PLC0415

    given = {name: value for name, value in said.items() if value is not None}
    async with tenant_reads(settings) as database:
        held = await rules.rules(database, arguments.tenant, arguments.queue)
        present = next(each for each in held if isinstance(each, kind))
        if given:
            present = rules.read({**msgspec.to_builtins(present), **given}, kind)
            await rules.change(database, arguments.tenant, arguments.queue, present, utc_now())
    for name in present.__struct_fields__:
        print(f"{name.replace('_', '-'):<14} {getattr(present, name)}")


def _written(rules: msgspec.Struct) -> str:
    """Write what holds, also where it is as it is by default."""
    return msgspec.json.format(msgspec.json.encode(msgspec.structs.asdict(rules)), indent=2).decode()
