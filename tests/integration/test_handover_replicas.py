"""A batch is accepted when enough replicas have it: a pair of real servers, one of them stopped."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mailboxes import offers, opened
from waiting import wait_for
from wsm.core.errors import StreamsUnavailable
from wsm.sandbox.servers import Valkey
from wsm.streams.handover import Verdict


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A primary and its replica: the primary's URL, the replica's process id."""
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        port = str(found.getsockname()[1])
    named = {
        "primary": {"port": port, "bind": "127.0.0.1", "repl-diskless-sync-delay": "0"},
        "replica": {"replicaof": f"127.0.0.1 {port}"},
    }
    servers = [
        Valkey(
            tmp_path / name, tmp_path / f"{name}.s", tmp_path / f"{name}.log", maxmemory="64mb", options=more
        )
        for name, more in named.items()
    ]
    try:
        for server in servers:
            server.start()
        yield f"unix://{tmp_path}/primary.s", servers[1].pid
    finally:
        os.kill(servers[1].pid, signal.SIGCONT)
        for server in reversed(servers):
            server.stop()


async def test_a_batch_that_too_few_replicas_confirm_is_refused_though_kept(pair: tuple[str, int]) -> None:
    url, replica = pair
    async with opened(url, wait_replicas=1, wait_seconds=0.5) as (handover, _):

        async def accepted() -> bool:
            try:
                return await handover.accept(offers(b"1")) == [Verdict.ACCEPTED]
            except StreamsUnavailable:
                return False

        kept: bool = await wait_for(accepted)
        before = (await handover.depth()).entries
        os.kill(replica, signal.SIGSTOP)
        with pytest.raises(StreamsUnavailable, match="0 replicas confirmed, not 1"):
            await handover.accept(offers(b"2"))
        assert (await handover.depth()).entries == before + 1
        os.kill(replica, signal.SIGCONT)
        kept = await wait_for(accepted)
        assert kept
