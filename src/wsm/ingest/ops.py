"""/healthz, /readyz and /metrics on the server of the webhooks, which every process has at its ops port."""

import asyncio

import msgspec

from wsm import telemetry
from wsm.core.errors import NotFound, WsmError
from wsm.ingest.exchange import INTERNAL_ERROR, Answer, Request
from wsm.telemetry import OPS_PAGES, Pages

log = telemetry.logger("ingest")

OPS_PATHS = frozenset(path.encode() for path in OPS_PAGES)


class Ops:
    """The service. A page may wait, so each is written by a task."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._writing: set[asyncio.Task[None]] = set()

    def begins(self, request: Request) -> None:
        """Refuse what is no page: NotFound."""
        if request.method != b"GET" or request.path not in OPS_PATHS:
            raise NotFound("path")

    def ends(self, request: Request) -> None:
        """Begin a page."""
        task = asyncio.get_running_loop().create_task(self._write(request))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def refuse(self, _request: Request, exc: WsmError) -> Answer:
        """There is nothing else: 404; what may be there later: 503."""
        status = 404 if isinstance(exc, NotFound) else 503
        return Answer(status, msgspec.json.encode({"error": "refused", "reason": str(exc)}))

    async def _write(self, request: Request) -> None:
        try:
            page = await self._pages(request.path.decode())
        except Exception:
            log.exception("page_failed")
            request.answer(INTERNAL_ERROR)
            return
        answer = Answer(page.status, page.body, content_type=page.content_type.encode())
        request.answer(answer)
