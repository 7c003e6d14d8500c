"""A WAHA sandbox with everything around it: a receiver of its webhooks, the phones, a client of its API."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from receiver import Receiver
from wsm.sandbox.waha import Tempo, WahaSandbox
from wsm.sandbox.waha.control import Phone

KEY = "s3cr3t-key"
FAST = Tempo(waits=0.01, retries=0.01)
EVENTS = ("message.any", "message.ack", "session.status")


class Stage:
    """waha, hook, phone and api, and a session in one line."""

    def __init__(self, waha: WahaSandbox, hook: Receiver, phone: Phone, api: httpx.AsyncClient) -> None:
        self.waha = waha
        self.hook = hook
        self.phone = phone
        self.api = api

    def webhook(self, *events: str, **more: Any) -> dict[str, Any]:
        """Return a webhook's configuration: signed, to the receiver."""
        return {"url": self.hook.url, "events": list(events or EVENTS), "hmac": {"key": KEY}, **more}

    async def session(
        self,
        name: str = "main",
        *,
        webhooks: list[dict[str, Any]] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        """Create and start a session, and wait until it works and was told."""
        hooks = [self.webhook()] if webhooks is None else webhooks
        asked = {"name": name, "start": True, "config": {**(config or {}), "webhooks": hooks}}
        response = await self.api.post("/api/sessions", json=asked)
        assert response.status_code == 201, response.text
        assert await self.phone.wait_idle()

    async def send(self, text: str, chat: str = "5511977776666@c.us", **more: Any) -> httpx.Response:
        """Send a text from the session `main`, or another."""
        body = {"session": "main", "chatId": chat, "text": text, **more}
        return await self.api.post("/api/sendText", json=body)

    async def get(self, path: str, status: int = 200, query: dict[str, Any] | None = None) -> Any:
        """Get JSON from WAHA's API."""
        response = await self.api.get(path, params=query)
        assert response.status_code == status, response.text
        return response.json()

    async def post(self, path: str, status: int = 201, **body: Any) -> Any:
        """Post JSON to WAHA's API; an empty answer is None."""
        response = await self.api.post(path, json=body)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def status(self, name: str = "main") -> str:
        """Return a session's status."""
        return str((await self.get(f"/api/sessions/{name}"))["status"])


@asynccontextmanager
async def stage(**options: Any) -> AsyncIterator[Stage]:
    """Set the stage; options are the sandbox's."""
    async with AsyncExitStack() as stack:
        hook = await stack.enter_async_context(Receiver())
        waha = await stack.enter_async_context(WahaSandbox(**{"tempo": FAST, **options}))
        phone = await stack.enter_async_context(Phone(waha.base_url))
        client = httpx.AsyncClient(
            base_url=waha.base_url, headers={"X-Api-Key": waha.api_key}, timeout=10, trust_env=False
        )
        api = await stack.enter_async_context(client)
        yield Stage(waha, hook, phone, api)
