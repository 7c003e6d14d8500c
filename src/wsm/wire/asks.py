"""What is asked of the line, as a command's body, and read again. The same id counts once."""

import msgspec

from wsm.core.asks import Asked, What
from wsm.core.ids import ChatId, SessionAddress
from wsm.wire.waha_body import Hook
from wsm.wire.waha_content import text
from wsm.wire.waha_ids import chat_id, key

ASK = "command.ask"


def ask_command(
    address: SessionAddress,
    what: What,
    *,
    id: str,  # noqa: A002 (WAHA's word)
    by: str,
    chat: ChatId | None = None,
) -> bytes:
    """Write the body that asks for something; of a chat's ticket, where one is named."""
    payload = {"by": by, "chat": chat, "ask": what}
    return msgspec.json.encode({"event": ASK, "session": address.session, "id": id, "payload": payload})


def ask_key(id: str) -> str:  # noqa: A002 (WAHA's word)
    """Give the key under which such a command counts once."""
    return key("c", "ask", id)


def read_ask(hook: Hook) -> Asked | None:
    """Read such a body; None if it is none."""
    id_, by = text(hook.envelope.get("id")), text(hook.payload.get("by"))
    if not id_ or by is None:
        return None
    try:
        what = msgspec.convert(hook.payload.get("ask"), What)
    except msgspec.ValidationError:
        return None
    chat = chat_id(hook.payload.get("chat"))
    return Asked(**hook.common(ask_key(id_), None), chat=chat, what=what, by=by)
