"""Run one of wsm's commands with a wall clock that can be stepped while it runs.

    CHAOS_CLOCK=<file> python -m chaos.stepped <command> …

The file says how many seconds the clock is ahead; without it the clock is right. What Redis and PostgreSQL
take for the time stays theirs.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wsm import bootstrap, cli

_FILE = Path(os.environ.get("CHAOS_CLOCK", os.devnull))


def stepped_now() -> datetime:
    """The wall clock, and what the file adds to it."""
    try:
        ahead = float(_FILE.read_text() or 0)
    except (OSError, ValueError):
        ahead = 0.0
    return datetime.now(UTC) + timedelta(seconds=ahead)


if __name__ == "__main__":
    bootstrap.utc_now = bootstrap.parts.utc_now = stepped_now
    cli.main()
