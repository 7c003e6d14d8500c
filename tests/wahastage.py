"""A WAHA sandbox with everything around it: a receiver of its webhooks, the phones, a client of its API."""

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import httpx

from receiver import Receiver
from wsm.sandbox.waha import Tempo, WahaSandbox
from wsm.sandbox.waha.control import Phone

KEY = "s3cr3t-key"
FAST = Tempo(waits=0.01, retries=0.01)
EVENTS = ("message.any", "message.ack", "session.status")
CHAT = "5511977776666@c.us"
BYTES: Final = b"\x89PNG\r\n\x1a\n the picture \xff\xfe"
DATA: Final = base64.b64encode(BYTES).decode()
CARD: Final = "BEGIN:VCARD\nVERSION:3.0\nFN:Ana\nEND:VCARD"

KINDS: Final[dict[str, dict[str, Any]]] = {
    "sendText": {"text": "oi"},
    "sendImage": {"file": {"mimetype": "image/png", "data": DATA, "filename": "a.png"}, "caption": "olha"},
    "sendFile": {
        "file": {"mimetype": "application/pdf", "data": DATA, "filename": "a.pdf"},
        "caption": "conta",
    },
    "sendVoice": {"file": {"mimetype": "audio/mpeg", "data": DATA}, "convert": True},
    "sendVideo": {"file": {"mimetype": "video/mp4", "data": DATA}, "caption": "filme", "asNote": True},
    "sendLocation": {"latitude": -23.5, "longitude": -46.6, "title": "Loja"},
    "sendContactVcard": {"contacts": [{"vcard": CARD}]},
    "sendPoll": {"poll": {"name": "Cor?", "options": ["azul", "verde"], "multipleAnswers": False}},
}
"""Every call that sends a message, with what it needs beside session and chat."""
ACTS: Final = ("reaction", "edit", "delete")


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

    async def send(self, text: str, chat: str = CHAT, **more: Any) -> httpx.Response:
        """Send a text from the session `main`, or another."""
        body = {"session": "main", "chatId": chat, "text": text, **more}
        return await self.api.post("/api/sendText", json=body)

    async def give(self, call: str, chat: str = CHAT, **more: Any) -> httpx.Response:
        """Send what `KINDS` has for a call from the session `main`, or another."""
        body = {"session": "main", "chatId": chat, **KINDS[call], **more}
        return await self.api.post(f"/api/{call}", json=body)

    async def act(self, what: str, full: str, chat: str = CHAT) -> httpx.Response:
        """React to, edit or delete a message of the session `main`."""
        path = f"/api/main/chats/{chat}/messages/{full}"
        if what == "reaction":
            body = {"session": "main", "messageId": full, "reaction": "👍"}
            return await self.api.put("/api/reaction", json=body)
        if what == "edit":
            return await self.api.put(path, json={"text": "novo"})
        return await self.api.delete(path)

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
            base_url=waha.base_url,
            headers={"X-Api-Key": waha.api_key},
            timeout=10,
            verify=False,
            trust_env=False,
        )
        api = await stack.enter_async_context(client)
        yield Stage(waha, hook, phone, api)
