"""Ids as types, and addresses that travel whole.

A tenant is a business with WhatsApp numbers; a session is one of those numbers at a gateway; a chat is
one correspondent of a session. A function that acts on a chat takes a `ChatAddress`, so that no call can
forget whose chat it is.
"""

from typing import NewType

import msgspec

TenantId = NewType("TenantId", int)
"""A tenant's number as the accounts system gives it, for example 1460561546."""

SessionName = NewType("SessionName", str)
"""A session's name at its gateway: `[A-Za-z0-9_-]`, at most 54 characters (WAHA's rule)."""

ChatId = NewType("ChatId", str)
"""WhatsApp's id of a correspondent: `5511…@c.us`, `…@lid`, `…@g.us`, `…@newsletter`, `status@broadcast`."""

BareId = NewType("BareId", str)
"""The third part of a WAHA message id: the same for every form of the same message in a session.

Not unique across sessions: two sessions that write to each other see one bare id with opposite `from_me`.
"""

EntryId = NewType("EntryId", str)
"""The id of an entry in a mailbox, as Redis gives it: `<milliseconds>-<counter>`."""

ServerName = NewType("ServerName", str)
"""The name under which a WAHA server is configured; `default` for the only one."""

DEFAULT_SERVER = ServerName("default")


class SessionAddress(msgspec.Struct, frozen=True, order=True):
    """One session of one tenant."""

    tenant: TenantId
    session: SessionName


class ChatAddress(msgspec.Struct, frozen=True, order=True):
    """One chat of one session of one tenant."""

    tenant: TenantId
    session: SessionName
    chat: ChatId
