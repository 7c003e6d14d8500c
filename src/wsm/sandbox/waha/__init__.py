"""A WAHA that answers locally: WAHA's REST and signed webhooks over real HTTP, and a phone to play with.

What it does is what a running WAHA was seen to do, for one engine at a time (WEBJS, WPP, NOWEB, GOWS).
`/api` is WAHA; `/sandbox` is the other side of the screen: customers who write, an agent who types on the
phone, a connection that drops, a send that fails. `WahaSandbox` runs it inside a test, `serve` as a
process, and `control.Phone` speaks to `/sandbox` from outside.

    asgi       requests and answers, a table of routes
    ids        the ids that WAHA and WhatsApp make
    contents   what a message is beside its text: files, places, cards, polls
    phones     what each customer received and saw
    state      what the sandbox knows: sessions, accounts, messages
    chores     work in the background
    bodies     the JSON that each engine makes of it, with `protos` for what WhatsApp itself says
    journal    what outlives the process
    webhooks   outgoing webhooks: signing, retrying, losing
    network    the way of sessions to WhatsApp, each engine's
    lifecycle  a session's way through its statuses
    handset    messages that arrive and leave
    faults     sends that go wrong on command
    rest       /api, of which the sessions stand in rest_sessions, chats and messages in rest_chats,
               pairing in rest_pairing
    rest_sends what leaves through /api; sendables read what is to leave, answers tell of acts
    steering   /sandbox, of which asks are the shapes of what it takes; steering_hooks is about webhooks
    server     the listener, and all of it wired together
    control    the client of /sandbox
"""

from wsm.sandbox.waha.server import WahaSandbox, serve
from wsm.sandbox.waha.state import Engine, Tempo

__all__ = ["Engine", "Tempo", "WahaSandbox", "serve"]
