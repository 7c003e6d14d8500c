"""The media store, and files on their way into a message."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from behind_exits import behind_exits, needs_exits
from databases import Database as Urls
from scripted_gateway import Asked, Gateway, Reply, hangs, says
from shop import START, Shop, shop
from waiting import wait_for
from wsm.core.content import Content, File, Image, Loaded, MediaSource, Text
from wsm.core.errors import BadInput, ExitFailed, NoRoom, NotFound, TooLarge, WsmError
from wsm.core.exits import Way
from wsm.core.ids import TenantId
from wsm.gateway.fetch import Fetching
from wsm.gateway.waha import Gateways
from wsm.store import media
from wsm.worker.media import Files

JPEG = b"\xff\xd8\xff" + bytes(range(256)) * 4
PDF = b"%PDF-1.7 nota"
PUBLIC = "93.184.216.34"
WAY = Way("br", "ann0000000000000")


async def put(at: Shop, content: bytes, filename: str = "a.jpg", tenant: TenantId | None = None) -> int:
    mimetype = "image/jpeg" if content.startswith(b"\xff\xd8") else "application/pdf"
    return await media.put(
        at.database, tenant or at.tenant, content, mimetype=mimetype, filename=filename, now=at.now
    )


async def test_a_content_is_stored_once_and_is_young_again_when_it_is_used(database: Urls) -> None:
    async with shop(database) as at:
        number = await put(at, JPEG)
        at.later(60)
        assert await put(at, JPEG, "b.jpg") == number
        other = await put(at, PDF, "nota.pdf")
        assert other != number
        assert await media.size(at.database, at.tenant, number) == len(JPEG)
        [row, _] = await media.listed(at.database, at.tenant)
        assert (row.filename, row.bytes, row.created_at, row.used_at) == ("a.jpg", len(JPEG), START, at.now)
        at.later(60)
        taken = await media.take(at.database, at.tenant, number, at.now)
        assert taken == media.Stored(JPEG, "image/jpeg", "a.jpg")
        [row, _] = await media.listed(at.database, at.tenant)
        assert row.used_at == at.now
        async with at.database.transaction(at.tenant) as transaction:
            query = "select sha256 from media where id = %s"
            [sha] = await (await transaction._connection.execute(query, [number])).fetchone() or (b"",)
        assert bytes(sha) == hashlib.sha256(JPEG).digest()


async def test_a_file_is_its_tenants_alone(database: Urls) -> None:
    async with shop(database) as at:
        neighbour = await Shop(at.database, at.system, TenantId(77)).founded()
        theirs = await put(at, PDF, tenant=neighbour.tenant)
        assert await media.take(at.database, at.tenant, theirs, at.now) is None
        assert await media.size(at.database, at.tenant, theirs) is None
        assert await put(at, PDF) != theirs
        assert len(await media.listed(at.database, at.tenant)) == 1


async def test_what_nobody_used_for_long_is_purged_a_part_at_a_time(database: Urls) -> None:
    async with shop(database) as at:
        numbers = [await put(at, PDF + bytes([number])) for number in range(5)]
        at.later(86_400)
        await media.take(at.database, at.tenant, numbers[2], at.now)
        before = START + timedelta(hours=1)
        assert [await media.purge(at.system, before, limit=3) for _ in range(3)] == [3, 1, 0]
        assert [row.id for row in await media.listed(at.database, at.tenant)] == [numbers[2]]


@asynccontextmanager
async def files(at: Shop, **limits: int) -> AsyncIterator[Files]:
    gateways = Gateways({}, send_timeout_seconds=5)
    room = limits.pop("in_flight_bytes", 10_000)
    fetching = Fetching(limit_bytes=limits.pop("limit_bytes", 2_000))
    try:
        yield Files(
            at.database, gateways, fetching, clock=lambda: at.now, in_flight_bytes=room, types=("*/*",)
        )
    finally:
        await gateways.aclose()


def stored(number: int) -> Content:
    return Image(media=MediaSource(stored=number))


async def test_a_stored_file_is_lent_and_its_room_given_back(database: Urls) -> None:
    async with shop(database) as at, files(at) as loader:
        number = await put(at, JPEG)
        async with loader.loaded(at.tenant, None, stored(number)) as file:
            assert file == Loaded(JPEG, "image/jpeg", "a.jpg")
            assert loader.held_bytes == len(JPEG)
        assert loader.held_bytes == 0
        async with loader.loaded(at.tenant, None, Text(text="a")) as nothing:
            assert nothing is None


async def test_what_finds_no_room_is_unavailable_and_waits_nowhere(database: Urls) -> None:
    async with shop(database) as at, files(at, in_flight_bytes=2_000) as loader:
        number = await put(at, JPEG)
        async with loader.loaded(at.tenant, None, stored(number)):
            with pytest.raises(NoRoom, match="no room"):
                async with loader.loaded(at.tenant, None, stored(number)):
                    pass
        async with loader.loaded(at.tenant, None, stored(number)) as file:
            assert file is not None
        assert loader.held_bytes == 0


async def test_of_one_tenant_half_is_kept_and_the_others_have_the_rest(database: Urls) -> None:
    async with shop(database) as at, files(at, in_flight_bytes=4_000) as loader:
        neighbour = await Shop(at.database, at.system, TenantId(77)).founded()
        number, theirs = await put(at, JPEG), await put(at, JPEG, tenant=neighbour.tenant)
        async with loader.loaded(at.tenant, None, stored(number)):
            with pytest.raises(NoRoom):
                async with loader.loaded(at.tenant, None, stored(number)):
                    pass
            async with loader.loaded(neighbour.tenant, None, stored(theirs)) as file:
                assert file is not None
        assert loader.held_bytes == 0


async def stops_half_way(_: Asked, writer: asyncio.StreamWriter) -> None:
    """Send the head and 700 bytes of 2,000, and nothing more."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + bytes(700))
    await asyncio.Event().wait()


