"""The service that tells who asks: from which address, and in which country that is said to be."""

import json
import ssl
from collections.abc import Callable

from wsm.sandbox.exits.ends import End, Head
from wsm.sandbox.exits.listener import Listener
from wsm.sandbox.exits.passages import Peer


class Whoami(Listener):
    """Answers every request with `{"ip": "127.9.8.7", "country": "BR"}`.

    country_of  says where a peer is, as `ExitProxy.country_of` does; None for who is nobody's
    port, tls   as of a Listener, which also keeps who connected
    """

    def __init__(
        self, country_of: Callable[[Peer], str | None], *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(port=port, tls=tls)
        self._country_of = country_of

    async def _serve(self, client: End) -> None:
        while (head := await client.head()) is not None:
            async for _ in client.body(head, to_the_end=False):
                pass
            said = {"ip": client.peer[0], "country": self._country_of(client.peer)}
            body = json.dumps(said).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            answer = Head([], headers).written(b"HTTP/1.1", b"200", b"OK", closes=head.is_last)
            await client.write(answer if head.first[0] == b"HEAD" else answer + body)
            if head.is_last:
                return
