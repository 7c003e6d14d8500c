"""What WAHA tells of WhatsApp's own limits: why a message was refused, and whom a number may not write to.

Since the middle of 2026 error acks bear `error{code, blocked, reason, until}`, and a session's WORKING
`data.reachoutTimelock{isActive, enforcementType, timeEnforcementEnds}` (CONTRACT 3.3; WAHA's issues 2166 and
2219). That a 463 comes while no lock is told was reported: both are read, and neither is needed.
"""

from datetime import UTC, datetime
from typing import Any

from wsm.wire.waha_body import milliseconds
from wsm.wire.waha_content import table, text

_REASON_CHARACTERS = 300


def ack_error(payload: dict[str, Any]) -> tuple[str | None, str | None, int | None]:
    """Return what an error ack says of itself: code, reason, and until when (ms) it holds."""
    error = table(payload.get("error"))
    code, reason = error.get("code"), text(error.get("reason"))
    said = str(code) if isinstance(code, int) and not isinstance(code, bool) else text(code)
    return said, reason and reason[:_REASON_CHARACTERS], _moment_ms(error.get("until"))


def timelock(payload: dict[str, Any]) -> tuple[bool, int | None]:
    """Whether a session's status tells that WhatsApp lets it write to nobody new, and until when (ms)."""
    lock = table(table(payload.get("data")).get("reachoutTimelock"))
    return lock.get("isActive") is True, _moment_ms(lock.get("timeEnforcementEnds"))


def _moment_ms(value: object) -> int | None:
    """Read a moment as a number or as ISO 8601; None for anything else."""
    if not isinstance(value, str) or (found := milliseconds(value)) is not None:
        return milliseconds(value) if not isinstance(value, str) else found
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return milliseconds((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
