"""`wsm send` and `wsm media`: from the command line through the front door to the outbox, or one sentence."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import msgspec
import pytest

from databases import Database as Urls
from mailboxes import claim_one, opened
from outboxes import Outbox
from shop import Shop, shop
from wsm.cli import main
from wsm.core.content import (
    Contact,
    Content,
    Edit,
    File,
    Image,
    Location,
    MediaSource,
    Poll,
    Reaction,
    Revoke,
    Seen,
    Text,
    Typing,
    Video,
    Voice,
)
from wsm.core.events import Origin
from wsm.core.ids import DEFAULT_SERVER, BareId, SessionAddress, SessionName
from wsm.store import fleet, media

ANA, BIA = "5511900000001", "5511900000002"
THEIRS, OURS = BareId("3EB0AAAA0001"), BareId("3EB0BBBB0001")
JPEG = b"\xff\xd8\xff" + bytes(100)
URL = "https://example.com/a.mp4"


class Counter:
    """A shop whose people write by command, and a folder to have files in."""

    def __init__(self, at: Shop, redis_url: str, folder: Path) -> None:
        self.at = at
        self.redis_url = redis_url
        self.folder = folder

    async def wsm(self, *words: str) -> tuple[int, str]:
        """Run a command: how it ended and what it said."""

        def run() -> tuple[int, str]:
            said = io.StringIO()
            with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as ended:
                main(words)
            code = ended.value.code
            return code if isinstance(code, int) else 1, said.getvalue()

        return await asyncio.to_thread(run)

    async def send(self, *words: str, chat: str = ANA) -> tuple[int, str]:
        """Send something to somebody."""
        return await self.wsm("send", str(self.at.tenant), chat, *words)

    async def entries(self) -> list[Any]:
        """Take what lies in the mailbox."""
        async with opened(self.redis_url, turn_entries=100) as (handover, redis):
            entries = list((await claim_one(handover)).entries)
            await redis.flushall()
        return entries

    async def handled(self) -> list[Any]:
        """Let the turn handle the mailbox, and return the intents that were asked for."""
        for entry in await self.entries():
            assert entry.origin is Origin.CLI
            await self.at.turn(entry.body, origin=Origin.CLI, session=entry.session)
        query = (
            "select class as of, kind, args, state, reason, session_id from outbox"
            " where class not in ('turn', 'place') order by id"
        )
        return await Outbox(self.at).rows(query)


@asynccontextmanager
async def counter(
    database: Urls, redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Counter]:
    for name, value in (
        ("REDIS_URL", redis_url),
        ("DATABASE_URL", database.app_url),
        ("WSM_MEDIA_LIMIT_BYTES", "1000"),
        ("WSM_MEDIA_IN_FLIGHT_BYTES", "5000"),
        ("WSM_MEDIA_HOSTS", "example.com"),
        ("WSM_MEDIA_TYPES", "image/*,audio/*,video/*,application/pdf"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WSM_WAHA_FIXTURES", raising=False)
    async with shop(database) as at:
        await at.turn(at.says(ANA, "oi", id=THEIRS))
        await at.turn(at.message(f"{ANA}@c.us", "olá", id=OURS, from_me=True))
        yield Counter(at, redis_url, folder)


SENT: list[tuple[tuple[str, ...], Content]] = [
    (("text", "Bom dia"), Text(text="Bom dia")),
    (("text", "sim", "--reply-to", THEIRS), Text(text="sim", reply_to=THEIRS)),
    (("reply", f"false_{ANA}@c.us_{THEIRS}", "sim"), Text(text="sim", reply_to=THEIRS)),
    (("image", "--url", URL, "--caption", "a"), Image(media=MediaSource(url=URL), caption="a")),
    (("voice", "--url", URL), Voice(media=MediaSource(url=URL))),
    (("video", "--url", URL, "--filename", "v.mp4"), Video(media=MediaSource(url=URL, filename="v.mp4"))),
    (
        ("location", "-23.5505", "-46.6333", "--title", "A loja"),
        Location(latitude=-23.5505, longitude=-46.6333, title="A loja"),
    ),
    (
        ("contact", "Ana Sá", "+55 (11) 90000-0001", "--organization", "Loja"),
        Contact(name="Ana Sá", phone="5511900000001", organization="Loja"),
    ),
    (
        ("poll", "Que dia?", "sexta", "sábado", "--multiple"),
        Poll(question="Que dia?", options=("sexta", "sábado"), multiple=True),
    ),
    (("reaction", THEIRS, "👍"), Reaction(target=THEIRS, emoji="👍")),
    (("reaction", THEIRS, ""), Reaction(target=THEIRS, emoji="")),
    (("edit", OURS, "olá!"), Edit(target=OURS, text="olá!")),
    (("delete", OURS), Revoke(target=OURS)),
    (("seen",), Seen()),
    (("typing",), Typing()),
]


async def test_every_kind_goes_from_the_command_line_into_the_outbox(
    database: Urls, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counter(database, redis_url, tmp_path, monkeypatch) as at:
        for words, _ in SENT:
            ended, said = await at.send(*words)
            assert ended == 0, said
            assert said.startswith(f"asked to send this to {ANA}@c.us, under the key ")
        intents = await at.handled()
        assert [msgspec.convert(intent.args, Content) for intent in intents] == [each for _, each in SENT]
        assert {(intent.of, intent.state) for intent in intents} == {("agent", "pending")}


async def test_a_file_of_this_machine_is_stored_once_and_sent_by_its_number(
    database: Urls, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counter(database, redis_url, tmp_path, monkeypatch) as at:
        picture, note = tmp_path / "vitrine.jpg", tmp_path / "nota.pdf"
        picture.write_bytes(JPEG)
        note.write_bytes(b"%PDF-1.7")
        ended, said = await at.wsm("media", "add", str(at.at.tenant), str(picture))
        assert (ended, said) == (0, f"1  image/jpeg  {len(JPEG)} bytes\n")
        assert (await at.send("image", "--file", str(picture), "--caption", "a"))[0] == 0
        assert (await at.send("file", "--file", str(note), "--class", "bot"))[0] == 0
        assert (await at.send("image", "--stored", "1"))[0] == 0
        listed = await media.listed(at.at.database, at.at.tenant)
        assert [(row.filename, row.mimetype) for row in listed] == [
            ("vitrine.jpg", "image/jpeg"),
            ("nota.pdf", "application/pdf"),
        ]
        [number] = [row.id for row in listed if row.filename == "nota.pdf"]
        ended, said = await at.wsm("media", "list", str(at.at.tenant))
        assert (ended, said.count("\n")) == (0, 2)
        assert "vitrine.jpg" in said
        intents = await at.handled()
        assert [msgspec.convert(intent.args, Content) for intent in intents] == [
            Image(media=MediaSource(stored=1, filename="vitrine.jpg"), caption="a"),
            File(media=MediaSource(stored=number, filename="nota.pdf")),
            Image(media=MediaSource(stored=1)),
        ]
        assert [intent.of for intent in intents] == ["agent", "bot", "agent"]


async def test_a_key_is_sent_once_and_somebody_new_gets_a_conversation(
    database: Urls, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counter(database, redis_url, tmp_path, monkeypatch) as at:
        for _ in range(2):
            ended, said = await at.send("text", "oi", "--key", "order 7", "--expires", "2h", chat=BIA)
            assert (ended, said) == (0, f"asked to send this to {BIA}@c.us, under the key order 7\n")
        [intent] = await at.handled()
        assert intent.state == "pending"
        assert await at.at.count("conversations") == 2


REFUSED: list[tuple[tuple[str, ...], int, str]] = [
    (("text", " "), 2, "text: is empty"),
    (("poll", "?", "a"), 2, "options: 2 to 12 of them"),
    (("location", "91", "0"), 2, "latitude: degrees"),
    (("reaction", THEIRS, "ok"), 2, "emoji: is one emoji"),
    (("reaction", "3EB0CCCC", "👍"), 2, "target: there is no such message in this chat"),
    (("text", "a", "--reply-to", "3EB0CCCC"), 2, "reply_to: there is no such message in this chat"),
    (("edit", THEIRS, "x"), 2, "target: is not an own message"),
    (("delete", THEIRS), 2, "target: is not an own message"),
    (("image", "--file", "nowhere.jpg"), 2, "--file: cannot read it"),
    (("image", "--file", "nota.pdf"), 2, "media: is application/pdf, and no image"),
    (("file", "--file", "long.pdf"), 1, "over the limit of 1000 bytes"),
    (("file", "--file", "a.zip"), 2, "application/zip is not among media_types"),
    (("image", "--stored", "999"), 1, "the store has no file 999"),
    (("image", "--url", "http://10.0.0.1/a.jpg"), 2, "url: leads to no public address"),
    (("image", "--url", "https://other.test/a.jpg"), 2, "--url: its host is not among media_hosts"),
    (("image", "--url", URL, "--file", "nota.pdf"), 2, "not allowed with"),
    (("image",), 2, "--file --url --stored"),
    (("text", "a", "--key", " "), 2, "--key: 1 to 200 characters"),
    (("text", "a", "--expires", "0m"), 2, "--expires: is over"),
    (("text", "a", "--not-before", "2h", "--expires", "1h"), 2, "--expires: is over"),
    (("text", "a", "--not-before", "2026-11-20T12:00"), 2, "--not-before: a time needs its zone"),
    (("text", "a", "--not-before", "soon"), 2, "--not-before: a time like"),
    (("text", "a", "--not-before", "99d"), 2, "--not-before: at most 30 days"),
    (("text", "a", "--not-before", "1900-01-01T00:00Z"), 2, "--not-before: is over"),
    (("text", "a", "--not-before", "0001-01-01T00:00+14:00"), 2, "--not-before: is over"),
    (("text", "a", "--expires", "0001-01-01T00:00+14:00"), 2, "--expires: is over"),
    (("text", "a", "--expires", "9999-12-31T23:59-14:00"), 2, "--expires: at most 30 days"),
    (("text", "a", "--class", "turn"), 2, "invalid choice"),
    (("text", "a", "--session", "user_1"), 1, "has no such session"),
]


async def test_what_cannot_be_sent_is_one_sentence_and_enters_nowhere(
    database: Urls, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counter(database, redis_url, tmp_path, monkeypatch) as at:
        for name, content in (("nota.pdf", b"%PDF-"), ("long.pdf", b"%PDF-" * 500), ("a.zip", b"PK\x03\x04")):
            (tmp_path / name).write_bytes(content)
        monkeypatch.chdir(tmp_path)
        for words, code, says in REFUSED:
            ended, said = await at.send(*words)
            assert ended == code, (words, said)
            assert says in said
            assert "Traceback" not in said
        for words, says in (
            (("seen",), "has no conversation with that chat"),
            (("reaction", THEIRS, "👍"), "has no conversation with that chat"),
            (("text", "a", "--reply-to", THEIRS), "there is no such message"),
        ):
            ended, said = await at.send(*words, chat=BIA)
            assert ended in {1, 2}
            assert says in said
        assert (await at.send("text", "a", chat="status@broadcast"))[1].startswith("wsm: chat: is nobody")
        assert (await at.send("text", "a", chat="nobody"))[1].startswith("wsm: chat: a phone number")
        async with opened(redis_url) as (_, redis):
            assert await redis.keys("wsm:*:in") == []
        assert await at.at.count("media") == 0


async def test_who_has_several_numbers_says_which(
    database: Urls, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with counter(database, redis_url, tmp_path, monkeypatch) as at:
        name = SessionName(f"{at.at.address.session}_two")
        address = SessionAddress(at.at.tenant, name)
        await fleet.add_session(at.at.system, address, server=DEFAULT_SERVER, alias="two", kid="k1")
        ended, said = await at.send("text", "a", chat=BIA)
        assert (ended, said) == (
            2,
            f"wsm: --session: needed: one of {at.at.address.session}, {name}\n",
        )
        assert (await at.send("text", "a"))[0] == 0, "there is one chat with Ana"
        assert (await at.send("text", "b", "--session", name, chat=BIA))[0] == 0
        one, two = await at.handled()
        assert one.session_id != two.session_id
