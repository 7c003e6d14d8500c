"""Every sample and capture of WAHA is read as what it is.

The table was judged row by row against WAHA's contract: file, event, then the message's kind, the ack's
level or the session's status, the chat, the payload's own time, and the key under which it counts once.
"""

from pathlib import Path

import msgspec

from wsm.core import events
from wsm.core.events import ChatKind, Event, MessageAcked, MessageReceived, Origin, SessionStatusReported
from wsm.core.ids import EntryId, SessionName, TenantId
from wsm.wire.waha import backfilled, chat_kind, head, read

NOW_MS = 1795157451958
TABLE = """
call.accepted.GOWS Kept - 22222222222@c.us 1721374000000 e|call.accepted|evt_01k0000000000000000000000y
call.received.GOWS Kept - 22222222222@c.us 1721374000000 e|call.received|evt_01k0000000000000000000000x
call.rejected.GOWS Kept - 22222222222@c.us 1721374000000 e|call.rejected|evt_01k0000000000000000000000z
chat.archive.WEBJS Kept - 123123123@c.us 1667561485000 e|chat.archive|evt_01k0000000000000000000000w
composed.message.ack.ERROR.GOWS MessageAcked -1 11111111111@c.us - a|1|3EB0F1E2D3C4B5A69788|-1|
composed.message.ack.PENDING.NOWEB MessageAcked 0 11111111111@c.us - a|1|3EB0F1E2D3C4B5A69788|0|
composed.message.ack.PLAYED.GOWS MessageAcked 4 11111111111@c.us - a|1|3EB0F1E2D3C4B5A69788|4|
composed.message.ack.SERVER.NOWEB MessageAcked 1 11111111111@c.us - a|1|3EB0F1E2D3C4B5A69788|1|
composed.message.any.fromMe-api.GOWS MessageReceived text 11111111111@c.us 1752600005000 m|1|3EB0F1E2D3C4B5A69788
composed.message.any.fromMe-api.pending.NOWEB MessageReceived text 11111111111@c.us 1752600010000 m|1|3EB0C1B2C3D4E5F6071B
composed.message.any.fromMe-phone.GOWS MessageReceived text 11111111111@c.us 1752600006000 m|1|3AF1E2D3C4B5A6978801
composed.message.image.GOWS MessageReceived image 11111111111@c.us 1752600003000 m|0|3EB0A1B2C3D4E5F6071B
composed.message.text.dm.GOWS MessageReceived text 11111111111@c.us 1752600000000 m|0|3EB0A1B2C3D4E5F60718
composed.message.text.dm.NOWEB MessageReceived text 11111111111@c.us 1752600007000 m|0|3EB0B1B2C3D4E5F60718
composed.message.text.group.GOWS MessageReceived text 222222222222222222@g.us 1752600002000 m|0|3EB0A1B2C3D4E5F6071A
composed.message.text.group.NOWEB MessageReceived text 222222222222222222@g.us 1752600009000 m|0|3EB0B1B2C3D4E5F6071A
composed.message.text.lid.GOWS MessageReceived text 123123123123123@lid 1752600001000 m|0|3EB0A1B2C3D4E5F60719
composed.message.text.lid.NOWEB MessageReceived text 123123123123123@lid 1752600008000 m|0|3EB0B1B2C3D4E5F60719
composed.pair.message.GOWS MessageReceived text 11111111111@c.us 1752600004000 m|0|3EB0A1B2C3D4E5F6071C
composed.pair.message.any.GOWS MessageReceived text 11111111111@c.us 1752600004000 m|0|3EB0A1B2C3D4E5F6071C
composed.session.status.FAILED.logged-out.GOWS SessionStatusReported FAILED - 1752600090000 s|FAILED|1752600090000
composed.session.status.SCAN_QR_CODE.GOWS SessionStatusReported SCAN_QR_CODE - 1752600002000 s|SCAN_QR_CODE|1752600002000
composed.session.status.SCAN_QR_CODE.rotated.GOWS SessionStatusReported SCAN_QR_CODE - 1752600022000 s|SCAN_QR_CODE|1752600022000
composed.session.status.STARTING.GOWS SessionStatusReported STARTING - 1752600000000 s|STARTING|1752600000000
composed.session.status.STOPPED.GOWS SessionStatusReported STOPPED - 1752600190000 s|STOPPED|1752600190000
composed.session.status.WORKING.GOWS SessionStatusReported WORKING - 1752600030000 s|WORKING|1752600030000
engine.event.NOWEB Kept - - - e|engine.event|evt_01k00000000000000000000017
event.response.NOWEB Kept - 11111111111111111@c.us 1747707858000 e|event.response|evt_00000000000000000000001
event.response.failed.NOWEB Kept - 11111111111111111@c.us 1747707858000 e|event.response.failed|evt_00000000000000000000001
group.join.deprecated.WEBJS Kept - - - e|group.join|evt_01k00000000000000000000014
group.leave.deprecated.WEBJS Kept - - - e|group.leave|evt_01k00000000000000000000015
group.v2.join.NOWEB Kept - 1231231232@g.us 789456123000 e|group.v2.join|evt_01k00000000000000000000010
group.v2.leave.NOWEB Kept - 1231231232@g.us 789456123000 e|group.v2.leave|evt_01k00000000000000000000011
group.v2.participants.NOWEB Kept - 123456789@g.us 1666943582000 e|group.v2.participants|evt_01k00000000000000000000013
group.v2.update.NOWEB Kept - 1231231232@g.us 789456123000 e|group.v2.update|evt_01k00000000000000000000012
hmac.docs-vector Kept - - - h|e40a266033eb76ef5812e85667b9a6fd
label.chat.added.NOWEB Kept - 11111111111@c.us - e|label.chat.added|evt_01k0000000000000000000000t
label.chat.deleted.NOWEB Kept - 11111111111@c.us - e|label.chat.deleted|evt_01k0000000000000000000000v
label.deleted.NOWEB Kept - - - e|label.deleted|evt_01k0000000000000000000000s
label.upsert.NOWEB Kept - - - e|label.upsert|evt_01k0000000000000000000000r
message.ack.READ.WEBJS MessageAcked 3 11111111111@c.us - a|1|4CC5EDD64BC22EBA6D639F2AF571346C|3|
message.ack.dm-delivered.GOWS MessageAcked 2 11111111111@c.us - a|1|3333333333333333333333|2|
message.ack.dm-delivered.NOWEB MessageAcked 2 11111111111@c.us - a|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA|2|
message.ack.dm-delivered.WEBJS MessageAcked 2 11111111111@c.us - a|1|AAA|2|
message.ack.dm-read-by-me-elsewhere.GOWS MessageAcked 3 11111111111@c.us - a|0|3333333333333333333333|3|
message.ack.dm-read-by-me-elsewhere.NOWEB MessageAcked 3 11111111111@c.us - a|0|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA|3|
message.ack.dm-read-by-peer.GOWS MessageAcked 3 11111111111@c.us - a|1|3333333333333333333333|3|
message.ack.dm-read-by-peer.NOWEB MessageAcked 3 11111111111@c.us - a|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA|3|
message.ack.dm-read-by-peer.WEBJS MessageAcked 3 11111111111@c.us - a|1|AAA|3|
message.ack.group-read.GOWS MessageAcked 3 222222222222222222@g.us - a|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA|3|011111111111111@lid
message.ack.group-read.NOWEB MessageAcked 3 222222222222222222@g.us - a|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA|3|011111111111111@lid
message.ack.group-read.WEBJS MessageAcked 3 222222222222222222@g.us - a|0|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA|3|011111111111111@lid
message.ack.group.READ.WEBJS MessageAcked 3 11111111111@g.us - a|1|4CC5EDD64BC22EBA6D639F2AF571346C|3|9999@lid
message.any.WEBJS MessageReceived text 11111111111@c.us 1667561485000 m|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
message.channel.NOWEB MessageReceived text 123123@newsletter 1720776511000 m|0|11111111111111111111111111111111
message.channel.minimal.NOWEB MessageReceived text 123123@newsletter 1720776511000 m|0|AAA
message.document.WEBJS MessageReceived document 11111111111@c.us 1667561485000 m|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
message.edited.NOWEB MessageEdited - 1231243123@c.us - d|0|BBBBBBBBBBBBBBBBBBBBB|AAAAAAAAAAAAAAAA|1a288290333d8f23904c0af69cdfc08e
message.group.minimal.NOWEB MessageReceived text 123@g.us 1720776511000 e|message|evt_01k0000000000000000000000c
message.image.WEBJS MessageReceived image 11111111111@c.us 1667561485000 m|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
message.image.s3.WEBJS MessageReceived image 11111111111@c.us - m|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
message.media-not-downloaded.WEBJS Kept - - - e|message|evt_01k00000000000000000000008
message.reaction.WEBJS MessageReacted - 79111111@c.us 1710481111853 x|0|11111111111111111111111111111111|11111111111111111111111111111111|1710481111853
message.reply.WEBJS MessageReceived text 11111111111@c.us 1667561485000 m|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
message.revoked.NOWEB MessageRevoked - 1231243123@c.us - r|0|BBBBBBBBBBBBBBBBBBBBB|AAAAAAAAAAAAAAAA|cb60907bfb8ecc942a6731e11186e77e
message.revoked.WEBJS Kept - - - e|message.revoked|evt_01k0000000000000000000000m
message.status-broadcast.NOWEB MessageReceived image status@broadcast 1667561485000 m|0|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
message.text.WEBJS MessageReceived text 11111111111@c.us 1667561485000 m|1|AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
message.waiting.WEBJS Kept - 11111111111@c.us 1667561485000 e|message.waiting|evt_01k0000000000000000000000h
poll.vote.dm.NOWEB PollVoted - 1111111111@c.us 1692861427000 v|0|83ACBE602A05C79B234B54415E95EE8A|BAE5F2EF5C69001E|1692861427000
poll.vote.failed.NOWEB Kept - 11111111111@c.us - e|poll.vote.failed|evt_01k0000000000000000000000q
poll.vote.group.NOWEB PollVoted - 3333333333333@g.us 1692861427000 v|0|1C18A7EAADD2A8D0324755D241C4238A|BAE5304BA1ECF704|1692861427000
presence.update.NOWEB Kept - 111111111111111111@g.us - e|presence.update|evt_01k00000000000000000000016
session.status.PASSKEY_CONFIRMATION_REQUIRED.GOWS SessionStatusReported PASSKEY_CONFIRMATION_REQUIRED - 1741249703000 s|PASSKEY_CONFIRMATION_REQUIRED|1741249703000
session.status.PASSKEY_REQUIRED.GOWS SessionStatusReported PASSKEY_REQUIRED - 1741249702000 s|PASSKEY_REQUIRED|1741249702000
session.status.WORKING.WEBJS SessionStatusReported WORKING - 1700000003000 s|WORKING|1700000003000
state.change.deprecated.WEBJS Kept - - - e|state.change|evt_01k00000000000000000000018
waha-final-0001-session.status SessionStatusReported STARTING - 1795157434077 s|STARTING|1795157434077
waha-final-0002-session.status SessionStatusReported SCAN_QR_CODE - 1795157434445 s|SCAN_QR_CODE|1795157434445
waha-final-0004-session.status SessionStatusReported WORKING - 1795157437433 s|WORKING|1795157437433
waha-final-0005-message MessageReceived text 5511977776666@c.us 1795157439000 m|0|3AE0378A321570D5B6AD
waha-final-0006-message.any MessageReceived text 5511977776666@c.us 1795157439000 m|0|3AE0378A321570D5B6AD
waha-final-0009-message MessageReceived text 120363000000000001@g.us 1795157439000 m|0|3AF2198971393030E2F9
waha-final-0010-message.any MessageReceived text 120363000000000001@g.us 1795157439000 m|0|3AF2198971393030E2F9
waha-final-0011-message.any MessageReceived text 5511977776666@c.us 1795157440000 m|1|3EB03C785F67C010964EF6
waha-final-0012-message.ack MessageAcked 1 5511977776666@c.us - a|1|3EB03C785F67C010964EF6|1|
waha-final-0019-session.status SessionStatusReported STARTING - 1795157451957 s|STARTING|1795157451957
"""  # noqa: E501
ROWS = {line.split()[0]: line.split()[1:] for line in TABLE.strip().splitlines()}


