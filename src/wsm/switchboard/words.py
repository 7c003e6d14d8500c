"""What is known of a session, in plain words: how it is, why it waits, and what a person must do.

A row is one of `store.reads.sessions`; times are shown in UTC. Numbers have their last four digits here.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from wsm.core.moments import moment
from wsm.core.phones import masked
from wsm.core.upkeep import Alarm, drops

_STATUS: Mapping[str, str] = MappingProxyType(
    {
        "WORKING": "works",
        "STARTING": "is connecting",
        "STOPPED": "is stopped",
        "FAILED": "has failed",
        "SCAN_QR_CODE": "waits for a login: `wsm session qr` or `wsm session pair`",
        "PASSKEY_REQUIRED": "waits for the account's passkey: `wsm session passkey` says what to do",
        "PASSKEY_CONFIRMATION_REQUIRED": "waits until a code is compared: `wsm session passkey` says it",
        "UNKNOWN": "was never heard of",
    }
)
_ALARM: Mapping[str, str] = MappingProxyType(
    {
        Alarm.LOGIN_NEEDED: "login needed: it was paired once and is not any more",
        Alarm.PAIRING_EXPIRED: "pairing expired: nobody came in time; `wsm session restart` asks again",
        Alarm.KEEPS_FAILING: "keeps failing: repairs did not help; logged out on the phone, or banned?",
        Alarm.MUTE: "mute: it said that it works, and nothing came through any more; it was restarted",
        Alarm.OTHER_NUMBER: "other number: it works with another one than its own",
        Alarm.EXIT_IN_TROUBLE: "exit in trouble: nothing leaves through it",
        Alarm.FLAPPING: "flapping: its connection drops again and again; an exit may cut idle ones",
    }
)
_TROUBLE: Mapping[str, str] = MappingProxyType(
    {
        "drift": "its exit has moved to another address",
        "wrong_country": "its exit comes out in another country",
        "shared": "its exit comes out where another session's does",
        "quarantined": "its exit is in quarantine, for somebody was banned there",
        "dead": "nothing is reached through its exit",
    }
)
_ANOTHER_EXIT = "`wsm session stop` and `start` take another one"


def status(word: str) -> str:
    """Say a status of the gateway's."""
    return _STATUS.get(word, f"says {word}")


def alarm(row: Any) -> str | None:
    """Say what a person should know; None: nothing."""
    return None if row.alarm is None else _ALARM.get(row.alarm, row.alarm.replace("_", " "))


def waits(row: Any) -> list[str]:
    """Say why nothing leaves through a session, each reason with its cure; empty when nothing hinders it."""
    reasons = []
    if _is_deleted(row):
        reasons.append("it was deleted at its gateway: `wsm session start` makes it anew, without a login")
    elif row.desired == "stopped":
        reasons.append("it should be stopped: `wsm session start` starts it")
    elif row.observed != "WORKING":
        reasons.append(f"it {status(row.observed)}")
    if row.other_phone is not None:
        own = masked(row.phone) if row.phone else "unknown"
        reasons.append(
            f"it works with the number {masked(row.other_phone)}, and its own is {own}: if that is right,"
            " `wsm session confirm`"
        )
    if row.exit_pool is not None and row.desired == "running" and (trouble := _exit_trouble(row)):
        reasons.append(trouble)
    return reasons


def _is_deleted(row: Any) -> bool:
    """Whether nothing is signed in its name any more: see `fleet.retire`."""
    return not any(generation > 0 for generation in row.generations)


def _exit_trouble(row: Any) -> str | None:
    if not row.has_exit:
        return "it has no exit: `wsm session start` takes one"
    if row.exit_trouble is not None:
        return f"{_TROUBLE.get(row.exit_trouble, row.exit_trouble)}: {_ANOTHER_EXIT}"
    return None if row.exit_verified_at else "nobody has looked yet where its exit comes out"


def line(row: Any, now: datetime) -> str:
    """Say a session in one line."""
    number = masked(row.phone) if row.phone else "-"
    should = "deleted" if _is_deleted(row) else f"should be {row.desired}"
    parts = [
        f"{row.name:<32} {row.observed:<14} {lasted(row, now):<8} {should:<18}",
        f"{number:<6} {row.server}  exit {row.exit_pool or 'direct'}",
    ]
    if row.other_phone is not None:
        parts.append(f"works with {masked(row.other_phone)}: unconfirmed")
    if row.exit_trouble is not None:
        parts.append(f"exit trouble: {row.exit_trouble}")
    if row.alarm is not None:
        parts.append(f"ALARM {row.alarm}")
    return "  ".join(parts)


def lines(row: Any, now: datetime) -> list[tuple[str, str]]:
    """Say what wsm knows of a session: headings and sentences."""
    way = "direct" if row.exit_pool is None else f"exits of {row.exit_pool}"
    told = [
        ("session", f"{row.name} on {row.server}, {way}"),
        (
            "status",
            f"{row.observed}{_since(row, now)}: it {status(row.observed)}; it should be {row.desired}",
        ),
        ("number", f"{_digits(row.phone) if row.phone else 'not known yet'}"),
    ]
    if row.other_phone is not None:
        told.append(("number", f"works with {_digits(row.other_phone)}, unconfirmed"))
    told += [("waits", reason) for reason in waits(row)]
    if (dropped := drops(row.dropped_ms, now)) > 0:
        told.append(("drops", f"its connection dropped {dropped} times within the hour"))
    if row.repairs:
        last = f", the last at {_shown(row.repaired_at)}" if row.repaired_at else ""
        told.append(("repairs", f"{row.repairs} since it last worked for long{last}"))
    if (said := alarm(row)) is not None:
        told.append(("alarm", said))
    if row.frozen_until is not None and row.frozen_until > now:
        told.append(("frozen", f"WhatsApp lets it write to nobody new until {_shown(row.frozen_until)}"))
    heard = f"the last message came at {_shown(moment(row.heard_ms))}" if row.heard_ms else "no message yet"
    return [*told, ("heard", heard)]


def lasted(row: Any, now: datetime) -> str:
    """Say for how long it has had its status: `40 s`, `12 min`, `3 h`, `9 d`; empty when nobody knows."""
    if not row.since_ms:
        return ""
    seconds = max(0, int((now - moment(row.since_ms)).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _since(row: Any, now: datetime) -> str:
    return f" for {lasted(row, now)}, since {_shown(moment(row.since_ms))}" if row.since_ms else ""


def _shown(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _digits(phone: str) -> str:
    return phone.partition("@")[0]
