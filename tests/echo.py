"""A gateway that repeats all that it was asked: path, headers and body, wherever an error may have them."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from wsm.sandbox.waha.asgi import Answer, Receive, Request, Send, read, write
from wsm.sandbox.waha.server import Listener

Shape = Callable[[str], object]
SHAPES: dict[str, Shape] = {
    "message": lambda said: {"message": said, "statusCode": 400},
    "messages": lambda said: {"message": [said, said], "error": said},
    "exception": lambda said: {"exception": {"message": said, "stack": said}, "request": said},
    "detail": lambda said: {"detail": said, "session": said, "status": said, "expected": [said]},
    "names": lambda said: {said: said, "id": {said: said}, "name": said, "me": {"id": said}},
    "list": lambda said: [said, {"id": said, "body": said}],
    "text": lambda said: said,
}


@asynccontextmanager
async def echo(status: int, shape: Shape) -> AsyncIterator[str]:
    """A WAHA that answers everything with this status, and with what it was asked; yields its URL."""

    def answer(request: Request) -> Answer:
        said = f"{request.path} {request.query} {request.headers} {request.body.decode()}"
        return Answer(status, json.dumps(shape(f"error 463 timed out {said}")).encode())

    async def serve(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await write(send, answer(await read(scope, receive)))

    listener = Listener(serve, "127.0.0.1", 0)
    try:
        yield await listener.open()
    finally:
        await listener.close()
