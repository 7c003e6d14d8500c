"""Bodies that WAHA might send, one oddity each: nothing raises, nothing is lost, nothing counts twice."""

import json
from typing import Any

import pytest

from hooks import NOW, NOW_MS, hook, message, reading
from wsm.core import events
from wsm.core.errors import BadInput
from wsm.core.events import Kept, MessageReceived, Origin
from wsm.core.ids import ChatAddress, ChatId, SessionName, TenantId
from wsm.wire.waha import backfilled, close_command, decoded, head

# The chat, the direction, the author


@pytest.mark.parametrize("engine", ["WEBJS", "WPP", "NOWEB", "GOWS", None, ["WEBJS"]])
@pytest.mark.parametrize("from_me", [True, False])
def test_the_chat_is_the_ids_whatever_from_and_to_say(engine: object, from_me: bool) -> None:
    found = message(
        id=f"{str(from_me).lower()}_1@c.us_A",
        **{"from": "9@c.us", "to": "8@c.us", "fromMe": from_me},
        envelope={"engine": engine},
    )
    assert (found.chat, found.from_me) == ("1@c.us", from_me)


@pytest.mark.parametrize(
    ("engine", "from_me", "sender", "receiver", "chat"),
    [
        ("WEBJS", True, "9@c.us", "1@c.us", "1@c.us"),
        ("WEBJS", False, "1@c.us", "9@c.us", "1@c.us"),
        ("WPP", True, "9@c.us", "1@c.us", "1@c.us"),
        ("NOWEB", True, "1@c.us", None, "1@c.us"),
        ("GOWS", True, "1@g.us", "9@c.us", "1@g.us"),
        ("GOWS", False, "1:3@s.whatsapp.net", None, "1@c.us"),
        ("NEW", True, "9@c.us", None, "9@c.us"),
    ],
)
def test_an_opaque_id_leaves_the_chat_to_the_engines_rule(
    engine: str, from_me: bool, sender: str, receiver: str | None, chat: str
) -> None:
    found = message(
        id="ABC", **{"from": sender, "to": receiver, "fromMe": from_me}, envelope={"engine": engine}
    )
    assert (found.chat, found.id, found.key) == (chat, "ABC", f"m|{int(from_me)}|ABC")


def test_from_me_of_the_payload_is_believed_before_the_prefix() -> None:
    assert message(id="true_1@c.us_A", fromMe=False).from_me is False
    assert message(id="false_1@c.us_A", fromMe=True).from_me is True
    assert message(id="true_1@c.us_A").from_me is True
    assert message(id="1@c.us_A", _data={"key": {"fromMe": True}}).from_me is True
    assert message(id="1@c.us_A", fromMe="true").from_me is False, "a text is no answer"


@pytest.mark.parametrize(
    "payload",
    [
        {"id": "false_1@g.us_A_2@c.us"},
        {"participant": "2:5@s.whatsapp.net"},
        {"author": "2@c.us"},
        {"from": "2@c.us"},
    ],
)
def test_the_author_in_a_group_is_found_wherever_it_stands(payload: dict[str, object]) -> None:
    assert message(**({"id": "false_1@g.us_A", "from": "1@g.us"} | payload)).participant == "2@c.us"


def test_a_direct_chat_has_no_participant() -> None:
    assert message(participant="1@c.us").participant is None


