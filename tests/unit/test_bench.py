"""What the benchmarks make of their measures. They themselves need a quiet machine and are no tests."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench import __main__ as bench
from bench import clients, webhooks
from bench.harness import (
    Contender,
    Measure,
    Row,
    Rows,
    by_cost,
    by_rate,
    cpu_seconds,
    interleaved,
    median,
    percentile,
    tree,
)
from wsm.core.events import MessageReceived, Origin
from wsm.core.ids import EntryId
from wsm.wire import waha
from wsm.wire.signature import Verifier

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


def test_a_ratio_says_how_many_times_better_wsm_is() -> None:
    assert by_rate("a", 200, 50, "peer", "1/s").ratio == 4
    assert by_cost("a", 50, 200, "peer", "s").ratio == 4


def test_contenders_take_turns_and_every_figure_has_a_median_of_its_own() -> None:
    order: list[str] = []

    def contender(name: str, *rates: float) -> Contender:
        left = iter(rates)

        def measure() -> Measure:
            order.append(name)
            rate = next(left)
            latency = rate if name == "b" else None
            return Measure(rate, 10 / rate, 1.0, latency, latency)

        return Contender(name, measure)

    medians = interleaved([contender("a", 1, 5, 2), contender("b", 3, 1, 2)], 3)
    assert order == ["a", "b"] * 3
    assert medians == {"a": Measure(2, 5, 1), "b": Measure(2, 5, 1, 2, 2)}
    assert median([Measure(1, 9, 4), Measure(3, 1, 5)]) == Measure(2, 5, 4.5)


def test_a_percentile_is_one_of_the_values() -> None:
    assert [percentile(range(100), share) for share in (0, 0.5, 0.99, 1)] == [0, 50, 99, 99]


def test_rows_of_families_that_did_not_run_stay(tmp_path: Path) -> None:
    latest = tmp_path / "latest.json"
    old, other = Row("a", 1, 1, "peer", 1, ""), Row("b", 1, 1, "peer", 1, "")
    bench.keep([old, other], latest)
    new = Row("a", 2, 1, "peer", 2, "")
    bench.keep([new], latest)
    assert msgspec.json.decode(latest.read_bytes(), type=Rows).rows == [other, new]


@LINUX
def test_the_cost_of_a_process_counts_its_children_that_ended() -> None:
    burn = "sum(i * i for i in range(3_000_000))"
    before = cpu_seconds([os.getpid()])
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert cpu_seconds([os.getpid()]) > before
    assert os.getpid() in tree(os.getpid())


def test_a_generated_webhook_is_what_ingest_and_a_turn_take() -> None:
    address = webhooks.address(7)
    body = webhooks.message(address, 3, chat=2)
    head, _, sent = webhooks.request(address, body).partition(b"\r\n\r\n")
    signature = head.partition(b"X-Webhook-Hmac: ")[2].partition(b"\r\n")[0]
    Verifier([webhooks.secret(address)]).check([signature], [b"sha512"], sent)
    event = waha.read(
        sent, tenant=address.tenant, session=address.session, origin=Origin.WAHA, entry=EntryId("1-0"),
        received_at_ms=1_790_000_000_000,
    )  # fmt: skip
    assert isinstance(event, MessageReceived)
    assert 1000 < len(body) < 1400
    assert len({webhooks.message(address, number) for number in range(100)}) == 100


@LINUX
async def test_clients_are_weighed_through_real_exits_and_none_is_closed_in_use() -> None:
    async with clients.far_end() as far:
        wsm = await clients.cost("wsm", 20, far, crowd=40, held=10)
        peer = await clients.cost("httpx", 2, far, crowd=40, held=10)
    assert wsm.sockets >= 1, "every client has made its call; the other end is in this process too"
    assert (wsm.closed_in_use, wsm.left) == (0, 20)
    assert peer.built_seconds > wsm.built_seconds
    assert clients.median([wsm, peer, wsm]).left == 20
