"""Where entries wait for their chat: one place for a person, whatever ids he writes under."""

from collections.abc import Hashable, Iterable, Iterator, Mapping

from wsm.core.events import Event, HiddenIdsTold
from wsm.core.ids import ChatId, SessionName
from wsm.core.people import forms, same_phone
from wsm.store.people import twin_of
from wsm.streams import keys
from wsm.streams.handover import Entry

Item = tuple[Entry, Event]

SESSION_LEVEL = keys.NO_CHAT
"""Where entries that belong to no chat are parked."""


def chats_of(items: Iterable[Item], taken: Iterable[ChatId]) -> set[str]:
    """Name every chat, in every form, whose person matters for the places of these items."""
    named = {_parts(name)[1] for name in taken}
    for entry, event in items:
        named |= {_parts(name)[1] for names in _names(entry, event) for name in names}
    return {form for chat in named if chat for form in forms(ChatId(chat))}


class Places:
    """Where each item's chat is, or would be, put aside: `session/chat`, once for each person.

    Ids are one person's when an event names both, when they are forms of one number, when the store has them
    as aliases of one contact, or when an entry came back from the other's place. A place that is taken is the
    person's, else the first one named.

    taken     the places where chats are put aside now
    contacts  the contacts that the store knows, by chat
    """

    def __init__(self, items: Iterable[Item], taken: frozenset[ChatId], contacts: Mapping[str, int]) -> None:
        self._taken = taken
        self._contacts = contacts
        self._named: list[ChatId] = []
        self._same: dict[Hashable, set[Hashable]] = {}
        for name in sorted(taken):
            self._join(name)
        for entry, event in items:
            for names in _names(entry, event):
                self._join(*names)

    def of(self, event: Event) -> ChatId:
        """Name the place of one of the items."""
        names = [name for name in self._named if name in self._same[_place(event.session, event.chat)]]
        return next((name for name in names if name in self._taken), names[0])

    def _join(self, *names: ChatId) -> None:
        self._named += names
        known: set[Hashable] = set()
        for session, chat in map(_parts, names):
            known.add((session, same_phone(ChatId(chat))))
            known |= {
                (session, self._contacts[form]) for form in forms(ChatId(chat)) if form in self._contacts
            }
        together = {one for name in {*names, *known} for one in self._same.get(name, {name})}
        self._same |= dict.fromkeys(together, together)


def _place(session: SessionName, chat: ChatId | None) -> ChatId:
    """Name a chat among all of a tenant's: the same person may write to two of his sessions."""
    return ChatId(f"{session}/{chat}") if chat else SESSION_LEVEL


def _parts(place: ChatId) -> tuple[str, str]:
    session, _, chat = place.partition("/")
    return session, chat


def _names(entry: Entry, event: Event) -> Iterator[list[ChatId]]:
    """Name the chats that an item is about, each as a place, person by person.

    The one that an entry came back from is its first.
    """
    names = [_place(event.session, event.chat)]
    if entry.from_parked and entry.from_parked != SESSION_LEVEL:
        names.insert(0, entry.from_parked)
    if twin := twin_of(event):
        names.append(_place(event.session, twin))
    yield names
    if isinstance(event, HiddenIdsTold):
        for pair in event.pairs:
            yield [_place(event.session, chat) for chat in pair if chat]
