"""What people see in a terminal: the story's lines and a chat's history."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from wsm.core.reasons import in_words

_COLOURS = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_ACKS = {0: "sent", 1: "sent ✓", 2: "delivered ✓✓", 3: "read ✓✓", 4: "played ✓✓"}
_MARKS = {"edit": "edited: ", "revoke": "deleted a message", "reaction": "reacted ", "vote": "voted: "}


_INDENT = 27
"""How far right of a line's beginning its text begins."""
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys, or turns round, instead of showing it."""


def plain(text: str, *, indent: int | None = None) -> str:
    """Write what a stranger wrote so that a terminal shows all of it and obeys none of it.

    indent  of its further lines, so that none of them looks like a line of ours; None: there are none
    """
    between = "\ufffd" if indent is None else "\n" + " " * indent
    return _COMMANDS.sub("\ufffd", text).replace("\n", between)


def coloured() -> bool:
    """Whether standard output shows colours (https://no-color.org, FORCE_COLOR)."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def paint(text: str, colour: str) -> str:
    """Colour a text for the terminal."""
    return f"\033[{_COLOURS[colour]}m{text}\033[0m" if coloured() else text


def history_lines(messages: Sequence[Any], unsent: Sequence[Any]) -> list[str]:
    """Write a chat as its people see it, with delivery states; then what has not become a message."""
    lines = [_message(row) for row in messages]
    for row in unsent:
        text = f"({row.intent} notice, written when it is sent)" if row.body is None else row.body
        kind = "" if row.kind == "text" else f" [{row.kind}]"
        author = "agent" if row.intent == "agent" else "bot"
        reason = f", {in_words(row.reason)}" if row.reason else ""
        lines.append(
            f"{row.created_at:%d %b %H:%M:%S}  {author:<9} {plain(text, indent=_INDENT)}{kind}  "
            + paint(f"[{row.state}{reason}]", "yellow")
        )
    return lines


def inbox_line(received: Mapping[str, Any]) -> str:
    """Write a message as a customer of the sandbox has it: its kind unless it is a text, and its fate."""
    parts = [] if received["kind"] == "text" else [f"[{_described(received)}]"]
    parts += [received["text"]] if received["text"] else []
    fates = (("edited", received["edits"]), ("deleted", received["deleted"]))
    notes = [word for word, happened in fates if happened]
    notes += [f"reacted {received['reaction']}"] if received["reaction"] else []
    parts += [f"({', '.join(notes)})"] if notes else []
    return plain(" ".join(parts), indent=4)


def _described(received: Mapping[str, Any]) -> str:
    """Name the kind of a message, and what is in it beside its text."""
    media, place, poll = received["media"], received["location"], received["poll"]
    inside: list[str] = []
    if media:
        inside = [media["filename"] or media["mimetype"], f"{media['size']} bytes"]
    elif place:
        inside = [f"{place['latitude']} {place['longitude']}", *([place["title"]] if place["title"] else [])]
    elif poll:
        inside = [poll["name"], *poll["options"]]
    return f"{received['kind']}: {', '.join(inside)}" if inside else str(received["kind"])


def _message(row: Any) -> str:
    text = (
        _MARKS.get(row.kind, "") + plain(row.body, indent=_INDENT) + (f" [{row.kind}]" if row.media else "")
    )
    state = ""
    if row.author == "bot":
        state = _ACKS.get(row.ack or 0, "sent")
        if row.error is not None:
            state = f"failed at WhatsApp{f' ({plain(row.error)})' if row.error else ''}"
    notes = [note for note in ("late" if row.late else "", state) if note]
    note = "  " + paint(f"[{', '.join(notes)}]", "dim") if notes else ""
    return f"{row.sent_at:%d %b %H:%M:%S}  {row.author:<9} {text}{note}"
