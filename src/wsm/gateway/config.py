"""The configuration that a session is created with.

PUT and POST replace all of it (CONTRACT 7.1), so it is always whole. Its secret is in no repr.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from wsm.core.exits import Exit

EVENTS = (
    "session.status",
    "message.any",
    "message.ack",
    "message.ack.group",
    "message.waiting",
    "message.edited",
    "message.revoked",
    "message.reaction",
    "poll.vote",
    "poll.vote.failed",
    "call.received",
    "presence.update",
    "label.upsert",
    "label.deleted",
    "label.chat.added",
    "label.chat.deleted",
)
"""What wsm asks for. `message` is not among it: `message.any` has the same messages and the own ones."""


class SessionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One session's configuration.

    url, secret     where its webhooks go, and what they are signed with
    events          which of them; see `EVENTS`
    metadata        comes back in every webhook
    way             through what the gateway reaches WhatsApp; None is a direct connection
    retry_delay_seconds, retry_attempts
                    exponential: 2 s and 15 attempts make 36 to 44 hours
    """

    url: str
    secret: str
    events: tuple[str, ...] = EVENTS
    metadata: Mapping[str, str] = {}
    way: Exit | None = None
    retry_delay_seconds: int = 2
    retry_attempts: int = 15

    def __repr__(self) -> str:
        return f"SessionConfig(url={self.url!r})"

    def as_json(self) -> dict[str, Any]:
        """Write it as WAHA wants it. The store is on, for without it NOWEB finds no message by its id."""
        proxy = {} if self.way is None else {"proxy": self.way.as_waha()}
        return {
            **proxy,
            "metadata": dict(self.metadata),
            "noweb": {"store": {"enabled": True, "fullSync": False}},
            "webhooks": [
                {
                    "url": self.url,
                    "events": list(self.events),
                    "hmac": {"key": self.secret},
                    "retries": {
                        "policy": "exponential",
                        "delaySeconds": self.retry_delay_seconds,
                        "attempts": self.retry_attempts,
                    },
                }
            ],
        }

    def differences(self, kept: object) -> list[str]:
        """Name what a gateway keeps otherwise than was asked. No word about a proxy: a direct connection."""
        its = kept if isinstance(kept, dict) else {}
        asked = self.as_json()
        told = ("proxy", "metadata", "webhooks")
        return [name for name in told if not _has(its.get(name), asked.get(name))]


def _has(kept: Any, asked: Any) -> bool:
    """Whether all that was asked is there; a gateway may add what it was not asked for."""
    if isinstance(asked, dict):
        return isinstance(kept, dict) and all(_has(kept.get(name), value) for name, value in asked.items())
    if isinstance(asked, list):
        return (
            isinstance(kept, list)
            and len(kept) == len(asked)
            and all(_has(mine, theirs) for mine, theirs in zip(kept, asked, strict=True))
        )
    return bool(kept == asked) or (asked is None and not kept)


def webhook_config(
    url: str, secret: str, events: tuple[str, ...] = EVENTS, metadata: Mapping[str, str] | None = None
) -> SessionConfig:
    """Make the configuration of a session whose webhooks come to `url`, signed with `secret`."""
    return SessionConfig(url=url, secret=secret, events=events, metadata=metadata or {})
