"""Moments: as the gateways and the database's numbers have them, milliseconds since 1970, and as time."""

from datetime import UTC, datetime


def moment(milliseconds: int) -> datetime:
    """Return the moment, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def milliseconds(moment: datetime) -> int:
    """Return how many milliseconds after 1970 that is; what is less than one is cut off."""
    return int(moment.timestamp() * 1000)
