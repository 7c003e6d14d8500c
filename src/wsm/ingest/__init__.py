"""The process that takes signed webhooks and appends them to mailboxes; nothing of PostgreSQL or RQ.

    guard      the HTTP protocol with deadlines and bounds
    app        routes, the order of checks, the table of answers
    directory  the sessions that may sign, in memory
    doors      who may post here, and whose event it is
    batch      all requests of a loop tick in one call of ACCEPT
    security   the log of refusals, rate-limited
    server     the loop, the socket, SIGTERM

A 2xx is written after Redis' reply and never before. Bad input is answered 4xx and never 5xx. What is away
is answered 503 with Retry-After, and the sender comes again.
"""