@pytest.mark.parametrize(
    ("payload", "twin"),
    [
        ({"id": "false_5@lid_A", "_data": {"key": {"remoteJidAlt": "1@s.whatsapp.net"}}}, "1@c.us"),
        ({"id": "false_1@c.us_A", "_data": {"key": {"remoteJidAlt": "5:2@lid"}}}, "5@lid"),
        ({"id": "false_5@lid_A", "_data": {"Info": {"SenderAlt": "1:3@s.whatsapp.net"}}}, "1@c.us"),
        (
            {
                "id": "true_5@lid_A",
                "fromMe": True,
                "_data": {"Info": {"SenderAlt": "9@s.whatsapp.net", "RecipientAlt": "1@s.whatsapp.net"}},
            },
            "1@c.us",
        ),
        ({"id": "true_5@lid_A", "fromMe": True, "_data": {"Info": {"SenderAlt": "9@c.us"}}}, None),
        ({"id": "false_2@g.us_A_5@lid", "_data": {"key": {"participantAlt": "1@s.whatsapp.net"}}}, "1@c.us"),
        ({"id": "false_5@lid_A", "_data": {"key": {"remoteJidAlt": "6@lid"}}}, None),
        ({"id": "false_5@lid_A", "_data": {"key": {"remoteJidAlt": ""}}}, None),
        ({"id": "false_5@lid_A", "_data": []}, None),
    ],
)
def test_the_twin_is_the_same_persons_other_id(payload: dict[str, object], twin: str | None) -> None:
    assert message(**payload).twin == twin


# Times


@pytest.mark.parametrize(
    ("said", "sent_at_ms"),
    [
        (NOW - 60, (NOW - 60) * 1000),
        (NOW_MS - 60_000, NOW_MS - 60_000),
        (1710481111.853, 1710481111853),
        (str(NOW - 60), (NOW - 60) * 1000),
        ("1710481111.853", 1710481111853),
        (NOW + 86_500, NOW_MS),
        (NOW_MS * 1000, NOW_MS),
        (10**400, NOW_MS),
        ("1e999", NOW_MS),
        ("nan", NOW_MS),
        ("some-timestamp-here", NOW_MS),
        ("", NOW_MS),
        (0, NOW_MS),
        (-5, NOW_MS),
        (True, NOW_MS),
        (None, NOW_MS),
        ([NOW], NOW_MS),
        ({"low": NOW}, NOW_MS),
    ],
)
def test_a_time_that_is_none_to_believe_is_the_arrival(said: object, sent_at_ms: int) -> None:
    assert message(timestamp=said).order.sent_at_ms == sent_at_ms
    stamped = message(envelope={"timestamp": said}).order.stamped_at_ms
    assert stamped == sent_at_ms


def test_a_message_is_not_much_younger_than_its_envelope() -> None:
    assert message(timestamp=NOW + 299).order.sent_at_ms == (NOW + 299) * 1000
    assert message(timestamp=NOW + 301).order.sent_at_ms == NOW_MS - 5


def test_a_clock_of_ours_that_steps_back_changes_no_order() -> None:
    hour = 3_600_000
    envelope = {"timestamp": NOW_MS + hour}
    assert message(envelope=envelope, timestamp=NOW + 3600).order.sent_at_ms == (NOW + 3600) * 1000


def test_the_order_is_payload_then_envelope_then_arrival() -> None:
    order = message(timestamp=NOW - 9).order
    assert order == events.Order((NOW - 9) * 1000, NOW_MS - 5, (NOW_MS, 0))


