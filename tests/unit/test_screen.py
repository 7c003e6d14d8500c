"""What people see: all of what a customer wrote, and nothing that a terminal would obey."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from wsm.sandbox.screen import history_lines, inbox_line, plain


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


def test_an_inbox_shows_kinds_their_insides_and_what_became_of_them() -> None:
    nothing: dict[str, Any] = {
        "kind": "text", "text": "", "media": None, "location": None, "poll": None, "edits": [],
        "deleted": False, "reaction": "",
    }  # fmt: skip
    file = {"filename": None, "mimetype": "image/png", "size": 3}
    place = {"latitude": 1.5, "longitude": -2.0, "title": None}
    poll = {"name": "Cor?", "options": ["azul", "verde"]}
    for received, line in (
        ({"text": "oi\x1b", "edits": ["o"], "reaction": "👍"}, "oi\ufffd (edited, reacted 👍)"),
        ({"kind": "image", "media": file, "text": "olha"}, "[image: image/png, 3 bytes] olha"),
        ({"kind": "file", "media": {**file, "filename": "a.pdf"}}, "[file: a.pdf, 3 bytes]"),
        ({"kind": "location", "location": place}, "[location: 1.5 -2.0]"),
        ({"kind": "location", "location": {**place, "title": "Loja"}}, "[location: 1.5 -2.0, Loja]"),
        ({"kind": "poll", "poll": poll, "deleted": True}, "[poll: Cor?, azul, verde] (deleted)"),
        ({"kind": "contact"}, "[contact]"),
    ):
        assert inbox_line({**nothing, **received}) == line


def test_what_has_not_left_is_shown_with_its_kind_who_asked_and_why() -> None:
    rows = [
        SimpleNamespace(created_at=datetime(2026, 11, 20, tzinfo=UTC), intent=of, kind=kind, state=state,
                        body=body, reason=reason)
        for of, kind, state, body, reason in (
            ("turn", "text", "pending", None, None),
            ("agent", "image", "failed", "", "media: is an empty file"),
            ("bot", "poll", "pending", "Que\ndia?", "2 before it"),
        )
    ]  # fmt: skip
    assert history_lines([], rows) == [
        "20 Nov 00:00:00  bot       (turn notice, written when it is sent)  [pending]",
        "20 Nov 00:00:00  agent      [image]  [failed, media: is an empty file]",
        "20 Nov 00:00:00  bot       Que\n                           dia? [poll]  [pending, 2 before it]",
    ]
