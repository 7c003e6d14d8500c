"""The command `wsm`.

Processes (`ingest`, `worker`, `clock`) and the supervisor read the settings from the environment. The
commands for people do so too; where REDIS_URL and DATABASE_URL are not set they find the embedded servers of
a running `wsm story` or `wsm up` in the current folder. Exit codes: 0 done, 1 it failed, 2 wrong usage.
"""

import argparse
import asyncio
import gc
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsm import config
from wsm.core.errors import BadInput, StoreUnavailable, StreamsUnavailable, WsmError
from wsm.core.ids import DEFAULT_SERVER, ServerName, SessionAddress, SessionName
from wsm.counter.commands import add_sends
from wsm.counter.line import Counter
from wsm.counter.waiting import add_outbox
from wsm.desk import Desk, tenant_number
from wsm.reception import add_rules, add_texts
from wsm.switchboard.commands import add_sessions, add_ways

HOME = Path(".wsm")
"""Where `wsm story` and `wsm up` keep their embedded servers, below the current folder."""

_YOUNG = 10_000
"""How many objects are made before Python looks for rings of them that nobody holds. At its own 700 a seventh
of a start was spent on looking through modules that have just been loaded."""

_AWAY = {StoreUnavailable: "PostgreSQL", StreamsUnavailable: "Redis"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit."""
    gc.set_threshold(_YOUNG)
    arguments = _parser().parse_args(argv)
    logging.getLogger().addHandler(logging.NullHandler())  # what fails is said once, below
    try:
        sys.exit(arguments.run(arguments) or 0)
    except WsmError as exc:
        away = next((f"{who} does not answer: " for kind, who in _AWAY.items() if isinstance(exc, kind)), "")
        print(f"wsm: {away}{exc}", file=sys.stderr)
        sys.exit(2 if isinstance(exc, BadInput) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wsm", description="WhatsApp Session Manager")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    for name, run, text in (
        ("ingest", _ingest, "serve WAHA's webhooks"),
        ("worker", _worker, "run turns and deliveries"),
        ("clock", _clock, "sweep, ring for what is due, publish the directory"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=run)

    migrate = commands.add_parser("migrate", help="bring the database to the present")
    migrate.add_argument(
        "--phase", choices=["before", "after"], help="relative to the new code; both if not given"
    )
    migrate.set_defaults(run=_migrate)

    up = commands.add_parser("up", help="all processes under one supervisor, on embedded servers that keep")
    up.add_argument("--home", type=Path, default=HOME / "up", help="where data and logs are kept")
    up.set_defaults(run=_up)

    story = commands.add_parser("story", help="the demonstration: a real conversation on screen")
    story.add_argument("--once", action="store_true", help="end after the story")
    story.add_argument("--home", type=Path, default=HOME / "story", help="where data and logs are kept")
    story.set_defaults(run=_story)

    counter = Counter(_settings)
    counter.add_line(commands)
    add_rules(counter.add_queue(commands), _settings)
    counter.add_agent(commands)
    desk = Desk(_settings)
    _tenant_commands(commands, desk)
    add_sessions(commands, _settings)
    add_sends(commands, _settings)
    add_outbox(commands, _settings)
    desk.add_letters(commands)
    _sandbox_commands(commands)
    check = commands.add_parser("check", help="whether the WAHA servers keep logins, and sessions apart")
    check.set_defaults(run=_check)
    commands.add_parser("metrics", help="print the list of metrics").set_defaults(run=_metrics)
    return parser


def _tenant_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", desk: Desk) -> None:
    tenant = commands.add_parser("tenant", help="tenants")
    verbs = tenant.add_subparsers(metavar="VERB", required=True)
    add = verbs.add_parser("add", help="make a tenant, his queue and his first session")
    add.add_argument("tenant", type=tenant_number)
    add.add_argument("--name", default="")
    add.add_argument("--locale", default="pt-BR", choices=["pt-BR", "en"])
    add.add_argument("--capacity", type=int, default=1, help="customers served at a time")
    add.add_argument("--session", help="its name at the gateway; user_<tenant> if not given")
    add.add_argument("--server", help="the WAHA server that runs it; if not given the one with the most room")
    add_ways(add)
    add.set_defaults(run=_tenant_add)
    desk.add_tenant_verbs(verbs)
    add_texts(verbs, _settings)


def _sandbox_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sandbox = commands.add_parser("sandbox", help="a WAHA for those without a phone")
    verbs = sandbox.add_subparsers(metavar="VERB", required=True)
    serve = verbs.add_parser("serve", help="serve WAHA's REST calls and webhooks")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=3000)
    serve.add_argument("--engine", default="GOWS", choices=["GOWS", "NOWEB", "WEBJS", "WPP"])
    serve.add_argument("--state", type=Path, help="a file that keeps what WAHA's volume would keep")
    serve.set_defaults(run=_sandbox_serve)
    say = verbs.add_parser("say", help="write to a session as a customer")
    say.add_argument("session")
    say.add_argument("phone", help="the customer's number")
    say.add_argument("text")
    say.set_defaults(run=_sandbox_say)
    inbox = verbs.add_parser("inbox", help="what a customer has received")
    inbox.add_argument("phone")
    inbox.set_defaults(run=_sandbox_inbox)
    fault = verbs.add_parser("fault", help="let the next sends go wrong")
    fault.add_argument("kind", help="what goes wrong: fail_before, error_463, too_many, error_ack, …")
    for name in ("--session", "--phone", "--call", "--retry-after"):
        fault.add_argument(name, default=argparse.SUPPRESS)
    fault.add_argument("--times", type=int, default=argparse.SUPPRESS)
    fault.add_argument("--seconds", type=float, default=argparse.SUPPRESS)
    fault.set_defaults(run=_sandbox_fault)


def _settings() -> config.Settings:
    """Read the settings, completed by a running story or `wsm up` when the environment names no servers."""
    environ: Mapping[str, str] = os.environ
    if "REDIS_URL" not in environ and "WSM_CONFIG" not in environ:
        from wsm.sandbox.site import settings_of_running  # noqa: PLC0415 (production has no embedded servers)

        environ = {**settings_of_running(HOME), **environ}
    return config.load(environ)


def _ingest(_: argparse.Namespace) -> None:
    from wsm.bootstrap import run_ingest  # noqa: PLC0415 (each process loads its own parts)

    run_ingest(config.load(os.environ))


def _worker(_: argparse.Namespace) -> None:
    from wsm.bootstrap import run_worker  # noqa: PLC0415

    run_worker(config.load(os.environ))


def _clock(_: argparse.Namespace) -> None:
    from wsm.bootstrap import run_clock  # noqa: PLC0415

    run_clock(config.load(os.environ))


def _migrate(arguments: argparse.Namespace) -> None:
    from wsm.store.migrate import migrate  # noqa: PLC0415

    settings = config.load(os.environ)
    if not settings.owner_database_url:
        raise BadInput("owner_database_url", "is needed here and not set")
    applied = asyncio.run(migrate(settings.owner_database_url, phase=arguments.phase))
    print("\n".join(applied) or "nothing to apply")


def _up(arguments: argparse.Namespace) -> int:
    from wsm.sandbox.up import up  # noqa: PLC0415

    return up(arguments.home)


def _story(arguments: argparse.Namespace) -> int:
    from wsm.sandbox.story import story  # noqa: PLC0415

    return story(arguments.home, once=arguments.once)


def _metrics(_: argparse.Namespace) -> None:
    from wsm.telemetry import metrics_page  # noqa: PLC0415

    print(metrics_page(), end="")


def _check(_: argparse.Namespace) -> int:
    from wsm.control import servers  # noqa: PLC0415

    configured = {ServerName(name): server for name, server in _settings().waha.items()}
    if not configured:
        raise BadInput("waha", "is needed here and not set")
    verdicts = asyncio.run(servers.check(configured))
    for each in verdicts:
        print(f"{each.server:<12} {each.says}")
        for warning in each.warnings:
            print(f"{'':<12} warning: {warning}")
    return int(any(each.warnings for each in verdicts))


def _tenant_add(arguments: argparse.Namespace) -> None:
    from wsm.bootstrap import capacities, fleet_writes  # noqa: PLC0415
    from wsm.store import fleet  # noqa: PLC0415

    async def run() -> None:
        settings = _settings()
        if not settings.master_key_id:
            raise BadInput("master_key_id", "is needed here and not set")
        if arguments.exit and arguments.exit not in settings.exits:
            raise BadInput("exit", f"no pool named {arguments.exit!r}")
        address = SessionAddress(
            arguments.tenant, SessionName(arguments.session or f"user_{arguments.tenant}")
        )
        async with fleet_writes(settings) as database:
            await fleet.add_tenant(
                database,
                address.tenant,
                name=arguments.name,
                locale=arguments.locale,
                capacity=arguments.capacity,
            )
            await fleet.place_session(
                database,
                address,
                server=ServerName(arguments.server) if arguments.server else None,
                capacities=capacities(settings),
                alias="",
                kid=settings.master_key_id,
                exit_pool=arguments.exit,
            )
        print(f"webhook: /webhooks/waha/{address.tenant}/{address.session}")

    asyncio.run(run())


def _sandbox_serve(arguments: argparse.Namespace) -> None:
    from wsm.ingest.server import run  # noqa: PLC0415
    from wsm.sandbox.waha.server import serve  # noqa: PLC0415

    key = os.environ.get("WAHA_API_KEY")
    if not key:
        raise BadInput("WAHA_API_KEY", "is needed here and not set")
    where = {"host": arguments.host, "port": arguments.port, "state_file": arguments.state}
    run(lambda stop: serve(**where, api_key=key, engine=arguments.engine, stopping=stop))


def _sandbox_say(arguments: argparse.Namespace) -> None:
    from wsm.sandbox.site import phone_at  # noqa: PLC0415

    async def run() -> None:
        async with phone_at(_waha_url()) as phone:
            await phone.say(arguments.session, arguments.phone, arguments.text)

    asyncio.run(run())


def _sandbox_inbox(arguments: argparse.Namespace) -> None:
    from wsm.sandbox.screen import inbox_line  # noqa: PLC0415
    from wsm.sandbox.site import phone_at  # noqa: PLC0415

    async def run() -> None:
        async with phone_at(_waha_url()) as phone:
            for message in await phone.inbox(arguments.phone):
                print(inbox_line(message))

    asyncio.run(run())


def _sandbox_fault(arguments: argparse.Namespace) -> None:
    from wsm.sandbox.site import phone_at  # noqa: PLC0415

    async def run() -> None:
        async with phone_at(_waha_url()) as phone:
            await phone.fault(**{name: value for name, value in vars(arguments).items() if name != "run"})

    asyncio.run(run())


def _waha_url() -> str:
    server = _settings().waha.get(DEFAULT_SERVER)
    if server is None:
        raise BadInput("WAHA_URL", "is needed here and not set")
    return server.url


if __name__ == "__main__":
    main()