# Contents


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({}, "text"),
        ({"body": ""}, "other"),
        ({"body": None}, "other"),
        ({"hasMedia": True, "media": {"mimetype": "image/jpeg"}}, "image"),
        ({"hasMedia": True, "media": {"mimetype": "video/mp4"}}, "video"),
        ({"hasMedia": True, "media": {"mimetype": "audio/ogg; codecs=opus"}}, "voice"),
        ({"hasMedia": True, "media": {"mimetype": "audio/mpeg"}}, "audio"),
        ({"hasMedia": True, "media": {"mimetype": "application/pdf"}}, "document"),
        ({"hasMedia": True, "media": {"mimetype": "chemical/x-pdb"}}, "media"),
        ({"hasMedia": True, "media": None}, "media"),
        ({"location": {"latitude": "1", "longitude": "2"}}, "location"),
        ({"vCards": ["BEGIN:VCARD"]}, "contact"),
        ({"vCards": []}, "text"),
        ({"_data": {"message": {"stickerMessage": {}}}}, "sticker"),
        ({"_data": {"message": {"audioMessage": {"ptt": True}}}}, "voice"),
        ({"_data": {"Message": {"audioMessage": {"PTT": True}}}}, "voice"),
        ({"_data": {"message": {"audioMessage": {}}}}, "audio"),
        ({"_data": {"message": {"ephemeralMessage": {"message": {"imageMessage": {}}}}}}, "image"),
        ({"_data": {"type": "ptt"}}, "voice"),
        ({"_data": {"type": ["ptt"]}}, "text"),
    ],
)
def test_the_kind_is_the_engines_word_or_what_the_fields_show(payload: dict[str, object], kind: str) -> None:
    assert message(**payload).kind == kind


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"hasMedia": False, "media": None}, None),
        ({"hasMedia": True}, events.Media()),
        ({"hasMedia": True, "media": {"url": None, "mimetype": "video/mp4"}}, events.Media("video/mp4")),
        ({"hasMedia": True, "media": {"error": "gone"}}, events.Media(error="gone")),
        ({"hasMedia": True, "media": {"error": {"code": 9}}}, events.Media(error='{"code": 9}')),
        ({"hasMedia": True, "mediaUrl": "http://x/1"}, events.Media(url="http://x/1")),
        ({"media": {"url": 5, "filename": ["x"], "mimetype": {}}}, events.Media()),
    ],
)
def test_media_is_kept_as_announced(payload: dict[str, object], expected: events.Media | None) -> None:
    assert message(**payload).media == expected


def test_a_long_media_error_is_cut() -> None:
    media = message(hasMedia=True, media={"error": "x" * 5000}).media
    assert media is not None
    assert len(media.error or "") == 300


def test_the_name_of_an_own_message_is_not_the_customers() -> None:
    assert message(_data={"notifyName": "Ana"}).push_name == "Ana"
    assert message(_data={"Info": {"PushName": "Ana"}}).push_name == "Ana"
    assert message(_data={"pushName": "Loja"}, fromMe=True).push_name is None


def test_half_an_emoji_loses_no_message() -> None:
    body = rb'{"event":"message.any","session":"s","payload":{"id":"false_1@c.us_A","body":"a\ud83d","x":1}}'
    found = reading(body)
    assert isinstance(found, MessageReceived)
    assert (found.body, found.raw) == ("a\ufffd", body)
    assert head(body).event == "message.any"
    whole = reading(body.replace(rb"\ud83d", rb"\\ud83d \ud83d\ude00"))
    assert isinstance(whole, MessageReceived)
    assert whole.body == "a\\ud83d 😀"


@pytest.mark.parametrize(
    ("odd", "body"),
    [
        (b'"body":"a\xff"', "a\ufffd"),
        (rb'"body":"a\u0000b"', "a\ufffdb"),
        (b'"body":"a","x":1e999', "a"),
        (b'"body":"a","x":%b' % (b"9" * 100), "a"),
    ],
)
def test_what_a_database_would_refuse_is_mended(odd: bytes, body: str) -> None:
    found = reading(
        b'{"event":"message","session":"s","payload":{"id":"false_1@c.us_A","from":"1@c.us",%b}}' % odd
    )
    assert isinstance(found, MessageReceived)
    assert found.body == body
    assert found.body.encode()


def test_a_number_that_cannot_be_read_keeps_the_body() -> None:
    body = b'{"event":"message","session":"s","x":%b}' % (b"9" * 6000)
    found = reading(body)
    assert isinstance(found, Kept)
    assert (found.name, found.raw) == ("message", body)


# What is kept


