"""The calls of a login, bound to one session: codes to scan and to type, and passkeys.

A session that asks for a login may be answered by anybody who may ask for it: nothing here starts, stops or
configures one. Errors are those of `server`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from wsm.core.errors import GatewayRefused, GatewayUnavailable
from wsm.gateway import answers

_NOTHING_PENDING = frozenset({404, 422, 501})
"""How a session is answered for which no passkey is wanted, and an engine or a version that has none."""


class Login:
    """One session's. path: where its calls begin; look, post: of its `WahaSession`, by name and path."""

    def __init__(
        self,
        path: str,
        look: Callable[[str, str, Mapping[str, str]], Awaitable[object]],
        post: Callable[[str, str, dict[str, Any]], Awaitable[object]],
    ) -> None:
        self._path = path
        self._look = look
        self._post = post

    async def qr_text(self) -> str:
        """Return what the code to scan says, for whoever draws it; WAHA has another one every 20 s or so.

        Raises GatewayUnavailable unless the session shows one, after up to 15 s.
        """
        return _text(await self._look("qr", f"{self._path}/qr", {"format": "raw"}), "value")

    async def pairing_code(self, phone: str) -> str:
        """Ask for a code, like `ABCD-ABCD`, that is typed on the phone with this number (digits alone).

        Every call makes another one. Raises GatewayUnavailable unless the session asks for a login, after up
        to 15 s.
        """
        asked = {"phoneNumber": phone}
        return _text(await self._post("pairing_code", f"{self._path}/request-code", asked), "code")

    async def passkey_challenge(self) -> dict[str, Any] | None:
        """Return what a passkey is to sign (WebAuthn's request options); None while none is asked for."""
        answer = await self._pending("passkey_challenge", "challenge")
        return answer if isinstance(answer, dict) else None

    async def answer_passkey(self, assertion: Mapping[str, Any]) -> None:
        """Hand in what the passkey signed: the credential as a browser's `toJSON()` writes it."""
        await self._post("answer_passkey", f"{self._path}/passkey", {**assertion})

    async def passkey_code(self) -> str | None:
        """Return the code to compare with the one on the phone; None while there is nothing to compare."""
        return answers.text_of(await self._pending("passkey_code", "confirmation"), "code")

    async def confirm_passkey(self) -> None:
        """Say that the codes are equal."""
        await self._post("confirm_passkey", f"{self._path}/passkey/confirm", {})

    async def _pending(self, op: str, what: str) -> object:
        """Ask what a login with a passkey waits for; None when it waits for nothing of that kind."""
        try:
            return await self._look(op, f"{self._path}/passkey/{what}", {})
        except GatewayRefused as exc:
            if exc.status in _NOTHING_PENDING:
                return None
            raise


def _text(answer: object, name: str) -> str:
    found = answers.text_of(answer, name)
    if found is None:
        raise GatewayUnavailable("unreadable answer")
    return found
