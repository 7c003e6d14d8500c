"""HTTP to the gateways: one client per session, one cap and one breaker per server.

    waha     all servers of a process, and their sessions
    session  the calls: one `WahaSession` is one tenant's one session, and there is no other way to call
    sending  what it is asked for each kind of thing that can be sent
    fetch    files from URLs that somebody gave us, through a session's exit
    history  what a gateway keeps of a session's chats, page by page
    lids     which phone is behind a hidden id
    login    what a session asks for that is to be paired: codes and passkeys
    config   the configuration that a session is created with
    environment  what a server was started with, as far as it matters: no call of a session's
    server   a WAHA as wsm meets it: how many calls at once, whether it answers, what its answers mean
    breaker  when a server that does not answer is left alone
    answers  the facts in the answers, whatever the engine
    client   the only way to build an HTTP client

Nothing is sent twice from here: only calls that change nothing are repeated.
"""
