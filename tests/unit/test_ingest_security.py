"""The log of refusals: a few lines per source, bounded in all, the rest counted. Whose word is believed."""

import asyncio
from collections.abc import Iterator

import pytest
import structlog
from structlog.typing import EventDict

from waiting import wait_for
from wsm.core.errors import BadInput
from wsm.core.ids import SessionAddress, SessionName, TenantId
from wsm.ingest.security import NO_PROXIES, RefusalLog, TrustedProxies

ANN = SessionAddress(TenantId(1460561546), SessionName("user_1460561546"))


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as found:
        yield found


def refuse(refusals: RefusalLog, address: str, times: int = 1) -> None:
    for _ in range(times):
        refusals.note(status=403, reason="signature_mismatch", address=address)


def test_a_line_says_who_what_and_whose_and_nothing_else(lines: list[EventDict]) -> None:
    refusals = RefusalLog()
    refusals.note(status=403, reason="signature_mismatch", address="10.0.0.1", known=ANN)
    refusals.note(status=503, reason="streams_away", address="10.0.0.1", detail="refused")
    first, second = lines
    assert first == {
        "event": "webhook_refused",
        "log_level": "warning",
        "room": "ingest",
        "status": 403,
        "reason": "signature_mismatch",
        "address": "10.0.0.1",
        "tenant": ANN.tenant,
        "session": ANN.session,
    }
    assert second["detail"] == "refused"
    assert "tenant" not in second


def test_each_source_has_its_few_lines_and_the_rest_is_counted(lines: list[EventDict]) -> None:
    refusals = RefusalLog(lines_per_address=3)
    refuse(refusals, "10.0.0.1", 100)
    refuse(refusals, "10.0.0.2", 2)
    assert [line["address"] for line in lines] == ["10.0.0.1"] * 3 + ["10.0.0.2"] * 2
    refusals.turn_window()
    assert lines[-1]["event"] == "refusals_suppressed"
    assert (lines[-1]["count"], lines[-1]["addresses"]) == (97, 1)
    assert lines[-1]["busiest"] == {"10.0.0.1": 97}


def test_a_new_window_begins_anew_and_a_quiet_one_says_nothing(lines: list[EventDict]) -> None:
    refusals = RefusalLog(lines_per_address=1)
    refuse(refusals, "10.0.0.1")
    refusals.turn_window()
    refusals.turn_window()
    refuse(refusals, "10.0.0.1")
    assert [line["event"] for line in lines] == ["webhook_refused"] * 2


def test_many_sources_together_are_bounded_in_lines_and_in_memory(lines: list[EventDict]) -> None:
    refusals = RefusalLog(lines=10, addresses=20)
    for number in range(1000):
        refuse(refusals, f"10.0.{number // 256}.{number % 256}")
    assert len(lines) == 10
    assert len(refusals._seen) <= 21
    refusals.turn_window()
    assert lines[-1]["count"] == 990
    assert "others" in lines[-1]["busiest"]


async def test_what_was_suppressed_is_said_by_itself_and_at_the_end(lines: list[EventDict]) -> None:
    refusals = RefusalLog(window_seconds=0.01, lines_per_address=1)
    watching = asyncio.create_task(refusals.watch())
    refuse(refusals, "10.0.0.1", 3)
    await wait_for(lambda: len(lines) == 2)
    refuse(refusals, "10.0.0.1", 4)
    watching.cancel()
    await asyncio.wait([watching])
    assert sum(line["count"] for line in lines if line["event"] == "refusals_suppressed") == 5


OURS = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("9.9.9.9", [], "9.9.9.9"),
        ("9.9.9.9", [b"1.2.3.4"], "9.9.9.9"),
        ("unknown", [b"1.2.3.4"], "unknown"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"8.8.8.8, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"8.8.8.8", b"1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"8.8.8.8, 10.0.0.9, 1.2.3.4 ,192.0.2.7,  10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("fd00::1%eth0", [b"1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"1.2.3.4:50123"], "1.2.3.4"),
        ("10.0.0.1", [b"2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", [b"[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", [b"1.2.3.4, [fd00::2%lan]:443"], "1.2.3.4"),
    ],
)
def test_the_client_is_whom_our_proxies_saw(peer: str, forwarded: list[bytes], client: str) -> None:
    assert OURS.client(peer, forwarded) == client


@pytest.mark.parametrize("peer", ["::ffff:10.0.0.1", "10.0.0.1"])
def test_an_address_that_came_over_a_socket_of_both_kinds_is_the_same(peer: str) -> None:
    assert OURS.client(peer, [b"8.8.8.8, ::ffff:1.2.3.4, ::ffff:10.0.0.2"]) == "1.2.3.4"


@pytest.mark.parametrize(
    "hop",
    [
        b"", b" ", b"unknown", b"_hidden", b"\xff\xfe", b"1.2.3", b"010.0.0.1", b"0x7f.1", b"1.2.3.4:5:6",
        b'"1.2.3.4"', b"localhost", b"1.2.3.4 5.6.7.8", b"\xb2.1.1.1", b" " * 200 + b"1.2.3.4", b"]", b"[",
    ],
)  # fmt: skip
def test_behind_a_hop_that_is_no_address_nothing_is_believed(hop: bytes) -> None:
    assert OURS.client("10.0.0.1", [b"8.8.8.8, " + hop]) == "10.0.0.1"
    assert OURS.client("10.0.0.1", [b"8.8.8.8, " + hop + b", 10.0.0.2"]) == "10.0.0.2"


def test_what_a_client_calls_his_network_is_not_repeated() -> None:
    """A zone is any text."""
    assert OURS.client("10.0.0.1", [b"fe80::1%a customer"]) == "fe80::1"


def test_of_a_chain_that_nobody_has_only_the_end_is_read() -> None:
    chain = b"1.2.3.4" + b",10.0.0.2" * 5_000
    assert OURS.client("10.0.0.1", [chain]) == "10.0.0.2"
    assert OURS.client("10.0.0.1", [b"1.2.3.4"] + [b"10.0.0.2"] * 5_000) == "10.0.0.2"
    assert OURS.client("10.0.0.1", [b"1.2.3.4" + b",10.0.0.2" * 5]) == "1.2.3.4"


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert NO_PROXIES.client("127.0.0.1", [b"1.2.3.4"]) == "127.0.0.1"


@pytest.mark.parametrize("wrong", ["", "proxy", "10.0.0.0/33", "10.0.0", "::1/200"])
def test_a_proxy_that_is_no_address_stops_the_start(wrong: str) -> None:
    with pytest.raises(BadInput, match="trusted_proxies"):
        TrustedProxies([wrong])
