"""Every engine's answer gives up its facts, and no answer gives more."""

from datetime import UTC, datetime
from typing import Any

import pytest

from wsm.core.ids import BareId
from wsm.gateway.answers import (
    Found,
    SessionInfo,
    bare_id,
    chat,
    found,
    person,
    reason,
    session_info,
    text_of,
    until,
)

GOWS: dict[str, Any] = {"id": "true_1@c.us_3EB0", "_data": {"Info": {"ID": "3EB0"}}}
NOWEB: dict[str, Any] = {"key": {"remoteJid": "1@s.whatsapp.net", "fromMe": True, "id": "3EB0"}, "status": 1}
WEBJS: dict[str, Any] = {
    "id": {"fromMe": True, "remote": "1@c.us", "id": "3EB0", "_serialized": "true_1@c.us_3EB0"}
}
WPP: dict[str, Any] = {"id": "true_1@c.us_3EB0", "timestamp": 1, "from": "9@c.us", "fromMe": True, "ack": 0}


@pytest.mark.parametrize(
    "answer",
    [
        GOWS,
        NOWEB,
        WEBJS,
        WPP,
        {"id": "true_1@g.us_3EB0_9@c.us"},
        {"id": "3EB0"},
        {"id": {"_serialized": "true_1@c.us_3EB0"}},
        {"id": None, "key": {"id": "3EB0"}},
        {"_data": {"key": {"id": "3EB0"}}},
        {"_data": {"id": {"id": "3EB0"}}},
    ],
)
def test_the_bare_id_is_found_wherever_an_engine_puts_it(answer: object) -> None:
    assert bare_id(answer) == "3EB0"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        "3EB0",
        5,
        {"id": 5},
        {"id": ""},
        {"id": {}},
        {"key": []},
        {"id": "1@c.us"},
        {"sent": True},
    ],
)
def test_an_answer_without_an_id_has_none(answer: object) -> None:
    assert bare_id(answer) is None
    assert found(answer) is None


@pytest.mark.parametrize(
    ("fields", "ack", "body"),
    [
        ({"ack": 2, "body": "oi"}, 2, "oi"),
        ({"ack": -1}, -1, ""),
        ({"ack": None, "body": None}, None, ""),
        ({"ack": 9}, None, ""),
        ({"ack": True}, None, ""),
        ({"ack": "2"}, None, ""),
    ],
)
def test_a_message_is_read_as_far_as_it_goes(fields: dict[str, Any], ack: int | None, body: str) -> None:
    kind = "text" if body else "other"
    assert found(WPP | {"ack": None} | fields) == Found(BareId("3EB0"), ack, body, kind)


@pytest.mark.parametrize(
    ("summary", "read"),
    [
        ({"id": "1@c.us", "lastMessage": {"timestamp": 1_700_000_000}}, ("1@c.us", 1_700_000_000)),
        ({"id": "5@lid", "lastMessage": {"timestamp": 1_700_000_000.5}}, ("5@lid", 1_700_000_000)),
        ({"id": "1@g.us", "lastMessage": None}, ("1@g.us", None)),
        ({"id": "1@c.us", "lastMessage": {"timestamp": "soon"}}, ("1@c.us", None)),
        ({"id": None, "lastMessage": {"timestamp": 1}}, None),
        (None, None),
    ],
)
def test_a_chat_is_read_as_far_as_it_goes(summary: object, read: object) -> None:
    assert chat(summary) == read


def test_a_session_is_described_without_its_secrets() -> None:
    answer = {
        "name": "s",
        "status": "WORKING",
        "config": {"webhooks": [{"hmac": {"key": "CANARY"}}], "proxy": {"password": "CANARY"}},
        "me": {"id": "5511977776666:3@s.whatsapp.net", "pushName": "Loja"},
        "engine": {"engine": "GOWS"},
    }
    described = session_info(answer)
    assert described is not None
    assert described == SessionInfo("s", "WORKING", "GOWS", described.me)
    assert described.me == "5511977776666@c.us"
    assert "CANARY" not in repr(described)
    assert session_info({"name": "s", "status": "STOPPED", "me": None}) == SessionInfo(
        "s", "STOPPED", None, None
    )


