"""What each of WAHA's engines can send, and with whose id: one table.

Sources: WAHA's own tables of features, July 2026 (send-messages, polls: every engine sends every kind of
ours); whether a send takes an id of one's own stands in its OpenAPI document (CONTRACT 7.5 and 11). Files are
the odd case: GOWS and NOWEB pass the id on, which only their code says. So an intent whose id is *unproved*
counts as sent under it when an answer or an echo bears that id, and not before.
"""

from enum import StrEnum

from wsm.core.content import Content, Poll, kind_of
from wsm.core.errors import BadInput
from wsm.core.events import ChatKind

ENGINES = ("GOWS", "NOWEB", "WEBJS", "WPP")


class OwnId(StrEnum):
    """Whether a message leaves under the id that was reserved for it.

    documented  it does
    unproved    it does by the engine's code and by no document: what bears the id proves it
    none        the engine chooses, or what is sent is no message
    """

    DOCUMENTED = "documented"
    UNPROVED = "unproved"
    NONE = "none"


_D, _U, _N = OwnId.DOCUMENTED, OwnId.UNPROVED, OwnId.NONE

#             GOWS NOWEB WEBJS WPP; None: cannot be sent
_TABLE: dict[str, tuple[OwnId | None, ...]] = {
    "text": (_D, _D, _N, _N),
    "image": (_U, _U, _N, _N),
    "file": (_U, _U, _N, _N),
    "voice": (_U, _U, _N, _N),
    "video": (_U, _U, _N, _N),
    "location": (_D, _D, _N, _N),
    "contact": (_D, _D, _N, _N),
    "poll": (_D, _D, _N, _N),
    "reaction": (_N, _N, _N, _N),
    "edit": (_N, _N, _N, _N),
    "revoke": (_N, _N, _N, _N),
    "seen": (_N, _N, _N, _N),
    "typing": (_N, _N, _N, _N),
}
MEDIA = frozenset({"image", "file", "voice", "video"})
_OF_ANY_ENGINE = frozenset({"text", "seen", "typing"})
"""What an engine can that is not in the table: one that came after it was written."""


def can(engine: str | None, kind: str) -> bool:
    """Whether an engine can send a kind. None: not known yet, and nothing speaks against it."""
    if engine is None:
        return True
    if engine not in ENGINES:
        return kind in _OF_ANY_ENGINE
    return _TABLE[kind][ENGINES.index(engine)] is not None


def takes_id(engine: str | None, kind: str) -> OwnId:
    """Whether a kind leaves under a reserved id. An engine that is not known takes none for sure."""
    if engine not in ENGINES:
        return OwnId.NONE
    return _TABLE[kind][ENGINES.index(engine)] or OwnId.NONE


def heard_as(kind: str) -> str:
    """Name what an own message of a kind is called when its echo comes."""
    return {"file": "document"}.get(kind, kind)


def check_way(content: Content, engine: str | None, chat: ChatKind) -> None:
    """Raise BadInput when this cannot be sent there: by that engine, or into such a chat."""
    kind = kind_of(content)
    if not can(engine, kind):
        raise BadInput("kind", f"the session's engine, {engine}, cannot send {kind}")
    if chat in {ChatKind.STATUS, ChatKind.BROADCAST, ChatKind.OTHER}:
        raise BadInput("chat", "is nobody one can write to")
    if chat is ChatKind.NEWSLETTER and isinstance(content, Poll):
        raise BadInput("kind", "a channel takes no poll")


def page() -> str:
    """Print the table, for docs/SENDING.md."""
    words = {_D: "own id", _U: "own id, unproved", _N: "yes", None: "no"}
    rows = [f"| {kind} | {' | '.join(words[value] for value in values)} |" for kind, values in _TABLE.items()]
    return "\n".join(
        [
            f"| kind | {' | '.join(ENGINES)} |",
            f"|---|{'---|' * len(ENGINES)}",
            *rows,
        ]
    )