def bodies(folder: Path) -> dict[str, bytes]:
    found = {path.stem: path.read_bytes() for path in (folder / "samples").glob("*.json")}
    for path in (folder / "captures").glob("*.http"):
        found[path.stem] = path.read_bytes().partition(b"\r\n\r\n")[2]
    return found


def reading(body: bytes, origin: Origin = Origin.WAHA) -> Event:
    return read(
        body,
        tenant=TenantId(1460561546),
        session=SessionName("user_1460561546"),
        origin=origin,
        entry=EntryId(f"{NOW_MS}-3"),
        received_at_ms=NOW_MS,
    )


def detail(event: Event) -> str:
    if isinstance(event, MessageReceived):
        return event.kind
    if isinstance(event, MessageAcked):
        return str(event.level)
    return event.status if isinstance(event, SessionStatusReported) else "-"


def test_the_table_has_a_row_for_every_file(waha_fixtures: Path) -> None:
    assert set(bodies(waha_fixtures)) == set(ROWS)


def test_every_file_is_read_as_what_it_is(waha_fixtures: Path) -> None:
    for name, body in bodies(waha_fixtures).items():
        event = reading(body)
        sent_at_ms = event.order.sent_at_ms
        sent = "-" if sent_at_ms == NOW_MS else str(sent_at_ms)
        row = [type(event).__name__, detail(event), event.chat or "-", sent, event.key]
        assert row == ROWS[name], name
        assert event.raw == body, name
        assert event.order.entry == (NOW_MS, 3), name