@asynccontextmanager
async def a_host(reply: Reply) -> AsyncIterator[tuple[Gateway, Content, Fetching]]:
    """A host of files that answers like this, a content that is there, and what fetches from this machine."""
    host = Gateway()
    host.reply = reply
    async with await asyncio.start_server(host.serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]

        async def names(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        url = f"http://files.example:{port}/a.jpg"
        fetching = Fetching(limit_bytes=2_000, resolve=names, may_reach=lambda _: True)
        yield host, Image(media=MediaSource(url=url)), fetching
        await host.stop()


@pytest.mark.parametrize(("reply", "held"), [(hangs, 0), (stops_half_way, 700)])
async def test_a_host_that_hangs_takes_the_room_of_what_it_sent_and_few_fetches_of_its_tenant(
    database: Urls, reply: Reply, held: int
) -> None:
    async with shop(database) as at, a_host(reply) as (host, content, fetching):
        number = await put(at, JPEG)
        gateways = Gateways({}, send_timeout_seconds=5)
        loader = Files(at.database, gateways, fetching, clock=lambda: at.now, in_flight_bytes=20_000)

        async def fetched(tenant: TenantId) -> None:
            async with loader.loaded(tenant, None, content):
                pass

        hung = [asyncio.create_task(fetched(at.tenant)) for _ in range(8)]
        await wait_for(lambda: len(host.asked) == len(hung) and loader.held_bytes == held * len(hung))
        with pytest.raises(NoRoom):
            await fetched(at.tenant)
        async with loader.loaded(at.tenant, None, stored(number)) as file:
            assert file is not None, "what is stored need not wait for strangers"
        others = asyncio.create_task(fetched(TenantId(77)))
        await wait_for(lambda: len(host.asked) == len(hung) + 1)
        for task in [*hung, others]:
            task.cancel()
        await asyncio.gather(*hung, others, return_exceptions=True)
        assert loader.held_bytes == 0
        host.reply = says(200, JPEG)
        await fetched(at.tenant)
        await gateways.aclose()


async def test_what_comes_when_there_is_no_more_room_is_given_up(database: Urls) -> None:
    async with shop(database) as at, a_host(says(200, JPEG + bytes(900))) as (_, content, fetching):
        gateways = Gateways({}, send_timeout_seconds=5)
        loader = Files(at.database, gateways, fetching, clock=lambda: at.now, in_flight_bytes=2_500)
        async with loader.loaded(at.tenant, None, content):
            with pytest.raises(NoRoom):
                async with loader.loaded(TenantId(77), None, content):
                    pass
        assert loader.held_bytes == 0
        await gateways.aclose()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (stored(999), NotFound),
        (Image(media=MediaSource(url="http://10.0.0.1/")), BadInput),
        (Image(media=MediaSource(url="http://localhost/")), BadInput),
    ],
)
async def test_what_will_never_be_there_is_refused(
    database: Urls, content: Content, error: type[WsmError]
) -> None:
    async with shop(database) as at, files(at) as loader:
        with pytest.raises(error):
            async with loader.loaded(at.tenant, None, content):
                pass
        assert loader.held_bytes == 0


async def test_a_stored_file_that_is_too_long_or_no_image_is_refused(database: Urls) -> None:
    async with shop(database) as at, files(at, limit_bytes=1_000) as loader:
        long, pdf = await put(at, JPEG), await put(at, PDF, "nota.pdf")
        with pytest.raises(TooLarge):
            async with loader.loaded(at.tenant, None, stored(long)):
                pass
        with pytest.raises(BadInput, match="no image"):
            async with loader.loaded(at.tenant, None, stored(pdf)):
                pass
        async with loader.loaded(at.tenant, None, File(media=MediaSource(stored=pdf))) as file:
            assert file == Loaded(PDF, "application/pdf", "nota.pdf")


@needs_exits
async def test_a_sessions_file_is_fetched_through_its_own_exit_or_not_at_all(database: Urls) -> None:
    host = Gateway()
    host.reply = says(200, JPEG, "Content-Type: text/html")
    listener = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]

    async def names(_host: str, _port: int) -> list[str]:
        return [PUBLIC]

    async with shop(database) as at, behind_exits(hosts={PUBLIC: "127.0.0.1"}) as behind:
        fetching = Fetching(limit_bytes=2_000, resolve=names)
        loader = Files(at.database, behind.gateways, fetching, clock=lambda: at.now, in_flight_bytes=10_000)
        content = Image(media=MediaSource(url=f"http://files.example:{port}/foto.jpg"), caption="a")
        async with loader.loaded(at.tenant, WAY, content) as file:
            assert file == Loaded(JPEG, "image/jpeg", "foto.jpg")
        [passage] = behind.proxy.seen
        assert passage.identity == f"acme-country-br-session-{WAY.identity}"
        assert passage.host == PUBLIC
        await behind.proxy.down()
        with pytest.raises(ExitFailed):
            async with loader.loaded(at.tenant, WAY, content):
                pass
        assert host.connections == 1
        await behind.proxy.up()
    await host.stop()
    listener.close()
    await listener.wait_closed()
