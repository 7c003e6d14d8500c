"""The story of `make run`: a real conversation on real servers, told on screen and checked as it goes.

Four customers of a bakery write within a second, a fifth to an optician. One is served, three are told their
places; a forged webhook is refused, one delivered twice is answered once; a worker dies in the middle of a
turn; tickets are closed one by one until everyone was served. Whatever is not so ends it with a reason.
"""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from wsm import bootstrap
from wsm.core.errors import Unavailable, WsmError
from wsm.core.ids import SessionName, TenantId
from wsm.core.templates import DEFAULT_LOCALE, render
from wsm.sandbox.embedded import Embedded
from wsm.sandbox.screen import history_lines, paint
from wsm.sandbox.site import WAHA_STATE, WORKERS, Site, site
from wsm.sandbox.waha.control import Phone
from wsm.store import reads
from wsm.store.lane import locked
from wsm.streams.keys import Kind
from wsm.telemetry import configure_logging

BAKERY, OPTICIAN = TenantId(1460561546), TenantId(1460561547)
CUSTOMERS = {
    "5511960000001": "Ana",
    "5511960000002": "Bruno",
    "5511960000003": "Carla",
    "5511960000004": "Diego",
    "5511960000005": "Elisa",
}
_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.05
_QUICKER = {"WSM_RETRY_AFTER_SECONDS": "1", "WSM_EVIDENCE_SECONDS": "3"}


class NotSo(WsmError):
    """Something in the story did not happen as it should."""