def test_keys_agree_with_directions_and_ids(waha_fixtures: Path) -> None:
    for name, body in bodies(waha_fixtures).items():
        event = reading(body)
        if isinstance(event, events.HistoryEvent | MessageAcked) and not event.key.startswith("e|"):
            assert event.key.split("|")[1:3] == [str(int(event.from_me)), event.id], name


def test_every_head_is_read(waha_fixtures: Path) -> None:
    for name, body in bodies(waha_fixtures).items():
        found = head(body)
        assert found.event == reading(body).name, name
        assert found.session in {"default", "org42-main"}, name
        assert found.me_id is None or chat_kind(found.me_id) is ChatKind.DIRECT, name


def test_the_pair_of_one_message_is_one(waha_fixtures: Path) -> None:
    found = bodies(waha_fixtures)
    for one, two in (
        ("composed.pair.message.GOWS", "composed.pair.message.any.GOWS"),
        ("waha-final-0005-message", "waha-final-0006-message.any"),
        ("waha-final-0009-message", "waha-final-0010-message.any"),
    ):
        assert reading(found[one]).key == reading(found[two]).key


def test_every_message_that_is_fetched_is_the_one_that_its_webhook_brings(waha_fixtures: Path) -> None:
    """The same key, chat, direction, text and time, whatever engine it came through and under whatever id."""
    compared = 0
    for name, body in bodies(waha_fixtures).items():
        told = reading(body)
        if not isinstance(told, MessageReceived) or told.key.startswith("e|"):
            continue
        decoded = msgspec.json.decode(body)
        again = backfilled(told.session, decoded["payload"], engine=decoded.get("engine"))
        assert again is not None, name
        fetched = reading(again, Origin.CATCH_UP)
        assert isinstance(fetched, MessageReceived), name
        assert fetched.backfilled, name
        assert fetched.order.sent_at_ms == told.order.sent_at_ms, name
        same = ("key", "chat", "id", "from_me", "source", "kind", "body", "twin", "participant", "push_name")
        assert [getattr(fetched, field) for field in same] == [getattr(told, field) for field in same], name
        compared += 1
    assert compared > 20


