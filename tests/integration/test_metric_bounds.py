"""A metric has as many series with 500 tenants as with a few, whatever sessions are called and bodies say."""

import asyncio
import re
from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from databases import Database as Urls
from ingesting import HOOK, Site, event, listed, path_of, request, secret_of, site
from shop import Shop
from wsm.bootstrap import opened
from wsm.core.ids import SessionAddress, SessionName, TenantId
from wsm.store.database import Database
from wsm.telemetry import METRICS

WORD = re.compile(r"[A-Za-z_]{1,40}\Z")
OWN = {family.name for metric in METRICS for family in metric.describe()}
HOSTILE = ("\n", '"', "{}", "\0", "x" * 5000, "é", "user_1", 'a="b"} 1\nfake 1', "\x1b[2J")


def series(page: str) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Every series of wsm's own on a page of metrics: its name and its labels, but those of buckets."""
    for family in text_string_to_metric_families(page):
        if family.name in OWN:
            for sample in family.samples:
                yield sample.name, tuple(sorted(each for each in sample.labels.items() if each[0] != "le"))


def check_words(page: str) -> None:
    """No label has a value that is not one of wsm's words."""
    assert {name for name, _ in series(page)}
    for name, labels in series(page):
        for label, value in labels:
            assert WORD.match(value), f"{name}: {label} is {value!r}"


async def everybody(at: Site, addresses: Iterable[SessionAddress]) -> None:
    """Let each session be heard well signed, forged, at the hook, and under a hostile name."""
    for number, address in enumerate(addresses):
        name = HOSTILE[number % len(HOSTILE)]
        gone = SessionAddress(TenantId(address.tenant + 10**6), SessionName(f"gone_{number}"))
        body, strange = event(address.session, number=number), event(f"{name}{number}", me={"id": name})
        for post in (
            request(path_of(address), body, secret=secret_of(address)),
            request(path_of(address), body, secret=f"wrong {number}"),
            request(path_of(address), strange, secret=secret_of(address)),
            request(path_of(gone), body, secret=secret_of(gone)),
            request(HOOK, body, secret="hook-new"),
            request(HOOK, strange, secret="hook-new"),
            request(f"{HOOK}?server=s{number}", body, secret="hook-new"),
        ):
            await at.say(post)


async def test_500_tenants_have_no_more_series_than_twenty(redis_url: str, database: Urls) -> None:
    addresses = [SessionAddress(TenantId(n), SessionName(f"user_{n}_Zz-9")) for n in range(1, 501)]
    async with (
        site(redis_url, sessions=[listed(each) for each in addresses]) as at,
        opened(Database(database.app_url, connections=2)) as app,
        opened(Database(database.system_url, connections=1)) as system,
    ):
        counted = []
        for some in (addresses[:20], addresses[20:]):
            await asyncio.gather(*(everybody(at, some[first::8]) for first in range(8)))
            for address in some[:15]:
                shop = await Shop(app, system, address.tenant).founded()
                await shop.turn(shop.says("5511900000001", "oi"), shop.body(f"kind.{address.tenant}", {}))
            page = generate_latest(REGISTRY).decode()
            check_words(page)
            counted.append(len(set(series(page))))
        assert counted[0] == counted[1]
