"""A provider of exits on this machine: an HTTP proxy, and the service that tells who asks from where.

Who knows the password is an identity by his user name, and every identity leaves from an address of its own:
127.x.y.z, never 127.0.0.1, the same until it drifts. So a target sees who came through the proxy and who came
directly, and `direct` names the latter. It takes a loopback with many addresses, as Linux has it:
`can_tell_exits`.

- CONNECT tunnels anything; `GET http://…` is forwarded. Each has a connection of its own to its target, so
  that the target's books and `ExitProxy.seen` can be compared line by line.
- The proxy asks no name server and reaches nothing outside this machine: a target is an address that begins
  with 127, `localhost`, or a name in `hosts`.
- No credential goes on to a target, and none is kept, logged or shown.
- It fails on command: `faults` has what it can do wrong.
"""

from wsm.sandbox.exits.faults import (
    Answers502,
    Claims,
    CutsIdle,
    Dead,
    Dies,
    Drifts,
    Fault,
    Hangs,
    Refuses,
    Slow,
)
from wsm.sandbox.exits.identities import Identify, Identity, can_tell_exits, one_password
from wsm.sandbox.exits.passages import Ending, Passage, Peer
from wsm.sandbox.exits.proxy import ExitProxy, direct
from wsm.sandbox.exits.whoami import Whoami

__all__ = [
    "Answers502",
    "Claims",
    "CutsIdle",
    "Dead",
    "Dies",
    "Drifts",
    "Ending",
    "ExitProxy",
    "Fault",
    "Hangs",
    "Identify",
    "Identity",
    "Passage",
    "Peer",
    "Refuses",
    "Slow",
    "Whoami",
    "can_tell_exits",
    "direct",
    "one_password",
]
