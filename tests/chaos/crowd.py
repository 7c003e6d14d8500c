"""Customers of many shops who write all the time, and agents who write, send files, and close.

What they meet does not stop them.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import psycopg

from e2e.town import Town, customers
from wsm.core.content import Content, Image, MediaSource, Text
from wsm.core.errors import WsmError
from wsm.core.ids import TenantId

PACE_SECONDS = 0.15
FEW = 6
"""So many shops send files."""
IMAGE = b"\xff\xd8\xff" + bytes(500)


class Crowd:
    """A steady load, as an async context. silent: whoever holds it keeps everybody from writing."""

    def __init__(self, at: Town, tenants: Sequence[TenantId], chance: random.Random) -> None:
        self._at = at
        self._shops = {tenant: customers(3, shop=number) for number, tenant in enumerate(tenants, 1)}
        self._chance = chance
        self.silent = asyncio.Lock()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._files: dict[TenantId, int] = {}

    async def __aenter__(self) -> Self:
        self._files = {shop: await self._at.keeps(shop, IMAGE) for shop in list(self._shops)[:FEW]}
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        assert self._task is not None
        await self._task

    async def _write(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            async with self.silent:
                await self._say(f"mensagem {number}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), PACE_SECONDS)

    async def _say(self, text: str) -> None:
        chance, shop = self._chance, self._chance.choice(list(self._shops))
        await self._at.says(
            shop,
            chance.choice(self._shops[shop]),
            text,
            duplicates=chance.choice((1, 1, 1, 2)),
            as_lid=chance.random() < 0.2,
            twin=chance.random() < 0.2,
        )
        if chance.random() < 0.1:
            with suppress(WsmError):
                await self._send(f"resposta a {text}")
        if chance.random() < 0.3:
            with suppress(WsmError, psycopg.Error):
                await self._close(shop)

    async def _send(self, text: str) -> None:
        """Ask for an image or a text, as an agent does."""
        chance = self._chance
        shop, number = chance.choice(list(self._files.items()))
        content: Content = Text(text=text)
        if chance.random() < 0.5:
            content = Image(media=MediaSource(stored=number), caption=text)
        await self._at.asks(shop, chance.choice(self._shops[shop]), content)

    async def _close(self, shop: TenantId) -> None:
        if line := await self._at.line(shop):
            await self._chance.choice((self._at.closes, self._at.types_end))(shop, line[0][0])
