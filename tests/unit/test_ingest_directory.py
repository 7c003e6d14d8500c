"""The directory in memory: fresh, stale, absent, and what a new version changes."""

import asyncio
from contextlib import suppress

import pytest

from waiting import wait_for
from wsm.core.errors import BadInput, StreamsUnavailable, Unavailable
from wsm.core.ids import ServerName, SessionAddress, SessionName, TenantId
from wsm.ingest.directory import LiveDirectory
from wsm.wire import directory as published
from wsm.wire.directory import Directory, Listed
from wsm.wire.signature import session_secret, sign

KEY = bytes(32)
ANN = SessionAddress(TenantId(1), SessionName("user_1"))


def listed(
    address: SessionAddress = ANN, *, server: str = "default", kid: str = "k1", me: str = ""
) -> Listed:
    return Listed(address.tenant, address.session, ServerName(server), kid, (1,), me or None)


class Board:
    """What is published, and a clock."""

    def __init__(self) -> None:
        self.found_version: str | None = None
        self.body: bytes | None = None
        self.asked = 0
        self.reads = 0
        self.failure: Exception | None = None
        self.now = 100.0
        self.live = LiveDirectory(
            version=self.version,
            read=self.read,
            master_keys={"k1": KEY},
            max_age_seconds=2.0,
            poll_seconds=0.001,
            now=lambda: self.now,
        )

    def publish(self, version: str, *sessions: Listed) -> None:
        self.found_version = version
        self.body = published.write(Directory(version, sessions))

    async def version(self) -> str | None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return self.found_version

    async def read(self) -> bytes | None:
        self.reads += 1
        return self.body


def answers(board: Board) -> str:
    try:
        board.live.require()
    except Unavailable as exc:
        return str(exc)
    return "ok"


async def test_it_answers_for_two_seconds_after_it_was_confirmed_and_no_longer() -> None:
    board = Board()
    assert answers(board) == "directory_away"
    board.publish("1", listed())
    await board.live.refresh()
    board.now += 2.0
    assert answers(board) == "ok"
    board.now += 0.01
    assert answers(board) == "directory_stale"
    for look_up in (
        lambda: board.live.seat(ANN),
        lambda: board.live.seat_at(ServerName("default"), ANN.session),
        lambda: board.live.seats_named(ANN.session),
    ):
        with pytest.raises(Unavailable, match="directory_stale"):
            look_up()
    await board.live.refresh()
    assert board.live.seat(ANN) is not None
    assert board.reads == 1


async def test_the_age_counts_from_the_question_and_not_from_the_answer() -> None:
    board = Board()
    board.publish("1", listed())

    async def slow_version() -> str:
        board.now += 1.5
        return "1"

    live = LiveDirectory(
        version=slow_version, read=board.read, master_keys={"k1": KEY}, now=lambda: board.now
    )
    await live.refresh()
    board.now += 0.6
    with pytest.raises(Unavailable, match="directory_stale"):
        live.require()


@pytest.mark.parametrize("failure", [None, StreamsUnavailable("away")])
async def test_what_cannot_be_asked_is_not_confirmed(failure: Exception | None) -> None:
    board = Board()
    board.publish("1", listed())
    await board.live.refresh()
    board.failure, board.found_version = failure, None
    board.now += 1
    with pytest.raises(Unavailable):
        await board.live.refresh()
    assert answers(board) == "ok"
    board.now += 1.1
    assert answers(board) == "directory_stale"


@pytest.mark.parametrize("body", [None, b"", b"[]", b'{"version":"2"}', b'{"version":"2","sessions":[{}]}'])
async def test_what_is_no_directory_does_not_replace_one(body: bytes | None) -> None:
    board = Board()
    board.publish("1", listed())
    await board.live.refresh()
    board.found_version, board.body = "2", body
    with pytest.raises((Unavailable, BadInput)):
        await board.live.refresh()
    assert board.live.seat(ANN) is not None


async def test_a_new_version_replaces_all_and_keeps_what_is_equal() -> None:
    bob = SessionAddress(TenantId(2), SessionName("user_2"))
    board = Board()
    board.publish("1", listed(), listed(bob))
    await board.live.refresh()
    ann, was_bob = board.live.seat(ANN), board.live.seat(bob)
    assert ann is not None
    board.publish("2", listed(), listed(bob, me="5511999990000"))
    await board.live.refresh()
    assert board.live.seat(ANN) is ann
    assert board.live.seat(bob) is not was_bob
    board.publish("3", listed(bob))
    await board.live.refresh()
    assert board.live.seat(ANN) is None
    assert board.live.seats_named(ANN.session) == ()


async def test_a_session_is_found_by_address_by_server_and_by_name() -> None:
    twin = SessionAddress(TenantId(2), ANN.session)
    board = Board()
    board.publish("1", listed(), listed(twin, server="other"))
    await board.live.refresh()
    at_other = board.live.seat_at(ServerName("other"), ANN.session)
    assert at_other is not None
    assert at_other.address == twin
    assert board.live.seat_at(ServerName("third"), ANN.session) is None
    assert {seat.address for seat in board.live.seats_named(ANN.session)} == {ANN, twin}


async def test_the_verifier_is_of_the_derived_secret_and_made_once() -> None:
    board = Board()
    board.publish("1", listed())
    await board.live.refresh()
    seat = board.live.seat(ANN)
    assert seat is not None
    verifier = seat.verifier()
    verifier.check([sign(session_secret(KEY, ANN, 1), b"body").encode()], [], b"body")
    assert seat.verifier() is verifier


async def test_a_master_key_that_is_not_here_yet_is_no_no() -> None:
    board = Board()
    board.publish("1", listed(kid="k2"))
    await board.live.refresh()
    seat = board.live.seat(ANN)
    assert seat is not None
    with pytest.raises(Unavailable, match="master_key_unknown"):
        seat.verifier()


async def test_watching_goes_on_after_a_failure() -> None:
    board = Board()
    board.failure = StreamsUnavailable("away")
    watching = asyncio.create_task(board.live.watch())
    await wait_for(lambda: board.asked > 2)
    assert answers(board) == "directory_away"
    board.failure = None
    board.publish("1", listed())
    await wait_for(lambda: answers(board) == "ok")
    watching.cancel()
    await asyncio.wait([watching])


async def test_watching_does_not_wait_for_ever_for_one_reply() -> None:
    board = Board()
    board.publish("1", listed())
    questions = 0

    async def version_deaf_at_first() -> str:
        nonlocal questions
        questions += 1
        if questions == 1:
            await asyncio.Event().wait()
        return "1"

    live = LiveDirectory(
        version=version_deaf_at_first,
        read=board.read,
        master_keys={"k1": KEY},
        max_age_seconds=0.05,
        poll_seconds=0.001,
        now=lambda: board.now,
    )
    watching = asyncio.create_task(live.watch())
    await wait_for(lambda: questions > 2)
    assert live.seat(ANN) is not None
    watching.cancel()
    await asyncio.wait([watching])


async def test_watching_ends_though_the_driver_drops_the_cancellation() -> None:
    board = Board()
    board.publish("1", listed())
    asking = asyncio.Event()

    async def version_that_will_not_be_cancelled() -> str:
        asking.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "1"

    live = LiveDirectory(version=version_that_will_not_be_cancelled, read=board.read, master_keys={})
    watching = asyncio.create_task(live.watch())
    await asking.wait()
    watching.cancel()
    await asyncio.wait_for(asyncio.wait([watching]), 5)
    assert watching.done()
