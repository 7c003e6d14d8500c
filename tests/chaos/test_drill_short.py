"""A short restart drill: a few sessions, WAHA and all of wsm killed at once."""

import pytest

from behind_exits import needs_exits
from chaos.drill import drill
from e2e.town import Ground

pytestmark = needs_exits
SESSIONS = 6


@pytest.mark.deadline(120)
async def test_every_session_works_again_started_once_and_nothing_is_missing(ground: Ground) -> None:
    report = await drill(ground, count=SESSIONS)
    assert report.clean, str(report)
