"""wsm's own server with an app that reads the body and answers a constant: `… static_answer PORT`.

What it costs is the floor of what this server can do for any webhook.
"""

import asyncio
import sys

from wsm.ingest.guard import Bounds
from wsm.ingest.server import listen, run, serve
from wsm.telemetry import AsgiApp, Receive, Scope, Send

_BODY = b'{"status":"accepted"}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]


async def app(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


def serve_alone(app: AsgiApp, port: int) -> None:
    """Serve an app by wsm's own server until SIGTERM."""
    sock = listen("127.0.0.1", port)

    async def until(stop: asyncio.Event) -> None:
        await serve(app, sock, stop=stop, bounds=Bounds(), drain_seconds=1)

    run(until)


if __name__ == "__main__":
    serve_alone(app, int(sys.argv[1]))
