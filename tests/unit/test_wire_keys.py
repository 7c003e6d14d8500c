"""What counts once: every form of one fact has one key, and no two facts share one."""

from hooks import NOW, NOW_MS, hook, message
from wsm.core.events import Event
from wsm.wire.waha import message_key


def test_twins_and_both_events_of_one_message_share_a_key() -> None:
    by_phone = {"id": "false_1@c.us_A", "timestamp": NOW, "from": "1@c.us", "body": "oi"}
    by_lid = by_phone | {"id": "false_5@lid_A", "from": "5@lid"}
    keys = {
        hook(event, payload, id=f"evt_{number}").key
        for number, payload in enumerate((by_phone, by_lid))
        for event in ("message", "message.any")
    }
    assert keys == {"m|0|A"} == {message_key(message().id, from_me=False)}


def test_two_sessions_of_ours_that_write_to_each_other_do_not_collide() -> None:
    assert message(fromMe=True).key != message(fromMe=False).key


def test_an_id_that_names_only_a_chat_makes_no_two_messages_one() -> None:
    first, second = (
        message(id="123@g.us", **{"from": "9@c.us"}, envelope={"id": event_id})
        for event_id in ("evt_1", "evt_2")
    )
    assert first.key != second.key
    assert first.chat == second.chat == "123@g.us"
    again = hook("message", {"id": "123@g.us", "from": "9@c.us"}, id="evt_1")
    assert again.key == first.key


def test_the_ack_of_each_level_and_reader_counts_once() -> None:
    def ack(event: str = "message.ack.group", **payload: object) -> str:
        base = {"id": "true_1@g.us_A_9@c.us", "fromMe": True, "ack": 3, "participant": "2@lid"}
        return hook(event, base | payload).key

    assert ack() == ack(event="message.ack") == "a|1|A|3|2@lid"
    assert len({ack(), ack(ack=2), ack(participant="3@lid"), ack(fromMe=False)}) == 4


def test_edits_of_one_message_differ_by_their_text_or_time() -> None:
    def edit(**payload: object) -> str:
        base = {"id": "true_1@c.us_A", "fromMe": True, "editedMessageId": "A", "body": "x", "timestamp": NOW}
        return hook("message.edited", base | payload).key

    back_again = {"_data": {"latestEditSenderTimestampMs": NOW_MS}}
    assert edit() == edit(id="true_5@lid_A")
    assert len({edit(), edit(body="y"), edit(editedMessageId="B"), edit(**back_again)}) == 4


def test_a_changed_reaction_or_vote_counts_again_and_a_repeated_one_does_not() -> None:
    def reaction(**payload: object) -> str:
        base = {"id": "false_1@c.us_R", "timestamp": NOW, "reaction": {"text": "👍", "messageId": "A"}}
        return hook("message.reaction", base | payload).key

    assert reaction() == reaction(id="false_5@lid_R")
    assert len({reaction(), reaction(id="false_1@c.us_S"), reaction(timestamp=NOW + 1)}) == 3

    def vote(at: float) -> str:
        cast_vote = {"id": "false_1@c.us_V", "selectedOptions": ["a"], "timestamp": at}
        return hook("poll.vote", {"vote": cast_vote, "poll": {"id": "true_1@c.us_P"}}).key

    assert vote(NOW) == vote(NOW_MS - NOW_MS % 1000), "seconds and milliseconds are one time"
    assert vote(NOW) != vote(NOW + 1)


def test_the_same_event_id_under_two_names_is_two_events() -> None:
    keys = {hook(name, {}).key for name in ("event.response", "event.response.failed")}
    assert keys == {"e|event.response|evt_1", "e|event.response.failed|evt_1"}


def test_an_event_without_an_id_counts_by_its_body() -> None:
    first, second = (hook("presence.update", {"n": n}, id=None) for n in (1, 2))
    assert first.key.startswith("h|")
    assert first.key != second.key
    assert first.key == hook("presence.update", {"n": 1}, id=None).key


def test_every_status_counts_once_per_time() -> None:
    def status(name: str, *at: object) -> Event:
        return hook("session.status", {"status": name, "statuses": [{"timestamp": one} for one in at]})

    assert status("WORKING", 5, NOW_MS).key == status("WORKING", NOW_MS).key == f"s|WORKING|{NOW_MS}"
    assert status("SCAN_QR_CODE", NOW_MS).key != status("SCAN_QR_CODE", NOW_MS + 1).key
    assert status("NEW_WORD", NOW_MS).key == f"s|NEW_WORD|{NOW_MS}"
    assert status("WORKING").key == status("WORKING", "soon").key == f"s|WORKING|{NOW_MS - 5}"
