"""The order among requests that wait for the same thing: every second place goes by turns.

First come, first served lets a request of 64 images stand before one of a single image. Turns alone
would let a crowd of single images stand before the 64, which then miss their deadline. So places
alternate: one goes to the request whose turn it is, the next one to the oldest request.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

Owner = TypeVar("Owner")
Item = TypeVar("Item")


class Turns(Generic[Owner, Item]):
    """Items of several owners; each owner's come out in its own order. Not thread-safe.

    Owners are told apart by their hash. Where all have one item it is first come, first served.
    """

    def __init__(self) -> None:
        self._by_age: OrderedDict[Owner, deque[Item]] = OrderedDict()
        self._by_turn: OrderedDict[Owner, None] = OrderedDict()
        self._oldest_is_next = False
        self._items = 0

    def __len__(self) -> int:
        """Return the number of items of all owners."""
        return self._items

    @property
    def owners(self) -> Collection[Owner]:
        """Who has items, the oldest first."""
        return self._by_age.keys()

    @property
    def oldest(self) -> Owner | None:
        """The owner that has had items for the longest; None when there are none."""
        return next(iter(self._by_age), None)

    def add(self, owner: Owner, items: Iterable[Item]) -> None:
        """Add items behind those that the owner has; a new owner has its turn after all others."""
        new = deque(items)
        if not new:
            return
        self._items += len(new)
        self._by_age.setdefault(owner, deque()).extend(new)
        self._by_turn.setdefault(owner)

    def take(self) -> tuple[Owner, Item]:
        """Take the item whose place is next; raises `IndexError` when there is none."""
        if not self._items:
            raise IndexError("nobody waits")
        owner = next(iter(self._by_age if self._oldest_is_next else self._by_turn))
        if not self._oldest_is_next:
            self._by_turn.move_to_end(owner)
        self._oldest_is_next = not self._oldest_is_next
        line = self._by_age[owner]
        item = line.popleft()
        self._items -= 1
        if not line:
            self.discard(owner)
        return owner, item

    def discard(self, owner: Owner) -> None:
        """Forget an owner with all of its items, if it has any."""
        self._items -= len(self._by_age.pop(owner, ()))
        self._by_turn.pop(owner, None)


def places_ahead(count: int, requests: int, waiting: int) -> int:
    """Return how many come before the last of the `count` of a new request.

    `requests` have `waiting` together. While the new one gets its own through, each of them
    has as many turns, and the oldest has a place for each turn.
    """
    return min((2 * requests + 1) * count, waiting)
