"""What a gateway told of hidden ids, as a command's body, and read again. The same id counts once."""

from collections.abc import Sequence

import msgspec

from wsm.core.errors import BadInput
from wsm.core.events import HiddenIdsTold
from wsm.core.ids import ChatId, SessionAddress
from wsm.wire.waha_body import Hook
from wsm.wire.waha_content import text
from wsm.wire.waha_ids import chat_id, key

HIDDEN_IDS = "command.hidden_ids"
MOST_PAIRS = 100
"""In one body: what follows from all of them is one transaction."""

Pairs = Sequence[tuple[ChatId, ChatId | None]]
_HIDDEN, _PHONE = "lid", "c.us"


def hidden_ids_command(address: SessionAddress, pairs: Pairs, *, id: str) -> bytes:  # noqa: A002 (WAHA's word)
    """Write the body that tells which phones (`@c.us`) stand behind hidden ids (`@lid`); None: nobody knows.

    The same `id` counts once in a session; what is asked again later has another one. Raises BadInput for
    more than MOST_PAIRS.
    """
    if len(pairs) > MOST_PAIRS:
        raise BadInput("pairs", f"at most {MOST_PAIRS} in one entry")
    payload = {"pairs": pairs}
    return msgspec.json.encode(
        {"event": HIDDEN_IDS, "session": address.session, "id": id, "payload": payload}
    )


def read_hidden_ids(hook: Hook) -> HiddenIdsTold | None:
    """Read such a body, in any form of the ids; None if it is none. A pair of other ids is left out."""
    id_ = text(hook.envelope.get("id"))
    try:
        said = msgspec.convert(hook.payload.get("pairs"), list[tuple[str, str | None]])
    except msgspec.ValidationError:
        return None
    if not id_ or len(said) > MOST_PAIRS:
        return None
    pairs = tuple(
        (lid, phone)
        for lid, phone in ((chat_id(hidden), chat_id(known)) for hidden, known in said)
        if lid is not None and _server(lid) == _HIDDEN and (phone is None or _server(phone) == _PHONE)
    )
    return HiddenIdsTold(**hook.common(key("c", "hidden_ids", id_), None), pairs=pairs)


def _server(chat: ChatId) -> str:
    return chat.rpartition("@")[2]
