"""What the switchboard draws and says: codes that a reader finds, and words for everything that is known."""

import stat
import struct
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st

from wsm.core.errors import BadInput
from wsm.core.phones import masked, phone_digits
from wsm.core.upkeep import Alarm
from wsm.switchboard import login, words
from wsm.switchboard.drawing import QUIET, half_blocks, modules, picture

LOGIN = "2@" + "aB3/+x9Q" * 28 + "," + "k" * 44
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
DARK = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
STATUSES = (
    *("UNKNOWN", "STOPPED", "STARTING", "SCAN_QR_CODE", "PASSKEY_REQUIRED"),
    *("PASSKEY_CONFIRMATION_REQUIRED", "WORKING", "FAILED"),
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `store.reads.sessions`, as far as words need it."""

    name: str = "user_77"
    server: str = "default"
    phone: str | None = "5511960001234"
    other_phone: str | None = None
    observed: str = "WORKING"
    desired: str = "running"
    engine: str | None = "GOWS"
    exit_pool: str | None = "br"
    generations: tuple[int, ...] = (1,)
    since_ms: int = NOW_MS - 32 * 60_000
    dropped_ms: tuple[int, ...] = ()
    heard_ms: int = 0
    repairs: int = 0
    repaired_at: datetime | None = None
    alarm: str | None = None
    has_exit: bool = True
    exit_verified_at: datetime | None = NOW
    exit_trouble: str | None = None
    frozen_until: datetime | None = None
    frozen_why: str | None = None


def told(row: Row) -> str:
    return "\n".join(f"{heading} {sentence}" for heading, sentence in words.lines(row, NOW))


# Codes


@pytest.mark.parametrize("text", ["2@a", LOGIN])
def test_what_is_drawn_for_a_terminal_is_the_code_with_a_quiet_zone_on_every_side(text: str) -> None:
    code = [[module == 1 for module in row] for row in segno.make_qr(text, error="l").matrix]
    drawn = half_blocks(text)
    seen: list[list[bool]] = []
    for line in drawn:
        assert line.startswith("\033[38;5;16;48;5;231m"), "black on white, whatever the terminal's colours"
        assert line.endswith("\033[0m")
        pairs = [DARK[block] for block in line.removeprefix("\033[38;5;16;48;5;231m").removesuffix("\033[0m")]
        seen += [[bool(upper) for upper, _ in pairs], [bool(lower) for _, lower in pairs]]
    size = len(code)
    inner = [row[QUIET : QUIET + size] for row in seen[QUIET : QUIET + size]]
    assert inner == code
    assert sum(map(sum, seen)) == sum(map(sum, code)), "nothing is dark around it"
    assert {len(row) for row in seen} == {size + 2 * QUIET}
    assert len(seen) >= size + 2 * QUIET


def test_the_picture_shows_the_same_code() -> None:
    png = picture(LOGIN)
    width, height, depth, colour = struct.unpack(">IIBB", png[16:26])
    start = png.index(b"IDAT")
    [length] = struct.unpack(">I", png[start - 4 : start])
    data = zlib.decompress(png[start + 4 : start + 4 + length])
    assert (depth, colour) == (1, 0), "one bit of grey"
    stride = 1 + (width + 7) // 8
    rows: list[list[int]] = [[0] * (stride - 1)]
    for at in range(0, len(data), stride):
        kept, row = data[at], data[at + 1 : at + stride]
        assert kept in {0, 2}, "as it is, or as what differs from the row above"
        rows.append([(new + kept // 2 * old) % 256 for new, old in zip(row, rows[-1], strict=True)])
    del rows[0]
    drawn = modules(LOGIN)
    dots = width // len(drawn)
    assert width == height == dots * len(drawn)
    for y, line in enumerate(drawn):
        for x, dark in enumerate(line):
            across, down = x * dots + dots // 2, y * dots + dots // 2
            is_light = rows[down][across // 8] >> (7 - across % 8) & 1
            assert bool(is_light) is not dark


def test_a_picture_is_its_owners_alone_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "code.png"
    for content in (b"one", b"two"):
        login._write(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(BadInput, match="cannot write there"):
        login._write(tmp_path / "nowhere" / "code.png", b"")


@pytest.mark.parametrize("written", [None, b"", b"[]", b"ana", b"\xff"])
def test_what_no_passkey_answered_is_refused(tmp_path: Path, written: bytes | None) -> None:
    path = tmp_path / "answer.json"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(BadInput, match="answer: "):
        login._assertion(path)


# Numbers


@pytest.mark.parametrize("text", ["+55 (11) 96000-1234", "5511960001234", " 55.11.96000.1234 "])
def test_a_number_is_read_as_people_write_it(text: str) -> None:
    assert phone_digits("phone", text) == "5511960001234"


@pytest.mark.parametrize(
    "text", ["", "+", "0551196000123", "ana", "55119600012345678", "123456", "5511+96000", "٥٥١١٩٦٠٠٠"]
)
def test_what_is_no_number_is_refused_by_its_field_and_not_repeated(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        phone_digits("phone", text)
    assert caught.value.field == "phone"
    assert not text or text not in str(caught.value)


@given(st.from_regex(r"\A[1-9][0-9]{6,14}(@c\.us)?\Z"))
def test_a_masked_number_shows_four_digits(phone: str) -> None:
    assert masked(phone) == f"…{phone.removesuffix('@c.us')[-4:]}"


# Words


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_words_and_what_does_not_work_says_why_it_waits(status: str) -> None:
    row = Row(observed=status)
    assert not words.status(status).startswith("says")
    assert (words.waits(row) == []) is (status == "WORKING")
    assert status in told(row)


def test_a_status_of_tomorrow_is_shown_as_it_is() -> None:
    assert words.status("DANCING") == "says DANCING"


@pytest.mark.parametrize("alarm", Alarm)
def test_every_alarm_has_words(alarm: Alarm) -> None:
    said = words.alarm(Row(alarm=alarm))
    assert said is not None
    assert ":" in said, "and what to think of it"
    assert said in told(Row(alarm=alarm))
    assert f"ALARM {alarm}" in words.line(Row(alarm=alarm), NOW)


@pytest.mark.parametrize("trouble", ["drift", "wrong_country", "shared", "quarantined", "dead"])
def test_every_trouble_of_an_exit_has_words(trouble: str) -> None:
    [why] = words.waits(Row(exit_trouble=trouble))
    assert "exit" in why
    assert trouble not in why or trouble == "quarantined"


def test_a_session_without_an_exit_that_it_should_have_waits_for_one() -> None:
    assert "no exit" in words.waits(Row(has_exit=False, exit_verified_at=None))[0]
    assert "nobody has looked" in words.waits(Row(exit_verified_at=None))[0]
    assert words.waits(Row(exit_pool=None, has_exit=False, exit_verified_at=None)) == []
    [why] = words.waits(Row(desired="stopped", observed="STOPPED", has_exit=False))
    assert "should be stopped" in why


def test_a_deleted_session_is_told_as_such() -> None:
    row = Row(desired="stopped", observed="STOPPED", generations=(-1,))
    assert "deleted" in words.waits(row)[0]
    assert "deleted" in words.line(row, NOW)
    assert "deleted" not in words.line(Row(), NOW)


def test_another_number_is_told_with_the_command_that_confirms_it() -> None:
    row = Row(other_phone="5511970005678")
    [why] = words.waits(row)
    assert "…5678" in why
    assert "…1234" in why
    assert "`wsm session confirm`" in why
    assert "works with 5511970005678" in told(row)


def test_the_line_of_a_list_shows_no_whole_number() -> None:
    line = words.line(Row(other_phone="5511970005678", alarm="other_number"), NOW)
    assert "…1234" in line
    assert "…5678" in line
    assert "5511" not in line


def test_what_upkeep_knows_is_told() -> None:
    hour_ago = NOW - timedelta(hours=1)
    dropped = tuple(int((hour_ago + timedelta(minutes=at)).timestamp() * 1000) for at in (-1, 0, 1, 59))
    text = told(Row(dropped_ms=dropped, repairs=2, repaired_at=hour_ago, heard_ms=NOW_MS - 60_000))
    assert "for 32 min, since 2026-11-20 11:28" in text
    assert "dropped 2 times within the hour" in text
    assert "2 since it last worked for long, the last at 2026-11-20 11:00" in text
    assert "the last message came at 2026-11-20 11:59" in text


@pytest.mark.parametrize(
    ("seconds", "said"), [(-5, "0 s"), (40, "40 s"), (60, "1 min"), (7199, "1 h"), (9 * 86_400, "9 d")]
)
def test_how_long_something_lasts_is_said_in_one_unit(seconds: int, said: str) -> None:
    assert words.lasted(Row(since_ms=NOW_MS - seconds * 1000), NOW) == said


def test_what_nobody_knows_is_not_made_up() -> None:
    row: Any = Row(since_ms=0, phone=None, observed="UNKNOWN")
    assert words.lasted(row, NOW) == ""
    assert "1970" not in told(row)
    assert "not known yet" in told(row)
