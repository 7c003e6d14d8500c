"""Phone numbers as people write them, and as they may be shown."""

import re

from wsm.core.errors import BadInput
from wsm.core.ids import ChatId

_WRITTEN = re.compile(r"\+?[0-9][0-9 ().-]*\Z")
_SHOWN = 4


def phone_digits(field: str, text: str) -> str:
    """Return the digits of a number with country code: `+55 (11) 96000-0001` is 5511960000001.

    Raises BadInput, without repeating the number, for what is none: E.164 allows 15 digits, the first not 0;
    fewer than 7 with the country's are nobody's.
    """
    digits = re.sub(r"[^0-9]", "", text)
    if not _WRITTEN.match(text.strip()) or not 7 <= len(digits) <= 15 or digits.startswith("0"):  # noqa: PLR2004
        raise BadInput(field, "a phone number with country code: 7 to 15 digits, the first of them not 0")
    return digits


def phone_of(me: ChatId | None) -> str | None:
    """Read a number off what a session says it is: a hidden id (`@lid`) is none."""
    user, _, kind = (me or "").partition("@")
    return user if kind == "c.us" else None


def masked(phone: str) -> str:
    """Show the last four digits of a number, or of its chat id: enough for who knows it."""
    return f"…{phone.partition('@')[0][-_SHOWN:]}"
