"""Phone numbers as people write them, and as they may be shown."""

import re

from wsm.core.errors import BadInput
from wsm.core.ids import ChatId

_WRITTEN = re.compile(r"\+?[0-9][0-9 ().-]*\Z")
_BRAZILIAN_MOBILE = re.compile(r"(55[1-9][1-9])(9?)([6-9][0-9]{7})\Z")
"""Country, area, the digit that came later, and what stood there before it."""
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


def other_form(phone: str) -> str | None:
    """Write a Brazilian mobile number the other way; None for every other number.

    Since Anatel's resolution 553/2010 a 9 stands before the eight digits of a mobile number, which began with
    6 to 9; landlines (2 to 5) never got one. WhatsApp knows who registered before without it, and everybody
    dials it with: `5511960000001` and `551160000001` are one person. Twice applied it is the number itself.

    phone  digits alone, with country code
    """
    match = _BRAZILIAN_MOBILE.match(phone)
    if match is None:
        return None
    area, nine, number = match.groups()
    return f"{area}{'' if nine else '9'}{number}"


def masked(phone: str) -> str:
    """Show the last four digits of a number, or of its chat id: enough for who knows it."""
    return f"…{phone.partition('@')[0][-_SHOWN:]}"
