"""The commands for who serves customers: the line, its queues and agents, a chat's history.

Whatever moves the line is asked for at the front door, like everything else, and a turn decides; the command
then waits a moment for that turn and says what has come of it. An ask counts once, whatever becomes of the
command. Queues are set up directly, under the tenant's lock.
"""

import argparse
import asyncio
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wsm.config import Settings
from wsm.core.asks import Ask, SetAgent, Verb, What
from wsm.core.content import SendClass, Text, check
from wsm.core.errors import BadInput, NotFound, NotPossible
from wsm.core.ids import ChatAddress, ChatId, SessionAddress, SessionName, TenantId
from wsm.core.tickets import Level
from wsm.desk import Work, add_verb, tenant_number
from wsm.sandbox.screen import plain
from wsm.wire.waha_ids import chat_id

if TYPE_CHECKING:
    from wsm.desk import Commands

_PATIENCE_SECONDS = 5.0
_LOOK_SECONDS = 0.05
_OF_A_TICKET = {
    "return": (Verb.RETURN, "let a customer wait again, in his old place"),
    "park": (Verb.PARK, "put a ticket aside until the customer writes"),
}
_OF_AN_AGENT = {
    "online": (Verb.ONLINE, "an agent comes: he is given customers"),
    "offline": (Verb.OFFLINE, "an agent goes: his customers are another one's after two minutes"),
    "next": (Verb.NEXT, "give an agent who has room the first who waits"),
    "remove": (Verb.REMOVE, "an agent goes for good: his customers are another one's after two minutes"),
}