@pytest.mark.parametrize(
    ("event", "payload", "chat"),
    [
        ("message", {}, None),
        ("message", None, None),
        ("message", [], None),
        ("message", {"id": "false_1@c.us_A"} | {"id": None}, None),
        ("message", {"id": "ABC"}, None),
        ("message", {"id": ["x"], "from": "1@c.us"}, "1@c.us"),
        ("message.waiting", {"id": "false_1@c.us_A"}, "1@c.us"),
        ("message.ack", {"id": "true_1@c.us_A", "ack": None, "ackName": "UNKNOWN"}, "1@c.us"),
        ("message.ack", {"id": "true_1@c.us_A", "ack": True}, "1@c.us"),
        ("message.ack", {"id": "true_1@c.us_A", "ack": 9}, "1@c.us"),
        ("message.ack", {"id": "true_1@c.us_A", "ack": "3"}, "1@c.us"),
        ("message.ack", {"id": "1@c.us", "ack": 3}, "1@c.us"),
        ("message.edited", {"id": "true_1@c.us_A", "body": None}, "1@c.us"),
        ("message.revoked", {"after": {"id": "some-id-here"}, "before": {"id": "some-id-here"}}, None),
        ("message.revoked", {"after": {"id": "true_1@c.us_A"}}, "1@c.us"),
        ("message.reaction", {"id": "true_1@c.us_A", "reaction": None}, "1@c.us"),
        ("poll.vote", {"vote": {"id": "true_1@c.us_A", "selectedOptions": None}, "poll": {}}, "1@c.us"),
        ("poll.vote.failed", {"vote": {"id": "true_1@c.us_A", "selectedOptions": []}}, "1@c.us"),
        ("session.status", {"status": None}, None),
        ("session.status", {"status": 4}, None),
        ("group.v2.join", {"group": {"id": "2@g.us"}}, "2@g.us"),
        ("label.chat.added", {"chatId": "1@s.whatsapp.net"}, "1@c.us"),
        ("call.received", {"id": "AAAA", "from": "1@c.us"}, "1@c.us"),
        ("an.event.of.tomorrow", {"x": 1}, None),
        ("command.close", {"chat": "1@c.us", "by": "mallory"}, None),
    ],
)
def test_what_has_not_the_fields_of_its_event_is_kept(event: str, payload: object, chat: str | None) -> None:
    found = hook(event, payload)
    assert isinstance(found, Kept)
    assert (found.name, found.chat) == (event, chat)


def test_a_revoke_of_webjs_finds_its_target_in_what_was_before() -> None:
    found = hook(
        "message.revoked",
        {"after": {"id": "false_1@c.us_B"}, "before": {"id": "false_1@c.us_A"}, "revokedMessageId": None},
    )
    assert isinstance(found, events.MessageRevoked)
    assert (found.id, found.target) == ("B", "A")


def test_an_edit_of_webjs_is_of_the_message_that_bears_its_id() -> None:
    found = hook("message.edited", {"id": "false_1@c.us_A", "body": "new"})
    assert isinstance(found, events.MessageEdited)
    assert found.target == "A"


# What is fetched instead of a webhook


def fetched(**payload: object) -> bytes | None:
    base: dict[str, object] = {"id": "false_1@c.us_A", "timestamp": NOW, "from": "1@c.us", "body": "oi"}
    return backfilled(SessionName("s"), base | payload, engine="WEBJS")


def test_what_is_fetched_stands_at_its_own_time_whenever_it_is_read() -> None:
    body = fetched(timestamp=NOW - 3600)
    assert body is not None
    found = reading(body, Origin.CATCH_UP)
    assert isinstance(found, MessageReceived)
    assert (found.backfilled, found.order.sent_at_ms) == (True, (NOW - 3600) * 1000)
    assert found.order.stamped_at_ms == found.order.sent_at_ms
    assert json.loads(found.raw)["backfilled"] is True


def test_nobody_but_wsm_itself_says_that_something_was_fetched() -> None:
    assert message(envelope={"backfilled": True}).backfilled is False


