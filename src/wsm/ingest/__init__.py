"""The process that takes signed webhooks and appends them to mailboxes; nothing of PostgreSQL or RQ.

    server     the loop, the sockets, SIGTERM
    connection one client's HTTP/1.1, with deadlines and bounds
    exchange   a request, its answer, and what all connections share
    app        the service of webhooks: routes, the order of checks, the table of answers
    ops        the service of those who watch
    directory  the sessions that may sign, in memory
    doors      who may post here, and whose event it is
    batch      all requests of a loop tick in one call of ACCEPT
    security   the log of refusals, rate-limited; whose word on a client's address counts

A 2xx is written after Redis' reply and never before. Bad input is answered 4xx and never 5xx. What is away
is answered 503 with Retry-After, and the sender comes again.
"""
