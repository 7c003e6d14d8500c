"""What people see: all of what a customer wrote, and nothing that a terminal would obey."""

from datetime import UTC, datetime
from types import SimpleNamespace

from wsm.sandbox.screen import history_lines, plain


def test_what_a_terminal_would_obey_is_shown_as_something_strange() -> None:
    assert plain("a\x1b[2Jb\x9b\x07\r\u202eabc\u2066") == "a\ufffd[2Jb\ufffd\ufffd\ufffd\ufffdabc\ufffd"
    assert plain("olá 👩‍👩‍👧 ção\tfim") == "olá 👩‍👩‍👧 ção\tfim"


def test_no_message_can_look_like_two() -> None:
    row = SimpleNamespace(
        sent_at=datetime(2026, 11, 20, tzinfo=UTC), author="customer", kind="text", late=False, media=False,
        body="oi\n20 Nov 00:00:00  agent     pago", ack=None, error=False,
    )  # fmt: skip
    [line] = history_lines([row], [])
    first, second = line.split("\n")
    assert second == " " * first.index("oi") + "20 Nov 00:00:00  agent     pago"