@pytest.mark.parametrize(
    "payload",
    [
        {"id": None},
        {"id": ""},
        {"id": "1@c.us"},
        {"id": "false_1@c.us_" + "A" * 201},
        {"_data": {"type": "ciphertext"}},
        {"_data": {"type": "gp2"}},
    ],
)
def test_what_no_webhook_brings_as_a_message_is_not_fetched(payload: dict[str, object]) -> None:
    assert fetched(**payload) is None


@pytest.mark.parametrize("payload", [None, [], "x", 5])
def test_what_is_no_message_at_all_is_not_fetched(payload: object) -> None:
    assert backfilled(SessionName("s"), payload, engine=None) is None


def test_half_an_emoji_hides_no_list() -> None:
    assert decoded(rb'[{"body":"oi \ud83d"},{"body":"\ud83d\ude00"}]') == [
        {"body": "oi \ufffd"},
        {"body": "😀"},
    ]
    assert decoded(b"<html>") is None
    assert decoded(b"[" * 100_000) is None


# wsm's own commands


CHAT = ChatAddress(TenantId(7), SessionName("s"), ChatId("1@c.us"))


@pytest.mark.parametrize("origin", sorted({*Origin} - {Origin.WAHA, Origin.UNKNOWN}))
def test_a_close_command_is_read_as_it_was_written(origin: Origin) -> None:
    found = reading(close_command(CHAT, id="6f1c", by="cli"), origin)
    assert isinstance(found, events.CloseAsked)
    assert (found.chat, found.by, found.key) == ("1@c.us", "cli", "c|close|6f1c")


def test_a_command_that_waha_sent_is_no_command() -> None:
    assert isinstance(reading(close_command(CHAT, id="6f1c", by="cli")), Kept)


@pytest.mark.parametrize("change", [{"id": None}, {"payload": {"chat": "me"}}, {"payload": None}])
def test_a_command_without_its_fields_is_kept(change: dict[str, Any]) -> None:
    body = json.loads(close_command(CHAT, id="6f1c", by="cli")) | change
    assert isinstance(reading(json.dumps(body).encode(), Origin.CLI), Kept)


def test_a_missing_message_found_by_wsm_itself_is_a_message() -> None:
    body = b'{"event":"message.any","session":"s","payload":{"id":"false_1@c.us_A"}}'
    assert isinstance(reading(body, Origin.CLOCK), MessageReceived)


# The head


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"not json", "body"),
        (b"[]", "body"),
        (b'"x"', "body"),
        (b"null", "body"),
        (b'{"event":"message","session":"s"', "body"),
        (b'{"event":"message","session":"s"} x', "body"),
        (b"\xff\xfe", "body"),
        (b"{}", "event"),
        (b'{"session":"s"}', "event"),
        (b'{"event":"","session":"s"}', "event"),
        (b'{"event":5,"session":"s"}', "event"),
        (b'{"event":"message"}', "session"),
        (b'{"event":"message","session":null}', "session"),
        (b'{"event":"message","session":["s"]}', "session"),
        (b'{"event":"message","session":"s","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body"),
    ],
)
def test_what_has_no_head_is_refused_by_the_fields_name(body: bytes, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        head(body)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("me", "me_id"),
    [
        (b'{"id":"55@c.us","pushName":"x"}', "55@c.us"),
        (b'{"id":"5511977776666:4@s.whatsapp.net"}', "5511977776666@c.us"),
        (b"null", None),
        (b'{"id":null}', None),
        (b"{}", None),
        (b"[]", None),
        (b'"55@c.us"', None),
        (b'{"id":5}', None),
        (b"1e999", None),
        (b'{"id":"\xff"}', None),
    ],
)
def test_an_odd_me_refuses_nothing(me: bytes, me_id: str | None) -> None:
    found = head(b'{"event":"message","session":"s","me":%b}' % me)
    assert (found.event, found.session, found.me_id) == ("message", "s", me_id)
