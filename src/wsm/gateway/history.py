"""What a gateway keeps of one session's chats, page by page.

Pages count from 0. Their offsets grow by the limit also when fewer came, and the first that is empty is the
end (CONTRACT 7.5). Raises what looks of `waha.WahaSession` raise; a NOWEB without its store refuses all of
it, `store_disabled`.
"""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

from wsm.core.errors import GatewayUnavailable
from wsm.core.ids import ChatId
from wsm.gateway import answers

ALL_CHATS = ChatId("all")
"""What stands for every chat where an engine lists them together (GOWS, NOWEB); others refuse it."""

_MESSAGES = 100
_CHATS = 20  # WAHA looks for the picture of each

Look = Callable[[str, str, Mapping[str, str]], Awaitable[object]]
"""Asks for a path with a query, under the name of an operation."""


class History:
    """The lists of one session. path: of its chats; look: asks its gateway."""

    def __init__(self, path: str, look: Look) -> None:
        self._path = path
        self._look = look

    async def messages(self, chat: ChatId, since_s: int, page: int) -> list[object]:
        """List what was said in a chat, by anybody, since a time in seconds, the oldest first.

        As the gateway has it, without media files.
        """
        return await self._page("messages", chat, since_s, page, {"sortOrder": "asc"})

    async def own(self, chat: ChatId, since_s: int, page: int) -> list[object]:
        """List the own messages in a chat since a time in seconds, the newest first."""
        query = {"filter.fromMe": "true", "sortOrder": "desc"}
        return await self._page("own_messages", chat, since_s, page, query)

    async def chats(self, page: int) -> list[tuple[ChatId, int | None]]:
        """List the chats, the last active first, each with the time of its last message in seconds.

        None for a time that the gateway does not tell.
        """
        cut = {"limit": str(_CHATS), "offset": str(page * _CHATS)}
        listed = _listed(await self._look("chats", f"{self._path}/overview", cut))
        return [chat for chat in map(answers.chat, listed) if chat]

    async def _page(
        self, op: str, chat: ChatId, since_s: int, page: int, query: Mapping[str, str]
    ) -> list[object]:
        cut = {
            "filter.timestamp.gte": str(since_s),
            "downloadMedia": "false",
            "limit": str(_MESSAGES),
            "offset": str(page * _MESSAGES),
        }
        path = f"{self._path}/{quote(chat, safe='')}/messages"
        return _listed(await self._look(op, path, {**query, **cut}))


def _listed(answer: object) -> list[object]:
    if not isinstance(answer, list):
        raise GatewayUnavailable("unreadable answer")
    return answer
