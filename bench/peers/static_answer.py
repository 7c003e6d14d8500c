"""wsm's own server with a service that answers a constant to every whole request: `… static_answer PORT`.

What it costs is the floor of what this server can do for any webhook.
"""

import asyncio
import sys

from wsm.core.errors import WsmError
from wsm.ingest.exchange import Answer, BodyBudget, Bounds, Request, Service
from wsm.ingest.server import listen, run, serve

_ACCEPTED = Answer(200, b'{"status":"accepted"}')


class Static:
    """The service."""

    def begins(self, request: Request) -> None:
        """Let everybody in."""

    def ends(self, request: Request) -> None:
        """Answer one request."""
        request.answer(_ACCEPTED)

    def refuse(self, request: Request, exc: WsmError) -> Answer:  # noqa: ARG002
        """Answer what is over a bound."""
        return Answer(503, b"")


def serve_alone(service: Service, port: int) -> None:
    """Serve by wsm's own server until SIGTERM."""
    sock = listen("127.0.0.1", port)

    async def until(stop: asyncio.Event) -> None:
        bodies = BodyBudget(1 << 26)
        await serve(service, sock, stop=stop, bounds=Bounds(), bodies=bodies, drain_seconds=1)

    run(until)


if __name__ == "__main__":
    serve_alone(Static(), int(sys.argv[1]))
