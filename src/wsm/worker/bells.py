"""What a bell's job names, for everybody else who reads RQ's keys.

wsm's worker claims bells by script and never calls these. A stock `rq worker` that pops one runs a function
that does nothing: the mailbox and the outbox are untouched, and SWEEP, which finds a queued bell in no list,
rings again.
"""


def turn() -> str:
    """Stand for a tenant's turn; does nothing."""
    return "left to SWEEP"


def deliver() -> str:
    """Stand for a tenant's deliveries; does nothing."""
    return "left to SWEEP"
