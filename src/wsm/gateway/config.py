"""The configuration that a session is created with.

PUT and POST replace all of it (CONTRACT 7.1), so it is always whole. Its secret is in no repr.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

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
    retry_delay_seconds, retry_attempts
                    exponential: 2 s and 15 attempts make 36 to 44 hours
    """

    url: str
    secret: str
    events: tuple[str, ...] = EVENTS
    metadata: Mapping[str, str] = {}
    retry_delay_seconds: int = 2
    retry_attempts: int = 15

    def __repr__(self) -> str:
        return f"SessionConfig(url={self.url!r})"

    def as_json(self) -> dict[str, Any]:
        """Write it as WAHA wants it. The store is on, for without it NOWEB finds no message by its id."""
        return {
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


def webhook_config(
    url: str, secret: str, events: tuple[str, ...] = EVENTS, metadata: Mapping[str, str] | None = None
) -> SessionConfig:
    """Make the configuration of a session whose webhooks come to `url`, signed with `secret`."""
    return SessionConfig(url=url, secret=secret, events=events, metadata=metadata or {})
