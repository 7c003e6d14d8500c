"""The pace of tests that are not about pacing: the sandbox' own, without pauses and limits."""

import tomllib
from collections.abc import Callable
from datetime import datetime

import msgspec

from wsm.core.pacing import Pace
from wsm.gateway.fetch import Fetching
from wsm.gateway.waha import Gateways
from wsm.sandbox.site import UNPACED
from wsm.store.database import Database
from wsm.store.paces import Pacing
from wsm.worker.media import Files

QUICK = msgspec.convert(tomllib.loads(f"it = {{ {UNPACED} }}")["it"], Pace)
PACING = Pacing(QUICK, lambda: 0.5)


def files(database: Database, gateways: Gateways, clock: Callable[[], datetime]) -> Files:
    """Files of a worker that may fetch little."""
    fetching = Fetching(limit_bytes=2_000_000)
    return Files(database, gateways, fetching, clock=clock, in_flight_bytes=8_000_000)
