"""HTTP to the gateways: one client per session, one cap and one breaker per server.

    waha     the calls: one `WahaSession` is one tenant's one session, and there is no other way to call
    history  what a gateway keeps of a session's chats, page by page
    login    what a session asks for that is to be paired: codes and passkeys
    config   the configuration that a session is created with
    environment  what a server was started with, as far as it matters: no call of a session's
    server   a WAHA as wsm meets it: how many calls at once, whether it answers, what its answers mean
    breaker  when a server that does not answer is left alone
    answers  the facts in the answers, whatever the engine
    client   the only way to build an HTTP client

Nothing is sent twice from here: only calls that change nothing are repeated.
"""
