"""WhatsApp's own server, as far as one must see from where it is called: an address and a book of visits.

A WAHA sandbox that is told of it (`WahaSandbox(whatsapp=…)`) keeps a connection to it for every session that
runs. Nothing of what WhatsApp does is done here: phones and messages stand in the WAHA sandbox.
"""

import msgspec

from wsm.sandbox.exits.ends import End
from wsm.sandbox.exits.listener import Listener
from wsm.sandbox.exits.passages import Peer


class Visit(msgspec.Struct, eq=False):
    """A connection of a session's.

    kind      `session`: its engine's connection; `media`: a file was fetched
    session   whose it is
    came_from the address and the port that are seen here
    sent      the bare ids of the messages that left through it
    is_over   whether it has ended
    """

    kind: str
    session: str
    came_from: Peer
    sent: list[str] = []
    is_over: bool = False


class WhatsApp(Listener):
    """Listens on 127.0.0.1, as an async context. port and connections are a Listener's.

    visits  in their order. `peers`, the Listener's, has also those who connected and said nothing
    """

    def __init__(self, *, port: int = 0, connections: int = 2048) -> None:
        super().__init__(port=port, connections=connections)
        self.visits: list[Visit] = []

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, as `WahaSandbox` wants it."""
        return "127.0.0.1", self.port

    def addresses_of(self, session: str) -> set[str]:
        """Every address that a session's engine ever came from."""
        return {
            visit.came_from[0]
            for visit in self.visits
            if visit.session == session and visit.kind == "session"
        }

    def present(self) -> dict[str, list[str]]:
        """The sessions that are connected now, and from which addresses."""
        found: dict[str, list[str]] = {}
        for visit in self.visits:
            if visit.kind == "session" and not visit.is_over:
                found.setdefault(visit.session, []).append(visit.came_from[0])
        return found

    async def _serve(self, client: End) -> None:
        visit: Visit | None = None
        rest = b""
        try:
            while data := await client.read():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if visit:
                        visit.sent.append(line.decode())
                        continue
                    kind, _, session = line.decode().partition(" ")
                    visit = Visit(kind, session, client.peer)
                    self.visits.append(visit)
                    await client.write(b"welcome\n")
        finally:
            if visit:
                visit.is_over = True
