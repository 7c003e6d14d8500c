"""Who is one person: ids that name the same correspondent, and which of his tickets stays when two meet.

WhatsApp has up to three ids for somebody: a hidden one (`@lid`), his phone (`@c.us`), and in Brazil the phone
in its other form. What ties two of them is a *tie*: a message that bears both, an answer of the gateway, or
the rule of the ninth digit. A person has one phone and one hidden id: a tie that would give him another one
(a number changed hands, an engine mixed two up) is a conflict, and nothing follows from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from wsm.core.conversation import State
from wsm.core.ids import ChatId
from wsm.core.phones import other_form
from wsm.core.tickets import ConversationId, Rank

_PHONE = "c.us"
Tie = tuple[ChatId, ChatId]


class Circle(msgspec.Struct):
    """The ids of one person, and the contacts that they have been known as until now."""

    ids: set[ChatId]
    contacts: set[int]


class Standing(msgspec.Struct, frozen=True):
    """An open ticket among those of one person, and where it stands."""

    conversation: ConversationId
    ticket: int
    state: State
    rank: Rank
    served_at: datetime | None = None


_STANDS = (State.SERVED, State.WAITING, State.PARKED)


def forms(chat: ChatId) -> tuple[ChatId, ...]:
    """Return an id in its forms, itself first: a Brazilian mobile number has another one."""
    user, _, server = chat.partition("@")
    other = other_form(user) if server == _PHONE else None
    return (chat,) if other is None else (chat, ChatId(f"{other}@{_PHONE}"))


def same_phone(chat: ChatId) -> ChatId:
    """Return the one form of an id that stands for all of its forms: the longest."""
    return max(forms(chat), key=len)


def circles(known: Mapping[ChatId, int], ties: Iterable[Tie]) -> tuple[list[Circle], int]:
    """Put ids together that are one person's, one tie after the other; return how many ties were conflicts.

    known  the ids of contacts, all those of each contact that a tie may touch
    """
    whose: dict[ChatId | int, Circle] = {}
    for alias, contact in known.items():
        circle = whose.setdefault(contact, Circle(set(), {contact}))
        circle.ids.add(alias)
        whose[alias] = circle
    conflicts = 0
    for one, other in ties:
        first, second = (whose.setdefault(alias, Circle({alias}, set())) for alias in (one, other))
        if first is second:
            continue
        if not _may_be_one(first.ids, second.ids):
            conflicts += 1
            continue
        first.ids |= second.ids
        first.contacts |= second.contacts
        whose |= dict.fromkeys((*second.ids, *second.contacts), first)
    return [*{id(circle): circle for circle in whose.values()}.values()], conflicts


def _may_be_one(first: set[ChatId], second: set[ChatId]) -> bool:
    """Whether two persons can be one: neither has a phone, or a hidden id, beside that of the other."""
    for both in zip(_kinds(first), _kinds(second), strict=True):
        if len(both[0] | both[1]) > max(1, *map(len, both)):
            return False
    return True


def _kinds(ids: set[ChatId]) -> tuple[set[ChatId], set[ChatId]]:
    """The phones among ids, each in one form, and the others."""
    phones = {alias for alias in ids if alias.endswith(f"@{_PHONE}")}
    return {same_phone(alias) for alias in phones}, ids - phones


def best(standings: Sequence[Standing]) -> Standing:
    """Choose the ticket that stays: who is served before who waits, before who was put aside; else the first.

    Of two that wait, the one that is called first stays; of two that are served, the one that was earlier.
    """
    return min(
        standings, key=lambda each: (_STANDS.index(each.state), each.served_at or each.rank[0], each.rank)
    )
