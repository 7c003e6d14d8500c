"""What acts on earlier messages are answered with: no two engines alike."""

from wsm.sandbox.waha import asgi, bodies, protos
from wsm.sandbox.waha.asgi import Answer
from wsm.sandbox.waha.state import Engine, Message, Session, World


def acted(world: World, session: Session, event: str, act: Message, target: Message) -> Answer:
    """Answer a reaction, an edit or a deletion.

    GOWS and NOWEB say the act as any other message. WEBJS says nothing, but for an edit the message that was
    edited; WPP says that it went well, or that message.
    """
    if world.engine is Engine.GOWS:
        return asgi.json(bodies.sent(world, session, act))
    if world.engine is Engine.NOWEB:
        return asgi.json(bodies.sent(world, session, act) | {"message": protos.act(event, act, target)})
    if event == "message.edited":
        return asgi.json(bodies.sent(world, session, act))
    if world.engine is Engine.WEBJS:
        return Answer()
    if event == "message.revoked":
        return asgi.json(True)
    return asgi.json({"sendMsgResult": {"messageSendResult": "OK"}})
