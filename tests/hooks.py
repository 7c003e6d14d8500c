"""Bodies of WAHA, made and read in one go."""

import json
from typing import cast

from wsm.core.events import Event, MessageReceived, Origin
from wsm.core.ids import EntryId, SessionName, TenantId
from wsm.wire.waha import read

NOW_MS = 1_795_157_451_958
NOW = NOW_MS // 1000


def reading(body: bytes, origin: Origin = Origin.WAHA) -> Event:
    return read(
        body,
        tenant=TenantId(7),
        session=SessionName("s"),
        origin=origin,
        entry=EntryId(f"{NOW_MS}-0"),
        received_at_ms=NOW_MS,
    )


def hook(event: str, payload: object, **envelope: object) -> Event:
    top = {"id": "evt_1", "timestamp": NOW_MS - 5, "event": event, "session": "s", "payload": payload}
    return reading(json.dumps(top | envelope, ensure_ascii=False).encode())


def message(**payload: object) -> MessageReceived:
    base: dict[str, object] = {"id": "false_1@c.us_A", "timestamp": NOW, "from": "1@c.us", "body": "oi"}
    envelope = cast("dict[str, object]", payload.pop("envelope", {}))
    found = hook("message.any", base | payload, **envelope)
    assert isinstance(found, MessageReceived)
    return found
