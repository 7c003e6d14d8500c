"""Which phone number is behind a hidden id, and the other way round, as far as a session's gateway knows.

It answers from what its engine has learned: WhatsApp is not asked, so that it may never know (CONTRACT 7.6).
Raises what looks of `waha.WahaSession` raise; a NOWEB without its store refuses all of it, `store_disabled`,
and a WAHA without these calls, `no_such_call` or `not_implemented`.
"""

from collections.abc import Mapping
from urllib.parse import quote

from wsm.core.errors import GatewayUnavailable
from wsm.core.ids import ChatId
from wsm.gateway import answers
from wsm.gateway.history import Look

CANNOT_TELL = frozenset({"store_disabled", "no_such_call", "not_implemented"})
"""Refusals of a gateway that will say the same of every id."""

_NOTHING: Mapping[str, str] = {}


class Lids:
    """The hidden ids of one session. path: of them; look: asks its gateway."""

    def __init__(self, path: str, look: Look) -> None:
        self._path = path
        self._look = look

    async def phone_of(self, lid: ChatId) -> ChatId | None:
        """Return the phone's chat id (`…@c.us`) behind a hidden one (`…@lid`); None while nobody knows it."""
        said = await self._look("phone_of_lid", f"{self._path}/{quote(lid, safe='')}", _NOTHING)
        pair = answers.hidden_pair(said)
        if pair is None or pair[0] not in {None, lid}:
            raise GatewayUnavailable("unreadable answer")
        return pair[1]

    async def lid_of(self, phone: ChatId) -> ChatId | None:
        """Return the hidden id of a phone's chat id; None while nobody knows it, or where it has none."""
        number = quote(phone.partition("@")[0], safe="")
        pair = answers.hidden_pair(await self._look("lid_of_phone", f"{self._path}/pn/{number}", _NOTHING))
        if pair is None:
            raise GatewayUnavailable("unreadable answer")
        return pair[0]
