"""What a session's device has: its chats, their messages, and the people behind them.

Lists are cut by `limit` and `offset`. With `merge`, as usual, a person's phone and hidden id are one chat.
The browsers have no list over all chats, and NOWEB none at all without its store.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from wsm.sandbox.waha import asgi, bodies, ids
from wsm.sandbox.waha.asgi import Answer, Request, Route
from wsm.sandbox.waha.rest import Rest, refused
from wsm.sandbox.waha.state import Engine, Message, Session, World

_NO_STORE: Final = (
    'Enable NOWEB store "config.noweb.store.enabled=True" and "config.noweb.store.full_sync=True" '
    "when starting a new session. Read more: https://waha.devlike.pro/docs/engines/noweb#store"
)

_ALL: Final = "all"

T = TypeVar("T")


class ChatsRest:
    """WAHA's calls about chats, messages and hidden ids."""

    def __init__(self, world: World, rest: Rest) -> None:
        self._world = world
        self._rest = rest
        self.routes: tuple[Route, ...] = (
            Route("GET /api/{name}/chats/overview", self._overview),
            Route("GET /api/{name}/chats/{chat}/messages", self._messages),
            Route("GET /api/{name}/chats/{chat}/messages/{message}", self._message),
            Route("GET /api/{name}/lids", self._lids),
            Route("GET /api/{name}/lids/count", self._lids_count),
            Route("GET /api/{name}/lids/pn/{phone}", self._lid_of_phone),
            Route("GET /api/{name}/lids/{lid}", self._phone_of_lid),
        )

    async def _overview(self, request: Request, name: str) -> Answer:
        session = await self._stocked(name)
        query = request.query
        newest: dict[str, Message] = {}
        for said in _stored(session):
            chat = said.chat if query.get("merge") == "false" else ids.owner(said.chat)
            newest[chat] = said
        shown = sorted(newest.values(), key=lambda said: said.timestamp, reverse=True)
        page = _cut(shown, query, limit=20)
        return asgi.json([bodies.chat(self._world, session, said) for said in page])

    async def _messages(self, request: Request, name: str, chat: str) -> Answer:
        session = await self._stocked(name)
        if chat == _ALL and self._world.engine.in_browser:
            raise refused(501, f"Can not get messages from 'all' in {self._world.engine}")
        query = request.query
        found = [
            said for said in _stored(session) if self._in_chat(said, chat, query) and _passes(said, query)
        ]
        if query.get("sortOrder", "desc") == "desc":
            found.reverse()
        return asgi.json([self._shown(session, said, query) for said in _cut(found, query, limit=10)])

    async def _message(self, request: Request, name: str, chat: str, message: str) -> Answer:
        session = await self._stocked(name)
        said = session.linked.messages.get(ids.bare_of(message))
        full_id_needed = self._world.engine.in_browser and "_" not in message
        if said is None or full_id_needed or not self._in_chat(said, chat, request.query):
            raise refused(404, "Message not found")
        return asgi.json(self._shown(session, said, request.query))

    def _shown(self, session: Session, said: Message, query: dict[str, str]) -> bodies.Json:
        body = bodies.message(self._world, session, said)
        return body | {"media": None} if query.get("downloadMedia") == "false" else body

    def _in_chat(self, said: Message, chat: str, query: dict[str, str]) -> bool:
        """Whether a message is in a chat; phone and hidden id are one, unless `merge` is switched off."""
        if chat == _ALL:
            return not self._world.engine.in_browser
        if query.get("merge") == "false":
            return said.chat == ids.chat_id(chat)
        return ids.owner(said.chat) == ids.owner(chat)

    async def _stocked(self, name: str) -> Session:
        """Return a session that works and keeps its messages, or refuse."""
        session = await self._rest.working(name)
        if self._world.engine is Engine.NOWEB and not session.setting("noweb", "store", "enabled"):
            raise refused(400, _NO_STORE)
        return session

    async def _lids(self, request: Request, name: str) -> Answer:
        known = await self._known(name)
        return asgi.json([_pair(who) for who in _cut(known, request.query, limit=100)])

    async def _lids_count(self, _request: Request, name: str) -> Answer:
        return asgi.json({"count": len(await self._known(name))})

    async def _phone_of_lid(self, _request: Request, name: str, lid: str) -> Answer:
        full = lid if "@" in lid else f"{lid}@lid"
        known = ids.owner(full) in await self._known(name)
        return asgi.json({"lid": full, "pn": ids.phone_chat(ids.owner(full)) if known else None})

    async def _lid_of_phone(self, _request: Request, name: str, phone: str) -> Answer:
        known = ids.owner(phone) in await self._known(name)
        return asgi.json({"lid": ids.lid_chat(ids.owner(phone)) if known else None, "pn": ids.chat_id(phone)})

    async def _known(self, name: str) -> list[str]:
        """Return the people whose phone and hidden id the session knows: those that it has messages of."""
        session = await self._stocked(name)
        people = (ids.owner(said.participant or said.chat) for said in _stored(session))
        return list(dict.fromkeys(who for who in people if who.isdigit()))


def _pair(who: str) -> bodies.Json:
    return {"lid": ids.lid_chat(who), "pn": ids.phone_chat(who)}


def _stored(session: Session) -> list[Message]:
    """Return the messages, oldest first."""
    return sorted(session.linked.messages.values(), key=lambda said: said.timestamp)


def _passes(said: Message, query: dict[str, str]) -> bool:
    """Whether a message passes the filters of the list."""
    own, level = query.get("filter.fromMe"), query.get("filter.ack")
    return (
        (own is None or said.from_me is (own == "true"))
        and (level is None or bodies.ACK_NAMES[said.ack] == level)
        and _number(query, "filter.timestamp.gte", said.timestamp) <= said.timestamp
        and said.timestamp <= _number(query, "filter.timestamp.lte", said.timestamp)
    )


def _cut(found: Sequence[T], query: dict[str, str], *, limit: int) -> Sequence[T]:
    """Return the page that is asked for."""
    start = _number(query, "offset", 0)
    return found[start : start + _number(query, "limit", limit)]


def _number(query: dict[str, str], name: str, default: int) -> int:
    try:
        return int(float(query.get(name, default)))
    except ValueError:
        raise refused(400, [f"{name} must be a number"]) from None
