"""What a gateway told of hidden ids, as an entry of wsm's own."""

import json

import pytest

from hooks import reading
from wsm.core.errors import BadInput
from wsm.core.events import HiddenIdsTold, Kept, Origin
from wsm.core.ids import ChatId, SessionAddress, SessionName, TenantId
from wsm.wire.people import HIDDEN_IDS, MOST_PAIRS, hidden_ids_command

AT = SessionAddress(TenantId(7), SessionName("user_7"))
HIDDEN, PHONE = ChatId("95511900000001@lid"), ChatId("5511900000001@c.us")


def test_what_is_written_is_read_and_counts_once_under_its_id() -> None:
    body = hidden_ids_command(AT, [(HIDDEN, PHONE), (ChatId("8@lid"), None)], id="one")
    event = reading(body, Origin.CLOCK)
    assert isinstance(event, HiddenIdsTold)
    assert event.pairs == ((HIDDEN, PHONE), (ChatId("8@lid"), None))
    assert (event.key, event.chat) == ("c|hidden_ids|one", None)


def test_ids_come_in_any_form_and_what_is_no_such_pair_is_left_out() -> None:
    pairs = [("8:3@lid", "5511900000002:22@s.whatsapp.net"), ("8@c.us", "9@c.us"), ("8@lid", "1@g.us")]
    body = hidden_ids_command(AT, [(ChatId(hidden), ChatId(phone)) for hidden, phone in pairs], id="two")
    event = reading(body, Origin.CLOCK)
    assert isinstance(event, HiddenIdsTold)
    assert event.pairs == (("8@lid", "5511900000002@c.us"),)


def test_what_waha_says_under_this_name_or_what_has_another_form_is_kept_and_nothing_follows() -> None:
    assert isinstance(reading(hidden_ids_command(AT, [(HIDDEN, PHONE)], id="one")), Kept)
    for pairs in (None, "8@lid", [["8@lid"]], [[8, None]], [["8@lid", None]] * (MOST_PAIRS + 1)):
        body = {"event": HIDDEN_IDS, "session": "s", "id": "one", "payload": {"pairs": pairs}}
        assert isinstance(reading(json.dumps(body).encode(), Origin.CLOCK), Kept)


def test_too_many_are_refused_where_they_are_written() -> None:
    with pytest.raises(BadInput, match="at most"):
        hidden_ids_command(AT, [(HIDDEN, None)] * (MOST_PAIRS + 1), id="many")
