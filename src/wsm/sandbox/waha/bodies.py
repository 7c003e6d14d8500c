"""The JSON that each engine makes of things: envelopes, payloads, answers.

Keys stand in the order of the captures (NOWEB) and of the samples (GOWS, WEBJS); the order is signed with the
rest. WPP follows WEBJS, which nobody verified.
"""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from wsm.sandbox.waha import ids, protos
from wsm.sandbox.waha.faults import AckError
from wsm.sandbox.waha.state import Account, Engine, Message, Passkey, Session, Status, World

ACK_NAMES: Final = {-1: "ERROR", 0: "PENDING", 1: "SERVER", 2: "DEVICE", 3: "READ", 4: "PLAYED"}
_STATUS_HAS_DATA_SINCE: Final = (2026, 7)
_GROUP: Final = "@g.us"
_READ: Final = 3

Json = dict[str, Any]


def envelope(world: World, session: Session, event: str, payload: Json, *, event_id: str) -> Json:
    """Wrap a payload as every webhook is wrapped. Keys without a value are missing, as in WAHA."""
    wrapped: Json = {"id": event_id, "timestamp": world.now_ms(), "event": event, "session": session.name}
    if metadata := session.setting("metadata"):
        wrapped["metadata"] = metadata
    if session.account:
        wrapped["me"] = me(world.engine, session.account)
    elif world.engine is not Engine.GOWS:
        wrapped["me"] = None
    return wrapped | {"payload": payload, "engine": world.engine, "environment": environment(world)}


def environment(world: World) -> Json:
    """Answer `/api/server/version`; a part of every webhook."""
    return {
        "version": world.version,
        "engine": world.engine,
        "tier": "CORE",
        "browser": "/usr/bin/google-chrome-stable" if world.engine.in_browser else None,
        "platform": "linux/x64",
        "worker": {"id": world.worker_id},
    }


def me(engine: Engine, account: Account) -> Json:
    """Say who the linked account is."""
    own = ids.phone_chat(account.phone)
    if engine is Engine.GOWS:
        return {
            "id": own,
            "lid": ids.lid_chat(account.phone),
            "jid": f"{account.phone}:42@s.whatsapp.net",
            "pushName": account.push_name,
        }
    if engine is Engine.NOWEB:
        return {"id": own, "pushName": account.push_name, "lid": ids.lid_chat(account.phone)}
    return {"id": own, "pushName": account.push_name}


def session_info(world: World, session: Session) -> Json:
    """Answer GET session: the configuration stands in it verbatim, secrets too."""
    info: Json = {"name": session.name, "status": session.status}
    if session.config is not None:
        info["config"] = session.config
    info["me"] = me(world.engine, session.account) if session.account else None
    info["presence"] = None
    info["timestamps"] = {"activity": session.activity_ms}
    if session.running:
        info["engine"] = {"engine": world.engine}
    return info


def session_status(world: World, session: Session) -> Json:
    """Say where a session is, with its last three statuses, newest last."""
    body: Json = {
        "name": session.name,
        "status": session.status,
        "statuses": [{"status": at.status, "timestamp": at.timestamp} for at in session.statuses],
    }
    if world.since(*_STATUS_HAS_DATA_SINCE):
        body["data"] = _status_data(session)
    return body


def challenge(passkey: Passkey) -> Json:
    """Say what a passkey is to sign."""
    return {
        "challenge": passkey.challenge,
        "timeout": 60_000,
        "rpId": "web.whatsapp.com",
        "allowCredentials": [{"id": "c2FuZGJveA", "type": "public-key", "transports": ["hybrid"]}],
        "userVerification": "required",
        "extensions": {},
    }


def _status_data(session: Session) -> Json | None:
    """What WAHA says with a status: those of passkeys have something, and WORKING when it is restricted."""
    if session.status is Status.WORKING and session.timelock:
        return {"reachoutTimelock": msgspec.to_builtins(session.timelock)}
    if session.passkey is None:
        return None
    if session.status is Status.PASSKEY_REQUIRED:
        return challenge(session.passkey)
    return {"code": session.passkey.code} if session.status is Status.PASSKEY_CONFIRMATION_REQUIRED else None


def message(world: World, session: Session, said: Message) -> Json:
    """Say a message: the payload of `message` and `message.any`, and an element of the list endpoint."""
    shape = {Engine.NOWEB: _noweb_message, Engine.GOWS: _gows_message}.get(world.engine, _webjs_message)
    return shape(world, session, said)


