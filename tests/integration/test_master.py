"""Through a real sentinel to the master, as the user that the URL names, and on when the sentinel is gone."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from chaos.replicas import replicas
from waiting import wait_for
from wsm.core.errors import StreamsUnavailable
from wsm.streams import sentinels
from wsm.streams.client import connect, ping
from wsm.worker import registration

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="127.0.1.1 is no loopback address here")


async def test_the_master_is_found_and_kept_without_sentinels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinels, "ASK_AGAIN_SECONDS", 0)
    async with replicas(tmp_path, nodes=1, sentinels=1) as at:
        await at.nodes[0].direct.acl_setuser("wsm", enabled=True, passwords=["+a:b"], categories=["+@all"])
        redis: Any = connect(at.url.replace("//", "//wsm:a%3Ab@"), timeout_seconds=2)
        assert await redis.acl_whoami() == "wsm"
        await asyncio.to_thread(at.sentinels[0].kill)
        assert await redis.acl_whoami() == "wsm"
        await redis.aclose()

        late = connect(at.url, timeout_seconds=2)
        with pytest.raises(StreamsUnavailable, match="no sentinel knows the master of wsm"):
            await ping(late)
        await late.aclose()


async def test_a_worker_is_shown_at_the_master_and_leaves_it_without_holding_up_its_loop(
    tmp_path: Path,
) -> None:
    """The doors to the servers run in the worker's own loop: who holds it up gets no answer."""
    async with replicas(tmp_path, nodes=1, sentinels=1) as at:
        redis = at.nodes[0].direct
        connection = registration.connect(at.url, connections=5)
        beating = registration.registered(connection, "w1", [], lambda: False, beat_seconds=0.05)
        showing = asyncio.create_task(beating)
        await wait_for(lambda: redis.exists("rq:worker:w1"))
        showing.cancel()
        await asyncio.wait([showing])
        connection.close()
        assert await redis.hget("rq:worker:w1", "death")