class Counter:
    """Adds the commands to a parser. settings: reads them when a command runs."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings

    def add_line(self, commands: "Commands") -> None:
        """Add `line show|close` and `history`."""
        verbs = _group(commands, "line", "the line of a tenant")
        show = self._verb(verbs, "show", _show, "who is served and who waits, and messages that were left")
        show.add_argument("--queue", help="of this queue alone")
        show.add_argument("--chat", help="of one person alone: a phone number, or any of his chat ids")
        show.add_argument("--from", dest="first", type=int, default=1, help="the first place to show")
        show.add_argument("--many", type=int, default=50, help="how many places of each queue")
        close = self._verb(verbs, "close", _close, "close a chat's ticket; the next customer is called")
        _name_chat(close)
        _name_chat(self._verb(commands, "history", _history, "everything that was said in a chat"))

    def add_queue(self, commands: "Commands") -> "Commands":
        """Add `queue list|set`, and return where its verbs are added."""
        verbs = _group(commands, "queue", "the queues of a tenant")
        self._verb(verbs, "list", _queues, "every queue, and who waits in it")
        set_ = self._verb(verbs, "set", _set_queue, "make a queue, or change what is said of it")
        set_.add_argument("queue")
        for option, text in (
            ("capacity", "served at a time, where there are no agents"),
            ("ageing-minutes", "of waiting, to stand beside newcomers of the next more urgent level"),
            ("max-length", "who finds so many waiting is asked to leave a message; 0: no limit"),
            ("max-wait-minutes", "so is who has waited so long; 0: no limit"),
            ("reopen-hours", "after its end, in which a customer who writes comes back to his ticket"),
        ):
            set_.add_argument(f"--{option}", type=int, metavar="N", help=text)
        yes_or_no = argparse.BooleanOptionalAction
        set_.add_argument(
            "--pull", action=yes_or_no, help="nobody is called until an agent asks for the next"
        )
        set_.add_argument("--keeps", action=yes_or_no, help="who waits at closing time keeps his place")
        set_.add_argument("--session", action="append", default=[], help="whose customers enter here")
        return verbs

    def add_agent(self, commands: "Commands") -> None:
        """Add `agent add|list|online|offline|remove|next|reply|transfer|return|park|close`."""
        verbs = _group(commands, "agent", "those who serve a tenant's customers")
        self._verb(verbs, "list", _agents, "every agent, and how many he serves")
        add = self._verb(verbs, "add", _add_agent, "make an agent, or change what is said of him")
        add.add_argument("--capacity", type=int, metavar="N", help="customers served at a time; 1 at first")
        add.add_argument("--queue", action="append", help="one that he serves; all if none is named")
        for name, (verb, text) in _OF_AN_AGENT.items():
            self._verb(verbs, name, _presence, text).set_defaults(verb=verb)
        reply = self._verb(verbs, "reply", _reply, "write to a customer")
        transfer = self._verb(
            verbs, "transfer", _transfer, "give a ticket to an agent, or to a queue or level"
        )
        for name, (verb, text) in _OF_A_TICKET.items():
            self._verb(verbs, name, _move, text).set_defaults(verb=verb)
        self._verb(verbs, "close", _close, "close a ticket; the next customer is called")
        for name, parser in verbs.choices.items():
            if name != "list":
                parser.add_argument("agent", help="the agent's name")
            if name in {"reply", "transfer", "close", *_OF_A_TICKET}:
                _name_chat(parser)
        reply.add_argument("text")
        transfer.add_argument("--to", default="", help="an agent who has room, past the line")
        transfer.add_argument("--force", action="store_true", help="to an agent who has no room, too")
        transfer.add_argument("--queue", default="", help="with the time of his entry")
        transfer.add_argument("--level", choices=[level.name.lower() for level in Level])

    def _verb(self, verbs: "Commands", name: str, work: Work, text: str) -> argparse.ArgumentParser:
        parser = add_verb(verbs, name, work, self._settings, text)
        parser.add_argument("tenant", type=tenant_number)
        return parser


def _group(commands: "Commands", name: str, text: str) -> "Commands":
    return commands.add_parser(name, help=text).add_subparsers(metavar="VERB", required=True)


def _name_chat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("chat", help="a phone number with country code, or a chat id")
    parser.add_argument("--session", help="which of the tenant's sessions, if he has several")


# --- the line


async def _show(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415 (each command loads its own parts)
    from wsm.store import reads  # noqa: PLC0415

    if arguments.first < 1 or arguments.many < 1:
        raise BadInput("--from, --many", "at least 1")
    page = {"queue": arguments.queue, "first": arguments.first, "many": arguments.many}
    async with tenant_reads(settings) as database:
        if arguments.chat:
            rows, left = await reads.standing(database, arguments.tenant, chat_id(arguments.chat)), []
        else:
            rows = await reads.line(database, arguments.tenant, **page)
            left = await reads.left_messages(database, arguments.tenant)
    queues = {row.queue for row in rows}
    for row in rows:
        place = row.state if row.place is None else f"place {row.place}"
        told = f"  told {row.told_place}" if row.place and row.told_place else ""
        level = "" if row.level == Level.NORMAL else f"  {Level(row.level).name.lower()}"
        agent = f"  by {plain(row.agent)}" if row.agent else ""
        queue = f"  {plain(row.queue)}" if len(queues) > 1 else ""
        print(f"{place:<9} {row.chat_id:<28} {row.session:<24} since {row.entered_at:%H:%M:%S}"
              f"{told}{level}{agent}{queue}")  # fmt: skip
    for row in left:
        print(f"{'message':<9} {row.chat_id:<28} {row.session:<24} since {row.closed_at:%d %b %H:%M:%S}")
    if not rows:
        print("he is not in line" if arguments.chat else "nobody is in line")


async def _close(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.wire.waha import close_command  # noqa: PLC0415

    address, _ = await _chat(arguments, settings)
    if "agent" in arguments:
        await _known_agent(settings, arguments.tenant, arguments.agent)
    await _offer(settings, _session(address), close_command(address, id=uuid.uuid4().hex, by=_by(arguments)))
    print(f"asked to close {address.chat}")


async def _history(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.sandbox.screen import history_lines  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    _, conversation = await _chat(arguments, settings)
    async with tenant_reads(settings) as database:
        messages, unsent = await reads.history(database, arguments.tenant, conversation)
    print("\n".join(history_lines(messages, unsent)))


# --- queues


async def _queues(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    async with tenant_reads(settings) as database:
        rows = await reads.queues(database, arguments.tenant)
    for row in rows:
        limits = {"at most": row.max_length, "minutes at most": row.max_wait_minutes}
        said = [f"{text} {limit}" for text, limit in limits.items() if limit]
        said += ["agents ask for the next"] * row.pull + ["closes with its hours"] * (not row.keeps)
        said += [f"from {', '.join(row.sessions)}"] if row.sessions else []
        said += [f"ageing {row.ageing_minutes} min", f"reopen {row.reopen_hours} h"]
        who = f"served {row.served:<5} waiting {row.waiting:<6} capacity {row.capacity:<4}"
        print(f"{plain(row.name):<20} {who} {'; '.join(said)}")


async def _set_queue(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import fleet_writes  # noqa: PLC0415
    from wsm.store import fleet  # noqa: PLC0415

    address = await _any_session(arguments.tenant, settings)
    names = ("capacity", "ageing_minutes", "max_length", "max_wait_minutes", "reopen_hours", "pull", "keeps")
    values = {name: getattr(arguments, name) for name in names}
    async with fleet_writes(settings) as database:
        await fleet.set_queue(database, arguments.tenant, arguments.queue, arguments.session, **values)
    await _ask(settings, address, Ask(verb=Verb.TEND), by="cli")


# --- agents


async def _agents(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    async with tenant_reads(settings) as database:
        rows = await reads.agents(database, arguments.tenant)
    for row in rows:
        state = ("online " if row.online else "offline") + (
            f" since {row.since:%H:%M:%S}" if row.since else ""
        )
        queues = ", ".join(map(plain, row.queues)) if row.queues else "all queues"
        print(f"{plain(row.name):<20} serves {row.served} of {row.capacity:<4} {state:<24} {queues}")
    if not rows:
        print("there are no agents: queues serve by their capacity")


async def _add_agent(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    if not 1 <= len(arguments.agent) <= 60:  # noqa: PLR2004
        raise BadInput("agent", "a name of 60 characters at most")
    if arguments.capacity is not None and not 0 <= arguments.capacity <= 100:  # noqa: PLR2004
        raise BadInput("--capacity", "from 0 to 100")
    async with tenant_reads(settings) as database:
        known = {row.name for row in await reads.queues(database, arguments.tenant)}
    if unknown := {*(arguments.queue or ())} - known:
        raise NotFound(f"tenant {arguments.tenant} has no queue {', '.join(sorted(unknown))}")
    queues = None if arguments.queue is None else tuple(arguments.queue)
    what = SetAgent(agent=arguments.agent, capacity=arguments.capacity, queues=queues)
    await _ask(settings, await _any_session(arguments.tenant, settings), what, by="cli")


async def _presence(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    address = await _any_session(arguments.tenant, settings)
    await _known_agent(settings, arguments.tenant, arguments.agent)
    await _ask(settings, address, Ask(verb=arguments.verb, agent=arguments.agent), by=arguments.agent)
    async with tenant_reads(settings) as database:
        for row in await reads.served_by(database, arguments.tenant, arguments.agent):
            print(f"serves    {row.chat_id:<28} {row.session:<24} since {row.served_at:%H:%M:%S}")


async def _reply(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.wire.waha import send_command  # noqa: PLC0415

    content = Text(text=arguments.text)
    check(content)
    address, _ = await _chat(arguments, settings)
    await _known_agent(settings, arguments.tenant, arguments.agent)
    body = send_command(address, content, id=uuid.uuid4().hex, by=arguments.agent, send_class=SendClass.AGENT)
    await _offer(settings, _session(address), body)
    print(f"asked to send it to {plain(address.chat)}")


async def _transfer(arguments: argparse.Namespace, settings: Settings) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    if bool(arguments.to) == bool(arguments.queue or arguments.level):
        raise BadInput("--to", "name an agent, or a queue or a level")
    if arguments.force and not arguments.to:
        raise BadInput("--force", "names no agent")
    if arguments.to:
        await _known_agent(settings, arguments.tenant, arguments.to)
        await _move_to(arguments, settings, Ask(verb=Verb.GIVE, agent=arguments.to, force=arguments.force))
        return
    async with tenant_reads(settings) as database:
        known = {row.name for row in await reads.queues(database, arguments.tenant)}
    if arguments.queue and arguments.queue not in known:
        raise NotFound(f"tenant {arguments.tenant} has no queue {arguments.queue}")
    level = Level[arguments.level.upper()] if arguments.level else None
    await _move_to(arguments, settings, Ask(verb=Verb.MOVE, queue=arguments.queue, level=level))


async def _move(arguments: argparse.Namespace, settings: Settings) -> None:
    await _move_to(arguments, settings, Ask(verb=arguments.verb))


async def _move_to(arguments: argparse.Namespace, settings: Settings, what: Ask) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    address, conversation = await _chat(arguments, settings)
    await _known_agent(settings, arguments.tenant, arguments.agent)
    await _ask(settings, _session(address), what, by=arguments.agent, chat=address.chat)
    async with tenant_reads(settings) as database:
        row = await reads.ticket(database, arguments.tenant, conversation)
    if row is not None:
        agent = f" by {plain(row.agent)}" if row.agent else ""
        print(f"{address.chat} is {row.state}{agent} in {plain(row.queue)}")


# --- at the front door


async def _ask(
    settings: Settings, address: SessionAddress, what: What, *, by: str, chat: ChatId | None = None
) -> None:
    """Ask for something, and wait until a turn has decided on it. Raises NotPossible if it was refused."""
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415
    from wsm.wire.asks import ask_command, ask_key  # noqa: PLC0415

    id_ = uuid.uuid4().hex
    await _offer(settings, address, ask_command(address, what, id=id_, by=by, chat=chat))
    until = time.monotonic() + _PATIENCE_SECONDS
    async with tenant_reads(settings) as database:
        while not await reads.is_handled(database, address.tenant, address.session, ask_key(id_)):
            if time.monotonic() > until:
                print("asked; no worker has come to it yet")
                return
            await asyncio.sleep(_LOOK_SECONDS)
        refused = await reads.refusal(database, address.tenant, ask_key(id_))
    if refused is not None:
        raise NotPossible(f"refused: {refused}")
    print("done")


async def _offer(settings: Settings, address: SessionAddress, body: bytes) -> None:
    from wsm.bootstrap import front_door  # noqa: PLC0415
    from wsm.core.events import Origin  # noqa: PLC0415
    from wsm.streams.handover import Offer  # noqa: PLC0415

    offer = Offer(address.tenant, address.session, Origin.CLI, time.time_ns() // 1_000_000, body)
    async with front_door(settings) as handover:
        await handover.accept([offer])


def _session(address: ChatAddress) -> SessionAddress:
    return SessionAddress(address.tenant, address.session)


def _by(arguments: argparse.Namespace) -> str:
    return str(getattr(arguments, "agent", "cli"))


async def _any_session(tenant: TenantId, settings: Settings) -> SessionAddress:
    """Name one of a tenant's sessions: what is asked of the whole line counts once in it."""
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    async with tenant_reads(settings) as database:
        rows = await reads.sessions(database, tenant)
    if not rows:
        raise NotFound(f"there is no tenant {tenant}, or he has no session")
    return SessionAddress(tenant, SessionName(rows[0].name))


async def _known_agent(settings: Settings, tenant: TenantId, name: str) -> None:
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    async with tenant_reads(settings) as database:
        if name not in {row.name for row in await reads.agents(database, tenant)}:
            raise NotFound(f"tenant {tenant} has no agent {name}")


async def _chat(arguments: argparse.Namespace, settings: Settings) -> tuple[ChatAddress, int]:
    """Find the one conversation that a command names."""
    from wsm.bootstrap import tenant_reads  # noqa: PLC0415
    from wsm.store import reads  # noqa: PLC0415

    tenant, chat = arguments.tenant, chat_id(arguments.chat)
    session = SessionName(arguments.session) if arguments.session else None
    async with tenant_reads(settings) as database:
        rows: list[Any] = await reads.conversations(database, tenant, [chat] if chat else [], session)
    if not rows:
        raise NotFound(f"tenant {tenant} has no conversation with that chat")
    if len(rows) > 1:
        raise BadInput("--session", f"needed: one of {', '.join(row.session for row in rows)}")
    row = rows[0]
    return ChatAddress(tenant, SessionName(row.session), ChatId(row.chat_id)), row.id
