"""A day in the life of a few shops, by a clock that only the day moves.

    plan      who there is, and how long: a seed and some figures
    hours     the clock, and the agenda of what is going to happen
    city      wsm's own parts, WAHA and the servers under them; it comes to rest between two moments
    wire      webhooks on their way: late, twice, in another order, or not at all where that may be
    people    customers who write, wait, ask, leave and come back
    staff     agents who come and go, answer, transfer, forget
    troubles  what goes wrong at WAHA
    words     what people recognize a text by
    journal   what PostgreSQL writes down of every ticket and claim, in the order in which they happened
    books     all that the judge reads
    line      the judge's own line: places, capacities, order, by the tickets' facts alone
    judge     what the phones saw, against the books
    report    the figures

Nothing sleeps: eight hours are as long as what happens in them.
"""
