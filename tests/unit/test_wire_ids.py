"""WAHA's ids and the keys that are made of them."""

import msgspec
import pytest

from wsm.core.events import ChatKind
from wsm.core.ids import ChatId
from wsm.wire.waha_ids import chat_id, chat_kind, digest, key, message_id


@pytest.mark.parametrize(
    ("text", "chat"),
    [
        ("5511977776666@c.us", "5511977776666@c.us"),
        ("5511977776666@s.whatsapp.net", "5511977776666@c.us"),
        ("5511977776666:42@s.whatsapp.net", "5511977776666@c.us"),
        ("5511977776666.0:3@s.whatsapp.net", "5511977776666@c.us"),
        ("123123123123123:7@lid", "123123123123123@lid"),
        (" 5511977776666@c.us ", "5511977776666@c.us"),
        ("5511977776666", "5511977776666@c.us"),
        ("+5511977776666", "5511977776666@c.us"),
        ("551197777-1600000000@g.us", "551197777-1600000000@g.us"),
        ("status@broadcast", "status@broadcast"),
        ("123@newsletter", "123@newsletter"),
        ("me", None),
        ("", None),
        (None, None),
        (5511977776666, None),
        ("a b@c.us", None),
        ("@c.us", None),
        ("1@2@c.us", None),
        ("1@c.us\n2@c.us", None),
        ("1\0@c.us", None),
        ("9" * 200 + "@c.us", None),
    ],
)
def test_a_chat_id_is_written_one_way(text: object, chat: str | None) -> None:
    assert chat_id(text) == chat


@pytest.mark.parametrize(
    ("chat", "kind"),
    [
        ("5511977776666@c.us", ChatKind.DIRECT),
        ("123@lid", ChatKind.DIRECT),
        ("123@g.us", ChatKind.GROUP),
        ("status@broadcast", ChatKind.STATUS),
        ("123@broadcast", ChatKind.BROADCAST),
        ("123@newsletter", ChatKind.NEWSLETTER),
        ("13135550002@bot", ChatKind.OTHER),
        ("x@meta.ai", ChatKind.OTHER),
    ],
)
def test_only_people_are_direct_chats(chat: str, kind: ChatKind) -> None:
    assert chat_kind(ChatId(chat)) is kind


def parts(text: object) -> tuple[object, ...] | None:
    found = message_id(text)
    return None if found is None else msgspec.structs.astuple(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true_1@c.us_3EB0", (True, "1@c.us", "3EB0", None, False)),
        ("false_1@g.us_3EB0_2@lid", (False, "1@g.us", "3EB0", "2@lid", False)),
        ("false_1@g.us_3EB0_2:3@s.whatsapp.net", (False, "1@g.us", "3EB0", "2@c.us", False)),
        ("1@c.us_3EB0", (None, "1@c.us", "3EB0", None, False)),
        ("1@g.us_3EB0_2@c.us", (None, "1@g.us", "3EB0", "2@c.us", False)),
        ("true_1@c.us_AB_CD", (True, "1@c.us", "AB_CD", None, False)),
        ("true_1@c.us_AB_CD_2@c.us", (True, "1@c.us", "AB_CD", "2@c.us", False)),
        ("3EB0", (None, None, "3EB0", None, False)),
        ("true_3EB0", (True, None, "3EB0", None, False)),
        ("123@g.us", (None, "123@g.us", "123@g.us", None, True)),
        ("false_123@g.us", (False, "123@g.us", "123@g.us", None, True)),
        ("false_123@g.us_", (False, "123@g.us", "", None, True)),
        ("false_", (False, None, "", None, True)),
        ("", None),
        ("  ", None),
        (None, None),
        (7, None),
        ({"id": "x"}, None),
    ],
)
def test_a_message_id_is_taken_apart(text: object, expected: tuple[object, ...] | None) -> None:
    assert parts(text) == expected


def test_keys_are_readable() -> None:
    assert key("m", False, "3EB0C1") == "m|0|3EB0C1"
    assert key("a", True, "3EB0C1", -1, None) == "a|1|3EB0C1|-1|"


def test_keys_are_bounded_and_never_run_together() -> None:
    long, strange = "A" * 65, "a|b"
    assert key("m", True, long) == f"m|1|#{digest(long.encode())}"
    assert len(key("m", True, "A" * 100_000)) < 40
    assert key("m", strange) != key("m", "a", "b")
    assert key("m", "ç\n") != key("m", "ç ")
    assert key("m", "#" + digest(strange.encode())) != key("m", strange), "nobody writes the hash of another"
    assert digest(b"a", b"bc") != digest(b"ab", b"c")
