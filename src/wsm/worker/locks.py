"""WhatsApp holds a number back: counted, and told to whoever looks after the fleet."""

from datetime import datetime

from wsm.core.ids import SessionAddress
from wsm.core.outbox import Lock
from wsm.telemetry import LOCKS_SEEN, logger

log = logger("worker")


def tell(address: SessionAddress, lock: Lock, until: datetime) -> None:
    """Count and tell it."""
    LOCKS_SEEN.labels(lock.why).inc()
    log.warning("session_frozen", tenant=address.tenant, session=address.session, reason=lock.why,
                until=until.isoformat())  # fmt: skip