def chat(world: World, session: Session, last: Message) -> Json:
    """Say a chat as the overview does: by its last message."""
    return {
        "id": last.chat,
        "name": last.push_name or None,
        "picture": None,
        "lastMessage": message(world, session, last),
        "_chat": {},
    }


def ack(
    world: World, session: Session, said: Message, reader: str | None = None, error: AckError | None = None
) -> Json:
    """Say how far a message got; in a group `reader` is who read it.

    error  why it did not arrive, which WAHA says later than 2026.7.1
    """
    return _ack(world, session, said, reader) | ({"error": msgspec.to_builtins(error)} if error else {})


def _ack(world: World, session: Session, said: Message, reader: str | None) -> Json:
    level: Json = {"fromMe": said.from_me, "ack": said.ack, "ackName": ACK_NAMES[said.ack]}
    if said.participant:
        return _group_ack(world, said, reader or said.participant) | level
    if world.engine.in_browser:
        return message(world, session, said)
    body: Json = {"id": said.full_id, "from": said.chat}
    if world.engine is Engine.NOWEB:
        return body | level
    return body | {"to": None, "participant": None} | level | {"_data": _gows_receipt(said, said.chat)}


def _group_ack(world: World, said: Message, reader: str) -> Json:
    to = reader if world.engine is Engine.GOWS else said.chat
    return {"id": said.full_id, "from": said.chat, "to": to, "participant": reader}


def _gows_receipt(said: Message, sender: str) -> Json:
    return {
        "Chat": ids.jid(said.chat),
        "Sender": ids.jid(sender),
        "IsFromMe": False,
        "IsGroup": said.chat.endswith(_GROUP),
        "MessageIDs": [said.id],
        "Type": "read" if said.ack == _READ else "",
    }


def reaction(world: World, session: Session, said: Message, target: Message) -> Json:
    """Say a reaction; `said.body` is its text, and an empty one takes it back."""
    base = message(world, session, said)
    keys = ("id", "timestamp", "from", "fromMe", "source", "to", "participant")
    body = {key: base[key] for key in keys if key in base}
    return body | {"reaction": {"text": said.body, "messageId": target.full_id}}


def edited(world: World, session: Session, said: Message, target: Message) -> Json:
    """Say an edit: a message with an own id and the new body, and the bare id of what it replaces."""
    return message(world, session, said) | {"editedMessageId": target.id}


def revoked(world: World, session: Session, said: Message, target: Message) -> Json:
    """Say that a message was deleted for everyone; `after` is the act, under its own id."""
    after = message(world, session, said)
    if world.engine.in_browser:
        return {"before": message(world, session, target), "after": after, "revokedMessageId": target.id}
    return {"after": after, "revokedMessageId": target.id, "before": None}


def sent(world: World, session: Session, said: Message) -> Json:
    """Answer a send: no two engines alike (only the bare id is in each of them)."""
    if world.engine is Engine.GOWS:
        return {"id": said.full_id, "_data": _gows_data(session, said)}
    if world.engine is Engine.NOWEB:
        return _noweb_sent(said)
    if world.engine is Engine.WPP:
        return _webjs_message(world, session, said)
    return _webjs_data(session, said) | {
        "_data": _webjs_data(session, said),
        "hasMedia": said.media is not None,
    }


def media(world: World, session: Session, said: Message) -> Json | None:
    """Say where the media file of a message is; None when it has none."""
    if said.media is None:
        return None
    ending = said.media.mimetype.partition("/")[2].partition(";")[0] or "bin"
    url = f"{world.base_url}/api/files/{session.name}/{said.id}.{ending}"
    described: Json = {
        "url": None if said.media.error else url,
        "filename": said.media.filename,
        "mimetype": said.media.mimetype,
    }
    return described | ({"error": said.media.error} if said.media.error else {})


def _level(said: Message) -> Json:
    return {"ack": said.ack, "ackName": ACK_NAMES[said.ack]}


def _addressed(said: Message) -> Json:
    """Name chat and author of a group message as NOWEB does; nothing in a direct chat."""
    return {"to": said.chat, "participant": said.participant} if said.participant else {}


def _noweb_message(world: World, session: Session, said: Message) -> Json:
    return {
        "id": said.full_id,
        "timestamp": said.timestamp,
        "from": said.chat,
        "fromMe": said.from_me,
        "source": said.source,
        "body": said.body or None,
        **_addressed(said),
        "hasMedia": said.media is not None,
        "media": media(world, session, said),
        **_level(said),
        "location": protos.location(said.content),
        "vCards": said.content.vcards or None,
        "replyTo": _reply_to(session, said),
        "_data": _noweb_sent(said) if said.source == "api" else _noweb_data(said),
    }


