"""What the proxy can be told to do wrong, and to whom."""

import asyncio
from collections.abc import Iterator
from typing import TypeVar

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """Something to do wrong; `ExitProxy.fault` orders it."""


class Dead(Fault, frozen=True):
    """The connection is reset instead of an answer. To refuse connections there is `ExitProxy.down`."""


class Refuses(Fault, frozen=True):
    """407, although the password is right."""


class Hangs(Fault, frozen=True):
    """No answer to CONNECT or to a request, ever; nothing goes out."""


class Answers502(Fault, frozen=True):
    """502, as if the target could not be reached; nothing goes out."""


class Dies(Fault, frozen=True):
    """Both connections are reset in the answer, after so many bytes of it; open passages too."""

    after_bytes: int = 0


class Slow(Fault, frozen=True):
    """So many bytes a second in either direction; open passages too."""

    bytes_per_second: float


class CutsIdle(Fault, frozen=True):
    """A tunnel through which nothing went for so long is closed; those that are open too."""

    seconds: float


class Drifts(Fault, frozen=True):
    """The exit becomes another address, with every passage anew. onto: the one of that identity."""

    onto: str | None = None


class Claims(Fault, frozen=True):
    """The provider says that the exit is in this country."""

    country: str


F = TypeVar("F", bound=Fault)


class _Order(msgspec.Struct):
    fault: Fault
    of: str | None
    left: int | None


class Orders:
    """The faults that were ordered. news: set, and replaced, when there are others."""

    def __init__(self) -> None:
        self._orders: list[_Order] = []
        self.news = asyncio.Event()

    def add(self, fault: Fault, of: str | None, times: int | None) -> None:
        """Order a fault; the latest of a kind counts."""
        self._orders.insert(0, _Order(fault, of, times))
        self._tell()

    def drop(self, kind: type[Fault], of: str | None) -> None:
        """Take back what was ordered of a kind, for one identity or, with None, for anybody."""
        self._orders = [
            order
            for order in self._orders
            if not isinstance(order.fault, kind) or (of is not None and order.of != of)
        ]
        self._tell()

    def take(self, identity: str) -> tuple[Fault, ...]:
        """Return what was ordered for a number of passages, and count this one."""
        taken = [order for order in self._for(identity) if order.left]
        for order in taken:
            order.left = (order.left or 0) - 1
        self._orders = [order for order in self._orders if order.left != 0]
        return tuple(order.fault for order in taken)

    def find(self, kind: type[F], identity: str | None, taken: tuple[Fault, ...]) -> F | None:
        """Return a passage's fault of a kind: one that it took, or one that stands until it is mended."""
        standing = [order.fault for order in self._for(identity) if order.left is None]
        return next((fault for fault in (*taken, *standing) if isinstance(fault, kind)), None)

    def _for(self, identity: str | None) -> Iterator[_Order]:
        return (order for order in self._orders if order.of in {None, identity})

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()