def test_the_details_of_some(waha_fixtures: Path) -> None:
    found = {name: reading(body) for name, body in bodies(waha_fixtures).items()}

    def message(name: str) -> MessageReceived:
        event = found[name]
        assert isinstance(event, MessageReceived)
        return event

    assert message("composed.message.text.lid.GOWS").twin == "11111111111@c.us"
    assert message("composed.message.text.lid.NOWEB").twin == "11111111111@c.us"
    group = message("composed.message.text.group.NOWEB")
    assert (group.participant, group.twin) == ("011111111111111@lid", "11111111111@c.us")
    assert message("message.group.minimal.NOWEB").participant == "999@c.us"
    assert message("message.status-broadcast.NOWEB").participant == "123123@c.us"
    assert message("message.reply.WEBJS").reply_to == "AAAAAAAAAAAAAAAAAAA"
    assert message("waha-final-0005-message").push_name == "Maria"
    assert message("waha-final-0005-message").body == "olá – quanto custa? 😀"
    assert message("waha-final-0011-message.any").source is events.Source.API
    assert message("composed.message.any.fromMe-phone.GOWS").source is events.Source.APP
    assert message("composed.message.text.dm.GOWS").source is None, "an incoming message has none"
    media = message("message.document.WEBJS").media
    assert media is not None
    assert (media.mimetype, media.filename) == ("application/pdf", "some-file.pdf")
    status = found["session.status.WORKING.WEBJS"]
    assert isinstance(status, SessionStatusReported)
    assert (status.at_ms, status.engine) == (1700000003000, "WEBJS")
