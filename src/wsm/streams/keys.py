"""Every key that wsm writes in Redis, and the few of RQ's that the hand-over shares with it.

wsm:{t}:in              stream   a tenant's mailbox: fields at, origin, session, body
wsm:{t}:load            hash     entries, bytes (parked ones included, dead ones not)
wsm:{t}:bell:{kind}     hash     the pointer, the one outstanding bell of that kind: bell, state (queued,
                                 claimed), until (ms); again: ring once more; counted: the lone entry
wsm:{t}:parked          zset     chats put aside, by due time in ms; 0 = runnable again
wsm:{t}:parked:{chat}   stream   their entries, under their original ids
wsm:{t}:attempts        hash     entry id -> how often it failed
wsm:{t}:dead            stream   dead letters: the fields of a mailbox, with entry (its id there) and reason
wsm:active              set      tenants of which any of the above but dead exists: what SWEEP walks over
wsm:dead                set      tenants who have dead letters
wsm:paused              hash     tenants whose bells rest -> `ms by reason`
wsm:few                 hash     tenants whose turns grow back after a lost lease -> entries of the next one
wsm:load                hash     entries, bytes of all mailboxes; dead, dead_bytes of all dead letters;
                                 quarantine_bytes
wsm:mail:{kind}         zset     tenants to ring for, by turn number
wsm:ready:{kind}        zset     tenants whose bell waits, by turn number
wsm:turn                counter  turn numbers
wsm:wake:{kind}         list     tokens, capped: workers with room for that kind block on it
wsm:quarantine          stream   authentic but unmapped webhooks, capped
wsm:directory           string   the sessions that may sign, as JSON; wsm:directory:version beside it
wsm:keeper              string   the worker that keeps house for ordinary RQ jobs; expires

RQ 2.12's layout, checked against stock RQ by a test: rq:queues, rq:queue:{name}, rq:job:{id}, rq:wip:{name},
rq:suspended.
"""

from enum import StrEnum

from wsm.core.ids import ChatId, TenantId


class Kind(StrEnum):
    """The two kinds of bell."""

    TURN = "turn"
    DELIVER = "deliver"


ACTIVE = "wsm:active"
LOAD = "wsm:load"
TURN_NUMBER = "wsm:turn"
DEAD = "wsm:dead"
PAUSED = "wsm:paused"
FEW = "wsm:few"
QUARANTINE = "wsm:quarantine"
DIRECTORY = "wsm:directory"
DIRECTORY_VERSION = "wsm:directory:version"
KEEPER = "wsm:keeper"
RQ_QUEUES = "rq:queues"
NO_CHAT = ChatId("-")
"""Where what belongs to no chat is put aside: the turn finds out whose it is."""


def mailbox(tenant: TenantId) -> str:
    """The tenant's stream of entries."""
    return f"wsm:{tenant}:in"


def load(tenant: TenantId) -> str:
    """Counts of the tenant's entries and bytes."""
    return f"wsm:{tenant}:load"


def pointer(tenant: TenantId, kind: Kind) -> str:
    """The one outstanding bell of a kind."""
    return f"wsm:{tenant}:bell:{kind}"


def parked(tenant: TenantId) -> str:
    """Chats put aside, by due time."""
    return f"wsm:{tenant}:parked"


def parked_chat(tenant: TenantId, chat: ChatId) -> str:
    """The entries of one chat put aside."""
    return f"wsm:{tenant}:parked:{chat}"


def attempts(tenant: TenantId) -> str:
    """How often an entry failed."""
    return f"wsm:{tenant}:attempts"


def dead(tenant: TenantId) -> str:
    """The tenant's dead letters."""
    return f"wsm:{tenant}:dead"


def mail(kind: Kind) -> str:
    """Tenants to ring for."""
    return f"wsm:mail:{kind}"


def ready(kind: Kind) -> str:
    """Tenants whose bell waits."""
    return f"wsm:ready:{kind}"


def wake(kind: Kind) -> str:
    """Tokens for idle workers."""
    return f"wsm:wake:{kind}"


def rq_queue(tenant: TenantId) -> str:
    """RQ's list of job ids of a tenant's queue."""
    return f"rq:queue:{tenant}"


def rq_job(bell: str) -> str:
    """RQ's hash of a job."""
    return f"rq:job:{bell}"


def rq_started(tenant: TenantId) -> str:
    """RQ's registry of started jobs of a tenant's queue."""
    return f"rq:wip:{tenant}"