def _noweb_key(said: Message) -> Json:
    key: Json = {"remoteJid": ids.jid(said.chat), "fromMe": said.from_me, "id": said.id}
    if said.chat.endswith("@lid"):
        key["remoteJidAlt"] = ids.jid(ids.phone_chat(ids.person(said.chat)))
    if said.participant:
        key["participant"] = ids.jid(said.participant)
    return key


def _noweb_data(said: Message) -> Json:
    return {
        "key": _noweb_key(said) | {"addressingMode": "lid" if said.chat.endswith("@lid") else "pn"},
        "messageTimestamp": said.timestamp,
        "pushName": said.push_name,
        "broadcast": False,
        "message": protos.message(said),
        "status": said.ack + 1,
    }


def _noweb_sent(said: Message) -> Json:
    """Shape an own message as the engine returns it: its timestamp is a string."""
    return {
        "key": _noweb_key(said),
        "message": protos.message(said, text_as="extendedTextMessage"),
        "messageTimestamp": str(said.timestamp),
        "status": ACK_NAMES[said.ack],
    }


def _gows_message(world: World, session: Session, said: Message) -> Json:
    return {
        "id": said.full_id,
        "timestamp": said.timestamp,
        "from": said.chat,
        "fromMe": said.from_me,
        "source": said.source,
        "body": said.body or None,
        "to": said.participant,
        "participant": said.participant,
        "hasMedia": said.media is not None,
        "media": media(world, session, said),
        "ack": said.ack,
        "location": protos.location(said.content),
        "vCards": said.content.vcards or None,
        "ackName": ACK_NAMES[said.ack],
        "replyTo": _reply_to(session, said),
        "_data": _gows_data(session, said),
    }


def _gows_data(session: Session, said: Message) -> Json:
    hidden = said.chat.endswith("@lid")
    other = ids.jid(said.participant or said.chat)
    alternative = ids.jid(ids.phone_chat(ids.person(said.chat))) if hidden else ""
    return {
        "Info": {
            "Chat": ids.jid(said.chat),
            "Sender": f"{session.linked.phone}:42@s.whatsapp.net" if said.from_me else other,
            "IsFromMe": said.from_me,
            "IsGroup": said.chat.endswith(_GROUP),
            "AddressingMode": "lid" if hidden else "",
            "SenderAlt": "" if said.from_me else alternative,
            "RecipientAlt": alternative if said.from_me else "",
            "ID": said.id,
            "Timestamp": datetime.fromtimestamp(said.timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "PushName": said.push_name,
        },
        "Message": protos.message(said),
    }


def _webjs_message(world: World, session: Session, said: Message) -> Json:
    own = ids.phone_chat(session.linked.phone)
    body: Json = {
        "id": said.full_id,
        "timestamp": said.timestamp,
        "from": own if said.from_me else said.chat,
        "fromMe": said.from_me,
        "source": said.source,
        "to": said.chat if said.from_me else own,
    }
    if said.participant:
        body["participant"] = said.participant
    return body | {
        "body": protos.browser_body(said),
        "hasMedia": said.media is not None,
        "media": media(world, session, said),
        **_level(said),
        **({"location": protos.location(said.content)} if said.content.location else {}),
        "vCards": said.content.vcards,
        **({"replyTo": _reply_to(session, said)} if said.reply_to else {}),
        "_data": _webjs_data(session, said),
    }


def _webjs_data(session: Session, said: Message) -> Json:
    own = ids.phone_chat(session.linked.phone)
    return {
        "id": {
            "fromMe": said.from_me,
            "remote": said.chat,
            "id": said.id,
            "_serialized": said.full_id,
        },
        "ack": said.ack,
        "body": protos.browser_body(said),
        "type": protos.browser_type(said.content),
        "timestamp": said.timestamp,
        "from": own if said.from_me else said.chat,
        "to": said.chat if said.from_me else own,
    }


def _reply_to(session: Session, said: Message) -> Json | None:
    if said.reply_to is None:
        return None
    bare = ids.bare_of(said.reply_to)
    target = session.linked.messages.get(bare)
    if target is None:
        return {"id": bare, "hasMedia": False}
    author = ids.phone_chat(session.linked.phone) if target.from_me else target.participant or target.chat
    return {
        "id": bare,
        "participant": author,
        "body": target.body,
        "hasMedia": target.media is not None,
        "media": None,
        "_data": {},
    }
