"""Why something waits, or will never leave: a closed list, for labels and columns, and its plain words."""

from enum import StrEnum


class Why(StrEnum):
    """Why something waits, or was refused; the words of the column, of the label and of `REASONS`."""

    GAP = "gap"
    RAMP = "ramp"
    TYPING = "typing"
    REPLY_LIMIT = "reply_limit"
    FIRST_LIMIT = "first_limit"
    FIRST_GAP = "first_gap"
    ALL_LIMIT = "all_limit"
    HOURS = "hours"
    FROZEN = "frozen"
    SLOWED = "slowed"
    CONTACT_GAP = "contact_gap"
    CONTACT_DAY = "contact_day"
    EXIT = "exit"
    NUMBER = "number"
    AWAY = "away"
    LATER = "later"
    FIRST_OFF = "first_off"
    OPTED_OUT = "opted_out"
    SAME_TEXT = "same_text"
    BOT_LOOP = "bot_loop"


REASONS = {
    Why.GAP: "a short pause between two messages of this number",
    Why.RAMP: "the number has just come back, and begins slowly",
    Why.TYPING: "the correspondent is shown that somebody types",
    Why.REPLY_LIMIT: "as many replies as may leave have left",
    Why.FIRST_LIMIT: "as many new people as may be written to today have been",
    Why.FIRST_GAP: "a pause between two new people",
    Why.ALL_LIMIT: "as many messages as may leave have left; replies go first",
    Why.HOURS: "campaigns leave in the allowed hours only",
    Why.FROZEN: "WhatsApp lets this number write to nobody new for now",
    Why.SLOWED: "WhatsApp called this number too fast",
    Why.CONTACT_GAP: "the same person got a message a moment ago",
    Why.CONTACT_DAY: "the same person got as many automatic messages as a day may bring",
    Why.EXIT: "the session has no way out that may be used",
    Why.NUMBER: "the session works with another number, which somebody has to confirm",
    Why.AWAY: "the gateway is not reached, or the session does not work there",
    Why.LATER: "it is put off, or its outcome is not known yet",
    Why.FIRST_OFF: "the person never wrote, and first contacts are switched off (pace.first_contacts)",
    Why.OPTED_OUT: "the person asked for no more automatic messages",
    Why.SAME_TEXT: "the same text went to as many people as it may",
    Why.BOT_LOOP: "the bot went round in circles in this chat",
}
"""Each in plain words, for people."""


def in_words(reason: str | None) -> str:
    """Say a reason in plain words; what is no word of the list is said as it is."""
    return REASONS.get(Why(reason), "") if reason in list(Why) else reason or ""
