"""The parser of `wsm session …`, and the commands that ask one thing. What they ask of is `control`."""

import argparse
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from wsm.config import Settings
from wsm.core.errors import GatewayRefused, Unavailable
from wsm.core.ids import ServerName, SessionAddress, SessionName
from wsm.core.phones import masked, phone_digits
from wsm.desk import Work, add_verb, tenant_number
from wsm.sandbox.screen import plain
from wsm.switchboard import words

if TYPE_CHECKING:
    from wsm.control.sessions import Sessions
    from wsm.control.trial import Trial
    from wsm.desk import Commands

_AT_WHATSAPP, _ON_THE_PHONE = 1, 2
_TEST_TEXT = "wsm: test"
_MOST_DAYS = 3_650


def add_ways(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a way out, which somebody has to make."""
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--exit", metavar="POOL", help="the pool that its exits come from")
    way.add_argument("--direct", action="store_true", help="WhatsApp sees the WAHA server's own address")


def add_sessions(commands: "Commands", settings: Callable[[], Settings]) -> None:
    """Add `session …`. settings: reads them when a command runs."""
    session = commands.add_parser("session", help="the WhatsApp numbers of a tenant")
    verbs = session.add_subparsers(metavar="VERB", required=True)
    create = add_verb(verbs, "create", _logged(_create), settings, "make a session, stopped")
    create.add_argument("--alias", default="", help="for a second one: user_<tenant>_<alias>")
    create.add_argument(
        "--server", help="the WAHA server that runs it; if not given the one with the most room"
    )
    add_ways(create)
    listed = add_verb(verbs, "list", _list, settings, "a tenant's sessions")
    for parser in (create, listed):
        parser.add_argument("tenant", type=tenant_number)
    for name, work, text in (
        ("show", _show, "how a session is, why it waits, and every exit that it had"),
        ("start", _start, "take an exit, look where it comes out, configure and start"),
        ("stop", _stop, "stop; the login stays, the exit is released"),
        ("restart", _restart, "stop and start at the gateway, with the same exit"),
        ("logout", _logout, "unlink the phone and stop"),
        ("delete", _delete, "unlink the phone and let the gateway forget the session"),
        ("qr", _login("qr"), "the code to scan, renewed until the session works"),
        ("pair", _login("pair"), "a code to type on the phone instead of scanning"),
        ("passkey", _login("passkey"), "what to do when WhatsApp wants a passkey (GOWS)"),
        ("banned", _banned, "stop it, for WhatsApp banned it, and keep everybody from its address"),
        ("confirm", _confirm, "let it keep the other number that it works with"),
        ("test-send", _test_send, "send one text now, and tell what became of it"),
    ):
        parser = add_verb(verbs, name, _logged(work), settings, text)
        parser.add_argument("tenant", type=tenant_number)
        parser.add_argument("--session", help="its name; user_<tenant> if not given")
        _ADDS.get(name, _nothing)(parser)


def _logged(work: Work) -> Work:
    """Let a command's log lines go to stderr, like a process'; of what fails the last word is enough."""

    async def run(arguments: argparse.Namespace, settings: Settings) -> int | None:
        from wsm import telemetry  # noqa: PLC0415

        telemetry.configure_logging("cli", settings.log_level)
        logging.disable(logging.WARNING)  # the libraries' own
        return await work(arguments, settings)

    return run


def _nothing(_: argparse.ArgumentParser) -> None:
    """Add no more arguments."""


def _add_qr(parser: argparse.ArgumentParser) -> None:
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--png", type=Path, metavar="FILE", help="keep a picture of it in a file")
    way.add_argument("--raw", action="store_true", help="print what it says, a line for each code")
    parser.add_argument("--once", action="store_true", help="the code of this moment, and no other")


def _add_phone(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("phone", help="its own number, with country code")


def _add_passkey(parser: argparse.ArgumentParser) -> None:
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--answer", type=Path, metavar="FILE", help="what the browser answered")
    way.add_argument("--confirm", action="store_true", help="the codes are equal")


def _add_test_send(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("phone", help="whom to write to, with country code")
    parser.add_argument("--text", default=_TEST_TEXT)
    parser.add_argument(
        "--wait", type=float, default=30.0, metavar="SECONDS", help="for it to arrive on the phone (30)"
    )


def _add_days(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=_days, default=30, metavar="N", help="how long nobody gets its address (30)"
    )


def _days(text: str) -> int:
    days = int(text)
    if not 0 < days <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"1 to {_MOST_DAYS} days")
    return days


_ADDS = {
    "qr": _add_qr,
    "pair": _add_phone,
    "passkey": _add_passkey,
    "test-send": _add_test_send,
    "banned": _add_days,
}


def _address(arguments: argparse.Namespace) -> SessionAddress:
    name = arguments.session or f"user_{arguments.tenant}"
    return SessionAddress(arguments.tenant, SessionName(name))


async def _create(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import sessions  # noqa: PLC0415 (each command loads its own parts)

    async with sessions(settings) as control:
        address = await control.create(
            arguments.tenant,
            alias=arguments.alias,
            server=ServerName(arguments.server) if arguments.server else None,
            exit_pool=arguments.exit,
        )
        server = (await control.session(address)).server
    print(f"{address.session} is made on {server}, and stopped")


async def _list(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads, utc_now  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    async with tenant_reads(settings) as database:
        rows = await reads.sessions(database, arguments.tenant)
    for row in rows:
        print(plain(words.line(row, utc_now())))
    if not rows:
        print("he has no sessions")


async def _show(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import sessions, utc_now  # noqa: PLC0415

    address = _address(arguments)
    async with sessions(settings) as control:
        row = await control.session(address)
        leases = await control.leases(address)
        says = await _gateway_says(control, address)
    for heading, sentence in [*words.lines(row, utc_now()), ("gateway", says)]:
        print(f"{heading:<8} {plain(sentence)}")
    for lease in leases:
        ended = f"{lease.released_at:%Y-%m-%d %H:%M}" if lease.released_at else "now"
        came_out = f"{lease.address or 'nowhere yet'} {lease.country or ''}".rstrip()
        during = f"{lease.leased_at:%Y-%m-%d %H:%M} to {ended}"
        print(
            f"exit     {lease.identifier}  {lease.pool}  {came_out}  {during}  {lease.trouble or ''}".rstrip()
        )


async def _gateway_says(control: "Sessions", address: SessionAddress) -> str:
    """What the gateway says of a session now; that it says nothing is no reason to show nothing else."""
    try:
        info = await control.look(address)
        code = None
        if info.status == "PASSKEY_CONFIRMATION_REQUIRED":
            code = await (await control.bound(address)).login.passkey_code()
    except (GatewayRefused, Unavailable) as exc:
        return str(exc)
    number = f"with the number {masked(info.me)}" if info.me else "with no number"
    compare = f"; the code to compare is {code}" if code else ""
    return f"{info.status}, {info.engine or 'engine unknown'}, {number}{compare}"


def _asks(what: str, done: str) -> Work:
    """Make a command that asks one thing of a session."""

    async def work(arguments: argparse.Namespace, settings: Settings) -> None:
        from wsm.bootstrap import sessions  # noqa: PLC0415

        address = _address(arguments)
        async with sessions(settings) as control:
            await getattr(control, what)(address)
        print(f"{address.session} {done}")

    return work


_start = _asks("start", "is starting; `wsm session qr` shows its code, if it asks for one")
_stop = _asks("stop", "is stopped")
_restart = _asks("restart", "is starting again")
_logout = _asks("logout", "is logged out and stopped")
_delete = _asks("delete", "is deleted at its gateway")


def _login(what: str) -> Work:
    """Make a command of `login`, which loads what draws."""

    async def work(arguments: argparse.Namespace, settings: Settings) -> int:
        from wsm.switchboard import login  # noqa: PLC0415

        done: int = await getattr(login, what)(arguments, settings, _address(arguments))
        return done

    return work


async def _banned(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import sessions, utc_now  # noqa: PLC0415

    address, until = _address(arguments), utc_now() + timedelta(days=arguments.days)
    async with sessions(settings) as control:
        kept = await control.banned(address, until)
    if kept is None:
        print(f"{address.session} is stopped; it never had an exit to keep anybody from")
    else:
        print(f"{address.session} is stopped; nobody gets the address {kept} before {until:%Y-%m-%d %H:%M}")


async def _confirm(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import sessions  # noqa: PLC0415

    address = _address(arguments)
    async with sessions(settings) as control:
        phone = await control.confirm(address)
    print(f"{address.session} keeps the number {masked(phone)}; what waited for this may leave")


async def _test_send(arguments: argparse.Namespace, settings: Settings) -> int:
    from wsm.bootstrap import sessions  # noqa: PLC0415

    address, phone = _address(arguments), phone_digits("phone", arguments.phone)
    async with sessions(settings) as control:
        trial = await control.test_send(address, phone, arguments.text, patience_seconds=arguments.wait)
    print(f"{address.session}: {_became(trial, arguments.wait)}")
    if not trial.heard:
        print(
            "wsm has heard nothing of it: are an ingest, a worker and a clock running,"
            " and does the gateway reach webhooks_url?"
        )
    return 0 if trial.level >= _AT_WHATSAPP and not trial.refused else 1


def _became(trial: "Trial", seconds: float) -> str:
    """Say what became of a text."""
    if trial.refused:
        return "WhatsApp refused it after it was sent; the account may be restricted"
    if not trial.certain:
        return "the gateway did not say whether it left: look on the phone before you send another one"
    if trial.level >= _ON_THE_PHONE:
        return "sent, and it has arrived on the phone"
    if trial.level >= _AT_WHATSAPP:
        return f"sent, and WhatsApp has it; it was not on the phone within {seconds:g} s, which may be off"
    return f"the gateway took it, and WhatsApp did not acknowledge it within {seconds:g} s"