@pytest.mark.parametrize("answer", [None, [], {}, {"name": "s"}, {"name": "s", "status": 4}])
def test_what_describes_no_session_is_none(answer: object) -> None:
    assert session_info(answer) is None


@pytest.mark.parametrize(
    ("status", "answer", "word"),
    [
        (500, {"exception": {"message": "2 UNKNOWN: server returned error 463"}}, "reachout_timelock"),
        (500, {"exception": {"message": "rate-overlimit"}}, "rate_limited"),
        (500, {"exception": {"message": "2 UNKNOWN: info query timed out"}}, "engine_timeout"),
        (500, {"exception": {"message": "Connection Closed"}}, "engine_disconnected"),
        (500, {"exception": {"message": "x"}, "request": {"body": {"text": "error 463"}}}, "engine_error"),
        (500, {"exception": {"message": "server returned error 4631"}}, "engine_error"),
        (500, None, "engine_error"),
        (
            422,
            {"error": "…", "session": "s", "status": "STOPPED", "expected": ["WORKING"]},
            "session_not_working",
        ),
        (422, {"error": "We didn't find a session", "session": "s"}, "session_not_working"),
        (422, {"message": "Session 's' already exists.", "statusCode": 422}, "already_exists"),
        (422, {"message": ["x"], "statusCode": 422, "session": "s"}, "unprocessable"),
        (404, {"message": "Message not found", "statusCode": 404}, "message_not_found"),
        (404, {"message": "Session not found", "statusCode": 404}, "not_found"),
        (404, {"message": "Cannot GET /api/s/new-message-id", "statusCode": 404}, "no_such_call"),
        (400, {"message": ['Enable NOWEB store "config.noweb.store.enabled=True"']}, "store_disabled"),
        (400, {"detail": "x"}, "bad_request"),
        (401, "Unauthorized", "unauthorized"),
        (418, [], "refused"),
    ],
)
def test_a_refusal_is_one_word_of_a_closed_list(status: int, answer: object, word: str) -> None:
    assert reason(status, answer) == word


@pytest.mark.parametrize(
    ("answer", "who"),
    [
        ({"numberExists": True, "chatId": "551196000123@c.us"}, "551196000123@c.us"),
        ({"numberExists": False}, None),
        ({"numberExists": False, "chatId": "551196000123@c.us"}, None),
        ({"numberExists": "yes", "chatId": "551196000123@c.us"}, None),
        ({"numberExists": True}, None),
        ([], None),
    ],
)
def test_who_is_on_whatsapp_is_named_and_nobody_else(answer: object, who: str | None) -> None:
    assert person(answer) == who


@pytest.mark.parametrize("answer", [None, [], {}, {"code": None}, {"code": 1}, {"code": ""}])
def test_a_text_that_is_missing_is_none(answer: object) -> None:
    assert text_of(answer, "code") is None
    assert text_of({"code": "ABCD-ABCD"}, "code") == "ABCD-ABCD"


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": "463", "until": "2026-11-26T12:00:00.000Z"}},
        {"error": {"code": "463", "until": "2026-11-26T12:00:00"}},
        {"exception": {"message": "server returned error 463", "until": 1_795_694_400}},
        {"exception": {"details": {"until": 1_795_694_400_000}}},
    ],
)
def test_the_end_of_a_lock_is_read_wherever_it_stands(answer: object) -> None:
    assert until(answer) == datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"error": "463"},
        {"error": {"until": None}},
        {"error": {"until": "soon"}},
        {"error": {"until": True}},
        {"exception": {"until": -1}},
        {"request": {"body": {"error": {"until": 1_795_694_400}}}},
    ],
)
def test_a_lock_that_does_not_say_when_it_ends_has_no_end(answer: object) -> None:
    assert until(answer) is None