def story(home: Path, *, once: bool) -> int:
    """Tell the story; return the exit code. Blocks; without `once` it stays until Ctrl-C after it."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    configure_logging("story", "error")
    print(paint("wsm · the main job, on real servers", "bold"))
    try:
        with Embedded(home, fresh=True) as servers:
            (home / WAHA_STATE).unlink(missing_ok=True)
            return asyncio.run(_told(servers, home, once=once))
    except NotSo as exc:
        print(paint(f"\nNOT SO: {exc}", "red"))
        return 1


async def _told(servers: Embedded, home: Path, *, once: bool) -> int:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _cancel, task)
    started = time.monotonic()
    try:
        async with site(servers, home, changed=_QUICKER) as running, Phone(running.waha_url) as phone:
            _say(f"Valkey, PostgreSQL, a WAHA, ingest, clock and {len(WORKERS)} workers are up "
                 f"({time.monotonic() - started:.1f} s)")  # fmt: skip
            await _heard(Story(running, phone).tell())
            if once:
                return 0
            _invite(running)
            return await running.supervisor.run()
    except asyncio.CancelledError:
        print(paint("\nstopped", "dim"))
        return 130


async def _heard(telling: Coroutine[Any, Any, None]) -> None:
    """Run the telling; a cancellation is repeated until heard, as a driver may drop one on Python 3.11."""
    task = asyncio.ensure_future(telling)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1)
        raise


def _cancel(task: asyncio.Task[Any] | None) -> None:
    if task:
        task.cancel()


def _invite(running: Site) -> None:
    print()
    print(
        paint("It stays up until Ctrl-C. Write as a customer, from another terminal in this folder:", "bold")
    )
    wsm = ".venv/bin/wsm"
    for example in (
        f"{wsm} sandbox say user_{BAKERY} 5511960000009 'bom dia'",
        f"{wsm} sandbox inbox 5511960000009",
        f"{wsm} line show {BAKERY}",
        f"{wsm} line close {BAKERY} 5511960000009",
        f"{wsm} history {BAKERY} 5511960000009",
    ):
        print(f"    {example}")
    print(f"    webhooks: {running.webhooks_url}")


class Story:
    """One telling. Every step waits for what customers would see, and raises NotSo when it does not come."""

    def __init__(self, running: Site, phone: Phone) -> None:
        self._site = running
        self._phone = phone
        self._bakery = SessionName("")
        self._optician = SessionName("")
        self._read = dict.fromkeys(CUSTOMERS, 0)
        self._refused = 0

    async def tell(self) -> None:
        """Tell it from the beginning to the last line."""
        self._bakery, self._optician = await asyncio.gather(
            self._site.found(BAKERY, "Padaria Aurora"), self._site.found(OPTICIAN, "Ótica Luz")
        )
        async with self._screen():
            await self._everyone_writes()
            await self._somebody_forges()
            await self._a_worker_dies()
            await self._tickets_are_closed()
            await self._phone.wait_idle()
        await self._one_history()
        await self._last_line()

    async def _everyone_writes(self) -> None:
        _chapter("Five customers write within a second; Elisa's webhook is delivered twice")
        await self._until("the sessions work", self._works)
        first, *others, elisa = CUSTOMERS
        texts = (
            "Bom dia! Vocês têm pão de queijo?",
            "Oi, quero encomendar um bolo",
            "Qual o horário de hoje?",
            "Bom dia, vocês entregam?",
        )
        writing = [
            self._writes(self._bakery, who, text) for who, text in zip((first, *others), texts, strict=True)
        ]
        writing.append(self._writes(self._optician, elisa, "Meus óculos ficaram prontos?", duplicates=2))
        await asyncio.gather(*writing)
        await self._until("one bakery customer is served and three wait", partial(self._line_is, 1, 3))
        for chat, place in await self._line():
            await self._hears(chat, _turn() if place is None else _entry(place))
        await self._hears(elisa, _turn())

    async def _somebody_forges(self) -> None:
        _chapter("Somebody forges a webhook")
        status = await self._phone.forge(self._bakery)
        if status != 403:  # noqa: PLR2004
            raise NotSo(f"the forged webhook was answered {status}")
        self._refused += 1
        _say(paint("✗ answered 403; nothing was written", "red"))

    async def _a_worker_dies(self) -> None:
        _chapter("A worker is killed in the middle of a turn")
        served = (await self._line())[0][0]
        text = "Ainda estou aqui, tá?"
        async with self._site.database() as database, bootstrap.front_door(self._site.settings) as handover:
            async with locked(database, BAKERY, bootstrap.utc_now()) as transaction:
                await transaction.begin()
                # The turn claims its bell and then waits for the tenant's lock, which the story holds.
                await self._writes(self._bakery, served, text)
                await self._until("a worker is in the turn", partial(handover.holder, Kind.TURN, BAKERY))
                name = self._worker(await handover.holder(Kind.TURN, BAKERY) or "")
                pid = await self._site.supervisor.kill(name)
            _say(paint(f"✗ {name} (process {pid}) killed with SIGKILL, its turn half done", "red"))
            killed_at = time.monotonic()
            await self._until("the message is in the history", partial(self._in_history, served, text))
        await self._site.supervisor.ready(name)
        _say(paint(f"✓ handled by another one {time.monotonic() - killed_at:.1f} s later; "
                   f"{name} is back as process {self._site.supervisor.pid(name)}", "green"))  # fmt: skip

    def _worker(self, holder: str) -> str:
        """Which of the workers has this name in Redis: its process id is part of it."""
        return next(name for name in WORKERS if f"-{self._site.supervisor.pid(name)}-" in holder)

    async def _tickets_are_closed(self) -> None:
        _chapter("Tickets are closed one by one")
        for number in range(4):
            (served, _), *waiting = await self._line()
            if number % 2:
                _say(f"the agent types {paint('#fim', 'bold')} on the phone, in {CUSTOMERS[served]}'s chat")
                await self._phone.type_as_agent(self._bakery, f"{served}@c.us", "#fim")
            else:
                _say(paint(f"$ wsm line close {BAKERY} {served}", "bold"))
                await self._command("line", "close", str(BAKERY), served)
            await self._until(f"{CUSTOMERS[served]}'s ticket is closed", partial(self._has_left, served))
            for place, (chat, _) in enumerate(waiting):
                await self._hears(chat, _update(place) if place else _turn())
        if await self._line():
            raise NotSo("somebody is still in line")

    async def _one_history(self) -> None:
        chat = [*CUSTOMERS][3]
        _chapter(f"The history of {CUSTOMERS[chat]}'s chat")
        await self._until("every answer has reached its phone", partial(self._delivered, chat))
        for line in await self._history(chat):
            print(f"  {line}")

    async def _last_line(self) -> None:
        deliveries = await self._phone.deliveries()
        accepted = [each for each in deliveries if each["answers"] and each["answers"][-1] in range(200, 300)]
        refused = sum(each["answers"].count(403) for each in deliveries)
        messages = [(each["session"], each["message"]) for each in accepted if each["event"] == "message.any"]
        known = {(session, row.bare_id) for session, row in await self._all_messages()}
        lost = len(set(messages) - known)
        inboxes = {who: [each["text"] for each in await self._phone.inbox(who)] for who in CUSTOMERS}
        answered = sum(texts.count(_turn()) == 1 for texts in inboxes.values())
        repeated = sum(len(texts) != len(set(texts)) for texts in inboxes.values())
        if answered != len(CUSTOMERS) or lost or repeated or refused or not messages:
            raise NotSo(f"answered={answered} lost={lost} repeated={repeated} refused={refused}")
        duplicates = len(messages) - len(set(messages))
        if duplicates < 1:
            raise NotSo("no webhook was delivered twice")
        print()
        print(paint(f"accepted={len(accepted)} answered={answered} duplicates={duplicates} "
                    f"refused={self._refused} lost={lost}", "green"))  # fmt: skip

    # What customers do and see

    async def _writes(self, session: SessionName, who: str, text: str, **more: int) -> None:
        print(f"  {paint(CUSTOMERS[who], 'cyan'):>16} → {text}")
        await self._phone.say(session, who, text, push_name=CUSTOMERS[who], **more)

    async def _hears(self, who: str, text: str) -> None:
        async def heard() -> bool:
            return any(each["text"] == text for each in await self._phone.inbox(who))

        await self._until(f"{CUSTOMERS[who]} reads “{text}”", heard)

    @asynccontextmanager
    async def _screen(self) -> AsyncIterator[None]:
        """Show every message that reaches a customer, as it comes."""

        async def show() -> None:
            while True:
                await self._show_new()
                await asyncio.sleep(_LOOK_SECONDS)

        showing = asyncio.create_task(show())
        try:
            yield
        finally:
            showing.cancel()
            with suppress(asyncio.CancelledError):
                await showing
            await self._show_new()

    async def _show_new(self) -> None:
        for who, read in self._read.items():
            inbox = await self._phone.inbox(who)
            for each in inbox[read:]:
                print(f"  {paint(CUSTOMERS[who], 'cyan'):>16} {paint('←', 'green')} {each['text']}")
            self._read[who] = len(inbox)

    # What the database and the processes say

    async def _works(self) -> bool:
        async with self._site.database() as database:
            rows = [*await reads.sessions(database, BAKERY), *await reads.sessions(database, OPTICIAN)]
        return all(row.observed == "WORKING" for row in rows)

    async def _line(self) -> list[tuple[str, int | None]]:
        async with self._site.database() as database:
            return [(row.chat_id.partition("@")[0], row.place) for row in await reads.line(database, BAKERY)]

    async def _line_is(self, served: int, waiting: int) -> bool:
        places = [place for _, place in await self._line()]
        return (places.count(None), len(places) - places.count(None)) == (served, waiting)

    async def _has_left(self, who: str) -> bool:
        return who not in {chat for chat, _ in await self._line()}

    async def _in_history(self, who: str, text: str) -> bool:
        return any(text in line for line in await self._history(who))

    async def _delivered(self, who: str) -> bool:
        lines = await self._history(who)
        return not any("[sending]" in line or "[pending]" in line for line in lines)

    async def _history(self, who: str) -> list[str]:
        async with self._site.database() as database:
            (row,) = await reads.conversations(database, BAKERY, [f"{who}@c.us"], None)
            return history_lines(*await reads.history(database, BAKERY, row.id))

    async def _all_messages(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        async with self._site.database() as database:
            for tenant, session in ((BAKERY, self._bakery), (OPTICIAN, self._optician)):
                found += [(session, row) for row in await reads.messages(database, tenant)]
        return found

    async def _command(self, *arguments: str) -> None:
        """Run `wsm …` as a person would."""
        command = (sys.executable, "-m", "wsm", *arguments)
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(self._site.environ), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, said = await process.communicate()
        if process.returncode:
            raise NotSo(f"wsm {' '.join(arguments)}: {said.decode().strip()}")

    async def _until(self, what: str, holds: Callable[[], Awaitable[object]]) -> None:
        """Ask until it is so."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not await holds():  # noqa: ASYNC110 (other processes: only asking tells)
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise NotSo(f"{what}: not within {_PATIENCE_SECONDS:.0f} s") from None
        except Unavailable as exc:
            raise NotSo(f"{what}: {exc}") from exc


def _chapter(title: str) -> None:
    print()
    print(paint(title, "bold"))


def _say(text: str) -> None:
    print(f"  {text}")


def _turn() -> str:
    return render("turn", DEFAULT_LOCALE, {})


def _entry(place: int) -> str:
    return render("entry_next" if place == 1 else "entry", DEFAULT_LOCALE, {}, place=place)


def _update(place: int) -> str:
    return render("next" if place == 1 else "update", DEFAULT_LOCALE, {}, place=place)
