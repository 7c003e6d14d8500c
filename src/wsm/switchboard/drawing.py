"""Codes to scan, drawn for a terminal and as a PNG, each with the quiet zone that readers need around it.

The colours are said outright, black on white from the fixed part of the 256: a code in the terminal's own
would be inverted on a dark one, and grey on grey in many a theme.
"""

import io
from itertools import zip_longest

import segno

QUIET = 4
"""Light modules on every side (ISO/IEC 18004)."""
_BLACK_ON_WHITE = "\033[38;5;16;48;5;231m"
_END = "\033[0m"
_DOTS_PER_MODULE = 8
_BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def modules(text: str) -> list[list[bool]]:
    """Return the rows of a text's code, True for dark, the quiet zone included."""
    return [[module == 1 for module in row] for row in _code(text).matrix_iter(border=QUIET)]


def half_blocks(text: str) -> list[str]:
    """Draw a text's code for a terminal: a line for two rows of modules, a column for each module."""
    rows = modules(text)
    light = [False] * len(rows[0])
    return [
        _BLACK_ON_WHITE + "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True)) + _END
        for upper, lower in zip_longest(rows[::2], rows[1::2], fillvalue=light)
    ]


def picture(text: str) -> bytes:
    """Draw a text's code as a PNG."""
    drawn = io.BytesIO()
    _code(text).save(drawn, kind="png", scale=_DOTS_PER_MODULE, border=QUIET)
    return drawn.getvalue()


def _code(text: str) -> segno.QRCode:
    """The smallest code of a text; the room that is left goes into its repair of errors."""
    return segno.make_qr(text, error="l")
