"""`wsm up`: every process under one supervisor, on embedded servers that keep what they know.

With WAHA_URL and WAHA_API_KEY set it works with that WAHA; without, one answers locally. For trying and for
a small installation on one machine; a fleet runs the processes by itself (deploy/).
"""

import asyncio
import os
from pathlib import Path

from wsm.core.errors import BadInput
from wsm.sandbox.embedded import Embedded
from wsm.sandbox.site import site
from wsm.telemetry import configure_logging

_REAL = ("WAHA_URL", "WAHA_API_KEY")


def up(home: Path) -> int:
    """Run until SIGTERM or Ctrl-C and return the exit code. Raises Refused when the home is in use."""
    configure_logging("up", "info")
    real = {name: os.environ[name] for name in _REAL if name in os.environ}
    if real and len(real) < len(_REAL):
        raise BadInput(next(name for name in _REAL if name not in real), "is needed beside the other one")
    with Embedded(home) as servers:
        return asyncio.run(_run(servers, home, real))


async def _run(servers: Embedded, home: Path, real: dict[str, str]) -> int:
    async with site(servers, home, real_waha=real) as running:
        print(f"webhooks: {running.webhooks_url}/{{tenant}}/{{session}}   logs: {home / 'log'}", flush=True)  # noqa: T201
        return await running.supervisor.run()
